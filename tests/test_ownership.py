"""No op returns its argument: a result owns its memory, or the op is declared a view and shares the version counter."""

import inspect
import itertools

import numpy as np
import pytest
from test_registry import CASES, find, materialise

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F
from tinygrad_lenet import linalg, nn
from tinygrad_lenet.core.names import METHODS

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # means of nothing, and the like

SHAPES = [(3,), (1,), (0,), (), (3, 3), (1, 1), (2, 1), (0, 3), (2, 3, 4), (1, 2, 3, 3), (1, 1, 1, 1), (2, 2, 4, 4)]
# What does not fit an op, or the functions of these tables.
REFUSED = (TypeError, ValueError, IndexError, AttributeError, tl.GradientError)
DTYPES = [np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_]

VIEWS = {
    "reshape": [lambda x: tl.reshape(x, x.shape), lambda x: x.reshape(-1)],
    "flatten": [tl.flatten, lambda x: x.flatten(), lambda x: tl.flatten(x, 0, 0)],
    "squeeze": [tl.squeeze, lambda x: tl.squeeze(x, ()), lambda x: tl.squeeze(x, 0)],
    "unsqueeze": [lambda x: tl.unsqueeze(x, 0)],
    "expand_dims": [lambda x: tl.expand_dims(x, ()), lambda x: tl.expand_dims(x, 0)],
    "transpose": [tl.transpose, lambda x: x.T, lambda x: tl.transpose(x, 0, 0), np.transpose],
    "permute": [lambda x: tl.permute(x, *range(x.ndim))],
    "swapaxes": [lambda x: tl.swapaxes(x, 0, 0), lambda x: tl.swapaxes(x, 0, -1)],
    "moveaxis": [lambda x: tl.moveaxis(x, 0, 0), lambda x: tl.moveaxis(x, (), ())],
    "flip": [tl.flip, lambda x: tl.flip(x, ()), lambda x: tl.flip(x, 0)],
    "expand": [lambda x: x.expand(*x.shape), lambda x: x.expand(2, *x.shape)],
    "broadcast_to": [lambda x: tl.broadcast_to(x, x.shape), lambda x: tl.broadcast_to(x, 2, *x.shape)],
    "diagonal": [tl.diagonal, lambda x: tl.diagonal(x, 1, -1, 0)],
    "split": [lambda x: tl.split(x, 1), lambda x: tl.split(x, []), lambda x: tl.split(x, [1])],
    "chunk": [lambda x: tl.chunk(x, 1), lambda x: x.chunk(2)],
    "unbind": [lambda x: tl.unbind(x) if x.ndim > 1 else tl.unbind(x.reshape(1, -1))],
    "getitem": [lambda x: x[...], lambda x: x[:], lambda x: x[None], lambda x: x[..., ::-1],
                lambda x: tl.getitem(x, ())],
}  # fmt: skip
UNARY = "abs sign floor ceil round reciprocal clone neg square sqrt exp expm1 log log1p log2 log10 sin cos tan arcsin "
UNARY += (
    "arccos arctan sinh cosh erf celu elu gelu hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish relu relu6 "
)
UNARY += (
    "selu sigmoid silu softplus softsign tanh logical_not bitwise_not softmax log_softmax argsort sort median one_hot "
    "rsqrt isnan isinf isfinite diag"
)
REDUCTIONS = "sum mean var std max min amax amin prod logsumexp any all count_nonzero norm"
ALONG = "cumsum cumprod argmax argmin"
BINARY = "add sub mul div pow mod maximum minimum hypot arctan2 logaddexp eq ne lt le gt ge logical_and logical_or "
BINARY += "bitwise_and bitwise_or bitwise_xor matmul dot inner outer tensordot"
BINARY += " true_divide floor_divide"
LOSSES = "mse_loss l1_loss huber_loss smooth_l1_loss kl_div binary_cross_entropy_with_logits cross_entropy"


def calls(words, *makers):
    """Each op in several ways: a maker turns it into a function of one tensor."""
    return {name: [maker(getattr(tl, name)) for maker in makers] for name in words.split()}


# Options with which nothing is left to do, and others with which something is.
OWNERS = {
    **calls(UNARY, lambda f: f),
    **calls(REDUCTIONS, lambda f: f, lambda f: lambda x: f(x, axis=()), lambda f: lambda x: f(x, axis=0)),
    **calls(ALONG, lambda f: f, lambda f: lambda x: f(x, 0)),
    **calls(BINARY, lambda f: lambda x: f(x, 0), lambda f: lambda x: f(x, x), lambda f: lambda x: f(0, x),
            lambda f: lambda x: f(x, 1)),
    "diff": [tl.diff, lambda x: tl.diff(x, 0), lambda x: tl.diff(x, 0, append=x)],
    **calls("concatenate stack hstack vstack", lambda f: lambda x: f([x])),
    **calls("matmul", lambda f: lambda x: f(x, x)),
    **calls("tensordot", lambda f: lambda x: f(x, x), lambda f: lambda x: f(x, np.ones((), x.dtype), 0)),
    **calls(LOSSES, *(lambda f, r=r: lambda x: f(x, x, reduction=r) for r in ("none", "sum", "mean"))),
    **calls("nll_loss multi_margin_loss",
            lambda f: lambda x: f(x, np.zeros(x.shape[:1], np.int64), reduction="none")),
    "binary_cross_entropy": [lambda x: F.binary_cross_entropy(tl.sigmoid(x), tl.sigmoid(x), reduction="none")],
    "clip": [tl.clip, lambda x: tl.clip(x, -9, 9)],
    "clamp": [tl.clamp],
    "masked_fill": [lambda x: x.masked_fill(False, 0), lambda x: tl.masked_fill(x, x == x, x.sum())],
    "astype": [lambda x: x.astype(x.dtype)],
    "where": [lambda x: tl.where(True, x, 0), lambda x: tl.where(False, 0, x), lambda x: tl.where(x == x, x, x)],
    "roll": [lambda x: tl.roll(x, 0), lambda x: tl.roll(x, 3, 0), lambda x: tl.roll(x, (), ()),
             lambda x: tl.roll(x, 1)],
    "tile": [lambda x: tl.tile(x, 1), lambda x: tl.tile(x, ()), lambda x: x.tile((1, 1)), lambda x: tl.tile(x, 0)],
    "repeat": [lambda x: tl.repeat(x, 1), lambda x: tl.repeat(x, 1, 0), lambda x: tl.repeat(x, [1], 0),
               lambda x: tl.repeat(x, 0)],
    "pad": [lambda x: tl.pad(x, ()), lambda x: tl.pad(x, 0), *(
        lambda x, mode=mode: tl.pad(x, 0, mode) for mode in ("reflect", "replicate", "circular"))],
    "tril": [lambda x: tl.tril(x, 9)],
    "triu": [lambda x: tl.triu(x, -9)],
    "trace": [tl.trace],
    "einsum": [lambda x: tl.einsum("i->i", x), lambda x: tl.einsum("ij->ji", x), lambda x: tl.einsum("ij", x),
               lambda x: tl.einsum("ii->i", x), lambda x: tl.einsum("...", x), lambda x: tl.einsum("...ii->...i", x)],
    "meshgrid": [lambda x: tl.meshgrid(x), lambda x: tl.meshgrid(x, x), lambda x: tl.meshgrid(x, indexing="ij"),
                 lambda x: tl.meshgrid([1.0], x)],
    "topk": [lambda x: tl.topk(x, x.shape[-1])],
    "gather": [lambda x: tl.gather(x, 0, np.zeros(x.shape, np.int64))],
    "take_along_axis": [lambda x: tl.take_along_axis(x, np.zeros(x.shape, np.int64), 0)],
    "scatter": [lambda x: tl.scatter(x, 0, np.zeros((0,) * x.ndim, np.int64), 1),
                lambda x: tl.scatter(x, 0, np.zeros(x.shape, np.int64), x)],
    "scatter_add": [lambda x: tl.scatter_add(x, 0, np.zeros((0,) * x.ndim, np.int64), 1)],
    "linear": [lambda x: F.linear(x, np.eye(x.shape[-1], dtype=x.dtype))],
    "unfold": [lambda x: tl.unfold(x, 1)],
    "fold": [lambda x: tl.fold(x, (2, 2), 1), lambda x: tl.fold(x.reshape(1, 2, 9), (3, 3), 1)],
    "max_pool2d": [lambda x: tl.max_pool2d(x, 1)],
    "avg_pool2d": [lambda x: tl.avg_pool2d(x, 1)],
    "max_pool1d": [lambda x: tl.max_pool1d(x, 1)],
    "avg_pool1d": [lambda x: tl.avg_pool1d(x, 1)],
    "adaptive_avg_pool2d": [lambda x: tl.adaptive_avg_pool2d(x, x.shape[-2:]),
                            lambda x: tl.adaptive_avg_pool2d(x, None)],
    "adaptive_max_pool2d": [lambda x: tl.adaptive_max_pool2d(x, x.shape[-2:]),
                            lambda x: tl.adaptive_max_pool2d(x, None)],
    "interpolate": [lambda x: tl.interpolate(x, x.shape[-2:]), lambda x: tl.interpolate(x, scale_factor=1),
                    lambda x: tl.interpolate(x, x.shape[-2:], mode="bilinear")],
    "conv2d": [lambda x: tl.conv2d(x, np.ones((1, x.shape[1], 1, 1), x.dtype))],
    "conv_transpose2d": [lambda x: tl.conv_transpose2d(x, tl.ones(x.shape[1], 1, 1, 1, dtype=x.dtype))],
    "conv1d": [lambda x: tl.conv1d(x, np.ones((1, x.shape[1], 1), x.dtype))],
    "conv_transpose1d": [lambda x: tl.conv_transpose1d(x, np.ones((x.shape[1], 1, 1), x.dtype))],
    "dropout": [lambda x: F.dropout(x, 0.0), lambda x: F.dropout(x, training=False), lambda x: F.dropout(x, 0.5)],
    "dropout2d": [lambda x: F.dropout2d(x, 0.0), lambda x: F.dropout2d(x, training=False)],
    "prelu": [lambda x: F.prelu(x, 1.0)],
    "embedding": [lambda x: F.embedding(np.arange(x.shape[0]), x), lambda x: F.embedding([0], x, padding_idx=0)],
    "batch_norm": [lambda x: F.batch_norm(x, training=True),
                   lambda x: F.batch_norm(x, tl.zeros(x.shape[1]), tl.ones(x.shape[1]))],
    "layer_norm": [lambda x: F.layer_norm(x, x.shape[-1:])],
    "group_norm": [lambda x: F.group_norm(x, 1)],
}  # fmt: skip
OWNERS["norm"].append(linalg.norm)
OWNERS["getitem"] = [lambda x: x[np.arange(x.shape[0])], lambda x: x[x == x], lambda x: x[[]], lambda x: x[True]]
OWNERS["round"] += [lambda x: tl.round(x, 9), np.round]
OWNERS["clone"] += [lambda x: +x, np.positive, np.copy]
# What makes tensors of no tensor, and what is not an op.
OTHERS = (
    "allclose arange eye full full_like linspace manual_seed ones ones_like zeros_like rand_like randint randn_like "
    "randperm rand randn zeros tensor as_tensor from_dlpack draw load load_checkpoint load_metadata save "
)
OTHERS += (
    "save_checkpoint primitive grad value_and_grad vjp jvp jacobian hessian hvp checkpoint compile no_grad enable_grad "
)
OTHERS += "cat concat mm bmm empty "  # other names of functions in the tables
ITSELF = "to contiguous cpu float double half int long bool"  # where there is nothing to change, see test_tensor_words
OTHERS += "is_grad_enabled get_num_threads set_num_threads detect_anomaly set_detect_anomaly"


def test_every_public_op_is_in_the_tables():
    functions = {n for n in [*tl.__all__, *F.__all__, *linalg.__all__] if inspect.isfunction(getattr(tl, n, tl.sum))}
    assert functions <= VIEWS.keys() | OWNERS.keys() | {*OTHERS.split()}
    methods = {f.__name__ for f in METHODS.values()} - {"<lambda>"}
    assert methods - {"allclose"} <= VIEWS.keys() | OWNERS.keys() | {*ITSELF.split()}


def inputs(call):
    """Each tensor that a call takes, with what it gives."""
    for shape, dtype in itertools.product(SHAPES, DTYPES):
        values = np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape)
        x = tl.tensor((values / 8 + 0.25 if dtype().dtype.kind == "f" else values % 2).astype(dtype))
        try:
            with np.errstate(all="ignore"), tl.no_grad():
                found = call(x)
        except REFUSED:
            continue
        yield x, found if isinstance(found, tuple) else (found,)


def cases(table):
    return [pytest.param(call, id=f"{name}-{i}") for name, calls in table.items() for i, call in enumerate(calls)]


@pytest.mark.parametrize("call", cases(OWNERS))
def test_an_op_owns_its_memory(call):
    seen = 0
    for x, found in inputs(call):
        before = x.numpy().copy()
        for i, y in enumerate(found):
            assert y is not x
            assert not np.shares_memory(y.numpy(), x.numpy())
            assert not any(np.shares_memory(y.numpy(), z.numpy()) for z in found[:i])
            assert y._version is not x._version
            y[...] = 1
        np.testing.assert_array_equal(x.numpy(), before)
        seen += 1
    assert seen


@pytest.mark.parametrize("call", cases(VIEWS))
def test_a_view_shares_memory_and_the_version_counter_and_is_another_tensor(call):
    shared = 0
    for x, found in inputs(call):
        for y in found:
            assert y is not x
            if np.shares_memory(y.numpy(), x.numpy()):
                assert y._version is x._version
                shared += 1
    assert shared


@pytest.mark.parametrize("call", [*cases(VIEWS), *cases(OWNERS)])
def test_hooks_and_gradients_of_the_result_are_not_those_of_the_argument(call):
    for shape in SHAPES:
        x = tl.tensor(np.random.default_rng(0).uniform(0.5, 1, shape), requires_grad=True)
        z = x * 1  # has a node of its own
        try:
            with np.errstate(all="ignore"):
                found = call(z)
        except REFUSED:
            continue
        for y in found if isinstance(found, tuple) else (found,):
            assert y is not z
            if y.requires_grad:
                assert y._node is not z._node
                calls = []
                y.register_hook(calls.append)
                (z * 2).sum().backward(retain_graph=True)
                assert not calls
        with tl.no_grad():
            found = call(x)
        assert all(y is not x and not y.requires_grad for y in (found if isinstance(found, tuple) else (found,)))


@pytest.mark.parametrize(("op", "case"), CASES)
def test_a_primitive_owns_its_memory_or_is_declared_a_view(op, case):
    values, kwargs, drawn = materialise(case)
    for wrap in (tl.tensor, np.array):
        args = [wrap(v) if i in drawn else v for i, v in enumerate(values)]
        out = find(op)(*args, **kwargs)
        for a in args:
            held = a._data if isinstance(a, tl.Tensor) else a
            if isinstance(held, np.ndarray) and np.shares_memory(held, out._data):
                assert op.view, f"{op.name} is not declared a view"
                assert isinstance(a, tl.Tensor)
                assert a._version is out._version


@pytest.mark.parametrize(
    "layout", [np.array, np.asfortranarray, lambda a: np.repeat(a, 2, 0)[::2], lambda a: a.tolist()]
)
@pytest.mark.parametrize("call", [*cases(VIEWS), *cases(OWNERS)])
def test_the_memory_of_an_array_is_never_shared(call, layout):
    for shape in SHAPES:
        given = layout(np.random.default_rng(0).uniform(0.5, 1, shape)) if shape else np.array(0.5)
        try:
            with np.errstate(all="ignore"):
                found = call(given)
        except REFUSED:
            continue
        for y in found if isinstance(found, tuple) else (found,):
            if isinstance(y, tl.Tensor):
                assert y._data.flags.writeable
                assert not isinstance(given, np.ndarray) or not np.shares_memory(given, y._data)


# Ops of the user's own


def window(x):
    return np.lib.stride_tricks.sliding_window_view(x, 2)


FORWARD = {
    "itself": lambda x: x,
    "a slice": lambda x: x[1:],
    "transposed": lambda x: x.T,
    "windows": window,
    "read-only": lambda x: np.broadcast_to(x, (2, *x.shape)),
    "a memoryview": lambda x: np.asarray(memoryview(x)),
}


@pytest.mark.parametrize("name", FORWARD)
def test_an_op_of_ones_own_that_returns_its_argument_gets_a_copy(name):
    @tl.primitive
    def own(x: tl.Array, options: object = None) -> tl.Array:
        return FORWARD[name](x)

    @tl.primitive(view=True)
    def seen(x: tl.Array) -> tl.Array:
        return FORWARD[name](x)

    for big in (4, 40_000):
        x = tl.tensor(np.arange(float(big)))
        y = own(x)
        assert y._version is not x._version
        y[...] = -1
        np.testing.assert_array_equal(x.numpy(), np.arange(float(big)))
        v = seen(x)
        assert v._version is x._version
        assert np.shares_memory(v.numpy(), x.numpy())
        array = np.arange(float(big))
        for op in (own, seen):
            op(array)[...] = -1
        np.testing.assert_array_equal(array, np.arange(float(big)))
    assert not tl.primitive(view=False)(FORWARD["itself"]).op.view


def test_an_option_is_an_argument_too():
    @tl.primitive
    def picked(x: tl.Array, options: object) -> tl.Array:
        return options[0]

    @tl.primitive
    def nested(x: tl.Array, options: object) -> tl.Array:
        return options["rows"][0][0]

    held, x = np.zeros(3), tl.zeros(3)
    picked(x, [held])[...] = 1
    picked(x, {0: held})[...] = 1
    nested(x, {"rows": [[held]]})[...] = 1
    assert not held.any()
    picked(x, (x._data,))[...] = 1
    assert not x.numpy().any()


def test_a_recorded_gradient_owns_its_memory():
    @tl.primitive
    def half_square(x: tl.Array) -> tl.Array:
        return (x * x).sum() / 2

    x, t = tl.ones(3, requires_grad=True), tl.ones(3, requires_grad=True)
    for rule in (lambda g, x: x, lambda g, x: tl.flip(x), lambda g, x: tl.checkpoint(tl.as_tensor, x)):
        half_square.vjp(x=rule)
        y = half_square(x)
        with tl.no_grad():
            (slope,) = tl.grad(y, x, create_graph=True)
        assert not np.shares_memory(slope.numpy(), x.numpy())
        np.testing.assert_array_equal(tl.grad(slope.sum(), x)[0].numpy(), np.ones(3))
    handle = x.register_hook(lambda g: t)
    (slope,) = tl.grad((x * 1).sum(), x, create_graph=True)
    handle.remove()
    assert slope is not t
    assert not np.shares_memory(slope.numpy(), t.numpy())
    (slope,) = tl.grad(tl.flip(x), x, t, create_graph=True)
    assert not np.shares_memory(slope.numpy(), t.numpy())
    y = tl.flip(x)
    with tl.no_grad():
        (slope,) = tl.grad(y, x, t, create_graph=True)
    np.testing.assert_array_equal(tl.grad(slope.sum(), t)[0].numpy(), np.ones(3))


def test_a_change_of_a_view_is_noticed_where_its_tensor_was_saved():
    w = tl.ones(3, 3, requires_grad=True)
    for change in (lambda x: x.T, tl.diagonal, lambda x: tl.moveaxis(x, 0, 0), lambda x: tl.flip(x, ()), tl.flatten):
        x = tl.ones(3, 3)
        y = w * x
        change(x)[0] = 9
        with pytest.raises(tl.GradientError, match="changed in place"):
            y.sum().backward()


def test_layers_that_pass_their_input_through_say_so():
    x = tl.ones(2, 3, 4, 4)
    for layer in (nn.Identity(), nn.Dropout().eval(), nn.Dropout2d().eval(), nn.Sequential()):
        assert layer(x) is x
        assert "itself" in type(layer).__doc__ or "itself" in type(layer).__mro__[1].__doc__
    with pytest.raises(tl.ShapeError, match=r"Dropout2d.*\(N, C, H, W\), got \(2,\)"):
        nn.Dropout2d().eval()(tl.ones(2))
