"""New tensors from a shape. All are float32 unless ``dtype`` says otherwise; a shape may be given as ``2, 3`` or as
``(2, 3)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ForwardRef, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from ..checks import integer
from ..core.primitive import composite
from ..core.tensor import Tensor
from ..core.values import as_dtype
from ..errors import ArgumentError
from .shape import _flat

# A string: to name numpy.random's class would import it, a seventh of the time that importing NumPy takes.
if TYPE_CHECKING:
    Seed: TypeAlias = "int | np.random.Generator | None"
else:
    Seed = ForwardRef("int | np.random.Generator | None", module=__name__)


def pcg64(*seed: int) -> np.random.Generator:
    """A generator from one number or several. ``np.random.default_rng`` gives the same today, but may choose another
    source of bits one day; those of PCG64 are promised to stay.
    """
    return np.random.Generator(np.random.PCG64(seed if len(seed) > 1 else seed[0] if seed else None))


def generator_of(generator: Seed) -> np.random.Generator:
    """A NumPy generator: the one given, or a new one from a seed, or (None) from fresh entropy.

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


def _sizes(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """A shape, given either way."""
    return tuple([integer("a length in the shape", n, 0) for n in _flat(shape)])


def _dtype(dtype: DTypeLike | None) -> np.dtype[Any]:
    return as_dtype(np.float32 if dtype is None else dtype)


@composite
def full(
    shape: int | tuple[int, ...], fill_value: float, dtype: DTypeLike = np.float32, requires_grad: bool = False
) -> Tensor:
    """A tensor filled with one value.

    Raises:
        ArgumentError: lengths that are negative.
        DTypeError: lengths that are no integers.

    >>> import tinygrad_lenet as tl
    >>> tl.full((2,), 7)
    tensor([7., 7.])
    """
    return _owned(np.full(_sizes((shape,)), fill_value, _dtype(dtype)), requires_grad)


full.known_as(torch="full")


@composite
def zeros(*shape: Any, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros; float32, unless ``dtype`` says otherwise.

    Raises:
        ArgumentError: lengths that are negative.
        DTypeError: lengths that are no integers.

    >>> import tinygrad_lenet as tl
    >>> tl.zeros(2, 3)
    tensor([[0., 0., 0.],
            [0., 0., 0.]])
    """
    return _owned(np.zeros(_sizes(shape), _dtype(dtype)), requires_grad)


zeros.known_as(torch="zeros")


@composite
def ones(*shape: Any, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """A tensor of ones; float32, unless ``dtype`` says otherwise.

    Raises:
        ArgumentError: lengths that are negative.
        DTypeError: lengths that are no integers.

    >>> import tinygrad_lenet as tl
    >>> tl.ones(2, dtype="int64")
    tensor([1, 1], dtype=int64)
    """
    return _owned(np.ones(_sizes(shape), _dtype(dtype)), requires_grad)


ones.known_as(torch="ones")


@composite
def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    dtype: DTypeLike | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Numbers from ``start`` (0 if only one is given) up to, not including, ``stop``; int64 for integers, so that they
    can be indices.

    Raises:
        ArgumentError: ``step`` is 0.

    >>> import tinygrad_lenet as tl
    >>> tl.arange(3), tl.arange(0, 1, 0.5)
    (tensor([0, 1, 2], dtype=int64), tensor([0. , 0.5]))
    """
    start, stop = (0, start) if stop is None else (start, stop)
    if dtype is None:
        dtype = np.int64 if all(isinstance(n, (int, np.integer)) for n in (start, stop, step)) else np.float32
    if not step:
        raise ArgumentError("step must not be 0")
    numbers: Any = np.arange(start, stop, step, _dtype(dtype))  # type: ignore[call-overload]  # mixes ints and floats, as NumPy may
    return _owned(numbers, requires_grad)


arange.known_as(torch="arange")


@composite
def eye(n: int, m: int | None = None, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """The identity matrix, (n, m); ``m`` is ``n`` if not given.

    Raises:
        ArgumentError: lengths that are negative.
        DTypeError: lengths that are no integers.

    >>> import tinygrad_lenet as tl
    >>> tl.eye(2, 3)
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    return _owned(np.eye(*_sizes((n, n if m is None else m)), dtype=_dtype(dtype)), requires_grad)


eye.known_as(torch="eye")


@composite
def rand(*shape: Any, generator: Seed = None, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """Uniform random numbers in [0, 1), from ``generator`` (a seed or a NumPy generator; fresh entropy if None).

    Raises:
        ArgumentError: lengths that are negative.
        DTypeError: lengths that are no integers.

    >>> import tinygrad_lenet as tl
    >>> bool((tl.rand(3, generator=1) == tl.rand(3, generator=1)).numpy().all())
    True
    """
    return _owned(generator_of(generator).random(_sizes(shape)).astype(_dtype(dtype)), requires_grad)


rand.known_as(torch="rand")


@composite
def randn(*shape: Any, generator: Seed = None, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """Random numbers of the standard normal distribution, from ``generator`` (a seed or a NumPy generator; fresh
    entropy if None).

    Raises:
        ArgumentError: lengths that are negative.
        DTypeError: lengths that are no integers.

    >>> import tinygrad_lenet as tl
    >>> x = tl.randn(1000, generator=0)
    >>> bool(abs(x.mean()) < 0.1), bool(abs(x.std() - 1) < 0.1)
    (True, True)
    """
    return _owned(generator_of(generator).standard_normal(_sizes(shape)).astype(_dtype(dtype)), requires_grad)


randn.known_as(torch="randn")


def _owned(array: np.ndarray[Any, Any], requires_grad: bool) -> Tensor:
    tensor = Tensor._wrap(np.asarray(array))
    tensor.requires_grad = requires_grad
    return tensor
