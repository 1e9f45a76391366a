"""A rule does the same whether its gradient is an array or a Tensor: equal bits, dtypes and layouts."""

import contextlib
import dis
import functools
import math

import numpy as np
import pytest
from test_registry import OPS, find

import tinygrad_lenet as tl
from tinygrad_lenet import nn
from tinygrad_lenet.core.accumulation import Part
from tinygrad_lenet.core.interface import Draw, draw
from tinygrad_lenet.ops.indexing import _Method
from tinygrad_lenet.ops.windows import windows

LEAST, LONG = 4096, 256  # elements, and terms of a sum, up to which NumPy's sums and the package's are the same
MOST = 200_000
REDUCTIONS = {"sum", "mean", "max", "min", "std", "var", "norm", "cumsum", "cumprod"}
FACTORS = (2, 3, 4, 6, 8, 12, 20, 40, 60, 90, 150, 400, 1100, 2100)
CASES = [pytest.param(op, i, id=f"{op.name}-{i}") for op in OPS.values() for i in range(len(op.cases))]

# Those that are not enlarged by longer axes alone: their options name lengths too.
LARGER = {
    "reshape-0": (draw(300, 12, 4), (300, 6, 8)),
    "broadcast_to-0": (draw(300, 1), (2, 300, 40)),
    "_on_diagonal-0": (draw(2, 300), (2, 301, 302), 2),
    "_put-0": ((300, 40), (((np.arange(600) % 300, slice(1, 30)),),), draw(600, 29)),
    "_put-1": ((300, 40), (((1, slice(0, 30)),), ((Ellipsis,),)), draw(30), draw(300, 40)),
    "_put-2": (
        (300, 40),
        (((1, slice(1)),), ((slice(1, 300),), _Method("transpose", (1, 0)), (1,))),
        draw(1),
        draw(299),
    ),
    "_unpool-0": (draw(300, 4, 2, 2), np.ones((300, 4, 4, 4)), np.ones((300, 4, 2, 2)), windows((4, 4), 2, 2, 0, 1)),
    "_normalize_x-0": (draw(300, 2, 2, 9), draw(300, 2, 2, 9), draw(2), 1e-3, None),
}


def longer(value, factor, axes):
    """The argument with some of its axes longer; those of length 1 stay, so that what broadcast still does."""
    if isinstance(value, Draw) and value.values is None:
        return value._replace(shape=tuple(n * factor if i in axes and n > 1 else n for i, n in enumerate(value.shape)))
    array = value.values if isinstance(value, Draw) else value
    if not isinstance(array, (np.ndarray, list)):
        return value
    array = np.asarray(array)
    array = np.tile(array, [factor if i in axes and n > 1 else 1 for i, n in enumerate(array.shape)])
    return value._replace(values=array, shape=array.shape) if isinstance(value, Draw) else array


def materialise(args, dtype):
    """Arrays for what is to be drawn, and where these are among the arguments."""
    rng = np.random.default_rng(0)
    drawn = [i for i, a in enumerate(args) if isinstance(a, Draw)]
    values = list(args)
    for i in drawn:
        a = args[i]
        values[i] = np.asarray(rng.uniform(a.low, a.high, a.shape) if a.values is None else a.values).astype(dtype)
    return values, drawn


def enlargements(args):
    """The arguments with all axes longer; with the first axis longer; or with one axis of one argument longer."""
    for factor in FACTORS:
        yield [longer(a, factor, range(9)) for a in args]
    for factor in FACTORS:
        yield [longer(a, factor, (0,)) for a in args]
    for one in (i for i, a in enumerate(args) if isinstance(a, Draw)):
        for axis in range(len(args[one].shape)):
            for factor in FACTORS:
                yield [longer(a, factor, (axis,)) if i == one else a for i, a in enumerate(args)]


@functools.cache
def large(op, case):
    """The arguments of a case enlarged, in the first way that the op takes and that makes a difference to sums."""
    args, kwargs = op.cases[case]
    if f"{op.name}-{case}" in LARGER:
        return LARGER[f"{op.name}-{case}"]
    if not any(isinstance(a, Draw) for a in args):
        return None
    for found in enlargements(args):
        shapes = [a.shape for a in found if isinstance(a, Draw)]
        if max(map(math.prod, shapes), default=0) < MOST:
            with contextlib.suppress(tl.TinygradLenetError):
                out = find(op)(*materialise(found, np.float64)[0], **kwargs)
                enough = any(math.prod(shape) > LEAST and max(shape) > LONG for shape in (out.shape, *shapes))
                if enough and out.size < 10 * MOST:
                    return found
    return None


def batch_last(a):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0) if a.ndim > 1 else a


def stretched(a):
    return np.broadcast_to(a[:1], a.shape) if a.ndim else a


def order(a):
    """How the elements are ordered in memory."""
    return [(n, s) for n, s in zip(a.shape, a.strides, strict=True) if n > 1]


def both_ways(node, seed):
    """What the rules make of a gradient as arrays: given an array, and given a Tensor."""
    ways = []
    for wrap in (lambda a: a, tl.Tensor._wrap):
        found = []

        def arrive(_, g, found=found):
            g = g.whole() if isinstance(g, Part) else g
            found.append(np.asarray(g._data if isinstance(g, tl.Tensor) else g))

        with tl.no_grad():
            node.plan.pull(node, wrap(seed), None, arrive)
        ways.append(found)
    return ways


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("op", "case"), CASES)
def test_every_rule_gives_the_same_with_arrays_and_with_tensors(op, case, dtype):
    args, kwargs = large(op, case) or op.cases[case][0], op.cases[case][1]
    values, drawn = materialise(args, dtype)
    for layout in (np.array, np.asfortranarray, batch_last):
        tensors = list(values)
        for i in drawn:
            tensors[i] = tl.Tensor._wrap(layout(values[i]))
            tensors[i].requires_grad = True
        out = find(op)(*tensors, **kwargs)
        if out._node is None:
            return
        seed = np.random.default_rng(1).uniform(-1, 1, out.shape).astype(out.dtype)
        for seeding in (layout, np.array, stretched):
            for with_array, with_tensor in zip(*both_ways(out._node, seeding(seed)), strict=True):
                np.testing.assert_array_equal(with_array, with_tensor, strict=True)
                assert with_array.tobytes() == with_tensor.tobytes()  # zeros have signs
                # Sums further back depend on the layout. Where g lies otherwise than the values, NumPy may reuse the
                # memory of a large temporary array in its place, and with Tensors there are none.
                assert seeding is not layout or order(with_array) == order(with_tensor)


def test_no_rule_sums_by_a_method_or_asks_what_it_got():
    """``g.sum()`` is NumPy's sum of an array, and the package's of a Tensor; the op ``sum`` takes both."""
    numbers = {"_pow_x", "_pow_y"}  # ask for Python numbers, which widen nothing
    parts = {"_unpick"}  # of a gradient
    for op in OPS.values():
        for rule in filter(None, op.rules.values()):
            if rule.__name__ == "_det_x":  # chooses between two formulas by the values
                continue
            for step in dis.get_instructions(rule):
                if step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                    assert step.argval not in REDUCTIONS, f"the rule of {op.name} calls .{step.argval}()"
                assert step.argval != "isinstance" or rule.__name__ in numbers | parts, op.name


def test_every_case_can_be_enlarged():
    for op in OPS.values():
        for i, (args, _) in enumerate(op.cases):
            if any(isinstance(a, Draw) for a in args) and any(op.rules.values()):
                assert large(op, i) is not None, f"{op.name}-{i}: say in LARGER how"


def conv_block(channels, outputs):
    return [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


NETS = {
    "LeNet-5": (lambda: nn.LeNet5(), (48, 1, 28, 28)),
    "LeNet-5 of 1998": (lambda: nn.LeNet5(activation="tanh", pool="avg"), (48, 1, 28, 28)),
    "VGG-like": (
        lambda: nn.Sequential(
            *conv_block(3, 8), *conv_block(8, 16), nn.MaxPool2d(2), *conv_block(16, 16), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(256, 10),
        ),
        (40, 3, 16, 16),
    ),
    "MLP": (
        lambda: nn.Sequential(nn.Linear(64, 300), nn.LayerNorm(300), nn.GELU(), nn.Dropout(0.2), nn.Linear(300, 10)),
        (300, 64),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_a_backward_pass_gives_the_same_bits_when_it_records_itself(name):
    make, shape = NETS[name]
    net = make()
    images = tl.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32), requires_grad=True)
    loss = tl.cross_entropy(net(images), np.arange(len(images)) % 10)
    inputs = [images, *net.parameters()]
    plain = tl.grad(loss, inputs, retain_graph=True)
    recorded = tl.grad(loss, inputs, create_graph=True)
    for one, other in zip(plain, recorded, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.detach().numpy(), strict=True)


@pytest.mark.parametrize("layout", [np.array, np.asfortranarray])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_are_added_and_broadcasting_undone_with_the_same_bits(dtype, layout):
    rng = np.random.default_rng(0)
    x = tl.Tensor._wrap(layout(rng.standard_normal((700, 40)).astype(dtype)))
    column, row, number = (tl.tensor(rng.standard_normal(s).astype(dtype)) for s in ((700, 1), (40,), ()))
    for tensor in (inputs := [x, column, row, number]):
        tensor.requires_grad = True
    places = rng.integers(0, 700, 2000)
    parts = [x[::2] * row, x[places] * number, x.T[3:] * column.T, x * x + number, x[5], (x * column)[:, 7]]
    total = sum((part * tl.tensor(layout(rng.standard_normal(part.shape).astype(dtype)))).sum() for part in parts)
    plain = tl.grad(total, inputs, retain_graph=True)
    recorded = tl.grad(total, inputs, create_graph=True)
    for one, other in zip(plain, recorded, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.detach().numpy(), strict=True)
