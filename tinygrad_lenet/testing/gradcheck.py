"""Is the gradient right? Central differences in float64 against what the graph gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..calculus import grad
from ..checks import Count, NonNegative, PositiveReal, function, listed, said
from ..core.signature import checked
from ..core.tensor import Tensor, to_array
from ..errors import ArgumentError, DTypeError, GradientError, ShapeError, foreign

Function = Callable[..., Any]
Arrays = Sequence[NDArray[Any]]
# How far a rounding of the outputs may reach: in units of the last place, of their root mean square times their number.
_ROUNDINGS = 16 * np.finfo(np.float64).eps
_PROJECTIONS = 4  # random directions for each input, in fast mode


class GradientCheckError(GradientError, AssertionError):
    """The recorded gradient and the numerical one differ; the message says where, and by how much."""

    caller = "gradcheck"  # a verdict, which begins with what is wrong: no door puts a name before it


def _outputs(fn: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What ``fn`` returns, one Tensor or several, without those that are no floats."""
    with foreign:
        found = fn(*inputs)
    several = list(found) if isinstance(found, (tuple, list)) else [found]
    for y in several:
        if not isinstance(y, Tensor):
            raise ArgumentError(
                f"the function fn must return a Tensor or a tuple of them, it returned a {type(y).__name__}"
            )
    return [y for y in several if y.dtype.kind == "f"]


def _values(fn: Function, arrays: Arrays) -> list[NDArray[Any]]:
    # Copies: a function may return a view of its input, which is about to change.
    return [np.array(y.numpy(), np.float64) for y in _outputs(fn, [Tensor(a) for a in arrays])]


def _slopes(fn: Function, arrays: Arrays, i: int, step: Any, index: Any, eps: float) -> list[NDArray[Any]]:
    """The difference quotient of each output for a step ``eps * step`` of ``arrays[i][index]``, both ways."""
    array, before = arrays[i], arrays[i][index].copy()
    array[index] = before + eps * step
    above = _values(fn, arrays)
    array[index] = before - eps * step
    below = _values(fn, arrays)
    array[index] = before
    with np.errstate(invalid="ignore"):  # inf - inf: NaN differs from everything
        return [np.asarray((a - b) / (2 * eps)) for a, b in zip(above, below, strict=True)]


def _float64(x: Any) -> NDArray[Any]:
    array = np.array(to_array(x) if isinstance(x, Tensor) else x)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _prepared(fn: Any, inputs: Any) -> list[NDArray[Any]]:
    """The inputs of a function as arrays."""
    function("fn", fn)
    if isinstance(inputs, (Tensor, np.ndarray)):
        raise ArgumentError("inputs must be a list of the function's arguments, got one tensor; write [x]")
    return _arrays("inputs", listed("inputs", inputs, "a list of the function's arguments"))


def _arrays(name: str, values: list[Any]) -> list[NDArray[Any]]:
    arrays = []
    for i, x in enumerate(values):
        try:
            # Lists of numbers are floats here, as they are for Tensors.
            arrays.append(_float64(x if isinstance(x, (Tensor, np.ndarray, np.generic)) else Tensor(x)))
        except DTypeError as error:
            raise DTypeError(f"{name}[{i}]: {error}") from None
        if arrays[-1].dtype.kind not in "fiub":
            raise DTypeError(f"{name}[{i}] must be an array of numbers, got {said(x)}")
    return arrays


@checked
def numerical_jacobian(fn: Function, inputs: Sequence[Any], eps: PositiveReal = 1e-6) -> Any:
    """All derivatives of ``fn`` by central differences, ``(f(x + eps) - f(x - eps)) / (2 eps)``, in float64.

    Args:
        fn: a function of Tensors that returns one Tensor or a tuple of them.
        inputs: arrays or Tensors; integers and booleans are passed on as they are, with derivatives of zero.
        eps: the step.

    Returns:
        For each input an array of the output's shape followed by the input's; if ``fn`` returns several, for each a
        list of these.

    Raises:
        DTypeError: an argument of another type.
        ArgumentError: as for :func:`numerical_gradient`.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet.testing import numerical_jacobian
    >>> numerical_jacobian(lambda x: x[:2] * x[1:], [[1.0, 2.0, 3.0]])[0].round(6)
    array([[2., 1., 0.],
           [0., 3., 2.]])
    """
    arrays = _prepared(fn, inputs)
    shapes = [y.shape for y in _values(fn, arrays)]
    jacobians = [[np.zeros(shape + a.shape) for a in arrays] for shape in shapes]
    for i, array in enumerate(arrays):
        for index in np.ndindex(array.shape) if array.dtype.kind == "f" else ():
            for jacobian, slope in zip(jacobians, _slopes(fn, arrays, i, 1.0, index, eps), strict=True):
                jacobian[i][(..., *index)] = slope
    return jacobians if len(shapes) != 1 else jacobians[0]


@checked
def numerical_gradient(
    fn: Function, inputs: Sequence[Any], weights: Sequence[NDArray[Any]] | None = None, eps: PositiveReal = 1e-6
) -> list[NDArray[Any]]:
    """The gradient of ``fn`` by central differences, ``(f(x + eps) - f(x - eps)) / (2 eps)``, in float64.

    Args:
        fn: a function of Tensors that returns one Tensor or a tuple of them.
        inputs: arrays or Tensors; integers and booleans are passed on as they are, with a gradient of zeros.
        weights: what to multiply each output with before all are summed up; 1 if None.
        eps: the step.

    Raises:
        DTypeError: an argument of another type.
        ShapeError: shapes that do not fit.
        ArgumentError: ``inputs`` is no list, or has nothing to differentiate for.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet.testing import numerical_gradient
    >>> numerical_gradient(lambda x: x * x, [[3.0, 4.0]])[0].round(6)
    array([6., 8.])
    """
    arrays = _prepared(fn, inputs)
    values = _values(fn, arrays)
    given = [1.0] * len(values) if weights is None else listed("weights", weights, "a list of arrays")
    factors = _arrays("weights", given)
    for w, y in zip(factors, values, strict=False):
        if w.dtype.kind not in "fiub" or (w.shape != y.shape and w.size != 1):
            raise ShapeError(f"weights must be numbers of the shape of the output, {y.shape}, got {said(w)}")
    if len(factors) != len(values):
        raise ShapeError(f"weights must be one for each of {len(values)} outputs, got {len(factors)}")
    gradients = [np.zeros(a.shape) for a in arrays]
    for i, array in enumerate(arrays):
        for index in np.ndindex(array.shape) if array.dtype.kind == "f" else ():
            slopes = _slopes(fn, arrays, i, 1.0, index, eps)
            gradients[i][index] = sum(float((s * w).sum()) for s, w in zip(slopes, factors, strict=True))
    return gradients


class _Options(NamedTuple):
    eps: float
    atol: float
    rtol: float
    fast: bool
    rng: np.random.Generator


@checked
def gradcheck(
    fn: Function,
    inputs: Sequence[Any],
    *,
    order: int = 1,
    eps: PositiveReal = 1e-6,
    atol: NonNegative = 1e-7,
    rtol: NonNegative = 1e-5,
    seed: Count = 0,
    fast: bool = False,
    raise_exception: bool = True,
) -> bool:
    """Compare the recorded gradient of ``fn`` with the numerical one, for every input of floats and every output.

    Each element of each output gets an upstream gradient of its own, drawn from ``seed``: equal ones hide errors. It is
    an error as well if

    - two calls with the same inputs differ;
    - inputs or upstream gradient are written to, or returned gradients share memory with these or with each other;
    - a gradient changes when the function or another gradient is computed afterwards;
    - column-major, strided or read-only inputs give another result (inputs of size zero are checked if they are given).

    Args:
        fn: a function of Tensors that returns one Tensor or a tuple of them.
        inputs: arrays or Tensors, taken in float64: a step of ``eps`` would drown in the rounding of float32. Integers
            and booleans are passed on as they are.
        order: 2 also checks the gradient of the gradient, with respect to the inputs and the upstream gradients.
        eps: the step of the central differences, whose error is about ``eps^2`` times the third derivative, plus what
            rounding of the outputs makes of it, which is allowed for.
        atol: the absolute error allowed.
        rtol: the relative error allowed.
        seed: of the upstream gradients, and of the directions of the fast mode.
        fast: compare along a few random directions of each input, not for each of its elements: for large inputs. Finds
            one wrong element among a million if it is wrong by more than about one percent.
        raise_exception: raise an error with the worst element, or else return False.

    Raises:
        DTypeError: an argument of another type.
        GradientCheckError: with the argument, the worst index, both values, and a hint if ``fn`` has a kink there.
        ArgumentError: ``order`` is neither 1 nor 2, or as for :func:`numerical_gradient`.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet.testing import gradcheck
    >>> gradcheck(lambda x, w: (x @ w).tanh(), [tl.randn(2, 3, generator=0), tl.randn(3, 2, generator=1)], order=2)
    True
    """
    if order not in (1, 2):
        raise ArgumentError(f"order must be 1 or 2, got {order}; a function may itself take a gradient")
    arrays = _prepared(fn, inputs)
    try:
        _check(fn, [a.copy() for a in arrays], _Options(eps, atol, rtol, fast, np.random.default_rng(seed)), "")
        if order > 1:
            _check_second(fn, arrays, _Options(eps, atol, rtol, fast, np.random.default_rng(seed)))
    except GradientCheckError:
        if raise_exception:
            raise
        return False
    return True


def _check(fn: Function, arrays: list[NDArray[Any]], options: _Options, which: str) -> None:
    base = _values(fn, arrays)
    if any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(base, _values(fn, arrays), strict=True)):
        raise GradientCheckError(
            f"{which}two calls of the function differ: it is not deterministic (dropout without a seed?)"
        )
    weights = [_weights(y.shape, options.rng) for y in base]
    _check_manners(fn, arrays, weights, which)
    for k, weight in enumerate(weights):
        where = f"{which}output {k}, " if len(weights) > 1 else which
        found = _gradients(fn, arrays, [w if i == k else None for i, w in enumerate(weights)])
        compare = _along if options.fast else _everywhere
        compare(_Output(fn, arrays, k, weight, base[k]), found, options, where)


def _weights(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    return np.asarray(rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape))


def _leaves(arrays: Arrays) -> list[Tensor]:
    """Tensors around just these arrays, however they lie in memory."""
    tensors = [Tensor._wrap(a) for a in arrays]
    for tensor in tensors:
        tensor.requires_grad = tensor.dtype.kind == "f"
    return tensors


def _pull(outputs: Sequence[Tensor], leaves: Sequence[Tensor], seeds: Sequence[Any], **options: Any) -> list[Any]:
    """The gradients of the leaves that require one; None where nothing flows."""
    wanted = [t for t in leaves if t.requires_grad]
    pairs = [(y, s) for y, s in zip(outputs, seeds, strict=True) if s is not None and y.requires_grad]
    if not pairs or not wanted:
        return [None] * len(wanted)
    ys, given = [y for y, _ in pairs], [s if isinstance(s, Tensor) else Tensor._wrap(s) for _, s in pairs]
    return list(grad(ys, wanted, given, allow_unused=True, **options))


def _gradients(fn: Function, arrays: Arrays, seeds: Sequence[Any]) -> list[NDArray[Any]]:
    """The recorded gradient for each array: zeros for integers, and where nothing flows."""
    leaves = _leaves(arrays)
    found = iter(_pull(_outputs(fn, leaves), leaves, seeds))
    gradients = [next(found) if t.requires_grad else None for t in leaves]
    return [np.zeros(a.shape) if g is None else g.numpy() for a, g in zip(arrays, gradients, strict=True)]


def _check_manners(fn: Function, arrays: list[NDArray[Any]], weights: list[NDArray[Any]], which: str) -> None:
    """What a gradient must keep to besides being right."""
    floats = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    leaves, before = _leaves(arrays), [a.copy() for a in (*arrays, *weights)]
    outputs = _outputs(fn, leaves)
    with np.errstate(all="ignore"):  # at another point, where a buffer that is used again would show
        _values(fn, [a * 0.9 if i in floats else a for i, a in enumerate(arrays)])
    found = _pull(outputs, leaves, weights, retain_graph=True)
    kept: list[Any] = [None if g is None else g.numpy().copy() for g in found]
    for g in found:
        if g is not None and (not isinstance(g, Tensor) or g.dtype != np.float64):
            raise GradientCheckError(f"{which}the gradient of a float64 tensor is {g.dtype}")
    again = _pull(outputs, leaves, [-2 * w for w in weights])
    for k, array in enumerate((*arrays, *weights)):
        if not np.array_equal(array, before[k], equal_nan=array.dtype.kind == "f"):
            what = f"argument {k}" if k < len(arrays) else "the upstream gradient"
            raise GradientCheckError(f"{which}{what} was written to")
    for i, g, copy, twice in zip(floats, found, kept, again, strict=True):
        if g is None:
            continue
        if not np.array_equal(g.numpy(), copy, equal_nan=True):
            raise GradientCheckError(
                f"{which}argument {i}: the gradient that was returned changed when another was computed: a buffer is "
                "used again"
            )
        _same(
            twice.numpy(),
            np.asarray(-2 * copy),
            f"{which}argument {i}: the gradient for twice the upstream gradient is not twice",
        )
        others = [(f"argument {k}", a) for k, a in enumerate(arrays)]
        others += [("the upstream gradient", w) for w in weights]
        others += [
            (f"the gradient of argument {k}", h.numpy())
            for k, h in zip(floats, found, strict=True)
            if h is not g and h is not None
        ]
        for name, other in others:
            if np.shares_memory(g.numpy(), other):
                raise GradientCheckError(f"{which}argument {i}: its gradient shares memory with {name}")
    expected = [y.numpy().copy() for y in outputs], [np.zeros(()) if c is None else c for c in kept]
    layouts: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
        "column-major": lambda a: np.array(a, order="F"),
        "strided": _strided,
        "read-only": _read_only,
    }
    for name, lay in layouts.items():
        laid = _leaves([lay(a) for a in arrays])
        try:
            ys = _outputs(fn, laid)
            gs = _pull(ys, laid, weights)
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            raise GradientCheckError(f"{which}with {name} inputs the function fails: {error}") from error
        for y, value in zip(ys, expected[0], strict=True):
            _same(y.numpy(), value, f"{which}with {name} inputs the function gives another result")
        for i, g, value in zip(floats, gs, expected[1], strict=True):
            _same(
                np.zeros(()) if g is None else g.numpy(),
                value,
                f"{which}with {name} inputs, the gradient of argument {i} is another",
            )


def _strided(a: NDArray[Any]) -> NDArray[Any]:
    """Every other element of a longer array, backwards."""
    return np.repeat(a[::-1], 2, axis=0)[::-2] if a.ndim else a


def _read_only(a: NDArray[Any]) -> NDArray[Any]:
    copy = a.copy()
    copy.flags.writeable = False
    return copy


def _same(found: NDArray[Any], expected: NDArray[Any], complaint: str) -> None:
    """Equal but for the order in which sums are rounded."""
    scale = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
    if found.shape != expected.shape or not np.allclose(found, expected, 1e-9, 1e-10 * scale, equal_nan=True):
        raise GradientCheckError(f"{complaint}: {found} in place of {expected}")


class _Output(NamedTuple):
    """One output of the function, with its upstream gradient."""

    fn: Function
    arrays: list[NDArray[Any]]
    number: int
    weight: NDArray[Any]
    value: NDArray[Any]

    def slope(self, i: int, step: Any, index: Any, eps: float) -> float:
        """The numerical derivative of the weighted sum in one direction."""
        return float((_slopes(self.fn, self.arrays, i, step, index, eps)[self.number] * self.weight).sum())

    def noise(self, eps: float) -> float:
        """What the rounding of the output can make of a difference quotient."""
        terms = self.value[np.isfinite(self.value)]
        return float(_ROUNDINGS * np.sqrt(np.sum(np.square(terms))) / eps)


def _everywhere(output: _Output, gradients: list[NDArray[Any]], options: _Options, where: str) -> None:
    """Compare each element of each gradient."""
    eps, atol, rtol = options.eps, options.atol + output.noise(options.eps), options.rtol
    for i, (array, actual) in enumerate(zip(output.arrays, gradients, strict=True)):
        if array.dtype.kind != "f":
            continue
        if actual.shape != array.shape:
            raise GradientCheckError(f"{where}argument {i} has shape {array.shape}, its gradient {actual.shape}")
        numerical = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            numerical[index] = output.slope(i, 1.0, index, eps)
        with np.errstate(invalid="ignore"):
            error = np.abs(actual - numerical) - rtol * np.abs(numerical)
        wrong = ~(error <= atol)  # NaN is wrong too
        if wrong.any():
            worst = np.argmax(np.where(np.isnan(error), np.inf, error))
            index = tuple(int(k) for k in np.unravel_index(worst, error.shape))
            raise GradientCheckError(
                f"{where}argument {i}, index {index}: the recorded gradient is {actual[index]:.9g}, the numerical one "
                f"{numerical[index]:.9g} (relative error {_relative(actual[index], numerical[index]):.2g}; "
                f"{int(wrong.sum())} of {wrong.size} elements differ)" + _hint(output, i, 1.0, index, eps)
            )


def _along(output: _Output, gradients: list[NDArray[Any]], options: _Options, where: str) -> None:
    """Compare the gradients' products with a few random directions."""
    for i, (array, actual) in enumerate(zip(output.arrays, gradients, strict=True)):
        for _ in range(_PROJECTIONS if array.dtype.kind == "f" and array.size else 0):
            step = _weights(array.shape, options.rng)
            expected, found = output.slope(i, step, ..., options.eps), float((actual * step).sum())
            allowed = options.atol + output.noise(options.eps) + options.rtol * abs(expected)
            if not abs(found - expected) <= allowed:
                raise GradientCheckError(
                    f"{where}argument {i}, along a random direction: the recorded gradient gives {found:.9g}, "
                    f"differences {expected:.9g} (relative error {_relative(found, expected):.2g}; without fast=True "
                    "the wrong elements are named)" + _hint(output, i, step, ..., options.eps)
                )


def _relative(found: Any, expected: Any) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        return float(abs(found - expected) / max(abs(expected), 1e-300))


def _hint(output: _Output, i: int, step: Any, index: Any, eps: float) -> str:
    """Whether the numerical gradient may be the one that is wrong."""
    array, sides = output.arrays[i], []
    before = array[index].copy()
    for sign in (-1, 1):
        array[index] = before + sign * eps * step
        with np.errstate(invalid="ignore"):
            difference = _values(output.fn, output.arrays)[output.number] - output.value
        sides.append(float((difference * output.weight).sum()) * sign / eps)
    array[index] = before
    left, right = sides
    if abs(right - left) > 1e-3 * max(abs(left), abs(right)) + 10 * output.noise(eps):
        return f"; the slope is {left:.6g} on the left and {right:.6g} on the right: the point sits on a kink or a tie"
    return ""


def _check_second(fn: Function, arrays: list[NDArray[Any]], options: _Options) -> None:
    floats = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    weights = [_weights(y.shape, options.rng) for y in _values(fn, arrays)]

    def gradients(*values: Tensor) -> tuple[Tensor, ...]:
        inputs, upstream = list(values[: len(arrays)]), list(values[len(arrays) :])
        for i in floats:  # a numerical step gives tensors that require nothing
            inputs[i].requires_grad = True
        found = _pull(_outputs(fn, inputs), inputs, upstream, create_graph=True)
        return tuple(inputs[i] * 0 if g is None else g for i, g in zip(floats, found, strict=True))

    # Recorded or not, the first gradient is the same.
    plain = _gradients(fn, arrays, weights)
    for i, g in zip(floats, gradients(*(Tensor(a) for a in (*arrays, *weights))), strict=True):
        _same(g.numpy(), plain[i], f"argument {i}: with create_graph=True the gradient is another")
    # The numbers are differences of what was rounded more often: the allowance grows with the order.
    wider = options._replace(atol=10 * options.atol, rtol=10 * options.rtol)
    _check(gradients, [*arrays, *weights], wider, "second order: ")
