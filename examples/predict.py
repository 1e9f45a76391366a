"""Read the digit in a picture with a trained LeNet-5.

    python examples/predict.py lenet_mnist.npz picture.png ...

Each picture shows one digit, dark on light or light on dark, in any size and format that Pillow reads. `digit` converts
it to the form of MNIST's images first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from lenet_1998 import LeNet5Classic

import tinygrad_lenet as tl
from tinygrad_lenet import data, files, nn

try:
    from PIL import Image
except ModuleNotFoundError:
    sys.exit("This example needs Pillow, one of its extras. Install them with:  pip install -e '.[examples]'")


def digit(path: Path) -> np.ndarray:
    """A picture in MNIST's form: (28, 28), from 0 for background to 1 for ink.

    The digit fits into 20 x 20 pixels, and its centre of mass is in the middle (LeCun et al., 1998, section III.A).
    """
    with (
        files.reading(str(path), "not a picture that Pillow can read"),
        files.opened(str(path)) as file,
        Image.open(file) as picture,
    ):
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            rgba = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        pixels = np.asarray(picture.convert("L"), np.float32) / 255
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = np.median(border)
    ink = np.abs(pixels - background)
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


def load(path: Path, activation: str, pool: str) -> nn.Module:
    """The network with the weights of a file, in evaluation mode."""
    try:
        state = tl.load(path)
    except (tl.DataError, tl.ArgumentError) as error:
        raise tl.DataError(f"{path} holds no weights; train some: python examples/lenet_mnist.py ({error})") from error
    if "body.c1.weight" in state:
        model: nn.Module = LeNet5Classic()
    else:
        model = nn.LeNet5(activation=activation, pool=pool, batch_norm="norm1.weight" in state)
    model.load_state_dict(state)
    return model.eval()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", type=Path, help="a file that lenet_mnist.py or lenet_1998.py saved")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="picture")
    parser.add_argument("--activation", default="relu", help="the option that the network was trained with")
    parser.add_argument("--pool", default="max", help="the option that the network was trained with")
    parser.add_argument("--show", action="store_true", help="print the network's input in characters")
    args = parser.parse_args(argv)
    try:
        model = load(args.weights, args.activation, args.pool)
        for path in args.pictures:
            image = digit(path)
            pixels = tl.tensor(image[None, None])
            classic = isinstance(model, LeNet5Classic)
            x = model.prepare(pixels) if classic else (pixels - data.MNIST.mean) / data.MNIST.std
            with tl.no_grad():
                p = model(x).softmax(axis=1).numpy()[0]
            print(f"{path}: {p.argmax()} ({p.max():.1%})   " + "  ".join(f"{i}: {q:.1%}" for i, q in enumerate(p)))
            if args.show:
                print("\n".join("".join(" .:-=+*#%@"[int(9 * v)] * 2 for v in row) for row in image))
    except (tl.TinygradLenetError, OSError) as error:
        sys.exit(f"predict.py: {str(error).removeprefix('predict.py: ')}")


if __name__ == "__main__":
    main()
