"""Whatever one passes to a public function: a right result, or an error of the package that names what is at fault.

HYPOTHESIS_PROFILE=thorough pytest tests/test_bad_input.py      the number of cases stands in the last lines
"""

import numpy as np
import pytest
from hostile import COUNTS, arguments, judge, memory_limit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet import numpy_api, optim
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


assert optim  # its ops too
PRIMITIVES = {
    key.removeprefix("tinygrad_lenet."): _find(op) for key, op in REGISTRY.items() if key.startswith("tinygrad_lenet.")
}


def call(*args, **kwargs):
    return args, kwargs


IMAGE, IDS = t(2, 2, 4, 4), np.array([1, 0])
# How functions that are no primitives are called as they should be.
CALLS = {
    "adaptive_avg_pool2d": [call(IMAGE, 2), call(IMAGE, (3, None))],
    "adaptive_max_pool2d": [call(IMAGE, 2), call(IMAGE, (3, None))],
    "allclose": [call(t(2, 3), t(2, 3)), call(t(3), 0.5, 0.1, 0.2, True)],
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
    "diag": [call(t(3)), call(t(2, 3), 1)],
    "diff": [call(t(2, 3)), call(t(2, 5), 2, 1, 0.5, t(2, 1))],
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
    "full_like": [call(t(2, 3), 1.5), call(t(2), 0, "int64")],
    "gather": [call(t(2, 3), 1, np.array([[0, 2], [1, 1]]))],
    "gelu": [call(t(2, 3)), call(t(3), "tanh")],
    "getitem": [call(t(3, 4), 1), call(t(3, 4), (slice(0, 2), IDS)), call(t(3), np.array([True, False, True]))],
    "group_norm": [call(t(2, 4, 3), 2), call(t(2, 4, 3), 2, t(4), t(4), 1e-3)],
    "hstack": [call([t(2, 3), t(2, 1)]), call((t(2), t(3)))],
    "huber_loss": [call(t(3, 2), t(3, 2)), call(t(3), t(3), "sum", 0.5)],
    "inner": [call(t(2, 3), t(4, 3))],
    "interpolate": [
        call(IMAGE, 3), call(IMAGE, (2, 8)), call(IMAGE, None, 2.0, "bilinear", False), call(IMAGE, None, (0.5, 2)),
        call(IMAGE, 3, None, "bilinear", True),
    ],
    "kl_div": [call(t(3, 2), t(3, 2, low=0)), call(t(3, 2), t(3, 2), "batchmean", True)],
    "l1_loss": [call(t(3, 2), t(3, 2), "sum")],
    "layer_norm": [call(t(2, 3), 3), call(t(2, 3, 2), (3, 2), t(3, 2), t(3, 2), 1e-3)],
    "linspace": [call(0, 1, 5), call(2.5, -1, 3, "float64")],
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
    "ones_like": [call(t(2, 3)), call(t(2), "int64", False)],
    "ones": [call(2, 3), call((2, 3), dtype="float64")],
    "outer": [call(t(2), t(3))],
    "pad": [
        call(t(2, 3), (1, 2)), call(t(2, 3), ((0, 1), (2, 0)), value=0.5), call(t(2, 3), 1, "replicate"),
        call(t(3, 3), (1, 1, 2, 0), "reflect"), call(t(3, 3), (1, 2), "circular"),
    ],
    "prelu": [call(t(2, 3), t(1)), call(t(2, 3, 2), t(3))],
    "rand": [call(2, 3, generator=0), call((2, 3), generator=1, dtype="float64")],
    "rand_like": [call(t(2, 3), 0), call(t(2), 1, "float64")],
    "randint": [call(10, (2, 3), generator=0), call(-3, 4, (2,), 1, "int32")],
    "randn_like": [call(t(2, 3), 0), call(t(2), 1, "float64")],
    "randperm": [call(5, 0), call(4, 1, "int32")],
    "rsqrt": [call(t(2, 3, low=0.1))],
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
    "vstack": [call([t(2, 3), t(1, 3)]), call((t(2), t(2)))],
    "zeros_like": [call(t(2, 3)), call(t(2), "int64", False)],
    "zeros": [call(2, 3), call((2, 3), dtype="float64")],
    "linalg.norm": [call(t(2, 3)), call(t(2, 3), 1, 0), call(t(3), 3), call(t(2, 3), "fro", (0, 1), True)],
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
INNER |= {"ops.softmax.softmax_nll": ("index",), "ops.softmax._softmax_nll_grad": ("index",)}
INNER |= {"ops.indexing.checked_index": ("index",), "ops.indexing._origin": ("shape", "positions")}
INNER |= {"ops.losses.count_classes": ("index",)}
INNER |= {"ops.normalization._moved": ("running", "newest"), "ops.clipping._joint_norm": ("gradients",)}
INNER |= {"ops.clipping._limited": ("g", "total"), "ops.clipping._narrow": ("total",)}


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


def test_the_judge_finds_faults():
    def adds_in_place(x):
        x += 1
        return tl.tensor(x)

    def from_inside(x):
        return tl.tensor(np.linalg.inv(x.numpy() if isinstance(x, tl.Tensor) else x))

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
