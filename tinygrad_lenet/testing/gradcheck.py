"""Check gradients: compare the recorded ones with central differences in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calculus import gradients
from ..checks import Count, Function, NonNegative, PositiveReal, listed
from ..core.python_object import numbers
from ..core.signature import checked
from ..core.tensor import Tensor
from ..errors import ArgumentError, GradientError, foreign

Arrays = Sequence[NDArray[Any]]
# The largest rounding error of an output, in units of the last place of its Euclidean norm.
_ROUNDINGS = 16 * np.finfo(np.float64).eps
_PROJECTIONS = 4  # random directions for each input, in fast mode
_LAYOUTS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {  # the same values, in other memory
    "column-major": partial(np.array, order="F"),
    "strided": lambda a: np.repeat(a[::-1], 2, axis=0)[::-2] if a.ndim else a,
    "read-only": lambda a: np.broadcast_to(a, a.shape),
}


class GradientCheckError(GradientError, AssertionError):
    """The recorded and the numerical gradient differ; the message says where and by how much."""

    caller = "gradcheck"  # the message begins with the result: no function name goes before it


def _outputs(fn: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of ``fn`` that are floats, as a list."""
    with foreign:
        found = fn(*inputs)
    several = list(found) if isinstance(found, (tuple, list)) else [found]
    for y in several:
        if not isinstance(y, Tensor):
            raise ArgumentError(f"the function fn must return a Tensor or a tuple of them, got a {type(y).__name__}")
    return [y for y in several if y.dtype.kind == "f"]


def _values(fn: Function, arrays: Arrays) -> list[NDArray[Any]]:
    # Copies: a function may return a view of its input, which changes later.
    return [np.array(y.numpy(), np.float64) for y in _outputs(fn, [Tensor(a) for a in arrays])]


def _shifted(fn: Function, arrays: Arrays, i: int, index: Any, step: Any) -> list[NDArray[Any]]:
    """The outputs of ``fn`` after adding ``step`` to ``arrays[i][index]``."""
    shifted = arrays[i].copy()
    shifted[index] += step
    return _values(fn, [*arrays[:i], shifted, *arrays[i + 1 :]])


def _slopes(fn: Function, arrays: Arrays, i: int, index: Any, step: Any, eps: float) -> list[NDArray[Any]]:
    """The central difference quotient of each output, along ``step`` of ``arrays[i][index]``."""
    above, below = (_shifted(fn, arrays, i, index, sign * eps * step) for sign in (1, -1))
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, which differs from everything
        return [np.asarray((a - b) / (2 * eps)) for a, b in zip(above, below, strict=True)]


def _all_slopes(fn: Function, arrays: Arrays, eps: float) -> Iterator[tuple[int, Any, list[NDArray[Any]]]]:
    """The number and index of each element of the arrays of floats, and the slopes of the outputs for it."""
    for i, array in enumerate(arrays):
        for index in np.ndindex(array.shape) if array.dtype.kind == "f" else ():
            yield i, index, _slopes(fn, arrays, i, index, 1.0, eps)


def _inputs(inputs: Any) -> list[NDArray[Any]]:
    """Copies of a function's arguments as arrays, with floats as float64."""
    if isinstance(inputs, (Tensor, np.ndarray)):
        raise ArgumentError("inputs must be a list of the function's arguments, got one tensor; write [x]")
    arrays = []
    for i, x in enumerate(listed("inputs", inputs, "a list of the function's arguments")):
        array = np.array(numbers(f"inputs[{i}]", x))
        whole = array.dtype.kind == "b" or (array.dtype.kind in "iu" and hasattr(x, "dtype"))  # unlike a list
        arrays.append(array if whole else array.astype(np.float64))
    return arrays


@checked
def numerical_jacobian(fn: Function, inputs: Sequence[Any], eps: PositiveReal = 1e-6) -> Any:
    """All derivatives of ``fn`` by central differences, ``(f(x + eps) - f(x - eps)) / (2 eps)``, in float64.

    Args:
        fn: a function of Tensors that returns one Tensor or a tuple of them.
        inputs: arrays or Tensors. Integers and booleans are passed on unchanged; their derivatives are zero.
        eps: the step.

    Returns:
        A list with an array for each input, whose shape is the output's followed by the input's. If ``fn`` returns
        several outputs, a list of such lists.

    Raises:
        DTypeError: an argument has the wrong type.
        ArgumentError: as for :func:`numerical_gradient`.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet.testing import numerical_jacobian
    >>> numerical_jacobian(lambda x: x[:2] * x[1:], [[1.0, 2.0, 3.0]])[0].round(6)
    array([[2., 1., 0.],
           [0., 3., 2.]])
    """
    arrays = _inputs(inputs)
    jacobians = [[np.zeros(y.shape + a.shape) for a in arrays] for y in _values(fn, arrays)]
    for i, index, slopes in _all_slopes(fn, arrays, eps):
        for jacobian, slope in zip(jacobians, slopes, strict=True):
            jacobian[i][(..., *index)] = slope
    return jacobians if len(jacobians) != 1 else jacobians[0]


@checked
def numerical_gradient(fn: Function, inputs: Sequence[Any], eps: PositiveReal = 1e-6) -> list[NDArray[Any]]:
    """The gradient of the sum of all outputs of ``fn`` by central differences, in float64.

    Args:
        fn: a function of Tensors that returns one Tensor or a tuple of them.
        inputs: arrays or Tensors. Integers and booleans are passed on unchanged; their gradients are zero.
        eps: the step.

    Raises:
        DTypeError: an argument has the wrong type.
        ArgumentError: ``inputs`` is not a list, or ``fn`` does not return Tensors.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet.testing import numerical_gradient
    >>> numerical_gradient(lambda x: x * x, [[3.0, 4.0]])[0].round(6)
    array([6., 8.])
    """
    arrays = _inputs(inputs)
    found = [np.zeros(a.shape) for a in arrays]
    for i, index, slopes in _all_slopes(fn, arrays, eps):
        found[i][index] = sum(float(slope.sum()) for slope in slopes)
    return found


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

    Each element of each output gets its own random upstream gradient: equal ones would hide errors. The check also
    fails if

    - two calls with the same inputs return different results;
    - an input or the upstream gradient is written to, or a gradient shares memory with one of these or with another;
    - a gradient changes when the function is called again or another gradient is computed;
    - column-major, strided or read-only inputs lead to another result.

    Empty inputs are checked only if you pass them.

    Args:
        fn: a function of Tensors that returns one Tensor or a tuple of them.
        inputs: arrays or Tensors. Floats become float64: in float32, rounding would hide a step of ``eps``. Integers
            and booleans are passed on unchanged.
        order: 2 also checks the gradient of the gradient, with respect to the inputs and the upstream gradients.
        eps: the step of the central differences. Their error is about ``eps^2`` times the third derivative, plus the
            rounding error of the outputs divided by ``eps``, for which the check makes an allowance.
        atol: the absolute error allowed.
        rtol: the relative error allowed.
        seed: the seed of the upstream gradients, and of the directions in fast mode.
        fast: compare along a few random directions of each input instead of at each element; for large inputs. This
            finds one wrong element among a million if its error is more than about one percent.
        raise_exception: raise an error that names the worst element; otherwise return False.

    Raises:
        DTypeError: an argument has the wrong type.
        GradientCheckError: the check failed. The message has the argument, the index of the worst element, both
            values, and a hint if ``fn`` has a kink there.
        ArgumentError: ``order`` is neither 1 nor 2, or as for :func:`numerical_gradient`.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet.testing import gradcheck
    >>> gradcheck(lambda x, w: (x @ w).tanh(), [tl.randn(2, 3, generator=0), tl.randn(3, 2, generator=1)], order=2)
    True
    """
    if order not in (1, 2):
        raise ArgumentError(f"order must be 1 or 2, got {order}; a function may itself take a gradient")
    arrays = _inputs(inputs)
    check = _Check(fn, [a.copy() for a in arrays], eps, atol, rtol, fast, np.random.default_rng(seed))
    try:
        check.run()
        if order > 1:
            replace(check, arrays=arrays, rng=np.random.default_rng(seed)).second_order().run()
    except GradientCheckError as error:
        if raise_exception:
            raise error.with_traceback(None)  # noqa: B904  # the same error, without the lines of this module
        return False
    return True


def _upstream(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    """Random numbers of either sign, none close to zero."""
    return np.asarray(rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape))


def _leaves(arrays: Arrays) -> list[Tensor]:
    """Tensors that share the memory of the arrays, with its layout."""
    tensors = [Tensor._wrap(a) for a in arrays]
    for tensor in tensors:
        tensor.requires_grad = tensor.dtype.kind == "f"
    return tensors


def _pull(outputs: Sequence[Tensor], leaves: Sequence[Tensor], seeds: Sequence[Any], **options: bool) -> list[Tensor]:
    """The recorded gradient of each leaf of floats."""
    wrapped = [Tensor._wrap(seed) if isinstance(seed, np.ndarray) else seed for seed in seeds]
    return gradients(outputs, [t for t in leaves if t.requires_grad], wrapped, **options)


@dataclass
class _Check:
    """The check of a function at one point."""

    fn: Function
    arrays: list[NDArray[Any]]
    eps: float
    atol: float
    rtol: float
    fast: bool
    rng: np.random.Generator
    order: str = ""  # the beginning of messages

    def __post_init__(self) -> None:
        self.floats = [i for i, a in enumerate(self.arrays) if a.dtype.kind == "f"]

    def run(self) -> None:
        """Raise a GradientCheckError if anything is wrong."""
        values, again = (_values(self.fn, self.arrays) for _ in range(2))
        if any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(values, again, strict=True)):
            raise self.error("two calls of the function differ: it is not deterministic (dropout without a seed?)")
        upstream = [_upstream(y.shape, self.rng) for y in values]
        self.check_memory(values, upstream)
        for k in range(len(values)):
            leaves = _leaves(self.arrays)
            seeds = [w if i == k else None for i, w in enumerate(upstream)]
            for i, gradient in zip(self.floats, _pull(_outputs(self.fn, leaves), leaves, seeds), strict=True):
                where = f"output {k}, argument {i}" if len(values) > 1 else f"argument {i}"
                self.compare(gradient.numpy(), i, k, values[k], upstream[k], where)

    def error(self, message: str) -> GradientCheckError:
        """The error to raise."""
        return GradientCheckError(self.order + message)

    def same(self, found: NDArray[Any], expected: NDArray[Any], complaint: str) -> None:
        """Raise unless two arrays are equal, up to the order in which sums are rounded."""
        scale = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
        if found.shape != expected.shape or not np.allclose(found, expected, 1e-9, 1e-10 * scale, equal_nan=True):
            raise self.error(f"{complaint}: got {found}, expected {expected}")

    def check_memory(self, values: Arrays, upstream: Arrays) -> None:
        """Raise if memory is overwritten, shared or reused, or if a result depends on the layout of the inputs."""
        memory = {f"argument {i}": a for i, a in enumerate(self.arrays)}
        memory |= {f"the upstream gradient of output {k}": w for k, w in enumerate(upstream)}
        before = {name: array.copy() for name, array in memory.items()}
        leaves = _leaves(self.arrays)
        outputs = _outputs(self.fn, leaves)
        with np.errstate(all="ignore"):  # another point: if the function reuses a buffer, the gradient will be wrong
            _values(self.fn, [a * 0.9 if a.dtype.kind == "f" else a for a in self.arrays])
        found = [g.numpy() for g in _pull(outputs, leaves, upstream)]
        kept = [g.copy() for g in found]
        doubled = [g.numpy() for g in _pull(outputs, leaves, [-2 * w for w in upstream])]
        for name, array in memory.items():
            if not np.array_equal(array, before[name], equal_nan=True):
                raise self.error(f"{name} was written to")
        memory |= {f"the gradient of argument {i}": g for i, g in zip(self.floats, found, strict=True)}
        for i, g, copy, twice in zip(self.floats, found, kept, doubled, strict=True):
            if not np.array_equal(g, copy, equal_nan=True):
                raise self.error(f"argument {i}: its gradient changed with the next one: a buffer is used again")
            linear = "the gradient is not proportional to the upstream gradient (a rule must be linear in g)"
            self.same(twice, -2 * copy, f"argument {i}: {linear}")
            for name, other in memory.items():
                if other is not g and np.shares_memory(g, other):
                    raise self.error(f"argument {i}: its gradient shares memory with {name}")
        for layout, arrange in _LAYOUTS.items():
            leaves = _leaves([arrange(a) for a in self.arrays])
            try:
                outputs = _outputs(self.fn, leaves)
                rearranged = _pull(outputs, leaves, upstream)
            except (ValueError, TypeError, IndexError, RuntimeError) as error:
                raise self.error(f"with {layout} inputs the function fails: {error}") from error
            for y, value in zip(outputs, values, strict=True):
                self.same(y.numpy(), value, f"with {layout} inputs the function returns another result")
            for i, gradient, value in zip(self.floats, rearranged, kept, strict=True):
                self.same(gradient.numpy(), value, f"with {layout} inputs the gradient of argument {i} differs")

    def compare(
        self, gradient: NDArray[Any], i: int, k: int, value: NDArray[Any], upstream: NDArray[Any], where: str
    ) -> None:
        """Raise if the gradient of input i differs from the slopes of output k."""
        eps, shape = self.eps, self.arrays[i].shape
        steps: list[tuple[Any, Any]] = [(index, 1.0) for index in np.ndindex(shape)]
        if self.fast:
            steps = [(..., _upstream(shape, self.rng)) for _ in range(_PROJECTIONS)] if gradient.size else []
        slopes = [_slopes(self.fn, self.arrays, i, index, step, eps)[k] for index, step in steps]
        numerical = np.array([float((slope * upstream).sum()) for slope in slopes])
        recorded = np.array([float((gradient[index] * step).sum()) for index, step in steps])
        finite = value[np.isfinite(value)]
        noise = float(_ROUNDINGS * np.sqrt(np.sum(np.square(finite))) / eps)  # of the slopes, by rounding
        with np.errstate(all="ignore"):
            error = np.abs(recorded - numerical)
            ratio = recorded / numerical
            excess = error - self.rtol * np.abs(numerical)
            relative = error / np.maximum(np.abs(numerical), 1e-300)
        wrong = ~(excess <= self.atol + noise)  # NaN is wrong too
        if not wrong.any():
            return
        at = np.argmax(np.where(np.isnan(excess), np.inf, excess))
        index, step = steps[at]
        place, count = f"index {index}", f"{int(wrong.sum())} of {wrong.size} elements differ"
        if self.fast:
            place, count = "along a random direction", "without fast=True the wrong elements are named"
        below, above = (_shifted(self.fn, self.arrays, i, index, sign * eps * step)[k] for sign in (-1, 1))
        with np.errstate(invalid="ignore"):
            left, right = (float((change * upstream).sum()) / eps for change in (value - below, above - value))
        hint = ""
        if abs(right - left) > 1e-3 * max(abs(left), abs(right)) + 10 * noise:
            hint = f"; the slope is {left:.6g} on the left and {right:.6g} on the right: the point is a kink or a tie"
        elif wrong.all() and np.ptp(ratio) < 1e-3 * abs(ratio[at]):
            hint = f"; it is {ratio[at]:.4g} times the numerical one everywhere: is a sign or a factor wrong?"
        raise self.error(
            f"{where}, {place}: the recorded gradient is {recorded[at]:.9g}, the numerical one {numerical[at]:.9g} "
            f"(relative error {relative[at]:.2g}; {count}){hint}"
        )

    def second_order(self) -> _Check:
        """The check of the gradient as a function of the inputs and the upstream gradients."""
        count = len(self.arrays)
        upstream = [_upstream(y.shape, self.rng) for y in _values(self.fn, self.arrays)]

        def gradient(*values: Tensor) -> tuple[Tensor, ...]:
            for i in self.floats:  # for a numerical slope, tensors come without
                values[i].requires_grad = True
            return tuple(_pull(_outputs(self.fn, values[:count]), values[:count], values[count:], record=True))

        leaves = _leaves(self.arrays)
        plain = _pull(_outputs(self.fn, leaves), leaves, upstream)
        recorded = gradient(*(Tensor(a) for a in (*self.arrays, *upstream)))
        for i, g, expected in zip(self.floats, recorded, plain, strict=True):
            self.same(g.numpy(), expected.numpy(), f"argument {i}: with create_graph=True the gradient differs")
        # Ten times the tolerance: second differences round more.
        arrays, atol, rtol = [*self.arrays, *upstream], 10 * self.atol, 10 * self.rtol
        return replace(self, fn=gradient, arrays=arrays, atol=atol, rtol=rtol, order="second order: ")
