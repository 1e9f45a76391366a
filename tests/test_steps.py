"""Steps that are listed once compute the bits of the op again and again, from what their arrays hold by then."""

import re
import threading
from functools import partial

import numpy as np
import pytest
from test_registry import OPS, materialise

import tinygrad_lenet as tl
from tinygrad_lenet.kernels import blas, convolution, pooling, steps
from tinygrad_lenet.kernels.convolution import Geometry
from tinygrad_lenet.kernels.pooling import Averages
from tinygrad_lenet.kernels.steps import Blocked, Scratch, listed
from tinygrad_lenet.kernels.threads import parallel
from tinygrad_lenet.ops.windows import windows

PLANNED = {name.rpartition(".")[2]: op for name, op in OPS.items() if op.steps is not None}
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan]


@pytest.fixture(autouse=True)
def one_thread_of_blas():
    """Small products are left to BLAS, whose bits may follow the number of its threads."""
    number = blas._number()
    before = number[0]() if number else 1
    if number:
        number[1](1)
    yield
    if number:
        number[1](before)


def in_order(x, order):
    """A copy of an array whose axes lie in memory in this order, the outermost first."""
    return x.transpose(order).copy().transpose(np.argsort(order))


def batch_innermost(x):
    """As in the results of a convolution: (H, C, W, N), or (features, N)."""
    return in_order(x, (2, 1, 3, 0) if x.ndim == 4 else range(x.ndim)[::-1])


LAYOUTS = {
    "rows": np.array,
    "batch innermost": batch_innermost,
    "gaps": lambda x: np.repeat(x, 2, -1)[..., ::2] if x.ndim else x.copy(),
}


def refill(x, rng, special):
    """New contents: floats with ties, and perhaps infinities and NaN; other dtypes from the values they have."""
    if x.dtype.kind == "f":
        x[...] = rng.integers(-4, 5, x.shape) * rng.random(x.shape) if special else rng.standard_normal(x.shape)
        if special and x.size:
            few = rng.random(x.shape) < 0.05
            x[few] = rng.choice(SPECIAL, x.shape)[few]
    else:
        x[...] = rng.choice(x.ravel(), x.shape)


def laid_out_like(found):
    order = sorted(range(found.ndim), key=lambda axis: -found.strides[axis])
    return in_order(np.zeros(found.shape, found.dtype), order)


def same_as_forward(op, args, count=1, special=(False, True, False)):
    """Compare listed steps with the op's function, on contents that change; return False if the op has no steps."""
    arrays = [a for a in args if isinstance(a, np.ndarray)]
    rng, room = np.random.default_rng(0), Scratch()
    with np.errstate(all="ignore"):
        out = laid_out_like(np.asarray(op.forward(*args)))
        found = op.steps(out, room, *args)
        if found is None:
            return False
        calls = listed(found, room, count)
        for kind in special:
            for array in arrays:
                refill(array, rng, kind)
            expected = np.asarray(op.forward(*args))
            room.release()
            out.fill(99)
            for block in (block for free in room.free.values() for block in free):
                block.fill(255)  # NaN
            for call in calls:
                call()
            assert out.dtype == expected.dtype
            assert out.tobytes() == expected.tobytes(), f"differ by {np.nanmax(np.abs(out - expected))}"
    return True


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PLANNED)
def test_cases_of_the_registry(name, layout, dtype):
    op = PLANNED[name]
    done = []
    for case in op.cases:
        values, kwargs, _ = materialise(case, dtype)
        args = [
            LAYOUTS[layout](a.astype(dtype) if a.dtype == np.float64 else a) if isinstance(a, np.ndarray) else a
            for a in values
        ]
        args += op.signature.defaults[len(args) : op.signature.arity]
        for key, value in kwargs.items():
            args[op.names.index(key)] = value
        done.append(same_as_forward(op, args))
    assert any(done) or dtype == np.float16


def arrays(*shapes, dtype=np.float32):
    return [np.zeros(shape, dtype) for shape in shapes]


def convolutions():
    for n, c, o, size, kernel, groups, *more in (
        (1, 1, 6, (28, 28), 5, 1, 1, 2, 1),
        (8, 6, 16, (14, 14), 5, 1, 1, 0, 1),
        (300, 6, 16, (14, 14), 5, 1, 1, 0, 1),
        (70, 32, 32, (16, 16), 3, 1, 1, 1, 1),
        (9, 8, 12, (15, 13), (3, 2), 4, (2, 1), (1, 2), (1, 2)),
        (9, 8, 12, (15, 13), 1, 1, 1, 0, 1),
        (5, 4, 4, (9, 9), (3, 1), 4, 2, 1, 1),
    ):
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        at = Geometry(windows(size, kernel, *more), groups)
        x, g, w, b = arrays((n, c, *size), (n, o, *at.windows.grid), (o, c // groups, *kernel), (o,))
        yield "_conv2d", [x, w, b, at]
        yield "_conv2d", [x, w, None, at]
        yield "conv2d_input_grad", [g, w, at]
        yield "conv2d_weight_grad", [x, g, at]


def poolings():
    for n, c, size, *options in (
        (8, 6, (28, 28), 2, 2, 0, 1),
        (64, 16, (60, 60), 2, 2, 0, 1),
        (9, 3, (9, 8), 3, 2, 1, 1),
    ):
        at = windows(size, *options)
        x, g, peak = arrays((n, c, *size), (n, c, *at.grid), (n, c, *at.grid))
        yield "_max_pool2d", [x, at]
        yield "_unpool", [g, x, peak, at]
        yield "_repool", [x.copy(), x, peak, at]
        yield "_avg_pool2d", [x, Averages(at, True, None)]
        yield "_avg_unpool", [g, Averages(at, False, None)]


def products():
    for n, i, o in ((8, 400, 120), (64, 400, 120), (256, 784, 512), (3, 5000, 70), (700, 1, 300)):
        x, w, b, g = arrays((n, i), (o, i), (o,), (n, o))
        yield "linear", [x, w, b]
        yield "linear", [x, w, None]
        yield "linear", [x.reshape(1, n, i), w, b]
        yield "linear", [x, w, b.astype(np.float64)]
        yield "_linear_weight_grad", [g, x]
        yield "_linear_weight_grad", [g.reshape(n, 1, o), x.reshape(n, 1, i)]
        yield "matmul", [x, w.T.copy()]
        yield "matmul", [g.T, x]


def elementwise():
    for name, op in PLANNED.items():
        if name != "cast" and op.forward.__module__.endswith(("activations", "elementwise", "maths", "logic")):
            count = sum(op.signature.operands)
            options = [*op.signature.defaults[count : op.signature.arity]]
            for shapes in [((300, 700),) * count, ((64, 6, 14, 14),) * count]:
                yield name, [*arrays(*shapes), *options]
            yield name, [*arrays((200, 300)), *arrays(*[(200, 300)] * (count - 1), dtype=np.float64), *options]


def reductions():
    for name in ("sum", "mean"):
        for axes in (None, 0, 1, 2, (0, 2, 3), (1, 3), (0, 1)):
            for keepdims in (False, True):
                yield name, [*arrays((300, 6, 30, 5)), axes, keepdims]
        yield name, [*arrays((20_000, 3)), 0, False]


def copies():
    x, small = arrays((64, 6, 14, 14), (8, 16, 5, 5))
    for shape in ((64, -1), (6, 64, 14, 14), (64, 2, 3, 196)):
        yield "reshape", [x, *shape]
    yield "reshape", [small.reshape(8, -1), 8, 16, 5, 5]
    yield "cast", [x, np.float64]
    yield "cast", [x, np.float16]
    yield "clone", [x]


def losses():
    index = np.arange(64) % 10
    for dtype in (np.float32, np.float64):
        x, g, one = arrays((64, 10), (64,), (), dtype=dtype)
        yield "softmax_nll", [x, index, False]
        yield "softmax_nll", [x, index, True]
        yield "_softmax_nll_grad", [g, x, index, False]
        yield "_softmax_nll_grad", [one, x, index, True]
        yield "softmax", [x, -1]
        yield "softmax", [x.reshape(4, 16, 10), 1]


def normalizations():
    for shape in ((64, 6, 28, 28), (300, 20), (9, 4, 5)):
        x, g, w, b = arrays(shape, shape, shape[1:2], shape[1:2])
        yield "normalize", [x, w, b, 1e-5, None]
        yield "_normalize_x", [g, x, w, 1e-5, None]


LARGE = [
    pytest.param(name, args, id=f"{name}-{i}")
    for make in (convolutions, poolings, products, reductions, copies, losses, normalizations, elementwise)
    for i, (name, args) in enumerate(make())
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "args"), LARGE)
def test_large_arrays(name, args, layout):
    args = [LAYOUTS[layout](a) if isinstance(a, np.ndarray) else a for a in args]
    signature = PLANNED[name].signature
    same_as_forward(PLANNED[name], [*args, *signature.defaults[len(args) : signature.arity]])


BLOCKED = [case for case in LARGE if re.match("matmul|linear|_linear|.*conv2d|.*pool", case.values[0])]


@pytest.mark.parametrize(("name", "args"), BLOCKED)
def test_parts_of_a_kernel_run_side_by_side_in_memory_of_their_own(name, args, monkeypatch):
    monkeypatch.setattr(steps, "WORTH", 1)
    monkeypatch.setattr(steps, "parallel", lambda task, count, work: parallel(task, count, 1e12))
    before = tl.get_num_threads()
    tl.set_num_threads(3)
    try:
        same_as_forward(
            PLANNED[name], [batch_innermost(a) if isinstance(a, np.ndarray) else a for a in args], 3, (False, False)
        )
    finally:
        tl.set_num_threads(before)


def test_a_choice_is_made_at_each_run():
    """The input gradient of a convolution: infinite weights must not meet the zeros that it inserts."""
    at = Geometry(windows((6, 5), 3, 2, 1, 1), 1)
    g, weight = np.ones((2, 4, *at.windows.grid), np.float32), np.ones((4, 3, 3, 3), np.float32)
    op, out, room = PLANNED["conv2d_input_grad"], np.empty((2, 3, 6, 5), np.float32), Scratch()
    calls = listed(op.steps(out, room, g, weight, at), room)
    for value in (1, np.inf, 2):
        weight[0, 0, 0, 0] = value
        for call in calls:
            call()
        np.testing.assert_array_equal(out, op.forward(g, weight, at))
        assert np.isinf(out).any() == (value == np.inf)
        assert not np.isnan(out).any()


def test_scratch_memory_is_lent_again_when_it_is_released():
    room, kind = Scratch(), np.dtype(np.float32)
    first, second = room((4, 5), kind), room((20,), kind)
    assert not np.shares_memory(first, second)
    room.release(1)
    assert np.shares_memory(room((3, 6), kind), second)
    room.release()
    third = room((20,), kind)
    assert np.shares_memory(third, first) or np.shares_memory(third, second)
    many = Blocked(lambda block: [partial(np.copyto, room((100, 100), kind), block)], range(50), 1)
    listed([many], room)
    assert sum(block.nbytes for blocks in room.free.values() for block in blocks) < 100_000


def small_kernels():
    """Kernels whose steps are kept, with arguments: images with and without padding, strides, groups and a bias."""
    for n, c, o, size, kernel, groups, *more in (
        (1, 1, 6, (9, 9), 5, 1, 1, 2, 1),
        (1, 6, 16, (8, 7), 3, 1, 1, 0, 1),
        (3, 4, 4, (9, 8), (3, 2), 2, (2, 1), (1, 2), (1, 2)),
        (2, 3, 3, (1, 6), 1, 1, 1, 0, 1),
    ):
        at = Geometry(windows(size, kernel, *more), groups)
        x, g, peak = arrays((n, c, *size), (n, o, *at.windows.grid), (n, c, *at.windows.grid))
        w, b = arrays((o, c // groups, *at.windows.kernel), (o,))
        yield convolution.conv2d, [x, w, b, at]
        yield convolution.conv2d, [x, w, None, at]
        yield convolution.input_grad, [g, w, at]
        yield convolution.weight_grad, [x, g, at]
        yield pooling.max_pool2d, [x, at.windows]
        yield pooling.unpool, [peak, x, peak.copy(), at.windows]
        yield pooling.avg_pool2d, [x, Averages(at.windows, True, None)]
        yield pooling.avg_unpool, [peak, Averages(at.windows, False, None)]


@pytest.mark.parametrize("layout", [*LAYOUTS, "backwards", "broadcast"])
def test_kept_steps_give_the_bits_of_new_ones_and_results_of_their_own(layout):
    rng = np.random.default_rng(0)
    others = {"backwards": lambda x: x.copy()[::-1], "broadcast": lambda x: np.broadcast_to(x[:1].copy(), x.shape)}
    for kernel, args in small_kernels():
        args = [(LAYOUTS | others)[layout](a) if isinstance(a, np.ndarray) else a for a in args]
        found, expected = [], []
        for special in (False, True, False, True, False):
            for array in args:
                if isinstance(array, np.ndarray):
                    refill(array if array.flags.writeable else array.base, rng, special)
            with np.errstate(all="ignore"):
                found.append(kernel(*args))
                expected.append(kernel.__wrapped__(*args))
        for one, other in zip(found, expected, strict=True):
            assert one.tobytes() == other.tobytes()
            assert one.strides == other.strides  # so that what follows takes the same path
            assert one.dtype == other.dtype


def test_threads_and_errors_share_no_kept_steps():
    at = windows((12, 12), 2, 2, 0, 1)
    images = [np.full((1, 3, 12, 12), i, np.float32) for i in range(8)]
    wrong = []

    def work(x):
        for _ in range(300):
            if not (pooling.avg_pool2d(x, Averages(at, True, None)) == x[:, :, :6, :6]).all():
                wrong.append(x)

    several = [threading.Thread(target=work, args=(x,)) for x in images]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    assert not wrong
    huge = np.full((1, 3, 12, 12), 3e38, np.float32)
    for _ in range(4):
        with np.errstate(over="raise"), pytest.raises(FloatingPointError):
            pooling.avg_pool2d(huge, Averages(at, True, None))
        work(images[3])
    assert not wrong
