"""New tensors from a shape, given as ``2, 3`` or ``(2, 3)``. They are float32 unless ``dtype`` names another dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ForwardRef, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from ..checks import Count, integer, listed
from ..core.primitive import Array, composite, primitive
from ..core.tensor import Tensor, as_tensor
from ..core.values import as_dtype, narrowed
from ..errors import ArgumentError, DTypeError
from .shape import unpacked
from .sorting import argsort

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


SHARED: list[np.random.Generator] = []  # the generator of manual_seed, after its first call


def generator_of(generator: Seed) -> np.random.Generator:
    """A NumPy generator: the given one, a new one from a seed, or (None) that of :func:`manual_seed`; if it was never
    called, a new one from fresh entropy.

    >>> int(generator_of(0).integers(100))
    85
    """
    if generator is None:
        return SHARED[0] if SHARED else pcg64()
    if isinstance(generator, np.random.Generator):
        return generator
    if isinstance(generator, (int, np.integer)) and not isinstance(generator, bool):
        return pcg64(integer("generator", generator, 0))
    raise ArgumentError(f"generator must be a seed, a numpy.random.Generator or None, got {type(generator).__name__}")


@composite(torch="manual_seed")
def manual_seed(seed: Count) -> np.random.Generator:
    """Seed one generator for everything that is drawn without a generator or seed of its own: initial weights, dropout,
    the order of a loader, :func:`rand` and its like. Return that generator.

    Call it before you make the model: a layer keeps the generator that it got when it was made. NumPy's and Python's
    own generators are left alone.

    Raises:
        ArgumentError: the seed is negative.
        DTypeError: the seed is not an integer.

    >>> import tinygrad_lenet as tl
    >>> generator = tl.manual_seed(0)
    >>> x = tl.rand(3)
    >>> generator = tl.manual_seed(0)
    >>> tl.allclose(x, tl.rand(3), rtol=0)
    True
    """
    SHARED[:] = SHARED or [pcg64()]
    SHARED[0].bit_generator.state = pcg64(seed).bit_generator.state  # in place, for the layers that hold it
    return SHARED[0]


def _lengths(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """Return a shape, given as ``2, 3`` or ``(2, 3)``, as a tuple of lengths."""
    return tuple([integer("a length in the shape", n, 0) for n in unpacked(shape)])


def _dtype(dtype: DTypeLike | None, default: DTypeLike = np.float32) -> np.dtype[Any]:
    return as_dtype(default if dtype is None else dtype)


@composite(torch="full")
def full(
    shape: int | tuple[int, ...], fill_value: float, dtype: DTypeLike = np.float32, requires_grad: bool = False
) -> Tensor:
    """A tensor filled with one value, float32 by default; in PyTorch the value decides: ``full(2, 7, dtype="int64")``.

    Raises:
        ArgumentError: a length is negative.
        DTypeError: a length is not an integer.

    >>> import tinygrad_lenet as tl
    >>> tl.full((2,), 7)
    tensor([7., 7.])
    """
    return _owned(np.full(_lengths((shape,)), fill_value, _dtype(dtype)), requires_grad)


@composite(numpy=np.full_like, torch="full_like")
def full_like(x: Array, fill_value: float, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of the shape of ``x`` filled with one value, in the dtype of ``x`` unless another is named.

    >>> import tinygrad_lenet as tl
    >>> tl.full_like(tl.zeros(2), 7)
    tensor([7., 7.])
    """
    return full(np.shape(x), fill_value, _dtype(dtype, as_tensor(x).dtype), requires_grad)


@composite(numpy=np.zeros_like, torch="zeros_like")
def zeros_like(x: Array, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Zeros in the shape of ``x``, and in its dtype unless another is named.

    >>> import tinygrad_lenet as tl
    >>> tl.zeros_like(tl.arange(3))
    tensor([0, 0, 0], dtype=int64)
    """
    return full_like(x, 0, dtype, requires_grad)


@composite(numpy=np.ones_like, torch="ones_like")
def ones_like(x: Array, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Ones in the shape of ``x``, and in its dtype unless another is named.

    >>> import tinygrad_lenet as tl
    >>> tl.ones_like(tl.zeros(2, 2))
    tensor([[1., 1.],
            [1., 1.]])
    """
    return full_like(x, 1, dtype, requires_grad)


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


zeros.known_as(name="empty", torch="empty")
empty = zeros  # PyTorch's values are what was in the memory


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


@composite(torch="linspace")
def linspace(
    start: float, stop: float, num: Count, dtype: DTypeLike = np.float32, requires_grad: bool = False
) -> Tensor:
    """``num`` numbers at equal distances from ``start`` to ``stop``, both included. PyTorch's names ``end`` and
    ``steps`` work too.

    Raises:
        ArgumentError: ``num`` is negative.
        DTypeError: an argument is not a number.

    >>> import tinygrad_lenet as tl
    >>> tl.linspace(0, 1, steps=5)
    tensor([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    return _owned(np.linspace(start, stop, num).astype(_dtype(dtype)), requires_grad)


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


@primitive
def drawn(kind: str, shape: tuple[int, ...], generator: Any, dtype: Any, *options: Any) -> Array:
    """Random numbers: ``"uniform"``; ``"normal"``; ``"integers"`` from the first option up to, but not including, the
    second; or the ``"mask"`` of dropout: 0 with the probability p that is the option, else ``1 / (1 - p)``.
    """
    source = generator_of(generator)
    if kind == "mask":
        return np.multiply(source.random(shape, np.float32) >= options[0], 1 / (1 - options[0]), dtype=dtype)
    if kind == "integers":
        return source.integers(options[0], options[1], shape).astype(dtype)
    return (source.random if kind == "uniform" else source.standard_normal)(shape).astype(dtype)


drawn.check("mask", (3, 2), 0, np.float32, 0.5)
drawn.check("integers", (3, 2), 0, np.int64, -5, 5)


def _random(kind: str, shape: tuple[int, ...], generator: Seed, dtype: DTypeLike | None, requires_grad: bool) -> Tensor:
    """Random floats."""
    found = _dtype(dtype)
    if found.kind != "f":  # as integers, they would all be 0
        raise DTypeError(f"random numbers must be floats, got dtype {found}; for integers see randint")
    return _owned(drawn(kind, shape, generator, found)._data, requires_grad)


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
    return _random("uniform", _lengths(shape), generator, dtype, requires_grad)


@composite(torch="rand_like")
def rand_like(x: Array, generator: Seed = None, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """:func:`rand` in the shape of ``x``, and in its dtype unless another is named.

    Raises:
        DTypeError: the dtype is not of floats.

    >>> import tinygrad_lenet as tl
    >>> tl.rand_like(tl.zeros(2, 3), generator=0).shape
    (2, 3)
    """
    return _random("uniform", np.shape(x), generator, _dtype(dtype, as_tensor(x).dtype), requires_grad)


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
    return _random("normal", _lengths(shape), generator, dtype, requires_grad)


@composite(torch="randn_like")
def randn_like(x: Array, generator: Seed = None, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """:func:`randn` in the shape of ``x``, and in its dtype unless another is named.

    Raises:
        DTypeError: the dtype is not of floats.

    >>> import tinygrad_lenet as tl
    >>> tl.randn_like(tl.zeros(2, 3), generator=0).shape
    (2, 3)
    """
    return _random("normal", np.shape(x), generator, _dtype(dtype, as_tensor(x).dtype), requires_grad)


@composite(torch="randint")
def randint(
    low: int = 0, high: Any = None, size: Any = None, generator: Seed = None, dtype: DTypeLike = np.int64
) -> Tensor:
    """Random integers from ``low`` up to, but not including, ``high``: ``randint(high, size)`` or
    ``randint(low, high, size)``. ``size`` is the shape, a tuple.

    Raises:
        ArgumentError: ``high`` is not above ``low``, or a length is negative.
        DTypeError: ``low`` or ``high`` is not an integer, ``size`` is not a tuple of integers, or the dtype cannot hold
            the integers.

    >>> import tinygrad_lenet as tl
    >>> tl.randint(10, (5,), generator=0), tl.randint(-3, 0, size=(2,), generator=0)
    (tensor([8, 6, 5, 2, 3], dtype=int64), tensor([-1, -2], dtype=int64))
    """
    if size is None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    shape = _lengths((listed("size", size, "a tuple of lengths, as in randint(0, 10, (3,))"),))
    high = integer("high", high, low + 1, 2**63)
    narrowed("the result", np.array([low, high - 1]), _dtype(dtype))
    return drawn("integers", shape, generator, _dtype(dtype), low, high)


@composite(torch="randperm")
def randperm(n: Count, generator: Seed = None, dtype: DTypeLike = np.int64) -> Tensor:
    """The integers from 0 up to, but not including, ``n``, in random order.

    Raises:
        ArgumentError: ``n`` is negative.
        DTypeError: ``n`` is not an integer.

    >>> import tinygrad_lenet as tl
    >>> tl.randperm(5, generator=0)
    tensor([3, 2, 1, 0, 4], dtype=int64)
    """
    return argsort(drawn("uniform", (n,), generator, np.float64)).astype(dtype)


def _owned(array: np.ndarray[Any, Any], requires_grad: bool) -> Tensor:
    return Tensor._wrap(np.asarray(array)).requires_grad_(requires_grad)
