"""New tensors from a shape, given as ``2, 3`` or ``(2, 3)``. They are float32 unless ``dtype`` names another dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ForwardRef, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from ..checks import integer
from ..core.primitive import Array, composite, primitive
from ..core.tensor import Tensor
from ..core.values import as_dtype
from ..errors import ArgumentError
from .shape import unpacked

# A string: the class itself would import numpy.random, which takes a seventh of the time of importing NumPy.
if TYPE_CHECKING:
    Seed: TypeAlias = "int | np.random.Generator | None"
else:
    Seed = ForwardRef("int | np.random.Generator | None", module=__name__)


def pcg64(*seed: int) -> np.random.Generator:
    """A generator seeded by one number or several. NumPy promises that the bits of PCG64 stay the same;
    ``np.random.default_rng`` uses it too, but may change to another bit generator.
    """
    return np.random.Generator(np.random.PCG64(seed if len(seed) > 1 else seed[0] if seed else None))


def generator_of(generator: Seed) -> np.random.Generator:
    """A NumPy generator: the given one, a new one from a seed, or (None) a new one from fresh entropy.

    >>> int(generator_of(0).integers(100))
    85
    """
    if generator is None:
        return pcg64()
    if isinstance(generator, np.random.Generator):
        return generator
    if isinstance(generator, (int, np.integer)) and not isinstance(generator, bool):
        if generator < 0:
            raise ArgumentError(f"generator must not be a negative seed, got {generator}")
        return pcg64(int(generator))
    raise ArgumentError(f"generator must be a seed, a numpy.random.Generator or None, got {type(generator).__name__}")


def _lengths(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """Return a shape, given as ``2, 3`` or ``(2, 3)``, as a tuple of lengths."""
    return tuple([integer("a length in the shape", n, 0) for n in unpacked(shape)])


def _dtype(dtype: DTypeLike | None) -> np.dtype[Any]:
    return as_dtype(np.float32 if dtype is None else dtype)


@composite(torch="full")
def full(
    shape: int | tuple[int, ...], fill_value: float, dtype: DTypeLike = np.float32, requires_grad: bool = False
) -> Tensor:
    """A tensor filled with one value.

    Raises:
        ArgumentError: a length is negative.
        DTypeError: a length is not an integer.

    >>> import tinygrad_lenet as tl
    >>> tl.full((2,), 7)
    tensor([7., 7.])
    """
    return _owned(np.full(_lengths((shape,)), fill_value, _dtype(dtype)), requires_grad)


@composite(torch="zeros")
def zeros(*shape: Any, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros, float32 by default.

    Raises:
        ArgumentError: a length is negative.
        DTypeError: a length is not an integer.

    >>> import tinygrad_lenet as tl
    >>> tl.zeros(2, 3)
    tensor([[0., 0., 0.],
            [0., 0., 0.]])
    """
    return _owned(np.zeros(_lengths(shape), _dtype(dtype)), requires_grad)


@composite(torch="ones")
def ones(*shape: Any, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """A tensor of ones, float32 by default.

    Raises:
        ArgumentError: a length is negative.
        DTypeError: a length is not an integer.

    >>> import tinygrad_lenet as tl
    >>> tl.ones(2, dtype="int64")
    tensor([1, 1], dtype=int64)
    """
    return _owned(np.ones(_lengths(shape), _dtype(dtype)), requires_grad)


@composite(torch="arange")
def arange(
    start: float | None = None,
    stop: float | None = None,
    step: float = 1,
    dtype: DTypeLike | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Numbers from ``start`` up to, but not including, ``stop``; with one argument, from 0 up to it.

    Integers give int64, so that the result can be an index.

    Raises:
        ArgumentError: ``step`` is 0, or there is no ``stop``.

    >>> import tinygrad_lenet as tl
    >>> tl.arange(3), tl.arange(0, 1, 0.5)
    (tensor([0, 1, 2], dtype=int64), tensor([0. , 0.5]))
    """
    start, stop = (0, start) if stop is None else (start or 0, stop)
    if stop is None:
        raise ArgumentError("give the number before which to stop, as in arange(3) or arange(end=3)")
    if dtype is None:
        dtype = np.int64 if all(isinstance(n, (int, np.integer)) for n in (start, stop, step)) else np.float32
    if not step:
        raise ArgumentError("step must not be 0")
    limits: Any = (start, stop, step)  # NumPy's types do not allow a mix of ints and floats
    return _owned(np.arange(*limits, dtype=_dtype(dtype)), requires_grad)


@composite(torch="eye")
def eye(n: int, m: int | None = None, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """The identity matrix (n, m), with ``m = n`` by default.

    Raises:
        ArgumentError: a length is negative.
        DTypeError: a length is not an integer.

    >>> import tinygrad_lenet as tl
    >>> tl.eye(2, 3)
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    return _owned(np.eye(*_lengths((n, n if m is None else m)), dtype=_dtype(dtype)), requires_grad)


@primitive(effect=True)
def drawn(kind: str, shape: tuple[int, ...], generator: Any, dtype: Any, p: float = 0.0) -> Array:
    """Random numbers: ``"uniform"``, ``"normal"``, or the ``"mask"`` of dropout: 0 with probability ``p``, else
    ``1 / (1 - p)``.
    """
    source = generator_of(generator)
    if kind == "mask":
        return np.multiply(source.random(shape, np.float32) >= p, 1 / (1 - p), dtype=dtype)
    return (source.random if kind == "uniform" else source.standard_normal)(shape).astype(dtype)


drawn.check("mask", (3, 2), 0, np.float32, 0.5)


@composite(torch="rand")
def rand(*shape: Any, generator: Seed = None, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """Uniform random numbers in [0, 1). ``generator`` is a NumPy generator or a seed, or None for fresh entropy.

    Raises:
        ArgumentError: a length is negative.
        DTypeError: a length is not an integer.

    >>> import tinygrad_lenet as tl
    >>> bool((tl.rand(3, generator=1) == tl.rand(3, generator=1)).numpy().all())
    True
    """
    return _owned(drawn("uniform", _lengths(shape), generator, _dtype(dtype))._data, requires_grad)


@composite(torch="randn")
def randn(*shape: Any, generator: Seed = None, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """Random numbers of the standard normal distribution. ``generator`` is a NumPy generator or a seed, or None for
    fresh entropy.

    Raises:
        ArgumentError: a length is negative.
        DTypeError: a length is not an integer.

    >>> import tinygrad_lenet as tl
    >>> x = tl.randn(1000, generator=0)
    >>> bool(abs(x.mean()) < 0.1), bool(abs(x.std() - 1) < 0.1)
    (True, True)
    """
    return _owned(drawn("normal", _lengths(shape), generator, _dtype(dtype))._data, requires_grad)


def _owned(array: np.ndarray[Any, Any], requires_grad: bool) -> Tensor:
    tensor = Tensor._wrap(np.asarray(array))
    tensor.requires_grad = requires_grad
    return tensor
