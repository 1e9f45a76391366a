"""NumPy's functions on Tensors, conversion to arrays, memory shared with NumPy and PyTorch, copies and pickles."""

import copy
import inspect
import operator
import pickle

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn
from tinygrad_lenet.protocols import FACTS, FUNCTIONS, UFUNCS

A = np.random.default_rng(0).uniform(0.2, 0.8, (3, 3))
B = np.random.default_rng(1).uniform(0.2, 0.8, (3, 3))
MASK = B > 0.5
# Arguments after the first, where it takes more; as a user of NumPy would write them.
ARGUMENTS = {
    "reshape": [(9,)], "moveaxis": [0, 1], "swapaxes": [0, 1], "expand_dims": [0], "broadcast_to": [(2, 3, 3)],
    "roll": [1, 0], "tile": [(2, 1)], "repeat": [2, 0], "split": [3, 1], "take_along_axis": [np.argsort(A), 1],
    "norm": [1, 0], "clip": [0.3, 0.6], "full_like": [7.0], "solve": [B], "pad": [((1, 0), (0, 2))],
    **{name: [B] for name in ("dot", "inner", "outer", "kron", "tensordot")},
}  # fmt: skip
FIRST = {"concatenate": [A, B], "stack": [A, B], "squeeze": A[None]}
INTEGERS = {np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.invert}


def plain(value):
    return [np.asarray(v) for v in (value if isinstance(value, (tuple, list)) else [value])]


def agree(found, expected):
    found = found if isinstance(found, (tuple, list)) else [found]
    assert all(isinstance(t, tl.Tensor) for t in found)
    for a, b in zip(plain([t.detach() for t in found]), plain(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=1e-12)


def tracked(value):
    if isinstance(value, list) and isinstance(value[0], np.ndarray):
        return [tracked(v) for v in value]
    return tl.tensor(value, requires_grad=value.dtype.kind == "f")


@pytest.mark.parametrize("ufunc", UFUNCS, ids=lambda ufunc: ufunc.__name__)
def test_ufuncs_of_tensors_are_ours(ufunc):
    args = [MASK, ~MASK] if ufunc in INTEGERS else [A, B]
    args = args[: ufunc.nin]
    agree(ufunc(*map(tracked, args)), ufunc(*args))
    if ufunc.nin == 2:
        agree(ufunc(tracked(args[0]), args[1]), ufunc(*args))
        agree(ufunc(args[0], tracked(args[1])), ufunc(*args))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_functions_of_tensors_are_ours(function):
    name = function.__name__
    if name == "einsum":
        agree(np.einsum("ij,jk->ik", tracked(A), B), A @ B)
        return
    if name == "where":
        agree(np.where(MASK, tracked(A), 0.0), np.where(MASK, A, 0.0))
        agree(np.where(tl.tensor(MASK), A, tracked(B)), np.where(MASK, A, B))
        return
    first, rest = FIRST.get(name, A @ A.T), ARGUMENTS.get(name, [])
    agree(function(tracked(first), *rest), function(first, *rest))
    parameters = inspect.signature(function).parameters if name not in ("concatenate", "dot", "inner") else {}
    if "axis" in parameters and not rest:
        axis = 0 if name == "squeeze" else 1
        agree(function(tracked(first), axis=axis), function(first, axis=axis))
        agree(function(tracked(first), 0), function(first, 0))
    if "keepdims" in parameters and not rest:
        agree(function(tracked(first), axis=1, keepdims=True), function(first, axis=1, keepdims=True))


def test_gradients_flow_through_functions_of_numpy():
    x = tracked(A)
    np.sum(np.where(MASK, np.exp(x), 0) * np.linalg.inv(x)).backward()
    y = tracked(A)
    (tl.where(MASK, y.exp(), 0) * tl.linalg.inv(y)).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.grad.numpy())


@pytest.mark.parametrize(
    "function", sorted((f for f in FACTS if "save" not in f.__name__), key=str), ids=lambda f: f.__name__
)
def test_what_only_tells_something_is_numpys(function):
    two = {"isclose", "allclose", "array_equal", "array_equiv", "digitize"}
    name = function.__name__
    if "share" in name:
        x = tl.tensor(A)
        assert function(x, x.detach())
        assert not function(x, A)
        return
    first = np.sort(A.ravel()) if name in ("searchsorted", "digitize") else (A * 9).astype(int).ravel()
    first = A if name in two - {"digitize"} else first
    rest = {"can_cast": ["f8"], "searchsorted": [0.5], "digitize": [first]}.get(name, [first] if name in two else [])
    found, expected = function(tl.tensor(first), *rest), function(first, *rest)
    for a, b in zip(plain(found), plain(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not isinstance(found, tl.Tensor)


def test_tensors_are_saved_as_arrays(tmp_path):
    np.save(tmp_path / "x.npy", tl.tensor(A))
    np.savez(tmp_path / "x.npz", x=tl.tensor(A, requires_grad=True))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), A)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["x"], A)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (np.asarray, tl.GradientError, r"requires a gradient, which an array would lose; use tensor.numpy\(\)"),
        (lambda t: np.array([t, t]), tl.GradientError, "an array would lose"),
        (lambda t: tl.tensor([t[0, 0], 1.0]), tl.GradientError, r"a list holds tensors.*tl.stack"),
        (lambda t: tl.exp([t[0], t[1]]), tl.GradientError, r"a list holds tensors.*tl.stack"),
        (np.cbrt, tl.UnsupportedError, "np.cbrt has no counterpart with a gradient here"),
        (lambda t: np.quantile(t, 0.5), tl.UnsupportedError, r"np.quantile has no counterpart.*tensor.numpy\(\)"),
        (np.linalg.eigh, tl.UnsupportedError, "np.linalg.eigh has no counterpart"),
        (np.add.reduce, tl.UnsupportedError, "np.add.reduce has no counterpart here; see tl.sum"),
        (lambda t: np.sum(t, dtype="f4"), tl.UnsupportedError, r"np.sum of a Tensor.*got dtype; .*\.astype"),
        (lambda t: np.sum(t, 0, None, None, True), tl.UnsupportedError, "got 5 arguments by position"),
        (lambda t: np.exp(t, where=MASK), tl.UnsupportedError, "got where"),
        (lambda t: np.exp(t, out=A.copy()), tl.GradientError, r"np.exp: out= would go unrecorded"),
        (lambda t: operator.iadd(A.copy(), t), tl.GradientError, r"total = total \+ tensor"),
        (np.from_dlpack, tl.GradientError, r"share tensor.detach\(\)"),
        (lambda t: tl.from_dlpack([1.0]), tl.ArgumentError, r"a list has no __dlpack__; use tl.tensor"),
        (lambda t: tl.from_dlpack(np.ones(2, complex)), tl.DTypeError, "complex128"),
        (tl.from_dlpack, tl.GradientError, "requires a gradient"),
    ],
)
def test_what_would_lose_a_gradient_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call(tracked(A))


def test_without_a_gradient_a_tensor_is_an_array_wherever_one_is_wanted():
    x = tl.tensor(A)
    np.testing.assert_array_equal(np.asarray(x), A)
    assert np.shares_memory(np.asarray(x), x.numpy())
    assert not np.asarray(x).flags.writeable
    assert np.array(x).flags.writeable
    total = np.zeros((3, 3))
    total += x
    np.testing.assert_array_equal(total, A)
    np.testing.assert_array_equal(np.array([x, x]), [A, A])
    with tl.no_grad():
        np.testing.assert_array_equal(np.asarray(tracked(A)), A)


# DLPack


def test_numpy_shares_the_memory_both_ways():
    x = tl.tensor(A)
    seen = np.from_dlpack(x)
    x[0, 0] = 9
    assert seen[0, 0] == 9
    array = A.copy()
    y = tl.from_dlpack(array)
    array[1, 1] = 7
    assert y[1, 1].item() == 7
    if np.lib.NumpyVersion(np.__version__) >= "2.1.0":  # before, NumPy gives memory to read only
        y += 1  # an update in place, as an optimiser makes it
        assert array[1, 1] == 8


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
def test_pytorch_shares_the_memory_both_ways(torch, dtype):
    x = tl.tensor((A * 3).astype(dtype))
    seen = torch.from_dlpack(x)
    x[0, 0] = 1
    np.testing.assert_array_equal(seen.numpy(), x.numpy())
    theirs = torch.zeros(3, dtype=getattr(torch, dtype))
    y = tl.from_dlpack(theirs)
    theirs[1] = 1
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.numpy(), [0, 1, 0])


def test_what_pytorch_cannot_share_is_refused(torch):
    with pytest.raises(tl.ArgumentError, match=r"cannot share the memory of this Tensor.*detach it"):
        tl.from_dlpack(torch.ones(2, requires_grad=True))
    with pytest.raises(tl.ArgumentError, match="cannot share"):
        tl.from_dlpack(torch.ones(2, dtype=torch.bfloat16))


# Copies and pickles


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_modules_are_copied_and_pickled_with_all_they_hold(again):
    model = nn.Sequential(nn.Conv2d(1, 2, 3, generator=0), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    x = tl.randn(3, 1, 4, 4, generator=1)
    model(x).sum().backward()
    twin = again(model)
    for (name, a), (other, b) in zip(model.state_dict().items(), twin.state_dict().items(), strict=True):
        assert name == other
        np.testing.assert_array_equal(a, b)
    assert {type(p) for p in twin.parameters()} == {nn.Parameter}
    before = model.state_dict()["0.weight"]
    with tl.no_grad():
        for parameter in twin.parameters():
            parameter += 1
    np.testing.assert_array_equal(model.state_dict()["0.weight"], before)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"])
def test_a_tensor_on_a_graph_is_not_copied_with_it(again):
    x = tracked(A)
    with pytest.raises(tl.GradientError, match=r"hangs on a graph.*x\.detach\(\)"):
        again(x * 2)
