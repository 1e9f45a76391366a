"""Random changes of images that leave their class as it is: whole batches at a time, from one generator.

A transform is called with images (N, C, H, W) and a NumPy generator, and gives new images of the same shape and dtype;
the same state of the generator gives the same bits, whatever the number of threads. Give one to
``DataLoader(transform=...)``, or call it. Coordinates are in pixels, y down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import flag, function, listed, number, said
from ..errors import ArgumentError, DTypeError, ShapeError
from ..ops.products import matmul
from ..tensor import Tensor
from ..threads import parallel

Images = NDArray[Any]
Transform = Callable[[Images, np.random.Generator], Images]

_BLOCK = 32  # images that are worked on at a time: what they need stays in the cache


def _images(who: str, images: Any) -> Images:
    """What can be transformed: arrays of floats, (N, C, H, W), none of them empty."""
    if isinstance(images, Tensor):
        images = images.numpy()
    if not isinstance(images, np.ndarray):
        raise DTypeError(f"{who}: expected an array of images, got {said(images)}; pass np.asarray(them)")
    if images.ndim != 4 or not all(images.shape[1:]):
        raise ShapeError(
            f"{who}: expected images of shape (N, C, H, W), got {images.shape}; for a single one pass image[None]"
        )
    if images.dtype.kind != "f" or images.dtype.itemsize > 8:
        raise DTypeError(
            f"{who}: expected images of floating-point numbers, got {images.dtype}; divide them by 255 first"
        )
    return np.asarray(images)


def _range(who: str, name: str, value: Any, interval: str) -> tuple[float, float]:
    """A pair (lowest, highest)."""
    pair = listed(who, name, value, "(lowest, highest)")
    if len(pair) != 2:
        raise ArgumentError(f"{who}: {name} must be (lowest, highest), got {said(value)}")
    low, high = (number(who, name, end, interval) for end in pair)
    if low > high:
        raise ArgumentError(f"{who}: {name} must be (lowest, highest), got {said(value)}")
    return low, high


class _Transform:
    """Base: checks the images, and shows how it was made."""

    def __call__(self, images: Images, generator: np.random.Generator) -> Images:
        if not isinstance(generator, np.random.Generator):
            raise DTypeError(
                f"{type(self).__name__}: expected a NumPy generator, got {said(generator)}; pass "
                "np.random.default_rng(seed)"
            )
        return self.apply(_images(type(self).__name__, images), generator)

    def apply(self, images: Images, generator: np.random.Generator) -> Images:
        """Give new images."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class _Warp(_Transform):
    """Base of the transforms that move pixels: where in the image each pixel of the result comes from."""

    def displacement(self, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float32]:
        """How far from its own place each pixel of the result is read: (2, N, H, W), rows first."""
        raise NotImplementedError

    def apply(self, images: Images, generator: np.random.Generator) -> Images:
        """Move the pixels."""
        return _warp(images, self.displacement(images.shape, generator))


def warp(images: Images, displacement: NDArray[np.float32]) -> Images:
    """Images (N, C, H, W) read elsewhere: ``out[n, c, i, j] = images[n, c, i + dy[n, i, j], j + dx[n, i, j]]`` with the
    displacement ``(dy, dx)``, between pixels bilinearly, outside the image its nearest pixel.

    Raises:
        ShapeError: not a displacement of (2, N, H, W).

    >>> import numpy as np
    >>> from tinygrad_lenet.data import warp
    >>> image = np.array([[[[0.0, 1.0, 2.0]]]])
    >>> warp(image, np.array([0.0, 0.5], np.float32).reshape(2, 1, 1, 1) + np.zeros((2, 1, 1, 3), np.float32))
    array([[[[0.5, 1.5, 2. ]]]])
    """
    images = _images("warp", images)
    displacement = displacement.numpy() if isinstance(displacement, Tensor) else displacement
    if not isinstance(displacement, np.ndarray) or displacement.dtype.kind not in "fiu":
        raise DTypeError(f"warp: displacement must be an array of numbers, got {said(displacement)}")
    if displacement.dtype.kind == "f" and np.isnan(displacement).any():
        raise ArgumentError("warp: displacement holds NaN, which is nowhere")
    return _warp(images, displacement)


def _warp(images: Images, displacement: NDArray[Any]) -> Images:
    n, c, h, w = images.shape
    if displacement.shape != (2, n, h, w):
        raise ShapeError(f"warp: images {images.shape} need displacements {(2, n, h, w)}, got {displacement.shape}")
    out = np.empty(images.shape, images.dtype)
    rows, columns = np.arange(h, dtype=np.float32)[:, None], np.arange(w, dtype=np.float32)

    def some(start: int, stop: int) -> None:
        for low in range(start, stop, _BLOCK):
            part = slice(low, min(low + _BLOCK, stop))
            y, x = displacement[0, part] + rows, displacement[1, part] + columns
            np.minimum(np.maximum(y, 0, out=y), h - 1, out=y)
            np.minimum(np.maximum(x, 0, out=x), w - 1, out=x)
            top, left = np.floor(y), np.floor(x)
            y -= top
            x -= left
            top *= w + 1  # of images that have one more column and row, which only ever count for nothing
            top += left
            place = top.astype(np.intp)
            place += (np.arange(place.shape[0]) * ((h + 1) * (w + 1))).reshape(-1, 1, 1)
            y, x = y.astype(images.dtype, copy=False), x.astype(images.dtype, copy=False)
            wide = np.zeros((place.shape[0], h + 1, w + 1), images.dtype)
            flat = wide.reshape(-1)
            for channel in range(c):
                wide[:, :h, :w] = images[part, channel]
                # (1 - x) (1 - y) a + x (1 - y) b + (1 - x) y c + x y d, in the fewest passes
                upper, right = flat.take(place, mode="clip"), flat[1:].take(place, mode="clip")
                right -= upper
                right *= x
                upper += right
                lower, right = flat[w + 1 :].take(place, mode="clip"), flat[w + 2 :].take(place, mode="clip")
                right -= lower
                right *= x
                lower += right
                lower -= upper
                lower *= y
                np.add(upper, lower, out=out[part, channel])

    parallel(some, n, 60.0 * images.size)  # a pixel takes as long as 60 multiply-adds
    return out


class RandomAffine(_Warp):
    """Rotate, scale, shear and shift each image by its own amounts, about its centre.

    Args:
        degrees: the largest angle, to either side.
        translate: the largest shift to either side, in parts of the image's height and width.
        scale: the factors of the size, drawn between the two; one for height and one for width if ``stretch``.
        shear: the largest angle of the shear along the rows, in degrees.
        stretch: draw the factors of height and width apart.

    All amounts are drawn uniformly.

    Raises:
        ArgumentError: an amount outside of its range.

    >>> import numpy as np
    >>> from tinygrad_lenet.data import RandomAffine
    >>> turn = RandomAffine(degrees=15, translate=0.1, scale=(0.9, 1.1), shear=10)
    >>> turn(np.zeros((4, 1, 28, 28), np.float32), np.random.default_rng(0)).shape
    (4, 1, 28, 28)
    """

    def __init__(
        self,
        degrees: float = 0.0,
        translate: float = 0.0,
        scale: tuple[float, float] = (1.0, 1.0),
        shear: float = 0.0,
        stretch: bool = False,
    ) -> None:
        name = type(self).__name__
        self.degrees = number(name, "degrees", degrees, "[0, 1e6]")
        self.translate = number(name, "translate", translate, "[0, 1e6]")
        self.scale = _range(name, "scale", scale, "[1e-6, 1e6]")
        self.shear, self.stretch = number(name, "shear", shear, "[0, 90)"), flag(name, "stretch", stretch)

    def displacement(self, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float32]:
        """See the base class."""
        n, _, h, w = shape
        draws = generator.uniform(-1, 1, (n, 6)).T
        angle, shear = np.radians(self.degrees) * draws[0], np.tan(np.radians(self.shear) * draws[1])
        low, high = self.scale
        tall, wide = low + (high - low) * (draws[2] + 1) / 2, low + (high - low) * (draws[3] + 1) / 2
        tall = tall if self.stretch else wide
        cos, sin = np.cos(angle), np.sin(angle)
        # From the result back to the image: the inverse of turn, shear and scale.
        matrix = np.array([[cos / tall, -sin / tall], [(sin + shear * cos) / wide, (cos - shear * sin) / wide]])
        shift = np.array([h, w]) * self.translate * draws[4:].T
        y, x = np.arange(h) - (h - 1) / 2, np.arange(w) - (w - 1) / 2
        by_row = (matrix[:, 0, :, None] - np.array([1, 0])[:, None, None]) * y + shift.T[:, :, None]
        by_column = (matrix[:, 1, :, None] - np.array([0, 1])[:, None, None]) * x
        moved: NDArray[np.float32] = by_row.astype(np.float32)[..., None] + by_column.astype(np.float32)[:, :, None]
        return moved


class ElasticDistortion(_Warp):
    """Random displacements, smoothed: the distortion of Simard, Steinkraus and Platt, *Best practices for convolutional
    neural networks applied to visual document analysis*, 2003, section 2.

    Each pixel draws a displacement from U(-1, 1) in each direction; the field is convolved with a Gaussian of standard
    deviation ``sigma`` pixels and multiplied by ``alpha`` pixels. For digits, 4 and 34 are the paper's.

    Raises:
        ArgumentError: ``alpha`` below 0, or ``sigma`` not above 0.

    >>> import numpy as np
    >>> from tinygrad_lenet.data import ElasticDistortion
    >>> ElasticDistortion(alpha=34, sigma=4)(np.ones((1, 1, 2, 2)), np.random.default_rng(0))
    array([[[[1., 1.],
             [1., 1.]]]])
    """

    def __init__(self, alpha: float = 34.0, sigma: float = 4.0) -> None:
        self.alpha = number("ElasticDistortion", "alpha", alpha, "[0, 1e6]")
        self.sigma = number("ElasticDistortion", "sigma", sigma, "[1e-6, 1e6]")

    def displacement(self, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float32]:
        """See the base class."""
        n, _, h, w = shape
        noise = generator.random((2, n, h, w), np.float32)
        noise -= 0.5
        noise *= 2 * self.alpha
        # All images at once, along one axis and then the other: half the time of 2 * n products of single images.
        rows = matmul(noise.reshape(-1, w), _gaussian(w, self.sigma)).numpy().reshape(2, n, h, w)
        turned = np.ascontiguousarray(rows.swapaxes(2, 3)).reshape(-1, h)
        return matmul(turned, _gaussian(h, self.sigma)).numpy().reshape(2, n, w, h).swapaxes(2, 3)


@lru_cache(maxsize=8)
def _gaussian(n: int, sigma: float) -> NDArray[np.float32]:
    """The convolution of n pixels with a Gaussian as a matrix, with nothing outside the image."""
    distance = np.arange(n)[:, None] - np.arange(n)
    kernel = np.exp(-0.5 * (distance / sigma) ** 2)
    reach = np.arange(-math.ceil(4 * sigma), math.ceil(4 * sigma) + 1)
    found: NDArray[np.float32] = (kernel / np.exp(-0.5 * (reach / sigma) ** 2).sum()).astype(np.float32)
    found.flags.writeable = False
    return found


class RandomErasing(_Transform):
    """Cover a rectangle of some images (Zhong et al., *Random erasing data augmentation*, 2020, algorithm 1).

    Args:
        p: how many of the images, on the average.
        scale: the area of the rectangle, in parts of the image's, drawn uniformly between the two.
        ratio: height over width, drawn so that its logarithm is uniform between the two.
        value: what the rectangle is filled with; the smallest value of the image if None.

    Raises:
        ArgumentError: ``p`` is no probability, or a pair that does not grow or is not above 0.

    >>> import numpy as np
    >>> from tinygrad_lenet.data import RandomErasing
    >>> erase = RandomErasing(p=1, scale=(0.25, 0.25), ratio=(1, 1), value=0)
    >>> int(erase(np.ones((1, 1, 4, 4)), np.random.default_rng(0)).sum())
    12
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.2),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float | None = None,
    ) -> None:
        name = type(self).__name__
        self.p, self.scale = number(name, "p", p, "[0, 1]"), _range(name, "scale", scale, "(0, 1]")
        self.ratio = _range(name, "ratio", ratio, "[1e-6, 1e6]")
        self.value = None if value is None else number(name, "value", value)

    def apply(self, images: Images, generator: np.random.Generator) -> Images:
        """Cover the rectangles."""
        n, _, h, w = images.shape
        chosen, area, ratio, y, x = generator.random((5, n))
        area = (self.scale[0] + (self.scale[1] - self.scale[0]) * area) * h * w
        low, high = np.log(self.ratio)
        ratio = np.exp(low + (high - low) * ratio)
        tall = np.minimum(np.rint(np.sqrt(area * ratio)), h)
        wide = np.minimum(np.rint(np.sqrt(area / ratio)), w)
        top, left = np.floor(y * (h - tall + 1)), np.floor(x * (w - wide + 1))
        rows = _between(h, top, top + tall * (chosen < self.p))
        covered = rows[:, None, :, None] & _between(w, left, left + wide)[:, None, None, :]
        value = images.min(axis=(1, 2, 3), keepdims=True) if self.value is None else images.dtype.type(self.value)
        return np.where(covered, value, images)


def _between(n: int, start: NDArray[Any], stop: NDArray[Any]) -> NDArray[np.bool_]:
    """Of places 0 … n - 1 those between start and stop, a row for each pair."""
    places = np.arange(n)
    found: NDArray[np.bool_] = (places >= start[:, None]) & (places < stop[:, None])
    return found


class GaussianNoise(_Transform):
    """Add normal noise of standard deviation ``std`` to every pixel.

    Raises:
        ArgumentError: ``std`` is below 0.

    >>> import numpy as np
    >>> from tinygrad_lenet.data import GaussianNoise
    >>> GaussianNoise(0.1)(np.zeros((1, 1, 100, 100)), np.random.default_rng(0)).std().round(2)
    np.float64(0.1)
    """

    def __init__(self, std: float = 0.1) -> None:
        self.std = number("GaussianNoise", "std", std, "[0, inf)")

    def apply(self, images: Images, generator: np.random.Generator) -> Images:
        """Add the noise."""
        noise = generator.standard_normal(images.shape, np.float64 if images.dtype == np.float64 else np.float32)
        noise *= self.std
        noise += images
        return noise.astype(images.dtype, copy=False)


class Compose(_Transform):
    """One transform after the other. Of neighbours that move pixels the displacements are added, and the images are
    read once: that blurs them less, and takes half the time.

    Any function of images and a generator may be among them.

    Raises:
        DTypeError: no list of functions.

    >>> from tinygrad_lenet.data import Compose, ElasticDistortion, RandomAffine
    >>> Compose([RandomAffine(degrees=10), ElasticDistortion()])
    Compose([RandomAffine(degrees=10.0, translate=0.0, scale=(1.0, 1.0), shear=0.0, stretch=False),
             ElasticDistortion(alpha=34.0, sigma=4.0)])
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        what = "a list of functions of images and a generator"
        self.transforms = [
            function("Compose", "each of transforms", t) for t in listed("Compose", "transforms", transforms, what)
        ]
        if not self.transforms:
            raise DTypeError(f"Compose: expected {what}, got {said(transforms)}")

    def apply(self, images: Images, generator: np.random.Generator) -> Images:
        """Apply them in order."""
        moved: NDArray[np.float32] | None = None
        for transform in self.transforms:
            if isinstance(transform, _Warp):
                more = transform.displacement(images.shape, generator)
                moved = more if moved is None else moved + more
            else:
                images = transform(images if moved is None else _warp(images, moved), generator)
                images = _images(f"Compose: after {said(transform)}", images)
                moved = None
        return images if moved is None else _warp(images, moved)

    def __repr__(self) -> str:
        return f"Compose([{(',' + chr(10) + ' ' * 9).join(map(repr, self.transforms))}])"
