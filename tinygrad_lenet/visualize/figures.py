"""Pictures of training and of what a network sees: each a matplotlib Figure, and all of them as one HTML page.

matplotlib is an extra, and is imported when a picture is drawn; no window is opened.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..checks import Positive, instance, integer, listed, said
from ..checks import figure as real
from ..core.modes import no_grad
from ..core.signature import checked
from ..core.tensor import Tensor
from ..errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError, foreign
from ..functional import softmax
from ..nn import Module, record_calls

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion", "curves", "feature_maps", "html_report", "kernels", "mistakes", "tiles"]


def _figure(**options: Any) -> Figure:
    try:
        from matplotlib.figure import Figure  # a figure without a window: works where there is no display
    except ModuleNotFoundError:
        raise ArgumentError("pictures need matplotlib; pip install 'tinygrad_lenet[examples]'") from None
    return Figure(layout="constrained", **options)


def _numbers(name: str, value: Any) -> NDArray[Any]:
    """An array of numbers; integers in a list stay what they are."""
    try:
        array = np.asarray(value.numpy() if isinstance(value, Tensor) else value)
    except Exception as error:  # whatever an object of the user's own raises
        raise ShapeError(f"{name} must be an array of numbers ({error})") from None
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise DTypeError(f"{name} must be an array of numbers, got {said(array)}")
    return array


def _words(value: Any, name: str = "classes") -> list[str]:
    words = list(value) if isinstance(value, str) else listed(name, value, "a list of words")
    if not all(isinstance(word, str) for word in words):
        raise DTypeError(f"{name} must be a list of words, got {said(words)}")
    return words


@checked
def curves(history: Sequence[Mapping[str, float]], title: str = "") -> Figure:
    """Loss and accuracy over the epochs.

    ``history`` has a row for each epoch, with ``epoch`` and such of ``train_loss``, ``train_accuracy``,
    ``validation_loss``, ``validation_accuracy``, ``test_loss``, ``test_accuracy`` as were measured.

    Raises:
        DTypeError: an argument of another type.
        ArgumentError: matplotlib is not installed.

    >>> import tinygrad_lenet as tl
    >>> figure = tl.visualize.curves([{"epoch": 1, "train_loss": 0.5, "test_accuracy": 0.9}])
    >>> [axes.get_ylabel() for axes in figure.axes]  # figure.savefig("curves.png") writes it
    ['loss', 'accuracy (%)']
    """
    rows = listed("history", history, "a list of rows, one for each epoch")
    for row in rows:
        if not isinstance(row, Mapping) or "epoch" not in row:
            raise DTypeError(f"each row of history must be a dict with 'epoch', got {said(row)}")
        for key, value in row.items():
            if key == "epoch" or str(key).endswith(("_loss", "_accuracy")):
                real(f"{key} in history", value)
    figure = _figure(figsize=(10, 4))
    from matplotlib.ticker import MaxNLocator

    figure.suptitle(title)
    styles = {"train": "o--", "validation": "s-", "test": "o-"}
    for axes, quantity, factor in zip(figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True):
        for part, style in styles.items():
            rows = [
                (row["epoch"], factor * row[f"{part}_{quantity}"]) for row in history if f"{part}_{quantity}" in row
            ]
            if rows:
                last = f"{rows[-1][1]:.2f} %" if factor > 1 else f"{rows[-1][1]:.4f}"
                axes.plot(*zip(*rows, strict=True), style, markersize=4, label=f"{part}, last {last}")
        axes.set(xlabel="epoch", ylabel="accuracy (%)" if factor > 1 else "loss")
        if factor == 1:
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0.5, max(len(history), 1) + 0.5)
        axes.grid(alpha=0.3, which="both")
        if axes.lines:
            axes.legend(loc="upper right" if factor == 1 else "lower right")
    return figure


@checked
def confusion(matrix: Any, classes: Sequence[str]) -> Figure:
    """How often each class (row) was taken for each other (column); the colour shows the mistakes only.

    Raises:
        DTypeError: an argument of another type.
        ArgumentError: matplotlib is not installed.
        ShapeError: not a row and a column for each class.

    >>> import tinygrad_lenet as tl
    >>> figure = tl.visualize.confusion([[5, 1], [0, 4]], ["cat", "dog"])
    >>> figure.axes[0].get_title()
    '1 mistakes in 10'
    """
    counts, classes = _numbers("matrix", matrix), _words(classes)
    if counts.shape != (len(classes), len(classes)):
        raise ShapeError(f"{len(classes)} classes need a matrix of that size, got shape {counts.shape}")
    figure = _figure(figsize=(7, 6.5))
    axes = figure.subplots()
    wrong = counts * (1 - np.eye(len(classes), dtype=int))
    axes.imshow(wrong, cmap="Reds", vmax=max(1, 1.5 * wrong.max()))
    for i, j in np.ndindex(*counts.shape):
        axes.text(
            j, i, str(counts[i, j] or ""), ha="center", va="center", color="#060" if i == j else "black", fontsize=9
        )
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=0 if max(map(len, classes)) < 3 else 60)
    axes.set_yticks(ticks, classes)
    axes.set(xlabel="predicted", ylabel="true", title=f"{wrong.sum():,} mistakes in {counts.sum():,}")
    return figure


@checked
def mistakes(images: Any, labels: Any, logits: Any, classes: Sequence[str], count: int = 20) -> Figure:
    """The samples of which the model was surest in a wrong class: images (N, 1, H, W), labels (N,), logits (N, C).

    Raises:
        DTypeError: an argument of another type.
        OutOfRangeError: a label that is no class, or an index that is not there.
        ShapeError: shapes that do not fit.
        ArgumentError: matplotlib is not installed.

    >>> import numpy as np
    >>> import tinygrad_lenet as tl
    >>> images, logits = np.zeros((2, 1, 4, 4)), np.array([[3.0, 0.0], [0.0, 3.0]])
    >>> figure = tl.visualize.mistakes(images, [0, 0], logits, ["cat", "dog"])
    >>> figure.get_suptitle()
    'The 1 worst mistakes'
    """
    count, classes = integer("count", count, 1, 1000), _words(classes)
    targets, scores, pixels = (
        _numbers(name, x) for name, x in (("labels", labels), ("logits", logits), ("images", images))
    )
    if scores.ndim != 2 or targets.shape != scores.shape[:1] or pixels.ndim != 4 or len(pixels) != len(scores):
        raise ShapeError(
            f"expected images (N, 1, H, W), labels (N,) and logits (N, C), got {pixels.shape}, {targets.shape} "
            f"and {scores.shape}"
        )
    if scores.shape[1] != len(classes) or not all(pixels.shape[1:]):
        raise ShapeError(f"{len(classes)} classes and images {pixels.shape}, but logits {scores.shape}")
    if targets.dtype.kind not in "iu" or ((targets < 0) | (targets >= len(classes))).any():
        raise OutOfRangeError(f"labels must be integers, 0 … {len(classes) - 1}")
    with no_grad():
        p = softmax(Tensor(np.asarray(scores, np.float64)), axis=1).numpy()
    guess = p.argmax(1)
    wrong = np.flatnonzero(guess != targets)
    worst = wrong[np.argsort(p[wrong, targets[wrong]], kind="stable")][:count]
    columns = 5
    rows = max(1, -(-len(worst) // columns))
    figure = _figure(figsize=(1.7 * columns, 1.95 * rows + 0.3))
    figure.suptitle(f"The {len(worst)} worst mistakes" if len(worst) else "No mistakes")
    for i, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if i < len(worst):
            k = worst[i]
            axes.imshow(pixels[k, 0], cmap="gray_r")
            axes.set_title(
                f"{classes[targets[k]]}, taken for {classes[guess[k]]}\n({p[k, guess[k]]:.0%} sure)", fontsize=8
            )
    return figure


@checked
def tiles(
    images: Any, title: str = "", columns: Positive = 8, names: Sequence[str] = (), symmetric: bool = False
) -> Figure:
    """Images (N, H, W) side by side, on one scale; with ``symmetric``, red above 0 and blue below.

    Raises:
        DTypeError: an argument of another type.
        ArgumentError: matplotlib is not installed.
        ShapeError: the images have not three axes.

    >>> import numpy as np
    >>> import tinygrad_lenet as tl
    >>> len(tl.visualize.tiles(np.zeros((3, 4, 4)), names=["a", "b", "c"]).axes)
    3
    """
    pixels = _numbers("images", images)
    if pixels.ndim != 3 or not all(pixels.shape[1:]):
        raise ShapeError(f"expected images of shape (N, H, W), got {pixels.shape}")
    if len(pixels) > 10_000:
        raise ShapeError(f"{len(pixels)} images are too many for one picture, choose some")
    names = _words(names, "names")
    if names and len(names) != len(pixels):
        raise ShapeError(f"there are {len(pixels)} images, but {len(names)} names")
    pixels = np.where(np.isfinite(pixels), pixels, 0) if pixels.dtype.kind == "f" else pixels * 1
    columns = min(columns, max(1, len(pixels)))
    rows = max(1, -(-len(pixels) // columns))
    figure = _figure(figsize=(1.1 * columns, (1.35 if names else 1.1) * rows + 0.4))
    figure.suptitle(title, fontsize=10)
    low, high = (pixels.min(initial=0), pixels.max(initial=0)) if len(pixels) else (0, 1)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    for i, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if i < len(pixels):
            axes.imshow(pixels[i], cmap="RdBu_r" if symmetric else "gray_r", vmin=low, vmax=high)
            if names:
                axes.set_title(names[i], fontsize=8)
    return figure


@checked
def kernels(weight: Any, title: str = "What the first layer looks for") -> Figure:
    """The kernels of a convolution (O, C, kh, kw), or (O, kh, kw): red where ink excites, blue where it inhibits.

    Raises:
        DTypeError: an argument of another type.
        ShapeError: shapes that do not fit.
        ArgumentError: matplotlib is not installed.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> len(tl.visualize.kernels(nn.Conv2d(1, 6, 5).weight).axes)
    6
    """
    values = _numbers("weight", weight)
    if values.ndim not in (3, 4) or not all(values.shape[-2:]):
        raise ShapeError(f"expected a weight (O, C, kh, kw) or (O, kh, kw), got {values.shape}")
    return tiles(values.reshape(-1, *values.shape[-2:]), title, symmetric=True)


@checked
def feature_maps(model: Module, images: Any, limit: int = 16) -> list[Figure]:
    """What each layer gives for one image (1, C, H, W), as far as its output is images too: a Figure for each.

    Raises:
        ArgumentError: matplotlib is not installed.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    >>> [figure.get_suptitle() for figure in tl.visualize.feature_maps(model, tl.zeros(1, 1, 8, 8))]
    ['0: Conv2d, 4 × 6 × 6', '1: ReLU, 4 × 6 × 6', 'output: Sequential, 4 × 6 × 6']
    """
    instance("model", model, Module)
    limit = integer("limit", limit, 1, 10_000)
    with no_grad(), record_calls(model) as calls, foreign:
        model(images)
    figures = []
    for call in calls:
        if isinstance(call.output, Tensor) and call.output.ndim == 4 and min(call.output.shape[2:]) > 1:
            maps = call.output.numpy()[0, :limit]
            title = (
                f"{call.name or 'output'}: {type(call.module).__name__}, {' × '.join(map(str, call.output.shape[1:]))}"
            )
            figures.append(tiles(maps, title))
    return figures


@checked
def html_report(title: str, sections: Iterable[tuple[str, Any]]) -> str:
    """One page that needs no other file: for each section a heading, and a Figure, several, or text as it stands.

    Raises:
        DTypeError: an argument of another type.

    >>> import tinygrad_lenet as tl
    >>> page = tl.visualize.html_report("Run 1", [("Layers", "conv1, conv2")])
    >>> "<h1>Run 1</h1>" in page, "<pre>conv1, conv2</pre>" in page
    (True, True)
    """
    body = []
    for section in listed("sections", sections, "pairs of a heading and its content"):
        if not isinstance(section, (tuple, list)) or len(section) != 2 or not isinstance(section[0], str):
            raise DTypeError(f"sections must be pairs of a heading and its content, got {said(section)}")
        heading, content = section
        body.append(f"<h2>{html.escape(heading)}</h2>")
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, str):
                body.append(f"<pre>{html.escape(part)}</pre>")
                continue
            if not hasattr(part, "savefig"):
                raise DTypeError(f"in sections, content is Figures or text, got {said(part)}")
            buffer = io.BytesIO()
            part.savefig(buffer, format="png", dpi=100)
            data = base64.b64encode(buffer.getvalue()).decode()
            body.append(f'<img alt="{html.escape(heading, quote=True)}" src="data:image/png;base64,{data}">')
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:64em;margin:2em auto;padding:0 1em}"
        "img{max-width:100%;display:block}pre{overflow-x:auto}"
    )
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{style}</style>\n<h1>{html.escape(title)}</h1>\n" + "\n".join(body) + "\n</html>\n"
    )
