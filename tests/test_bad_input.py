"""Whatever one passes to a public function: a right result, or an error of the package that names what is at fault.

HYPOTHESIS_PROFILE=thorough pytest tests/test_bad_input.py      the number of cases stands in the last lines
"""

import numpy as np
import odd
import pytest
from hostile import COUNTS, arguments, judge, memory_limit, same, time_limit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet import numpy_api
from tinygrad_lenet.core.primitive import REGISTRY
from tinygrad_lenet.core.primitive import draw as t

EXAMPLES = max(5, settings().max_examples // (1 if settings().max_examples >= 1000 else 5))


@pytest.fixture(scope="module", autouse=True)
def limits(request):
    """Memory is bounded, and cases are counted."""
    with memory_limit():
        yield
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    reporter.write_line(f"\n{sum(COUNTS.values()):,} cases of bad input, for {len(COUNTS)} functions")


thoroughly = settings(max_examples=EXAMPLES, suppress_health_check=[*HealthCheck], deadline=None)


def _find(op):
    import importlib

    return getattr(importlib.import_module(op.forward.__module__), op.forward.__name__)


PRIMITIVES = {
    key.removeprefix("tinygrad_lenet."): _find(op) for key, op in REGISTRY.items() if key.startswith("tinygrad_lenet.")
}


def call(*args, **kwargs):
    return args, kwargs


IMAGE, IDS = t(2, 2, 4, 4), np.array([1, 0])
# How functions that are no primitives are called as they should be.
CALLS = {
    "adaptive_avg_pool2d": [call(IMAGE, 2), call(IMAGE, (3, None))],
    "arange": [call(5), call(0, 1, 0.25), call(2, 9, 3, dtype="float64")],
    "astype": [call(t(2, 3), "float64"), call(t(2), "int64")],
    "avg_pool1d": [call(t(2, 3, 6), 2), call(t(1, 2, 5), 3, 2, 1, True, False)],
    "batch_norm": [
        call(t(4, 3, 2), training=True),
        call(t(4, 3), None, None, t(3), t(3), True),
        call(t(4, 2), tl.zeros(2), tl.ones(2), None, t(2), False, 0.1, 1e-5),
    ],
    "binary_cross_entropy_with_logits": [call(t(3, 2), t(3, 2, low=0)), call(t(3), t(3, low=0), t(3), "sum", t(3))],
    "chunk": [call(t(5, 2), 2), call(t(2, 5), 3, 1)],
    "concatenate": [call([t(2, 3), t(1, 3)]), call((t(2, 1), t(2, 2)), 1)],
    "conv1d": [call(t(2, 4, 6), t(3, 4, 2), t(3)), call(t(1, 4, 6), t(2, 2, 3), None, 2, 1, 1, 2)],
    "conv_transpose1d": [call(t(2, 4, 3), t(4, 3, 2), t(3)), call(t(1, 4, 3), t(4, 1, 3), None, 2, 1, 1, 2, 1)],
    "conv_transpose2d": [call(IMAGE, t(2, 3, 2, 2), t(3)), call(IMAGE, t(2, 1, 3, 3), None, 2, 1, 1, 2, 1)],
    "cross_entropy": [
        call(t(2, 3), IDS),
        call(t(2, 3), t(2, 3, low=0), t(3, low=0.1), reduction="sum", label_smoothing=0.1),
        call(t(2, 3, 2), np.array([[0, 1], [2, 1]]), None, 1, "none", 0.1),
    ],
    "cumprod": [call(t(2, 3)), call(t(2, 3), 1)],
    "cumsum": [call(t(2, 3)), call(t(2, 3), 1)],
    "diagonal": [call(t(3, 3)), call(t(2, 3, 4), 1, 1, 2)],
    "dot": [call(t(3), t(3)), call(t(2, 3), t(3, 2))],
    "dropout": [call(t(3, 2), 0.5, True, 0), call(t(3), 0.1, False)],
    "dropout2d": [call(IMAGE, 0.5, True, 0)],
    "einsum": [call("ij,jk->ik", t(2, 3), t(3, 2)), call("...i->...", t(2, 3)), call("ii", t(3, 3))],
    "embedding": [call(IDS, t(4, 3)), call(np.array([[0, 3]]), t(4, 3), 1)],
    "expand_dims": [call(t(2, 3), 1), call(t(2), (0, 2))],
    "eye": [call(3), call(2, 3)],
    "flatten": [call(t(2, 3, 2)), call(t(2, 3, 2), 1, 2)],
    "flip": [call(t(2, 3)), call(t(2, 3), 1), call(t(2, 3), (0, 1))],
    "from_dlpack": [call(t(2, 3))],
    "full": [call((2, 3), 1.5), call(2, 0, "int64")],
    "gather": [call(t(2, 3), 1, np.array([[0, 2], [1, 1]]))],
    "gelu": [call(t(2, 3)), call(t(3), "tanh")],
    "getitem": [call(t(3, 4), 1), call(t(3, 4), (slice(0, 2), IDS)), call(t(3), np.array([True, False, True]))],
    "group_norm": [call(t(2, 4, 3), 2), call(t(2, 4, 3), 2, t(4), t(4), 1e-3)],
    "huber_loss": [call(t(3, 2), t(3, 2)), call(t(3), t(3), "sum", 0.5)],
    "inner": [call(t(2, 3), t(4, 3))],
    "interpolate": [
        call(IMAGE, 3), call(IMAGE, (2, 8)), call(IMAGE, None, 2.0, "bilinear", False), call(IMAGE, None, (0.5, 2)),
        call(IMAGE, 3, None, "bilinear", True),
    ],
    "kl_div": [call(t(3, 2), t(3, 2, low=0)), call(t(3, 2), t(3, 2), "batchmean", True)],
    "kron": [call(t(2, 2), t(3)), call(t(2), t(1, 2))],
    "l1_loss": [call(t(3, 2), t(3, 2), "sum")],
    "layer_norm": [call(t(2, 3), 3), call(t(2, 3, 2), (3, 2), t(3, 2), t(3, 2), 1e-3)],
    "logsigmoid": [call(t(2, 3))],
    "max_pool1d": [call(t(2, 3, 6), 2), call(t(1, 2, 7), 3, 2, 1, 1, True)],
    "median": [call(t(2, 3)), call(t(2, 3, 2), (0, 2), True)],
    "meshgrid": [call(t(2), t(3)), call(t(2), t(3), t(2), indexing="ij")],
    "mish": [call(t(2, 3))],
    "moveaxis": [call(t(2, 3, 4), 0, -1), call(t(2, 3, 4), (0, 1), (2, 0))],
    "mse_loss": [call(t(3, 2), t(3, 2)), call(t(3), t(3), "none")],
    "multi_margin_loss": [call(t(2, 3), IDS), call(t(2, 3), IDS, 2, 0.5, t(3), "sum")],
    "nll_loss": [call(t(2, 3), IDS), call(t(2, 3), IDS, t(3), 1, "sum")],
    "norm": [call(t(2, 3)), call(t(2, 3), 3, 1, True), call(t(3), 0), call(t(3), float("inf"))],
    "one_hot": [call(IDS), call(IDS, 4)],
    "ones": [call(2, 3), call((2, 3), dtype="float64")],
    "outer": [call(t(2), t(3))],
    "pad": [
        call(t(2, 3), (1, 2)), call(t(2, 3), ((0, 1), (2, 0)), value=0.5), call(t(2, 3), 1, "replicate"),
        call(t(3, 3), (1, 1, 2, 0), "reflect"), call(t(3, 3), (1, 2), "circular"),
    ],
    "prelu": [call(t(2, 3), t(1)), call(t(2, 3, 2), t(3))],
    "rand": [call(2, 3, generator=0), call((2, 3), generator=1, dtype="float64")],
    "randn": [call(2, 3, generator=0), call((2, 3), generator=1, dtype="float64")],
    "relu6": [call(t(2, 3, high=7))],
    "repeat": [call(t(2, 3), 2), call(t(2, 3), (1, 2), 0), call(t(2, 3), 2, -1)],
    "roll": [call(t(2, 3), 1), call(t(2, 3), (1, -1), (0, 1)), call(t(2, 3), 5, 1)],
    "scatter": [call(t(2, 3), 1, np.array([[0, 2], [1, 1]]), t(2, 2)), call(t(3), 0, np.array([1]), 2.0)],
    "scatter_add": [call(t(2, 3), 1, np.array([[0, 2], [1, 1]]), t(2, 2))],
    "selu": [call(t(2, 3))],
    "smooth_l1_loss": [call(t(3, 2), t(3, 2)), call(t(3), t(3), "sum", 0.5), call(t(3), t(3), "mean", 0.0)],
    "sort": [call(t(2, 3)), call(t(2, 3), 0, True), call(t(2, 3), None)],
    "split": [call(t(4, 3), 2), call(t(3, 5), (1, 3), 1)],
    "squeeze": [call(t(2, 1, 3)), call(t(2, 1, 3, 1), (1, 3)), call(t(1, 2), 0)],
    "stack": [call([t(2, 3), t(2, 3)]), call((t(2), t(2)), -1)],
    "std": [call(t(2, 3)), call(t(2, 3), 1, True, 1)],
    "swapaxes": [call(t(2, 3, 2), 0, -1)],
    "take_along_axis": [call(t(2, 3), np.array([[0, 2], [1, 1]])), call(t(2, 3), np.array([[0, 1, 1]]), 0)],
    "tensordot": [call(t(2, 3), t(3, 2), 1), call(t(2, 3), t(2, 3), ((0, 1), (0, 1)))],
    "tile": [call(t(2, 3), 2), call(t(2, 3), (2, 1, 2))],
    "topk": [call(t(2, 3), 2), call(t(2, 3), 1, 0, False)],
    "trace": [call(t(3, 3)), call(t(2, 3, 3), 1, 1, 2)],
    "transpose": [call(t(2, 3, 4)), call(t(2, 3, 4), 0, 2), call(t(2, 3, 4), (2, 0, 1))],
    "tril": [call(t(3, 3)), call(t(2, 3, 4), 1)],
    "triu": [call(t(3, 3)), call(t(2, 3, 4), -1)],
    "unbind": [call(t(2, 3)), call(t(2, 3), 1)],
    "unsqueeze": [call(t(2, 3), 0), call(t(2, 3), -1)],
    "var": [call(t(2, 3)), call(t(2, 3), 1, True, 1)],
    "zeros": [call(2, 3), call((2, 3), dtype="float64")],
    "linalg.cholesky": [call(t(values=[[2.0, 0.5], [0.5, 1.0]])), call(t(values=[[2.0, 0.5], [0.5, 1.0]]), True)],
    "linalg.norm": [call(t(2, 3)), call(t(2, 3), 1, (0, 1)), call(t(3), 3), call(t(2, 3), "fro", (0, 1), True)],
    "linalg.slogdet": [call(t(values=[[2.0, 0.5], [0.5, 1.0]]))],
    "linalg.solve": [call(t(values=[[2.0, 0.5], [0.5, 1.0]]), t(2)), call(t(values=[[2.0, 0.5], [0.5, 1.0]]), t(2, 3))],
    "tensor": [call(t(2, 3)), call(t(2), "float64", True), call(1.5), call([[1, 2], [3, 4]])],
    "as_tensor": [call(t(2, 3)), call(2)],
    "Tensor": [call(t(2, 3)), call(t(2), True, "float64")],
}  # fmt: skip


NAMES = ["tensor"]  # what makes tensors of arguments


def _public(key):
    place, _, name = key.rpartition(".")
    return getattr(getattr(tl, place) if place else tl, name)


# What only composites pass, and always as it should be; ``at`` is geometry.
INNER = {"ops.shape._join": ("ends",), "ops.indexing._put": ("shape", "paths")}


@pytest.mark.parametrize("key", PRIMITIVES)
@thoroughly
@given(data=st.data())
def test_primitives(key, data):
    function = PRIMITIVES[key]
    judge(function, data.draw(arguments(function, keep=INNER.get(key, ("at",)))))


# What is no function of its own: methods and assignments, NumPy's functions, derivatives of functions.
def leaf():
    return tl.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)


def setitem(index, value):
    x = tl.zeros(3, 4)
    x[index] = value
    return x


def part_of_a_gradient():
    PRIMITIVES["ops.shape._join"](0, (1,), leaf()).sum().backward()


def setitem_of_integers(index, value):
    x = tl.zeros(3, 4, dtype="int16")
    x[index] = value
    return x


def set_data(value):
    x = tl.zeros(2, 3)
    x.data = value
    return x


def set_grad(value):
    x = leaf()
    x.grad = value


def set_requires_grad(value):
    tl.zeros(2).requires_grad = value


def add_in_place(other):
    x = tl.ones(2, 3)
    x += other
    return x


def multiply_in_place(other):
    x = tl.ones(2, 3, dtype="int64")
    x *= other
    return x


def backward(gradient, retain_graph: "bool" = False):
    (leaf() * 2).backward(gradient, retain_graph)


def register_hook(hook):
    y = leaf() * 2
    y.register_hook(hook).remove()


def set_num_threads(number: "int"):
    before = tl.get_num_threads()
    try:
        tl.set_num_threads(number)
    finally:
        tl.set_num_threads(before)


def derivative(make):
    """``make(fn, argnums)(x, y)``."""

    def function(fn, argnums, x, y):
        return make(fn, argnums)(x, y)

    function.__name__ = make.__name__
    return function


def grad_of_tensors(outputs, inputs, grad_outputs=None, create_graph: "bool" = False, allow_unused: "bool" = False):
    return tl.grad(outputs, inputs, grad_outputs, create_graph, True, allow_unused)


def graph():
    x = leaf()
    return x * x, x


def product(x, y=2.0):
    return tl.mul(tl.mul(x, x), y).sum()


def elementwise(x, y):
    return tl.mul(x, y)


def vjp(fn, x):
    return tl.vjp(fn, x)[1](tl.ones(()))


def checkpoint(fn, *args, generators=()):
    return tl.checkpoint(fn, *args, generators=generators)


def numpys(function):
    """A function of NumPy, as NumPy hands it on to a Tensor that is among the arguments."""
    return lambda x, *args, **kwargs: numpy_api._call(function, (x, *args), kwargs)


def primitive(forward):
    try:
        return tl.primitive(forward)
    finally:
        for key in [key for key in REGISTRY if not key.startswith("tinygrad_lenet.")]:
            del REGISTRY[key]


NUMPY = {
    "np.add": [call(leaf().detach(), t(2, 3))],
    "np.sum": [call(leaf().detach(), 0), call(leaf().detach(), axis=(0, 1), keepdims=True)],
    "np.clip": [call(leaf().detach(), 0.0, 1.0)],
    "np.full_like": [call(leaf().detach(), 2.0)],
    "np.linalg.norm": [call(leaf().detach(), 1, 0)],
}
OTHERS = {
    "setitem": (setitem, [call(1, 2.0), call((slice(0, 2), IDS), t(2, 2)), call(np.array([True, False, True]), t(4))]),
    "setitem_of_integers": (setitem_of_integers, [call(1, 2.0), call((slice(0, 2), IDS), t(2, 2))]),
    "set_data": (set_data, [call(t(2, 3))]),
    "set_grad": (set_grad, [call(None)]),
    "set_requires_grad": (set_requires_grad, [call(True)]),
    "add_in_place": (add_in_place, [call(2.0), call(t(2, 3)), call(t(3))]),
    "multiply_in_place": (multiply_in_place, [call(2), call(np.array([1, 2, 3]))]),
    "backward": (backward, [call(t(2, 3)), call(t(2, 3), True)]),
    "register_hook": (register_hook, [call(lambda g: g * 2)]),
    "set_num_threads": (set_num_threads, [call(1)]),
    "grad": (derivative(tl.grad), [call(product, 0, t(2), 2.0), call(product, (0, 1), t(2), t(2))]),
    "value_and_grad": (derivative(tl.value_and_grad), [call(product, 0, t(2), 2.0), call(product, (0, 1), t(2), t(2))]),
    "jacobian": (derivative(tl.jacobian), [call(elementwise, 0, t(2), 2.0)]),
    "hessian": (derivative(tl.hessian), [call(product, 0, t(2), 2.0), call(product, (0, 1), t(2), t(2))]),
    "grad_of_tensors": (grad_of_tensors, [call(*graph(), t(2, 3))]),
    "vjp": (vjp, [call(product, t(2))]),
    "jvp": (tl.jvp, [call(product, t(2), t(2)), call(product, (t(2), t(2)), (t(2), t(2)))]),
    "hvp": (tl.hvp, [call(product, t(2), t(2)), call(product, (t(2), t(2)), (t(2), t(2)))]),
    "checkpoint": (checkpoint, [call(product, t(2)), call(product, t(2), generators=[])]),
    "draw": (tl.draw, [call(2, 3), call(2, low=0.0, high=1.0), call(values=[1.0, 2.0])]),
    "primitive": (primitive, [call(lambda x: x)]),
    **{key: (numpys(eval(key)), calls) for key, calls in NUMPY.items()},
}
KEEP = dict.fromkeys(["jvp", "hvp", "vjp", "checkpoint", "grad", "value_and_grad", "jacobian", "hessian"], ("fn",))
KEEP |= dict.fromkeys(NUMPY, ("x",))
NAMES += ["x[...] = value", "an index", "an update in place", "changed in place", "data must", "grad must", "hook"]
NAMES += ["add", "mul", "grad:", "np.", "sum", "concatenate", "where", "clip", "pad", "full", "norm"]


@pytest.mark.parametrize("key", OTHERS)
@thoroughly
@given(data=st.data())
def test_methods_and_derivatives(key, data):
    function, calls = OTHERS[key]
    names = [""] if key in KEEP else NAMES  # in a function of the user's it is the op that is named
    judge(function, data.draw(arguments(function, calls, KEEP.get(key, ()))), key, names, strict=False)


@pytest.mark.parametrize("key", CALLS)
@thoroughly
@given(data=st.data())
def test_composites(key, data):
    function, shares = _public(key), key == "from_dlpack"  # which counts as a change of the tensor
    case = data.draw(arguments(function, CALLS[key]))
    changes = (0,) * shares or (1, 2, "running_mean", "running_var") * (key == "batch_norm" and case.plain is None)
    judge(function, case, names=NAMES, shares=shares, strict=not shares, changes=changes)


# What was found, each in its smallest form.
X = np.ones((2, 3), np.float32)
REFUSED = [
    ("a number for a matrix", lambda: tl.linear(1.0, X), tl.ShapeError, "linear: x of shape ()"),
    ("a number that the dtype cannot hold", lambda: tl.tensor([1], dtype="int8") + 300, ValueError, "add: .*int8"),
    ("None for a tensor", lambda: tl.prod(None), tl.DTypeError, "prod: x: .*NoneType"),
    ("a complex number beside floats", lambda: tl.hardtanh(X, 0, np.array([1j])), tl.DTypeError, "hardtanh: max_val"),
    ("a long double beside floats", lambda: tl.mul(X, np.longdouble(1)), tl.DTypeError, "mul: y: .*float128|float64"),
    ("text as numbers", lambda: tl.tensor(["1", "2"], dtype="float32"), tl.DTypeError, "tensor: .*list gives <U1"),
    ("nothing as NaN", lambda: tl.tensor(None, dtype="float32"), tl.DTypeError, "tensor: .*NoneType gives object"),
    ("dates as integers", lambda: tl.tensor(np.zeros(2, "M8[D]"), dtype="int64"), tl.DTypeError, "datetime64"),
    ("complex without its imaginary part", lambda: tl.tensor(X * 1j, dtype="float32"), tl.DTypeError, "complex64"),
    ("a mask that hides values", lambda: tl.tensor(np.ma.masked_less(X, 2)), tl.ArgumentError, "masked"),
    ("a list that holds itself", lambda: tl.tensor(odd.FACTORIES["endless"]()), tl.DTypeError, "tensor: list"),
    ("no dtype", lambda: tl.tensor(X).astype(None), tl.DTypeError, "astype: None is not a dtype"),
    ("True for an axis", lambda: tl.softmax(X, True), tl.DTypeError, "softmax: axis must be an integer, got True"),
    ("half an axis", lambda: tl.sum(X, 0.5), tl.DTypeError, "sum: axis must be an integer, got 0.5"),
    ("half a cut", lambda: tl.split(X, [1.5], 1), tl.DTypeError, "split: indices_or_sections .* 1.5"),
    ("half a width", lambda: tl.pad(X, ((0.9, 0), (0, 0))), tl.DTypeError, "pad: .* integers"),
    ("less than no width", lambda: tl.pad(X, np.int8(-1)), tl.ArgumentError, "pad: the widths in pad must be"),
    ("half a length", lambda: tl.zeros(1.5), tl.DTypeError, "zeros: .*integer, got 1.5"),
    ("True for a length", lambda: tl.zeros(True), tl.DTypeError, "zeros: .*integer, got True"),
    ("two point nought classes", lambda: tl.one_hot([0], 2.0), tl.DTypeError, "one_hot: num_classes"),
    ("True for a stride", lambda: tl.unfold(np.ones((1, 1, 3, 3)), 1, stride=(True, 1)), tl.ArgumentError, "stride"),
    ("a kernel without pixels", lambda: tl.conv2d(IMAGES, IMAGES[:, :, :0]), tl.ShapeError, "conv2d: weight .* 0, 4"),
    ("a rule of another shape", lambda: part_of_a_gradient(), tl.GradientError, "_join: the rule of 'tensors' .*, 3"),
    ("an axis for each of a thousand", lambda: tl.sum(X, (7,) * 999), tl.ArgumentError, "^sum.{,1990}$"),
    ("three paddings", lambda: tl.max_pool2d(np.ones((1, 1, 4, 4)), 2, 2, (1, 1, 1)), tl.ArgumentError, "padding"),
    ("no for True", lambda: tl.argmax(X, 0, "no"), tl.DTypeError, "argmax: keepdims must be True or False, got 'no'"),
    ("a list for a slope", lambda: tl.leaky_relu(X, []), tl.DTypeError, "leaky_relu: negative_slope must be a number"),
    ("words in place of a gradient", lambda: tl.ones(2, requires_grad="no"), tl.DTypeError, "ones: requires_grad"),
    ("statistics that stay", lambda: tl.batch_norm(X, X[0], X[0], training=True), tl.DTypeError, "running_m"),
    ("integers to be normalised", lambda: tl.group_norm(IDS[None], 1), tl.DTypeError, "input must"),
    ("a hook that cannot be called", lambda: leaf().register_hook(1), tl.DTypeError, "register_hook: hook"),
    ("a number for a function", lambda: tl.jacobian(3), tl.DTypeError, "jacobian: fn must be a function"),
    ("a number for an op", lambda: tl.primitive(3), tl.DTypeError, "primitive: forward must be a function"),
    ("half a slice", lambda: tl.tensor(X)[0.5:], tl.DTypeError, "getitem: an index is made of integers"),
    ("bytes for shifts", lambda: tl.roll(X, memoryview(b"ab")), tl.DTypeError, "roll: shift must be an integer"),
    ("minus one part", lambda: tl.split(X, np.int8(-1)), tl.ArgumentError, "split: .*indices_or_sections"),
    ("bytes for tensors", lambda: tl.stack(memoryview(b"ab")), tl.DTypeError, "stack: tensors must be a sequence"),
    ("bytes for a shape", lambda: tl.zeros(bytearray(b"ab")), tl.DTypeError, "zeros: .*integer"),
    ("no index", lambda: tl.gather(X, 0, ()), tl.DTypeError, "gather: index must hold integers, got float64"),
    ("half an index", lambda: tl.embedding((2.0, 1.0), X), tl.DTypeError, "embedding: .* input"),
    ("an old word for text", lambda: tl.tensor(X).astype("a"), tl.DTypeError, "astype: 'a' is not a dtype"),
    ("an array for tensors", lambda: tl.grad(leaf().sum(), np.array(1)), tl.ArgumentError, "grad: inputs must be"),
    ("minus one for True", lambda: tl.grad(product, 0, create_graph=-1), tl.DTypeError, "grad: create_graph must be"),
    ("70 axes, none of a row", lambda: tl.jacobian(lambda x: x[:0])(np.ones((1,) * 35)), tl.ShapeError, "reshape: "),
    ("text for elements", lambda: setitem(0, "a"), tl.DTypeError, r"x\[...\] = value: "),
    ("an op within is not named", lambda: tl.std(X, 5), tl.AxisError, "^std: there is no axis 5"),
]


@pytest.mark.parametrize(("call", "error", "words"), [p[1:] for p in REFUSED], ids=[p[0] for p in REFUSED])
def test_what_was_accepted_or_failed_inside_is_refused_in_a_sentence(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert isinstance(caught.value, tl.TinygradLenetError)


EQUAL = [
    ("indices that are not signed", lambda: tl.one_hot(np.array([1], np.uint8)), lambda: tl.one_hot([1])),
    ("a small number of groups", lambda: grouped(np.int8(2)), lambda: grouped(2)),
    ("a slope from NumPy", lambda: tl.leaky_relu(X, np.float64(0.1)), lambda: tl.leaky_relu(X, 0.1)),
    ("no dtype", lambda: tl.zeros(2, dtype=None), lambda: tl.zeros(2)),
    ("a list of axes", lambda: tl.linalg.norm(X, "fro", [0, 1]), lambda: tl.linalg.norm(X, "fro", (0, 1))),
    ("an array of widths", lambda: tl.pad(X, np.array([[1, 0], [0, 2]])), lambda: tl.pad(X, ((1, 0), (0, 2)))),
    ("a number of parts", lambda: tl.split(X, np.array(3), 1), lambda: tl.split(X, 3, 1)),
    ("counts of 64 bits", lambda: tl.repeat(X, np.array([1, 2], "u8"), 0), lambda: tl.repeat(X, [1, 2], 0)),
    ("NumPy's names", lambda: np.full_like(a=tl.tensor(X), fill_value=2), lambda: tl.full((2, 3), 2)),
]


def grouped(groups):
    images, weight = np.ones((1, 260, 2, 2), np.float32), np.ones((260, 130, 1, 1), np.float32)
    return tl.conv2d(images, weight, groups=groups)


@pytest.mark.parametrize(("found", "expected"), [p[1:] for p in EQUAL], ids=[p[0] for p in EQUAL])
def test_what_is_merely_unusual_makes_no_difference(found, expected):
    same(found(), expected())


IMAGES = np.ones((1, 1, 4, 4), np.float32)
HUGE = {
    "zeros": lambda: tl.zeros(2**45),
    "ones": lambda: tl.ones(2**33),
    "zeros of wrapped size": lambda: tl.zeros(2**32, 2**32),
    "zeros beyond 64 bits": lambda: tl.zeros(2**64),
    "full": lambda: tl.full((2**20, 2**20), 1.0),
    "rand": lambda: tl.rand(2**33),
    "arange": lambda: tl.arange(1e18),
    "arange of float": lambda: tl.arange(0, 1, 1e-15),
    "eye": lambda: tl.eye(2**31),
    "pad": lambda: tl.pad(X, 2**40),
    "pad replicate": lambda: tl.pad(X, (2**40, 0), "replicate"),
    "tile": lambda: tl.tile(X, 2**40),
    "repeat": lambda: tl.repeat(X, 2**40),
    "broadcast_to": lambda: tl.broadcast_to(X, (2**40, 2, 3)).exp(),
    "one_hot": lambda: tl.one_hot([1], 2**40),
    "cumsum": lambda: tl.cumsum(np.broadcast_to(np.float32(1), (2**34,))),
    "outer": lambda: tl.outer(np.ones(2**18), np.ones(2**18)),
    "kron": lambda: tl.kron(np.ones((2**9, 2**9)), np.ones((2**9, 2**9))),
    "matmul": lambda: tl.matmul(np.ones((2**18, 1), np.float32), np.ones((1, 2**18), np.float32)),
    "tensor": lambda: tl.tensor(np.broadcast_to(np.float32(1), (2**34,))),
    "conv2d": lambda: tl.conv2d(IMAGES, np.ones((1, 1, 2, 2)), padding=2**20),
    "unfold": lambda: tl.unfold(IMAGES, 2, padding=2**20),
    "fold": lambda: tl.fold(np.ones((1, 4, 1)), (2**20, 2**20), 2, stride=2**20),
    "max_pool2d": lambda: tl.max_pool2d(IMAGES, 2**20, 1, 2**19),
    "conv_transpose2d": lambda: tl.conv_transpose2d(IMAGES, np.ones((1, 1, 2, 2)), stride=2**20),
    "interpolate": lambda: tl.interpolate(IMAGES, 2**20),
    "adaptive_avg_pool2d": lambda: tl.adaptive_avg_pool2d(IMAGES, 2**20),
    "meshgrid": lambda: [x.exp() for x in tl.meshgrid(np.ones(2**17), np.ones(2**17))],
    "roll": lambda: tl.roll(np.broadcast_to(np.float32(1), (2**34,)), 1),
    "jacobian": lambda: tl.jacobian(lambda x: x * x)(np.ones(2**16)),
}


@pytest.mark.parametrize("name", HUGE)
def test_what_does_not_fit_into_memory_is_an_error_and_not_the_end(name):
    with time_limit(60), pytest.raises(tl.TinygradLenetError, match="|".join([name.split()[0], "tensor", "exp"])):
        HUGE[name]()
    assert tl.add(1.0, 2.0).item() == 3  # and all goes on


def test_a_lack_of_memory_is_python_s_too():
    with pytest.raises(MemoryError, match=r"^zeros: .*\(given: shape=35184372088832\)") as caught:
        tl.zeros(2**45)
    assert isinstance(caught.value, tl.OutOfMemoryError)


def test_the_judge_finds_faults():
    def adds_in_place(x):
        x += 1
        return tl.tensor(x)

    def from_inside(x):
        return np.linalg.inv(x)

    def accepts_anything(x, flag: "bool" = False):
        return tl.tensor(x)

    calls = [((t(2, 2),), {})]
    for function in (adds_in_place, from_inside, accepts_anything):

        @settings(max_examples=200, database=None)
        @given(data=st.data())
        def run(data, function=function):
            judge(function, data.draw(arguments(function, calls)))

        with pytest.raises(BaseException):  # noqa: B017, PT011  # whichever fault was found first
            run()
