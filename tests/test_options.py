"""Options with PyTorch's names and meaning: values, dtypes, gradients and edges are PyTorch's."""

import numpy as np
import pytest

import tinygrad_lenet as tl

NAN, INF = np.nan, np.inf


def leaves(library, *arrays):
    """The arrays as leaves of one library that require gradients."""
    return [library.tensor(a, requires_grad=True) for a in arrays]


def gradients(outputs, xs, library):
    """The gradients of a weighted sum, so that no two elements count the same; zeros where none arrives."""
    outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
    total = sum(
        (y * library.tensor((1 + np.arange(np.prod(y.shape, dtype=int)) / 4).reshape(y.shape))).sum()
        for y in outputs
    )
    total.backward()
    return [np.zeros(x.shape) if x.grad is None else np.asarray(x.grad.detach().numpy()) for x in xs]


# Bounds that are tensors

X = np.array([0.0, 1, 2, 3, NAN, 1, 2, 5, -5, NAN, INF, -INF])
LOW = np.array([1.0, 1, 1, 1, 1, NAN, 2, 4, 4, 1, 0, 0])
HIGH = np.array([2.0, 2, 2, 2, 2, 2, 2, 3, 3, NAN, 1, 1])


@pytest.mark.parametrize("bounds", [("min",), ("max",), ("min", "max")])
@pytest.mark.parametrize("shape", [(12,), (3, 12), (1,)])
def test_bounds_of_clip_may_be_tensors(torch, bounds, shape):
    arrays = [np.broadcast_to(X, (3, 12)).copy(), *(np.resize({"min": LOW, "max": HIGH}[b], shape) for b in bounds)]
    found, expected = [], []
    for library, result in ((tl, found), (torch, expected)):
        x, *rest = leaves(library, *arrays)
        y = x.clip(**dict(zip(bounds, rest, strict=True)))
        result += [y.detach().numpy(), *gradients(y, [x, *rest], library)]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_bound_of_one_number_does_not_widen_floats_and_gets_its_gradient():
    x = tl.tensor([1.0, 2.0, 3.0])
    bound = tl.tensor(np.float64(1.5), requires_grad=True)
    y = tl.clip(x, bound, np.float64(2.5))
    y.sum().backward()
    assert y.dtype == np.float32
    assert bound.grad.dtype == np.float64
    assert bound.grad.item() == 1
