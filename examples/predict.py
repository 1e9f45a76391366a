"""Read the digit in a picture with a trained LeNet-5.

    python examples/predict.py examples/lenet5.npz picture.png ...

Each picture shows one digit, dark on light or light on dark, or in one colour on a transparent background, in any size.
The files may be PNG, JPEG, BMP, GIF, TIFF, WebP or PPM, with 1 to 32 bits for each pixel and channel, and with up to 50
million pixels (178 million if it is an ordinary JPEG); of an animation, the first picture is read. `digit` converts a
picture to the form of MNIST's images.

examples/lenet5.npz holds a trained network. Other weights are those that lenet_mnist.py or lenet_1998.py saved: the
file says which network they are of.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import command_line
import numpy as np
from lenet_1998 import LeNet5Classic

import tinygrad_lenet as tl
from tinygrad_lenet import data, files, nn
from tinygrad_lenet.errors import brief

try:
    from PIL import Image, ImageOps, UnidentifiedImageError
except ModuleNotFoundError:
    sys.exit("This example needs Pillow, one of its extras. Install them with:  pip install -e '.[examples]'")

# For other formats, Pillow may start another program (Ghostscript for EPS).
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 50_000_000  # to decode
MOST_BYTES = 6 * MOST_PIXELS  # of a file
ENOUGH = 1024  # pixels of width and height: larger pictures are reduced to less than twice as many
CLASSES = ", ".join(data.MNIST.classes)
BITS_PER_SAMPLE, SAMPLE_FORMAT, SIGNED = 258, 339, 2  # of TIFF files
OPTIONS = {"activation": ("relu", "tanh", "sigmoid", "leaky_relu", "elu"), "pool": ("max", "avg")}
logging.getLogger("PIL").addHandler(logging.NullHandler())  # Pillow also raises the errors that it logs


# Pictures


def digit(path: Path) -> np.ndarray:
    """A picture in MNIST's form: (28, 28), from 0 for background to 1 for ink.

    The digit fits into 20 x 20 pixels, and its centre of mass is in the middle (LeCun et al., 1998, section III.A).
    """
    lightness, opacity = decoded(path)
    ink = contrast(lightness * opacity + (1 - opacity))
    if ink.max() < 0.25 and opacity.min() < 1:  # light ink does not show on white paper
        ink = contrast(lightness * opacity)
    if ink.max() < 0.1:
        raise tl.DataError(f"{path} is blank: no pixel differs from its border by a tenth; expected one digit on it")
    ink = np.clip((ink / ink.max() - 0.1) / 0.8, 0, 1)  # paper is never quite even, nor ink quite black
    rows, columns = np.flatnonzero(ink.max(1) > 0.3), np.flatnonzero(ink.max(0) > 0.3)
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = 20 / max(ink.shape)
    size = [max(1, round(n * scale)) for n in ink.shape[::-1]]
    small = np.asarray(
        Image.fromarray((255 * ink).astype(np.uint8)).resize(
            size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
        )
    )
    image = np.zeros((48, 48), np.float32)
    h, w = small.shape
    image[14 : 14 + h, 14 : 14 + w] = small / 255
    y, x = (np.average(np.arange(48), weights=image.sum(axis)) for axis in (1, 0))
    top, left = (min(max(round(c - 13.5), 0), 20) for c in (y, x))
    return image[top : top + 28, left : left + 28]


def contrast(lightness: np.ndarray) -> np.ndarray:
    """By how much each pixel differs from the background, which is what most of the border is."""
    border = np.concatenate([lightness[0], lightness[-1], lightness[:, 0], lightness[:, -1]])
    return np.abs(lightness - np.median(border))


def decoded(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The lightness and the opacity of each pixel, from 0 to 1; the picture is upright, and reduced if it is large."""
    with (
        silent(),
        files.reading(path, "not a picture that Pillow can read"),
        files.opened(path) as file,
    ):
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise tl.DataError(f"{path} has more than {MOST_BYTES:,} bytes; make a smaller picture of it")
        try:
            picture: Image.Image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            raise tl.DataError(f"{path} is damaged, or not a picture of the kinds {', '.join(FORMATS)}") from None
        except Image.DecompressionBombError:
            raise tl.DataError(f"{path} has more than {MOST_PIXELS:,} pixels; make a smaller picture of it") from None
        size = picture.width * picture.height
        picture.draft("L", (ENOUGH, ENOUGH))  # of a JPEG, Pillow can decode an eighth of width and height
        if "progressive" not in picture.info:  # else it takes the memory of the whole
            size = picture.width * picture.height
        if not 0 < size <= MOST_PIXELS:
            raise tl.DataError(f"{path} has {size:,} pixels, expected 1 to {MOST_PIXELS:,}; make another picture of it")
        ImageOps.exif_transpose(picture, in_place=True)
        lightness, opacity = deep(picture) if picture.mode[0] in "IF" else shallow(picture)
        if not np.isfinite(lightness).all():
            raise tl.DataError(f"{path} has pixels that are NaN or infinite; replace them by numbers")
        if picture.mode[0] in "IF" or tag(picture, BITS_PER_SAMPLE) > 8:
            # A file does not say how many of its bits are used, nor which float is white.
            low, high = lightness.min(), lightness.max()
            lightness = (lightness - low) / max(high - low, -low, high, 1e-300)
        return lightness, opacity


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """A context without warnings: Python's, and those that libtiff writes to the standard error stream by itself."""
    with warnings.catch_warnings(), contextlib.ExitStack() as ending:
        warnings.simplefilter("ignore")
        with contextlib.suppress(OSError), open(os.devnull, "wb") as null:  # OSError: there is no such stream
            kept = os.dup(2)
            ending.callback(os.close, kept)
            ending.callback(os.dup2, kept, 2)
            os.dup2(null.fileno(), 2)
        yield


def shallow(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """The lightness and the opacity of a picture with up to 8 bits for a channel."""
    if tag(picture, SAMPLE_FORMAT) == SIGNED:
        picture = picture.point(lambda value: value ^ 128)
    if picture.mode == "La":
        picture = picture.convert("LA")
    clear = picture.has_transparency_data
    if clear or picture.mode in ("1", "P"):
        picture = picture.convert("RGBA" if clear else "L")
    small = picture.reduce(factor(picture))
    lightness = np.asarray(small.convert("L")) / 255
    return lightness, np.asarray(small.getchannel("A")) / 255 if clear else np.ones_like(lightness)


def deep(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """The values and the opacity of a grey picture with more bits. A value may be declared transparent."""
    values, n = np.asarray(picture), factor(picture)
    if picture.mode == "I" and tag(picture, BITS_PER_SAMPLE) == 32 and tag(picture, SAMPLE_FORMAT) != SIGNED:
        values = values.view(np.uint32)  # Pillow takes them for signed
    clear = picture.info.get("transparency")
    opacity = np.ones_like(values, bool) if clear is None else values != clear
    return means(values, n), means(opacity, n)


def means(pixels: np.ndarray, n: int) -> np.ndarray:
    """The means of blocks of n x n pixels; what is left at the right and below is cut off."""
    a, b = (min(n, size) for size in pixels.shape)
    h, w = (size // n * n for size, n in zip(pixels.shape, (a, b), strict=True))
    found: np.ndarray = sum(pixels[i:h:a, j:w:b].astype(np.float64) for i in range(a) for j in range(b)) / (a * b)
    return found


def factor(picture: Image.Image) -> int:
    """By how much a picture may be reduced."""
    return max(1, math.isqrt(picture.width * picture.height) // ENOUGH)


def tag(picture: Image.Image, number: int) -> int:
    """The tag of a TIFF file for its first channel; 0 if there is none."""
    return int(getattr(picture, "tag_v2", {}).get(number, (0,))[0])


# Weights


def load(path: Path, activation: str | None = None, pool: str | None = None) -> tuple[nn.Module, float, float]:
    """The network of a file, in evaluation mode, and the mean and standard deviation of the images it was trained on.

    Args:
        path: the weights.
        activation: that of the network, for a file that does not say it.
        pool: the kind of pooling, for a file that does not say it.
    """
    try:
        state, about = tl.load(path), tl.load_metadata(path)
    except (tl.DataError, tl.ArgumentError) as error:
        raise tl.DataError(f"{path} holds no weights; train some: python examples/lenet_mnist.py ({error})") from error
    for name, array in state.items():
        if not np.isfinite(array).all():
            raise tl.DataError(f"{path} has weights that are NaN or infinite, in {brief(name)}; train again")
    if about.get("classes", CLASSES) != CLASSES:
        raise tl.DataError(f"{path} is trained on {brief(about.get('dataset'))}, expected weights that read digits")
    options = {name: value for name, value in (("activation", activation), ("pool", pool)) if value is not None}
    kind = about.get("model", "LeNet5Classic" if "body.c1.weight" in state else "LeNet5")
    for name, value in options.items():
        if kind == "LeNet5Classic":
            raise tl.DataError(f"{path} is of the network of 1998, which has no option --{name}; leave it out")
        if about.get(name, value) != value:
            raise tl.DataError(f"{path} is of a network with --{name} {about[name]:.50}, got {value}; leave it out")
    try:
        model = network(kind, {**options, **about}, state)
        model.load_state_dict(state)
    except tl.TinygradLenetError as error:
        raise tl.DataError(f"{path} holds other weights than those of a LeNet-5: {error!s:.400}") from error
    if kind == "LeNet5" and not {"activation", "pool"} <= {*options, *about}:
        raise tl.DataError(
            f"{path} does not say which activation and pooling its network has; give both --activation and --pool, "
            "as in its training"
        )
    with files.reading(path, "not as lenet_mnist.py writes it"):
        mean, std = (float(about.get(name, getattr(data.MNIST, name))) for name in ("mean", "std"))
        if not (math.isfinite(mean) and 0 < std < math.inf):
            raise ValueError(f"the images have the mean {mean} and the standard deviation {std}")
    return model.eval(), mean, std


def network(kind: str, options: dict[str, str], state: dict[str, np.ndarray]) -> nn.Module:
    """The network that a file describes; its state says what the description leaves out."""
    if kind == "LeNet5Classic":
        return LeNet5Classic()
    if kind != "LeNet5":
        raise tl.ArgumentError(f"the model is {brief(kind)}, expected LeNet5 or LeNet5Classic")
    batch_norm = options.get("batch_norm", str("norm1.weight" in state)) == "True"
    return nn.LeNet5(
        activation=options.get("activation", "relu"), pool=options.get("pool", "max"), batch_norm=batch_norm
    )


def probabilities(model: nn.Module, mean: float, std: float, image: np.ndarray) -> np.ndarray:
    """The probability of each digit, (10,), for an image (28, 28)."""
    pixels = tl.tensor(image[None, None])
    x = model.prepare(pixels) if isinstance(model, LeNet5Classic) else (pixels - mean) / std
    with tl.no_grad(), np.errstate(all="ignore"):
        found: np.ndarray = model(x).softmax(axis=1).numpy()[0]
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", type=command_line.path, help="a file that lenet_mnist.py or lenet_1998.py saved")
    parser.add_argument("pictures", type=command_line.path, nargs="+", metavar="picture")
    for name, choices in OPTIONS.items():
        parser.add_argument(f"--{name}", choices=choices, help="that of the training, for a file that does not say it")
    parser.add_argument("--show", action="store_true", help="print the network's input in characters")
    args = parser.parse_args(argv)
    with command_line.program("predict.py"):
        trained = load(args.weights, args.activation, args.pool)
        for path in args.pictures:
            image = digit(path)
            p = probabilities(*trained, image)
            if not np.isfinite(p).all():
                raise tl.DataError(f"{args.weights} has weights so large that the output is not finite; train again")
            print(f"{path}: {p.argmax()} ({p.max():.1%})   " + "  ".join(f"{i}: {q:.1%}" for i, q in enumerate(p)))
            if args.show:
                print("\n".join("".join(" .:-=+*#%@"[int(9 * v)] * 2 for v in row) for row in image))


if __name__ == "__main__":
    main()
