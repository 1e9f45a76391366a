"""NumPy's functions on Tensors, conversion to arrays, memory shared with NumPy and PyTorch, copies and pickles."""

import copy
import inspect
import operator
import pickle

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn
from tinygrad_lenet.core.names import NUMPY
from tinygrad_lenet.numpy_api import FACTS

A = np.random.default_rng(0).uniform(0.2, 0.8, (3, 3))
B = np.random.default_rng(1).uniform(0.2, 0.8, (3, 3))
MASK = B > 0.5
# Arguments after the first, where it takes more; as a user of NumPy would write them.
ARGUMENTS = {
    "reshape": [(9,)], "moveaxis": [0, 1], "swapaxes": [0, 1], "expand_dims": [0], "broadcast_to": [(2, 3, 3)],
    "roll": [1, 0], "tile": [(2, 1)], "repeat": [2, 0], "split": [3, 1], "take_along_axis": [np.argsort(A), 1],
    "norm": [1, 0], "clip": [0.3, 0.6], "full_like": [7.0], "pad": [((1, 0), (0, 2))],
    **{name: [B] for name in ("dot", "inner", "outer", "tensordot")},
}  # fmt: skip
FIRST = {"concatenate": [A, B], "hstack": [A, B], "stack": [A, B], "vstack": [A, B], "squeeze": A[None]}
UFUNCS = [function for function in NUMPY if isinstance(function, np.ufunc)]
FUNCTIONS = [function for function in NUMPY if not isinstance(function, np.ufunc)]
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


ORDER = np.argsort(A, 1)
C = np.random.default_rng(2).uniform(0.2, 0.8, (2, 3, 4))
# NumPy's own names of its arguments, and all of its positions.
SPELLED = """
sum(a=a,axis=0) sum(a,0,None,None,True) sum(a,axis=None,dtype=None,out=None) mean(a=a) mean(a,0,None,None,True)
var(a,correction=1) var(a,0,None,None,1,True) std(a,axis=0,ddof=1) argmax(a,1,None) cumsum(a=a,axis=1) cumprod(a=a)
sort(a,axis=None) sort(a,None) sort(a,kind="stable") sort(a,stable=True) sort(a,-1,"stable")
argsort(a,kind="stable") median(a,0,None,False,True) median(a,axis=(0,1)) reshape(a,(9,),"C")
reshape(a,shape=(9,)) reshape(a,shape=-1) transpose(c,axes=(1,0,2)) transpose(c,axes=[2,0,1]) transpose(c,None)
transpose(a=c,axes=(1,0,2)) transpose(a,axes=(1,0)) transpose(a,axes=(0,1)) transpose(v,axes=0) transpose(a,(0,1))
moveaxis(a=c,source=0,destination=-1) moveaxis(c,source=(0,1),destination=(1,2)) swapaxes(a=c,axis1=0,axis2=2)
expand_dims(a=a,axis=(0,2)) squeeze(a=c[:1],axis=0) broadcast_to(array=a,shape=(2,3,3)) broadcast_to(v[:1],shape=5)
broadcast_to(a,(2,3,3),True) concatenate((a,a),axis=1)
stack(arrays=[a,a],axis=-1) ravel(a=a) ravel(a,"C") flip(m=a,axis=1) roll(a=a,shift=2) roll(a,shift=(1,2),axis=(0,1))
tile(A=a,reps=2) repeat(a=a,repeats=2,axis=0) split(ary=a,indices_or_sections=3) split(a,indices_or_sections=[1],axis=1)
tril(m=a,k=1) triu(m=a,k=-1) diagonal(a=c,offset=1,axis1=1,axis2=2) trace(a=c,offset=0,axis1=1,axis2=2)
take_along_axis(arr=a,indices=i,axis=1)
clip(a=a,a_min=0.3,a_max=0.6) clip(a,0.3,None) clip(a,None,None) clip(a,a_max=0.6,a_min=None) round(a=a,decimals=1)
copy(a=a) copy(a,subok=True) dot(a=a,b=v) dot(a,b=v) outer(a=v,b=v) tensordot(a=a,b=a,axes=0)
tensordot(a,a,axes=([0],[1])) einsum("ij,jk",a,a,optimize=True)
linalg.norm(x=a) linalg.norm(a,1,0,True) linalg.norm(a,None,(0,1),True)
zeros_like(a,dtype=np.float32) zeros_like(a,np.float32) ones_like(a,None) ones_like(a=a)
full_like(a,fill_value=0.1) full_like(a,7,np.int64) full_like(a=a,fill_value=7)
diff(a=a,n=2,axis=0) diff(a,prepend=0,append=a)
diag(v=a,k=1) diag(v,-1) hstack(tup=[a,a]) vstack([a,v])
"""


@pytest.mark.parametrize("spelled", SPELLED.split())
def test_functions_of_numpy_by_the_names_and_places_that_it_gives_to_its_arguments(spelled):
    arrays = {"a": A, "c": C, "v": A[0]}
    there = {"np": np, "i": ORDER}
    try:
        expected = eval(f"np.{spelled}", there | arrays)
    except TypeError:
        pytest.skip("this NumPy has no such argument")
    except ValueError:
        assert spelled == "clip(a,None,None)"
        assert np.lib.NumpyVersion(np.__version__) < "2.1.0"
        pytest.skip("NumPy has clip() without bounds from 2.1 on")
    agree(eval(f"np.{spelled}", there | {name: tl.tensor(a) for name, a in arrays.items()}), expected)


def test_gradients_flow_through_functions_of_numpy():
    x = tracked(A)
    np.sum(np.where(MASK, np.exp(x), 0) * np.linalg.norm(x, axis=0)).backward()
    y = tracked(A)
    (tl.where(MASK, y.exp(), 0) * tl.linalg.norm(y, axis=0)).sum().backward()
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
        (lambda t: tl.tensor([t[0, 0], 1.0]), tl.GradientError, r"a list of tensors.*tl.stack"),
        (lambda t: tl.exp([t[0], t[1]]), tl.GradientError, r"a list of tensors.*tl.stack"),
        (np.cbrt, tl.UnsupportedError, "np.cbrt has no counterpart with a gradient here"),
        (lambda t: np.quantile(t, 0.5), tl.UnsupportedError, r"np.quantile has no counterpart.*tensor.numpy\(\)"),
        (np.linalg.eigh, tl.UnsupportedError, "np.linalg.eigh has no counterpart"),
        (np.linalg.inv, tl.UnsupportedError, r"np.linalg.inv has no counterpart with a gradient.*tensor.numpy\(\)"),
        (lambda t: np.linalg.solve(A, t), tl.UnsupportedError, "np.linalg.solve has no counterpart"),
        (np.add.reduce, tl.UnsupportedError, "np.add.reduce has no counterpart here; see tl.sum"),
        (lambda t: np.var(t, dtype="f4"), tl.UnsupportedError, r"np.var of a Tensor.*got dtype; .*\.astype"),
        (lambda t: np.var(t, 0, np.float32), tl.UnsupportedError, "got dtype"),
        (lambda t: np.var(t, mean=0.0), tl.UnsupportedError, "got mean"),
        (lambda t: np.reshape(t, (1, 9), order="F"), tl.UnsupportedError, "got order"),
        (lambda t: np.exp(t, where=MASK), tl.UnsupportedError, "got where"),
        (lambda t: np.exp(t, out=A.copy()), tl.GradientError, r"np.exp: out= would go unrecorded"),
        (lambda t: operator.iadd(A.copy(), t), tl.GradientError, r"x = x \+ tensor"),
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
    with pytest.raises(tl.ArgumentError, match=r"cannot share the memory of this Tensor.*detach"):
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
