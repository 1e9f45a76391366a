"""Pictures of training and of what a network sees: matplotlib Figures, and an HTML page that collects them.

matplotlib is an extra, imported when the first picture is drawn. No window is opened.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import numpy as np

from ..checks import Positive, listed
from ..checks import figure as real
from ..core.modes import no_grad
from ..core.python_object import numbers
from ..core.signature import checked
from ..core.tensor import Tensor
from ..errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError, brief, foreign
from ..nn import record_calls
from ..nn.module import Model
from ..ops.softmax import softmax

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 10_000  # images in one figure
_COLOURS = ("#2b6cb0", "#dd7a1f", "#2f855a", "#c53030", "#805ad5", "#8a8f98")
_STYLES = {"train": "o--", "test": "o-", "validation": "o:"}
_QUANTITIES = [("loss", "loss", 1, "{:.3g}"), ("accuracy", "accuracy (%)", 100, "{:.2f} %")]
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">{refresh}<title>{title}</title><style>
body {{font: 16px/1.5 system-ui, sans-serif; max-width: 64em; margin: 2em auto; padding: 0 1em}}
img {{max-width: 100%; display: block}} pre {{overflow-x: auto}}</style>
<h1>{title}</h1>
{body}
</html>
"""


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _html(figure: Any, alt: str = "") -> str:
    """A Figure as an element of an HTML page."""
    return f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(_png(figure)).decode()}">'


class Figures(list["Figure"]):
    """A list of Figures, which a notebook shows one below the other."""

    def _repr_html_(self) -> str:
        return "\n".join(map(_html, self))


class Page(str):
    """An HTML page, which a notebook shows in a frame, so that its styles stay in it."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return f'<iframe width="100%" height="600" srcdoc="{html.escape(self)}"></iframe>'


def _figure(width: float, height: float, title: str = "") -> Figure:
    try:
        from matplotlib.figure import Figure  # without pyplot: works where there is no display
    except ModuleNotFoundError:
        raise ArgumentError("pictures need matplotlib; pip install 'tinygrad_lenet[examples]'") from None
    figure = Figure(layout="constrained", figsize=(width, height))
    vars(figure)["_repr_png_"] = partial(_png, figure)  # for notebooks, which show only the figures of pyplot
    figure.suptitle(title, fontsize=10)
    return figure


def _grid(
    images: Sequence[Any], captions: Sequence[str], columns: int, size: tuple[float, float], title: str, **options: Any
) -> Figure:
    """Images in rows, each in a field of this size and below its caption."""
    if len(images) > _MOST:
        raise ShapeError(f"{len(images)} images are too many for one picture, choose some")
    rows = max(1, -(-len(images) // columns))
    figure = _figure(size[0] * columns, size[1] * rows + 0.4, title)
    fields = figure.subplots(rows, columns, squeeze=False, subplot_kw={"frame_on": False, "xticks": [], "yticks": []})
    for axes, image, caption in zip(fields.flat, images, captions, strict=False):
        axes.imshow(image, **options)
        axes.set_title(caption, fontsize=8)
    return figure


def _words(name: str, value: Any) -> list[str]:
    words = list(value) if isinstance(value, str) else listed(name, value, "a list of words")
    if not all(isinstance(word, str) for word in words):
        raise DTypeError(f"{name} must be a list of words, got {brief(words)}")
    return words


Numbers: TypeAlias = Annotated[Any, numbers]
Words: TypeAlias = Annotated[Sequence[str], _words]
Rows: TypeAlias = Sequence[Mapping[str, float]]


def _line(axes: Any, points: Any, style: str, colour: str, label: str, form: str) -> None:
    """Draw a line through points (N, 2). Few have markers. Of many, the means of forty groups are drawn on top."""
    x, y = points.T
    finite = np.isfinite(y)
    if finite.sum() > 120:
        axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.7)
        x, y = ([part.mean() for part in np.array_split(values[finite], 40)] for values in (x, y))
    label = f"{label}, last {form.format(y[-1] if finite[-1] else points[-1, 1])}"
    axes.plot(x, y, style, color=colour, markersize=4 * (finite.sum() <= 30), label=label)


@checked
def curves(history: Rows | Mapping[Any, Rows], title: str = "") -> Figure:
    """Loss and accuracy over the epochs or over the steps, of one run, or of several in one picture.

    Args:
        history: the rows of one run; or, of several, a dict ``{name: rows}``, where runs may differ in length. A row is
            a dict of numbers: ``epoch``, or ``step`` counted from the start of the training, and any of ``train_loss``,
            ``train_accuracy``, ``validation_loss``, ``validation_accuracy``, ``test_loss`` and ``test_accuracy``
            (accuracies from 0 to 1). Rows that have both ``epoch`` and ``step`` are drawn over the steps.
        title: the text above the picture.

    Each of several runs has a colour. Lines are dashed for training, solid for the test and dotted for validation; all
    are solid if there is only one kind. If a line has more than 120 finite values, these are drawn faintly, and the
    means of forty groups of consecutive ones on top. NaN and infinity leave gaps. The legend gives the last value, or
    the last of the means. The loss has a logarithmic scale, unless there is a negative loss. A quantity that no row has
    is left out.

    Raises:
        DTypeError: an argument has the wrong type, or a row lacks the ``epoch`` or ``step`` that the others have.
        ArgumentError: matplotlib is not installed.

    >>> import tinygrad_lenet as tl
    >>> figure = tl.visualize.curves([{"epoch": 1, "train_loss": 0.5, "test_accuracy": 0.9}])
    >>> [axes.get_ylabel() for axes in figure.axes]  # figure.savefig("curves.png") writes it
    ['loss', 'accuracy (%)']
    >>> runs = {"SGD": [{"step": i, "train_loss": 1 / i} for i in (1, 2, 3)], "Adam": [{"step": 1, "train_loss": 1.0}]}
    >>> [line.get_label() for line in tl.visualize.curves(runs).axes[0].lines]
    ['SGD train, last 0.333', 'Adam train, last 1']
    """
    many = isinstance(history, Mapping)
    named: Any = history if many else {"": history}
    runs = [(str(name), listed("history", rows, "a list of rows, or a dict of runs")) for name, rows in named.items()]
    rows = [row for _, run in runs for row in run]
    along = "step" if any(isinstance(row, Mapping) and "step" in row for row in rows) else "epoch"
    for row in rows:
        if not isinstance(row, Mapping) or along not in row:
            raise DTypeError(f"each row of history must be a dict with 'epoch', or each with 'step', got {brief(row)}")
    found = {key for row in rows for key in row}
    drawn = [q for q in _QUANTITIES if found & {f"{part}_{q[0]}" for part in _STYLES}] or _QUANTITIES
    figure = _figure((5 + many) * len(drawn), 4 + 0.22 * len(runs), title)
    panels = figure.subplots(1, len(drawn), sharex=True, squeeze=False)[0]
    for axes, (kind, label, factor, form) in zip(panels, drawn, strict=True):
        parts = [part for part in _STYLES if f"{part}_{kind}" in found]
        for i, part in enumerate(parts):
            key = f"{part}_{kind}"
            style = _STYLES[part] if len(parts) > 1 else "o-"
            for j, (name, run) in enumerate(runs):
                points = [[real(f"{k} in history", row[k]) for k in (along, key)] for row in run if key in row]
                if points:
                    colour = _COLOURS[(j if many else i) % len(_COLOURS)]
                    _line(axes, np.array(points) * (1, factor), style, colour, f"{name} {part}".lstrip(), form)
        axes.set(xlabel=along, ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if kind == "loss" and axes.dataLim.ymin >= 0 and axes.dataLim.minposy < np.inf:
            axes.set_yscale("log", nonpositive="mask", subs=())
            subs = (1, 2, 5) if axes.dataLim.ymax / 1e4 < axes.dataLim.minposy else (1,)
            axes.yaxis.get_major_locator().set_params(subs=subs)
            axes.yaxis.set_major_formatter("{x:g}")
        if labels := axes.get_legend_handles_labels()[1]:
            ncols = max(1, min(76 // max(map(len, labels)), max(2, len(parts))))
            axes.legend(ncols=ncols, fontsize=9 - many, loc="upper center", bbox_to_anchor=(0.5, -0.17), frameon=False)
    return figure


@checked
def confusion(matrix: Numbers, classes: Words) -> Figure:
    """A confusion matrix: true classes in rows, predicted ones in columns. Only the mistakes are coloured.

    Raises:
        DTypeError: an argument has the wrong type.
        ArgumentError: matplotlib is not installed.
        ShapeError: the matrix does not have a row and a column for each class.

    >>> import tinygrad_lenet as tl
    >>> figure = tl.visualize.confusion([[5, 1], [0, 4]], ["cat", "dog"])
    >>> figure.axes[0].get_title()
    '1 mistakes in 10'
    """
    if matrix.shape != (len(classes), len(classes)):
        raise ShapeError(f"{len(classes)} classes need a matrix of that size, got shape {matrix.shape}")
    figure = _figure(7, 6.5)
    axes = figure.subplots()
    wrong = matrix * (1 - np.eye(len(classes), dtype=int))
    axes.imshow(wrong, cmap="Reds", vmax=max(1, 1.5 * wrong.max()))
    for (i, j), count in np.ndenumerate(matrix):
        axes.text(j, i, str(count or ""), ha="center", va="center", color="#060" if i == j else "black", fontsize=9)
    axes.set_xticks(range(len(classes)), classes, rotation=0 if max(map(len, classes)) < 3 else 60)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true", title=f"{wrong.sum():,} mistakes in {matrix.sum():,}")
    return figure


@checked
def mistakes(images: Numbers, labels: Numbers, logits: Numbers, classes: Words, count: Positive = 20) -> Figure:
    """The worst mistakes: the images to whose true class the model gave the lowest probability.

    Args:
        images: shape (N, 1, H, W).
        labels: the true classes, shape (N,).
        logits: the outputs of the model, shape (N, C).
        classes: the names of the C classes.
        count: the largest number of images.

    Raises:
        DTypeError: an argument has the wrong type.
        OutOfRangeError: a label is not the number of a class.
        ShapeError: the shapes do not fit together.
        ArgumentError: matplotlib is not installed.

    >>> import numpy as np
    >>> import tinygrad_lenet as tl
    >>> images, logits = np.zeros((2, 1, 4, 4)), np.array([[3.0, 0.0], [0.0, 3.0]])
    >>> figure = tl.visualize.mistakes(images, [0, 0], logits, ["cat", "dog"])
    >>> figure.get_suptitle()
    'The 1 worst mistakes'
    """
    size = len(images) if images.ndim == 4 and all(images.shape[1:]) else None
    if labels.shape != (size,) or logits.shape != (size, len(classes)):
        expected = f"images (N, 1, H, W), labels (N,) and logits (N, {len(classes)}) for {len(classes)} classes"
        raise ShapeError(f"expected {expected}, got {images.shape}, {labels.shape} and {logits.shape}")
    if labels.dtype.kind not in "iu" or ((labels < 0) | (labels >= len(classes))).any():
        raise OutOfRangeError(f"labels must be integers, 0 ... {len(classes) - 1}")
    p = softmax(Tensor(np.asarray(logits, np.float64)), axis=1).numpy()
    guess = p.argmax(1)
    wrong = np.flatnonzero(guess != labels)
    worst = wrong[np.argsort(p[wrong, labels[wrong]], kind="stable")][:count]
    captions = [f"{classes[labels[k]]}, taken for {classes[guess[k]]}\n({p[k, guess[k]]:.0%} sure)" for k in worst]
    title = f"The {len(worst)} worst mistakes" if len(worst) else "No mistakes"
    return _grid(images[worst, 0], captions, 5, (1.7, 1.95), title, cmap="gray_r")


@checked
def tiles(
    images: Numbers, title: str = "", columns: Positive = 8, names: Words = (), symmetric: bool = False
) -> Figure:
    """Images (N, H, W) in rows, on one scale. With ``symmetric``, red is above 0 and blue below.

    Raises:
        DTypeError: an argument has the wrong type.
        ArgumentError: matplotlib is not installed.
        ShapeError: ``images`` does not have three axes, or there is not a name for each.

    >>> import numpy as np
    >>> import tinygrad_lenet as tl
    >>> len(tl.visualize.tiles(np.zeros((3, 4, 4)), names=["a", "b", "c"]).axes)
    3
    """
    if images.ndim != 3 or not all(images.shape[1:]):
        raise ShapeError(f"expected images of shape (N, H, W), got {images.shape}")
    if len(names) not in (0, len(images)):
        raise ShapeError(f"there are {len(images)} images, but {len(names)} names")
    pixels = np.nan_to_num(images * 1, nan=0, posinf=0, neginf=0)
    low, high = pixels.min(initial=0), pixels.max(initial=0)
    if symmetric:
        low, high = min(low, -high), max(-low, high)
    columns = min(columns, max(1, len(pixels)))
    size, colours = (1.1, 1.35 if names else 1.1), "RdBu_r" if symmetric else "gray_r"
    return _grid(pixels, names or [""] * len(pixels), columns, size, title, cmap=colours, vmin=low, vmax=high)


@checked
def kernels(weight: Numbers, title: str = "Kernels of the first layer") -> Figure:
    """The kernels of a convolution, (O, C, kh, kw) or (O, kh, kw): positive weights in red, negative ones in blue.

    Raises:
        DTypeError: an argument has the wrong type.
        ShapeError: the weight has another number of axes.
        ArgumentError: matplotlib is not installed.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> len(tl.visualize.kernels(nn.Conv2d(1, 6, 5).weight).axes)
    6
    """
    if weight.ndim not in (3, 4) or not all(weight.shape[-2:]):
        raise ShapeError(f"expected a weight (O, C, kh, kw) or (O, kh, kw), got {weight.shape}")
    return tiles(weight.reshape(-1, *weight.shape[-2:]), title, symmetric=True)


@checked
def feature_maps(model: Model, images: Any, limit: Positive = 16) -> list[Figure]:
    """The outputs of the layers for one image (1, C, H, W): a Figure for each layer whose output has height and width.

    Args:
        model: the network.
        images: its input; only the first image is shown.
        limit: the largest number of channels to show of a layer.

    Raises:
        ArgumentError: matplotlib is not installed.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    >>> [figure.get_suptitle() for figure in tl.visualize.feature_maps(model, tl.zeros(1, 1, 8, 8))]
    ['0: Conv2d, 4 x 6 x 6', '1: ReLU, 4 x 6 x 6', 'output: Sequential, 4 x 6 x 6']
    """
    with no_grad(), record_calls(model) as calls, foreign:
        model(images)
    figures = Figures()
    for call in calls:
        if isinstance(call.output, Tensor) and call.output.ndim == 4 and min(call.output.shape[2:]) > 1:
            size = " x ".join(map(str, call.output.shape[1:]))
            title = f"{call.name or 'output'}: {type(call.module).__name__}, {size}"
            figures.append(tiles(call.output.numpy()[0, :limit], title))
    return figures


@checked
def html_report(title: str, sections: Iterable[tuple[str, Any]], refresh: Positive | None = None) -> str:
    """An HTML page in one file: for each section a heading, and a Figure, a list of Figures, or preformatted text.

    With ``refresh``, a browser loads the page anew after that many seconds. A training run can rewrite it meanwhile.

    Raises:
        DTypeError: an argument has the wrong type.

    >>> import tinygrad_lenet as tl
    >>> page = tl.visualize.html_report("Run 1", [("Layers", "conv1, conv2")])
    >>> "<h1>Run 1</h1>" in page, "<pre>conv1, conv2</pre>" in page
    (True, True)
    """
    body = []
    for section in listed("sections", sections, "pairs of a heading and its content"):
        if not isinstance(section, (tuple, list)) or len(section) != 2 or not isinstance(section[0], str):
            raise DTypeError(f"sections must be pairs of a heading and its content, got {brief(section)}")
        heading, content = html.escape(section[0]), section[1]
        body.append(f"<h2>{heading}</h2>")
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, str):
                body.append(f"<pre>{html.escape(part)}</pre>")
            elif hasattr(part, "savefig"):
                body.append(_html(part, heading))
            else:
                raise DTypeError(f"in sections, content is Figures or text, got {brief(part)}")
    again = f'<meta http-equiv="refresh" content="{refresh}">' if refresh else ""
    return Page(_PAGE.format(refresh=again, title=html.escape(title), body="\n".join(body)))
