"""PyTorch's words of a Tensor, judged by PyTorch: values, dtypes, shared memory, gradients, and what is refused."""

import copy
import doctest
import gc
import json
import pickle
import warnings
import weakref

import numpy as np
import pytest
import vocabulary

import tinygrad_lenet as tl
from tinygrad_lenet import nn
from tinygrad_lenet.core.names import METHODS

NAMES = ["bool", "uint8", "int32", "int64", "float16", "float32", "float64"]
SHAPED = {  # the same in both libraries
    "view": [lambda x: x.view(-1), lambda x: x.view(4, -1), lambda x: x.view((2, 2, 3)), lambda x: x.view(2, 6)],
    "t": [lambda x: x.t(), lambda x: x.t().t(), lambda x: x[0].t()],
    "expand": [
        lambda x: x.expand(-1, -1),
        lambda x: x.expand(5, 2, 6),
        lambda x: x.expand((3, -1, 6)),
        lambda x: x[:1].expand(4, -1),
        lambda x: x[0, 0].expand(2, 3),
        lambda x: x[:0].expand(0, -1),
    ],
    "contiguous": [lambda x: x.contiguous(), lambda x: x.t().contiguous(), lambda x: x[:, ::2].contiguous()],
    "ravel": [lambda x: x.ravel(), lambda x: x.t().ravel(), lambda x: x[0, 0].ravel()],
    "clamp": [lambda x: x.clamp(0, 1), lambda x: x.clamp(min=1), lambda x: x.clamp(max=0)],
    "masked_fill": [lambda x: x.masked_fill(x > 1, 1), lambda x: x.masked_fill(x[0] > 1, 0)],
    "numel": [lambda x: x.numel(), lambda x: x[:0].numel()],
    "dim": [lambda x: x.dim(), lambda x: x[0, 0].dim()],
    "size": [lambda x: tuple(x.size()), lambda x: x.size(0), lambda x: x.size(-1), lambda x: x.size(dim=1)],
    "tolist": [lambda x: x.tolist(), lambda x: x[0, 0].tolist()],
    "cpu": [lambda x: x.cpu()],
    "to": [lambda x: x.to("cpu"), lambda x: x.to(x[0]), lambda x: x.to("cpu", copy=True), lambda x: x.to(x, copy=True)],
}
SHAPED |= {name: [lambda x, n=name: getattr(x, n)()] for name in "float double half int long bool".split()}  # noqa: SIM905
CALLS = [pytest.param(call, id=f"{name}-{i}") for name, calls in SHAPED.items() for i, call in enumerate(calls)]
VALUES = np.array([[0, 1, 2, 3, 0, 1], [2, 0, 1, 1, 3, 2]])


def pair(torch, dtype, grad=False, values=VALUES):
    array = np.asarray(values).astype(dtype)
    grad = grad and np.dtype(dtype).kind == "f"
    return tl.tensor(array, requires_grad=grad), torch.tensor(array, requires_grad=grad)


def shares(x, y):
    if isinstance(x, tl.Tensor):
        return np.may_share_memory(x._data, y._data)
    return x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()


def same(found, expected):
    """The values, the dtype and the need of a gradient."""
    if not isinstance(found, tl.Tensor):
        assert type(found) is type(expected)
        assert found == expected
        return
    assert f"torch.{found.dtype}" == str(expected.dtype)
    assert found.requires_grad == expected.requires_grad
    np.testing.assert_array_equal(found.detach().numpy(), expected.detach().numpy(), strict=True)


def test_every_word_of_the_table_is_tried_here():
    there = {"requires_grad_", "retain_grad", "zero_", "fill_", "copy_", "add_", "mul_"}
    assert vocabulary.FUNCTIONS["methods"][1].keys() == (SHAPED.keys() | there) - {"clamp", "masked_fill"}
    assert tl.Tensor.clamp is tl.clamp is tl.clip
    assert tl.Tensor.masked_fill is tl.masked_fill


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("call", CALLS)
def test_words_that_change_no_value(torch, call, dtype):
    if dtype == "bool" and call in (*SHAPED["clamp"], *SHAPED["masked_fill"]):
        return  # PyTorch compares no booleans with 0 and 1 there
    x, t = pair(torch, dtype, grad=True)
    found, expected = call(x), call(t)
    same(found, expected)
    if not isinstance(found, tl.Tensor):
        return
    assert (found is x) == (expected is t)
    if expected.numel():
        assert shares(found, x) == shares(expected, t)
    if found.requires_grad and found is not x:
        (found * found).sum().backward()
        (expected * expected).sum().backward()
        same(x.grad, t.grad)


def test_a_view_and_its_tensor_share_changes_and_their_count():
    for change in (lambda x: x.view(-1), lambda x: x.ravel(), lambda x: x.t(), lambda x: x.contiguous()):
        w, x = tl.ones(2, 3, requires_grad=True), tl.ones(2, 3)
        y = w * x
        change(x).fill_(5)
        assert (x.numpy() == 5).all()
        with pytest.raises(tl.GradientError, match="changed in place"):
            y.sum().backward()
    x = tl.ones(2, 3)
    x.t().contiguous().fill_(5)
    assert (x.numpy() == 1).all()
    with pytest.raises(tl.ArgumentError, match="read-only view"):
        x.expand(4, -1, -1).zero_()


def test_a_view_of_images_from_a_convolution(torch):
    """Their batch is innermost in memory, which PyTorch's users need not know: ``view`` must take it."""
    images = np.random.default_rng(0).standard_normal((5, 1, 6, 6)).astype(np.float32)
    layer = nn.Conv2d(1, 3, 3, generator=0)
    features = layer(tl.tensor(images))
    flat = features.view(features.size(0), -1)
    np.testing.assert_array_equal(flat.detach().numpy(), features.detach().numpy().reshape(5, -1))
    np.testing.assert_array_equal(features.view(-1, 3 * 16).detach().numpy(), flat.detach().numpy())
    assert features.contiguous().numpy().flags.c_contiguous
    np.testing.assert_array_equal(features.contiguous().detach().numpy(), features.detach().numpy())


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.view(5),
        lambda x: x.view(-1, -1),
        lambda x: x.view(-1, 5),
        lambda x: x.expand(3),
        lambda x: x.expand(-1, 2, 6),
        lambda x: x.expand(2, 7),
        lambda x: x.size(2),
        lambda x: x.size(-3),
        lambda x: x.to("gpu"),
        lambda x: x.to("cuda"),
        lambda x: x.long().requires_grad_(),
        lambda x: (x * 2).requires_grad_(False),
        lambda x: x.detach().retain_grad(),
        lambda x: x.zero_(),
        lambda x: x.fill_(1),
        lambda x: x.copy_(x),
        lambda x: x.add_(1),
        lambda x: x.mul_(2),
        lambda x: x.view(-1).mul_(2),
        lambda x: x.detach().long().add_(1.5),
        lambda x: x.detach().long().mul_(1.5),
        lambda x: x.detach().bool().add_(1),
        lambda x: x.detach()[0].add_(x.detach()),
        lambda x: x.detach().copy_(x.detach()[:, :5]),
        lambda x: x.detach().int().fill_(float("nan")),
        lambda x: x.masked_fill(x > 1, "a"),
        lambda x: x.float(1, 2),
    ],
)
def test_what_pytorch_refuses_is_refused(torch, call):
    x, t = pair(torch, "float32", grad=True)
    with pytest.raises(Exception):  # noqa: B017, PT011  # PyTorch's are of many kinds
        call(t)
    with pytest.raises((tl.TinygradLenetError, IndexError, TypeError)):
        call(x)
    np.testing.assert_array_equal(x.detach().numpy(), VALUES)


# Conversions


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("dtype", NAMES)
def test_to_takes_a_dtype_in_every_form(torch, dtype, target):
    x, t = pair(torch, dtype, grad=True)
    other = tl.zeros(1, dtype=target)
    expected = t.to(getattr(torch, target))
    for form in (target, np.dtype(target), getattr(np, target.replace("bool", "bool_")), other):
        for found in (x.to(form), x.to("cpu", form), x.to(form, non_blocking=True), x.to(device="cpu", dtype=form)):
            same(found, expected)
            assert (found is x) == (expected is t)
        assert x.to(form, copy=True) is not x
        assert not shares(x.to(form, copy=True), x)
        same(x.to(form, copy=True), t.to(getattr(torch, target), copy=True))


def test_a_gradient_flows_through_floats_and_ends_at_integers():
    x = tl.tensor([1.5, -2.0], requires_grad=True)
    for y in (x.double(), x.half(), x.float(), x.to("float64"), x.cpu(), x.contiguous()):
        x.grad = None
        (y * 3).sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), np.float32([3, 3]), strict=True)
    assert not any(y.requires_grad for y in (x.long(), x.int(), x.bool(), x.to("int32")))
    assert x.to("cpu").float() is x  # a leaf stays a leaf, with its .grad


def test_another_device_is_explained():
    for given in ("cuda", "cuda:0", "mps"):
        for call in (lambda x, d: x.to(d), lambda x, d: x.to(device=d), lambda x, d: x.to(d, "float64")):
            with pytest.raises(tl.UnsupportedError, match=f"^to: everything runs on the CPU; leave out '{given}'$"):
                call(tl.zeros(2), given)
    with pytest.raises(tl.DTypeError, match="'gpu' is not a dtype"):
        tl.zeros(2).to("gpu")


# The number of elements, which can be called


def test_size_is_numpys_number_for_python():
    x = tl.zeros(2, 3)
    size = x.size
    assert isinstance(size, int)
    assert size == 6 == x.numel()
    assert [size, f"{size:>4}", f"{size}", json.dumps(size), hash(size)] == [6, "   6", "6", "6", hash(6)]
    assert [type(v) for v in (size + 1, size // 2, -size, size * 2, 2 * size)] == [int] * 5
    assert type(size / 4) is float
    assert list(range(10))[size] == 6
    assert {6: "a"}[size] == "a"
    assert pickle.loads(pickle.dumps(size)) == copy.deepcopy(size) == 6
    assert tl.zeros(size).shape == (6,)
    assert np.zeros(size).shape == (6,)
    assert x.reshape(size).shape == (6,)


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32", "float64", "int64"])
def test_size_changes_no_dtype(dtype):
    """NumPy takes integers other than ``int`` itself for int64, which would make float64 of float32."""
    size, a, x = tl.zeros(3).size, np.ones(3, dtype), tl.ones(3, dtype=dtype)
    calls = [
        lambda a, n: a * n,
        lambda a, n: n * a,
        lambda a, n: a / n,
        lambda a, n: n / a,
        lambda a, n: a + n,
        lambda a, n: n - a,
        lambda a, n: a**n,
        lambda a, n: a % n,
        lambda a, n: a > n,
        lambda a, n: a[0] * n,
        lambda a, n: n * a[0],
        lambda a, n: np.where(a > 0, a, n),
        lambda a, n: np.clip(a, 0, n),
        lambda a, n: np.maximum(a, n),
    ]
    for call in calls:
        for given in (a, x):
            found, expected = call(given, size), call(given, 3)
            assert found.dtype == expected.dtype
            assert type(found) is type(expected)
            np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    ours = [
        lambda n: tl.where(x > 0, x, n),
        lambda n: tl.where(x > 0, n, n),
        lambda n: tl.maximum(x, n),
        lambda n: tl.div(n, x),
        lambda n: tl.stack([x[0], n]),
        lambda n: tl.clip(x, 0, n),
        lambda n: x.masked_fill(x > 0, n),
        lambda n: tl.tensor([n, n]),
        lambda n: tl.zeros(n, n),
    ]
    for call in ours:
        same_dtype = call(size).dtype, call(3).dtype
        assert same_dtype[0] == same_dtype[1]
        np.testing.assert_array_equal(call(size).numpy(), call(3).numpy())
    for call in (lambda n: np.result_type(a, n), lambda n: np.linspace(a[0], n, 3).dtype):
        assert call(size) == call(3)
    total = np.ones(3, dtype)
    total *= size
    assert total.tolist() == [3, 3, 3]


# Inside a compiled function


def test_a_compiled_function_repeats_the_other_words():
    def f(x):
        y = x.view(3, 4).t().contiguous().double().ravel().clamp(0, 4).masked_fill(x.ravel() > 3, -1)
        return y.float().to("cpu").expand(2, -1), x.long(), x.bool().half()

    compiled = tl.compile(f)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(4):
            x = tl.tensor(np.float32(VALUES - i))
            for found, expected in zip(compiled(x), f(x), strict=True):
                np.testing.assert_array_equal(found.numpy(), expected.numpy(), strict=True)
    assert compiled.replayed == 2


# Gradients of tensors that are not leaves


def kept(library, x, hook_first):
    """The gradients that a computed tensor and its hook saw, after two passes and a pass without ``backward``."""
    found = []
    y = x * 2
    y.retain_grad()
    y.retain_grad()  # once more changes nothing
    handle = y.register_hook(lambda g: g * 10)
    z = (y * y).sum() + y.sum()
    for i in range(2):
        z.backward(retain_graph=True)
        found.append(y.grad.tolist())
        if i and hook_first:
            handle.remove()
    (library.grad if library is tl else library.autograd.grad)(z, x, retain_graph=True)
    return [*found, y.grad.tolist(), x.grad.tolist()]


@pytest.mark.parametrize("removed", [False, True])
def test_retain_grad_keeps_what_pytorchs_keeps(torch, removed):
    x, t = pair(torch, "float64", grad=True)
    assert kept(tl, x, removed) == kept(torch, t, removed)


def test_retain_grad_of_a_leaf_changes_nothing():
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    x.retain_grad()
    x.sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_retain_grad_can_be_differentiated():
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    y = x * x
    y.retain_grad()
    (g,) = tl.grad((y**3).sum(), x, create_graph=True)
    np.testing.assert_allclose(y.grad.detach().numpy(), 3 * np.float64([1, 2]) ** 4, rtol=1e-6)
    np.testing.assert_allclose(tl.grad(y.grad.sum(), x)[0].numpy(), 12 * np.float64([1, 2]) ** 3, rtol=1e-6)
    assert g.requires_grad


def test_retain_grad_makes_no_cycle():
    gc.collect()
    gc.disable()
    try:
        x = tl.ones(3, requires_grad=True)
        y = x * 2
        y.retain_grad()
        z = y.sum()
        seen = weakref.ref(y)
        z.backward(retain_graph=True)
        assert y.grad.tolist() == [1, 1, 1]
        del y
        assert seen() is None
        z.backward()  # no one is left who could read it
    finally:
        gc.enable()


def test_the_grad_of_a_computed_tensor_is_none_with_a_warning(torch):
    x, t = pair(torch, "float32", grad=True)
    for leaf in (x, t):
        y = leaf * 2
        y.sum().backward()
        with pytest.warns(UserWarning, match=r"only leaves have a \.grad.*retain_grad|not a leaf Tensor") as caught:
            assert y.grad is None
        assert [w.filename for w in caught] == [__file__]
        kept = leaf * 2
        kept.retain_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert kept.grad is None
            assert leaf.detach().grad is None
            kept.sum().backward()
            assert kept.grad.tolist() == [[1] * 6] * 2


# Others


def test_requires_grad_returns_the_tensor(torch):
    for library in (tl, torch):
        x = library.zeros(2)
        assert x.requires_grad_() is x
        assert x.requires_grad
        assert x.requires_grad_(False) is x
        assert not x.requires_grad
        assert (x.requires_grad_() * 2).requires_grad_().requires_grad


def test_masked_fill_as_pytorchs(torch):
    x, t = pair(torch, "float64", grad=True)
    value, theirs = tl.tensor(2.5, requires_grad=True), torch.tensor(2.5, requires_grad=True)
    mask = VALUES > 1
    for library, p, v, m in ((tl, x, value, mask), (torch, t, theirs, torch.tensor(mask))):
        (library.masked_fill(p, m, v) ** 2).sum().backward()
    same(x.grad, t.grad)
    same(value.grad, theirs.grad)
    for dtype in ("int64", "float32", "float16", "uint8"):
        x, t = pair(torch, dtype)
        same(x.masked_fill(mask, 2.5), t.masked_fill(torch.tensor(mask), 2.5))
        same(x.masked_fill(mask, tl.tensor(2.5)), t.masked_fill(torch.tensor(mask), torch.tensor(2.5)))
        same(x.masked_fill([[True], [False]], 1), t.masked_fill(torch.tensor([[True], [False]]), 1))
    scores = tl.tensor([[1.0, 2.0], [3.0, 4.0]]).masked_fill(tl.triu(tl.ones(2, 2), 1) > 0, -float("inf"))
    assert scores.softmax(-1).numpy()[0].tolist() == [1, 0]
    assert type(tl.masked_fill([1.0, 2.0], [True, False], 0)) is tl.Tensor


def test_pictures_take_tensors_that_require_a_gradient():
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    leaf = tl.tensor([1.0, 3.0, 2.0], requires_grad=True)
    figure, axes = plt.subplots()
    try:
        for x in (leaf, leaf * 2, leaf.detach()):
            (line,) = axes.plot(x)
            np.testing.assert_array_equal(line.get_ydata(), x.detach().numpy())
            (line,) = axes.plot(x, x)
            np.testing.assert_array_equal(line.get_xdata(), x.detach().numpy())
            axes.hist(x)
        figure.canvas.draw()
    finally:
        plt.close(figure)
    assert leaf.requires_grad
    assert not leaf.to_numpy().flags.writeable


def test_help_describes_every_method_and_its_examples_run():
    own = {name: function for name, function in vars(tl.Tensor).items() if name in METHODS and name[0] != "_"}
    words = {name: getattr(tl.Tensor, name) for name in vocabulary.FUNCTIONS["methods"][1] if name != "size"}
    for name, function in (own | words).items():
        assert function.__doc__, name
        for test in doctest.DocTestFinder(recurse=False).find(function, name, globs={}):
            assert not doctest.DocTestRunner(verbose=False).run(test).failed
    assert (tl.Tensor.long.__name__, tl.Tensor.long.__doc__[:16]) == ("long", "``x.to('int64')`")


def test_an_op_in_a_rule_is_told_of_functions_that_exist():
    """``x.float()`` in a rule, where ``x`` is an array: there is no ``tl.float``."""

    @tl.primitive
    def twice(x: tl.Array) -> tl.Array:
        return x * 2

    rules = [lambda g: g.clamp(0), lambda g: g.float(), lambda g: g.contiguous(), lambda g: g.expand(2)]
    for rule, advice in zip(rules, [r"write tl\.clamp\(", *[r"functions such as tl\.exp"] * 3], strict=True):
        twice.vjp(x=rule)
        with pytest.raises(tl.DTypeError, match=advice):
            twice(tl.ones(2, requires_grad=True)).sum().backward()
