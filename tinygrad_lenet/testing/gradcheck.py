"""Is the gradient right? Central differences in float64 against what the graph gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calculus import grad
from ..errors import GradientError
from ..tensor import Tensor

Function = Callable[..., Any]


class GradientCheckError(GradientError, AssertionError):
    """The recorded gradient and the numerical one differ; the message says where, and by how much."""


def _outputs(fn: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What ``fn`` returns, one Tensor or several, without those that are no floats."""
    found = fn(*inputs)
    return [y for y in (found if isinstance(found, (tuple, list)) else [found]) if y.dtype.kind == "f"]


def _weighted(fn: Function, arrays: Sequence[NDArray[Any]], weights: Sequence[NDArray[Any]]) -> float:
    """The outputs' elements, each times a weight of its own, summed up: one number that depends on all of them."""
    outputs = _outputs(fn, [Tensor(a) for a in arrays])
    return sum(float((y.numpy() * w).sum()) for y, w in zip(outputs, weights, strict=True))


def numerical_gradient(
    fn: Function,
    inputs: Sequence[Any],
    weights: Sequence[NDArray[Any]] | None = None,
    eps: float = 1e-6,
) -> list[NDArray[Any]]:
    """The gradient of ``fn`` by central differences, ``(f(x + eps) - f(x - eps)) / (2 eps)``, in float64.

    Args:
        fn: a function of Tensors that returns one Tensor or a tuple of them.
        inputs: arrays or Tensors; integers and booleans are passed on as they are, with a gradient of zeros.
        weights: what to multiply each output with before all are summed up; 1 if None.
        eps: the step.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet.testing import numerical_gradient
    >>> numerical_gradient(lambda x: x * x, [[3.0, 4.0]])[0].round(6)
    array([6., 8.])
    """
    arrays = [_float64(x) for x in inputs]
    if weights is None:
        weights = [np.ones(y.shape) for y in _outputs(fn, [Tensor(a) for a in arrays])]
    gradients = []
    for array in arrays:
        gradient = np.zeros(array.shape)
        for index in np.ndindex(array.shape) if array.dtype.kind == "f" else ():
            value = array[index]
            array[index] = value + eps
            above = _weighted(fn, arrays, weights)
            array[index] = value - eps
            below = _weighted(fn, arrays, weights)
            array[index] = value
            gradient[index] = (above - below) / (2 * eps)
        gradients.append(gradient)
    return gradients


def _float64(x: Any) -> NDArray[Any]:
    array = np.array(x)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def gradcheck(
    fn: Function,
    inputs: Sequence[Any],
    *,
    order: int = 1,
    eps: float = 1e-6,
    atol: float = 1e-7,
    rtol: float = 1e-5,
    seed: int = 0,
    raise_exception: bool = True,
) -> bool:
    """Compare the recorded gradient of ``fn`` with the numerical one, for every input of floats, all outputs together.

    Each element of each output gets an upstream gradient of its own, drawn from ``seed``: equal ones hide errors.

    Args:
        fn: a function of Tensors that returns one Tensor or a tuple of them.
        inputs: arrays or Tensors, taken in float64.
        order: 2 also checks the gradient of the gradient, with respect to the inputs and the upstream gradients.
        eps: the step of the central differences.
        atol: the absolute error allowed.
        rtol: the relative error allowed.
        seed: of the upstream gradients.
        raise_exception: raise an error with the worst element, or else return False.

    Raises:
        GradientCheckError: with the argument, the worst index, both values, and a hint where ``fn`` has a kink there or
            is not deterministic.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet.testing import gradcheck
    >>> gradcheck(lambda x, w: (x @ w).tanh(), [tl.randn(2, 3, generator=0), tl.randn(3, 2, generator=1)], order=2)
    True
    """
    try:
        _check(fn, [_float64(x) for x in inputs], eps, atol, rtol, np.random.default_rng(seed), "")
        if order > 1:
            _check_second(fn, [_float64(x) for x in inputs], eps, atol, rtol, np.random.default_rng(seed))
    except GradientCheckError:
        if raise_exception:
            raise
        return False
    return True


def _check(
    fn: Function,
    arrays: list[NDArray[Any]],
    eps: float,
    atol: float,
    rtol: float,
    rng: np.random.Generator,
    which: str,
) -> None:
    before = [a.copy() for a in arrays]
    tensors = [Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    outputs = _outputs(fn, tensors)
    weights = [rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1, 1], y.shape) for y in outputs]
    kept = [w.copy() for w in weights]
    roots = [(y, w) for y, w in zip(outputs, weights, strict=True) if y.requires_grad]
    wanted = [t for t in tensors if t.requires_grad]
    found: tuple[Tensor | None, ...] = (None,) * len(wanted)
    if roots and wanted:
        found = grad([y for y, _ in roots], wanted, [w for _, w in roots], allow_unused=True)
    for old, new in zip([*before, *kept], [*(t.numpy() for t in tensors), *weights], strict=True):
        if not np.array_equal(old, new, equal_nan=old.dtype.kind == "f"):
            raise GradientCheckError(f"{which}an input or the upstream gradient was written to")
    numerical = numerical_gradient(fn, before, weights, eps)
    gradients = iter(found)
    for i, tensor in enumerate(tensors):
        if not tensor.requires_grad:
            continue
        gradient = next(gradients)
        actual = np.zeros(tensor.shape) if gradient is None else gradient.numpy()
        if actual.shape != tensor.shape or actual.dtype != tensor.dtype:
            raise GradientCheckError(
                f"{which}argument {i} is {tensor.dtype} of shape {tensor.shape}, its gradient {actual.dtype} of "
                f"shape {actual.shape}"
            )
        error = np.abs(actual - numerical[i]) - rtol * np.abs(numerical[i])
        wrong = ~(error <= atol)  # NaN is wrong too
        if wrong.any():
            index = tuple(
                int(k) for k in np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
            )
            expected = numerical[i][index]
            relative = abs(actual[index] - expected) / max(abs(expected), 1e-300)
            raise GradientCheckError(
                f"{which}argument {i}, index {index}: the recorded gradient is {actual[index]:.9g}, the numerical one "
                f"{expected:.9g} (relative error {relative:.2g}; {int(wrong.sum())} of {wrong.size} elements differ)"
                + _hint(fn, before, weights, i, index, eps)
            )


def _hint(
    fn: Function, arrays: list[NDArray[Any]], weights: list[NDArray[Any]], i: int, index: tuple[int, ...], eps: float
) -> str:
    """Why the numerical gradient may be the one that is wrong."""
    here = _weighted(fn, arrays, weights)
    if here != _weighted(fn, arrays, weights):
        return "; two calls of the function differ: it is not deterministic (dropout without a seed?)"
    value = arrays[i][index]
    arrays[i][index] = value + eps
    right = (_weighted(fn, arrays, weights) - here) / eps
    arrays[i][index] = value - eps
    left = (here - _weighted(fn, arrays, weights)) / eps
    arrays[i][index] = value
    if abs(right - left) > 1e-3 * max(abs(left), abs(right)):
        return f"; the slope is {left:.6g} on the left and {right:.6g} on the right: the point sits on a kink or a tie"
    return ""


def _check_second(
    fn: Function, arrays: list[NDArray[Any]], eps: float, atol: float, rtol: float, rng: np.random.Generator
) -> None:
    floats = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    shapes = [y.shape for y in _outputs(fn, [Tensor(a) for a in arrays])]
    weights = [rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape) for shape in shapes]

    def gradients(*values: Tensor) -> tuple[Tensor, ...]:
        inputs, upstream = list(values[: len(arrays)]), list(values[len(arrays) :])
        for i in floats:  # a numerical step gives tensors that require nothing
            inputs[i].requires_grad = True
        pairs = [(y, w) for y, w in zip(_outputs(fn, inputs), upstream, strict=True) if y.requires_grad]
        if not pairs:
            return tuple(inputs[i] * 0 for i in floats)
        found = grad(
            [y for y, _ in pairs],
            [inputs[i] for i in floats],
            [w for _, w in pairs],
            create_graph=True,
            allow_unused=True,
        )
        return tuple(inputs[i] * 0 if g is None else g for i, g in zip(floats, found, strict=True))

    # The numbers are differences of differences of rounding errors: the allowance grows with the order.
    _check(gradients, [*arrays, *weights], eps, 10 * atol, 10 * rtol, rng, "second order: ")
