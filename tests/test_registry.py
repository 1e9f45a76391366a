"""Every op of the registry, from its declaration: gradients of first and second order, dtypes, layouts."""

import inspect
import pickle

import numpy as np
import pytest

import tinygrad_lenet as tl
import tinygrad_lenet.optim  # its ops too
from tinygrad_lenet.core.accumulation import Part
from tinygrad_lenet.core.primitive import REGISTRY, Draw, Op
from tinygrad_lenet.kernels.convolution import Geometry
from tinygrad_lenet.kernels.pooling import Averages
from tinygrad_lenet.kernels.windows import Windows
from tinygrad_lenet.testing import gradcheck

OPS = {name: op for name, op in REGISTRY.items() if name.startswith("tinygrad_lenet.")}
# What only functions of the package pass, and always as it should be.
INNER = {
    "checked_index": {"index"},
    "_origin": {"positions"},
    "_moved": {"running", "newest"},
    "_limited": {"g", "total"},
    "drawn": {"options"},
}
INNER |= {"_joint_norm": {"gradients"}, "_narrow": {"total"}}
WIDE = {"cast", "channel_moments", "_joint_norm"}  # may give float64 for float32
CASES = [pytest.param(op, case, id=f"{op.name}-{i}") for op in OPS.values() for i, case in enumerate(op.cases)]


def materialise(case, dtype=np.float64, seed=0):
    """Positional and keyword arguments, and which positions are drawn floats."""
    args, kwargs = case
    rng = np.random.default_rng(seed)

    def value(a):
        if not isinstance(a, Draw):
            return a
        if a.values is not None:
            return np.array(a.values, dtype)
        n = int(np.prod(a.shape))
        steps = (rng.permutation(n) + 0.3) / max(n, 1)  # distinct, and never at the middle, where kinks are
        return (a.low + (a.high - a.low) * steps).reshape(a.shape).astype(dtype)

    values = [value(a) for a in args]
    return values, kwargs, [i for i, a in enumerate(args) if isinstance(a, Draw)]


def as_function(op: Op, case, dtype=np.float64):
    """The op as a function of its drawn arguments only."""
    values, kwargs, drawn = materialise(case, dtype)
    call = find(op)

    def function(*tensors):
        args = list(values)
        for i, tensor in zip(drawn, tensors, strict=True):
            args[i] = tensor
        return call(*args, **kwargs)

    return function, [values[i] for i in drawn]


def find(op: Op):
    import importlib

    module = importlib.import_module(op.forward.__module__)
    return getattr(module, op.forward.__name__)


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_op_is_declared_completely(op):
    assert op.cases, f"{op.name} has no check case"
    assert op.forward.__doc__ or op.forward.__name__.startswith("_"), f"{op.name} has no docstring"
    operands = [name for name, is_operand in zip(op.names, op.signature.operands, strict=True) if is_operand]
    optional = {"condition", "mask", "out"}
    assert set(operands) - optional <= set(op.rules), f"{op.name}: no rule for {set(operands) - set(op.rules)}"


@pytest.mark.parametrize(("op", "case"), CASES)
def test_gradients_of_first_and_second_order(op, case):
    function, arrays = as_function(op, case)
    assert gradcheck(function, arrays, order=2)


@pytest.mark.parametrize(("op", "case"), [c for c in CASES if c.values[0].name not in WIDE])
def test_float32_stays_float32(op, case):
    function, arrays = as_function(op, case, np.float32)
    values = materialise(case, np.float32)[0]
    if any(isinstance(v, np.ndarray) and v.dtype == np.float64 for v in values):
        function, arrays = as_function(op, _in_float32(case), np.float32)
    tensors = [tl.tensor(a, requires_grad=True) for a in arrays]
    out = function(*tensors)
    if out.dtype.kind != "f":
        assert not out.requires_grad
        return
    assert out.dtype == np.float32
    if not out.requires_grad:
        return
    for g in tl.grad(out, tensors, tl.ones(*out.shape), create_graph=True, allow_unused=True):
        assert g is None or g.dtype == np.float32
    out.backward(np.ones(out.shape, np.float32), retain_graph=True)
    for t in tensors:
        assert t.grad is None or (t.grad.dtype == np.float32 and t.grad.shape == t.shape)


def _in_float32(case):
    args, kwargs = case
    return (
        tuple(a.astype(np.float32) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a for a in args),
        kwargs,
    )


@pytest.mark.parametrize(("op", "case"), CASES)
def test_memory_layout_does_not_matter_and_inputs_are_left_alone(op, case):
    function, arrays = as_function(op, case)
    expected = function(*[tl.tensor(a) for a in arrays]).numpy()
    for variant in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2] if a.ndim else a):
        changed = [variant(a) for a in arrays]
        copies = [c.copy() for c in changed]
        for c in changed:
            c.flags.writeable = False
        wrapped = [tl.Tensor._wrap(c) for c in changed]
        for tensor in wrapped:
            tensor.requires_grad = True
        out = function(*wrapped)
        np.testing.assert_allclose(out.numpy(), expected, rtol=1e-12, atol=1e-14)
        if out.requires_grad:
            out.backward(np.random.default_rng(0).standard_normal(out.shape))
        for c, copy in zip(changed, copies, strict=True):
            np.testing.assert_array_equal(c, copy)


@pytest.mark.parametrize(("op", "case"), CASES)
def test_gradients_share_no_memory(op, case):
    function, arrays = as_function(op, case)
    tensors = [tl.tensor(a, requires_grad=True) for a in arrays]
    out = function(*tensors)
    if not out.requires_grad:
        return
    seed = np.random.default_rng(0).standard_normal(out.shape)
    out.backward(seed)
    arrays = [t.grad.numpy() for t in tensors if t.grad is not None] + [seed] + [t.numpy() for t in tensors]
    for i, a in enumerate(arrays):
        for b in arrays[:i]:
            assert not np.shares_memory(a, b)


def pulled(op, case, dtype, gradient, wrap, times=1):
    """What the rules make of a gradient whose dtype need not be that of the values, before it is fitted."""
    values, kwargs, drawn = materialise(case)
    args = [v.astype(dtype) if isinstance(v, np.ndarray) and v.dtype == np.float64 else v for v in values]
    args = [np.repeat(a, times, 0) if i in drawn and times > 1 else a for i, a in enumerate(args)]
    out = find(op)(*[tl.tensor(a, requires_grad=True) if i in drawn else a for i, a in enumerate(args)], **kwargs)
    if out._node is None:
        return []
    found, seed = [], np.random.default_rng(1).integers(-8, 8, out.shape) / 4

    def arrive(_, g):
        g = g.whole() if isinstance(g, Part) else g
        found.append(np.asarray(g.detach() if isinstance(g, tl.Tensor) else g, np.float64))

    for layout in (np.array, np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2] if a.ndim else a):
        out._node.plan.pull(out._node, wrap(layout(seed.astype(gradient))), None, arrive)
    return found


MIXED = [(np.float64, np.float32), (np.float32, np.float64), (np.float64, np.float16), (np.float32, np.float16)]


@pytest.mark.parametrize(("op", "case"), CASES)
def test_a_gradient_of_another_dtype_than_the_values(op, case):
    expected = pulled(op, case, np.float64, np.float64, np.array)
    for dtype, gradient in MIXED:
        for wrap in (np.array, tl.tensor):
            for g, right in zip(pulled(op, case, dtype, gradient, wrap), expected, strict=True):
                largest = np.abs(right).max(initial=1)
                rough = 4e-3 if gradient == np.float16 else 1e-5
                np.testing.assert_allclose(g, right, rtol=rough, atol=rough * largest)


@pytest.mark.parametrize("name", ["tanh", "_tanh_grad", "sigmoid", "_sigmoid_grad", "relu", "_where_positive"])
def test_a_gradient_of_another_dtype_than_many_values(name):
    op = OPS[f"tinygrad_lenet.ops.activations.{name}"]
    case = (tuple(a if isinstance(a, Draw) else tl.draw(3, 2) for a in op.cases[0][0]), {})
    expected = pulled(op, case, np.float64, np.float64, np.array, 6000)
    assert expected[0].size >= 32_768
    for dtype, gradient in MIXED[:2]:
        for g, right in zip(pulled(op, case, dtype, gradient, np.array, 6000), expected, strict=True):
            np.testing.assert_allclose(g, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_bias_of_a_wider_dtype_widens_a_linear_map(order):
    x, w, b = np.array(np.ones((2, 3), np.float32), order=order), np.ones((4, 3), np.float32), np.full(4, 0.1)
    np.testing.assert_array_equal(tl.linear(x, w, b).numpy(), x @ w.T + b, strict=True)
    whole = [np.asarray(a, np.int64) for a in (x, w)]
    np.testing.assert_array_equal(tl.linear(*whole, b).numpy(), whole[0] @ whole[1].T + b, strict=True)


COMPLEX = [np.array([1 + 2j, 3 - 1j]), 1j, [1j, 2], (np.array([1j, 2]), np.array([2j, 1])), np.array([[1j, 1], [1, 1]])]


@pytest.mark.parametrize(("op", "case"), CASES)
def test_complex_numbers_are_refused_in_words_of_the_package(op, case):
    values, kwargs, _ = materialise(case)
    given = [*values, *op.signature.defaults[len(values) : op.signature.arity]]
    for key, value in kwargs.items():
        given[op.names.index(key)] = value
    said = []
    inner = INNER.get(op.name, ())
    geometry = (Averages, Geometry, Windows)  # a function of the package made it
    places = [
        i for i, value in enumerate(given) if not isinstance(value, geometry) and op.signature.name_of(i) not in inner
    ]
    for i, number in ((i, number) for i in places for number in COMPLEX):
        try:
            find(op)(*given[:i], number, *given[i + 1 :])
        except (tl.TinygradLenetError, TypeError) as error:
            said.append(str(error))
    assert said
    assert not [words for words in said if "discard" in words or "attribute" in words]


def test_statistics_that_are_given_are_those_of_the_channels():
    normalize = find(OPS["tinygrad_lenet.ops.normalization.normalize"])
    x, ones = np.arange(6.0).reshape(3, 2), np.ones(2)
    with pytest.raises(tl.DTypeError, match="complex"):
        normalize(x, ones, ones, 0.1, np.ones((2, 2)) * 1j)
    expected = (x - 1) / np.sqrt(2 + 0.1) + 1
    np.testing.assert_allclose(normalize(x, ones, ones, 0.1, np.stack([ones, 2 * ones])).numpy(), expected, rtol=1e-12)


def test_a_transposed_convolution_takes_lists():
    x, weight, bias = (
        np.arange(4.0, dtype=np.float32).reshape(1, 1, 2, 2),
        np.ones((1, 2, 2, 2), np.float32),
        [1.0, 2.0],
    )
    found = tl.conv_transpose2d(x.tolist(), weight.tolist(), bias)
    np.testing.assert_array_equal(found.numpy(), tl.conv_transpose2d(x, weight, np.float32(bias)).numpy(), strict=True)


def test_an_op_made_by_ufunc_is_like_any_other():
    assert str(inspect.signature(tl.hypot)) == str(inspect.signature(tl.mul))
    assert tl.sin.__doc__.startswith("Sine of an angle")
    assert "def sin(x: Array)" in inspect.getsource(tl.sin)
    assert pickle.loads(pickle.dumps(tl.eq)) is tl.eq
    x = tl.tensor([0.5, -2.0])
    assert np.sin(x).tolist() == x.sin().tolist() == np.sin(x.numpy()).tolist()
    assert (x == 0.5).tolist() == tl.eq(x, 0.5).tolist() == [True, False]
    with pytest.raises(TypeError, match=r"sin\(\) takes 1 arguments \(x\), 2 were given"):
        tl.sin(x, x)
