"""PyTorch as a judge of every op: forward, first and second gradients, over drawn shapes and both dtypes."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from judges import judge
from vocabulary import CLASSES, FUNCTIONS, OWN, block, find, table

import tinygrad_lenet as tl
from tinygrad_lenet.testing import strategies

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:UserWarning", "ignore:.*torch.jit.script. is deprecated:DeprecationWarning"
)
DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
# In their gradients of float64, PyTorch has constants of float32.
SLACK = {"hardsigmoid": 1e-7, "celu": 1e-7}
JUDGED = set()  # the words that a test below compares


def judged(names):
    JUDGED.update(names)
    return pytest.mark.parametrize("name", names)


def place_of(name):
    return next(place for place, names in FUNCTIONS.values() if name in names)


def theirs(torch, name):
    """PyTorch's function, with NumPy's names of arguments."""
    place = place_of(name)
    return find(torch, place, FUNCTIONS_THERE[name])


FUNCTIONS_THERE = {ours: there for _, names in FUNCTIONS.values() for ours, there in names.items()}


# Elementwise

RANGES = {
    **dict.fromkeys(["log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal"], (0.1, 3)),
    **dict.fromkeys(["arcsin", "arccos"], (-0.95, 0.95)),
    "tan": (-1.2, 1.2),
}
UNARY = (
    "abs ceil clone cos cosh erf exp expm1 floor log log10 log1p log2 neg reciprocal round sign sin sinh sqrt square"
)
UNARY += (
    " tan arccos arcsin arctan celu elu gelu hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish relu relu6 selu"
)
UNARY += " sigmoid silu softplus softsign tanh logical_not rsqrt isnan isinf isfinite"


@DTYPES
@judged(UNARY.split())
@given(data=st.data())
def test_functions_of_one_tensor(torch, name, dtype, data):
    low, high = RANGES.get(name, (-4.1, 4.3))
    x = data.draw(strategies.tensors(strategies.shapes(min_side=0), low=low, high=high)).numpy()
    judge(torch, getattr(tl, name), theirs(torch, name), [x], dtype, slack=SLACK.get(name, 0.0))


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.int64])
@judged(["bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not"])
def test_functions_of_bits(torch, name, dtype):
    x, y = np.arange(12).reshape(3, 4).astype(dtype), np.array([0, 1, 6, 255]).astype(np.uint8).astype(dtype)
    arrays = [x] if name == "bitwise_not" else [x, y]
    found, expected = getattr(tl, name)(*arrays), theirs(torch, name)(*map(torch.tensor, arrays)).numpy()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.numpy(), expected)


@DTYPES
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gelu", {"approximate": "tanh"}),
        ("celu", {"alpha": 0.7}),
        ("elu", {"alpha": 0.7}),
        ("hardtanh", {"min_val": -0.3, "max_val": 2.2}),
        ("leaky_relu", {"negative_slope": 0.3}),
        ("softplus", {"beta": 2.0, "threshold": 3.0}),
        ("round", {"decimals": 1}),
    ],
)
@given(data=st.data())
def test_options_of_activations(torch, name, options, dtype, data):
    x = data.draw(strategies.tensors(low=-4.1, high=4.3)).numpy()
    function = theirs(torch, name)
    ours = lambda x: getattr(tl, name)(x, **options)  # noqa: E731
    judge(torch, ours, lambda x: function(x, **options), [x], dtype, slack=SLACK.get(name, 0.0))


@DTYPES
@judged(
    [
        "add",
        "sub",
        "mul",
        "div",
        "pow",
        "maximum",
        "minimum",
        "hypot",
        "arctan2",
        "logaddexp",
        "mod",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "logical_and",
        "logical_or",
    ]
)
@given(shapes=strategies.broadcastable_shapes(min_side=0), data=st.data())
def test_functions_of_two_tensors(torch, name, dtype, shapes, data):
    x, y = (
        data.draw(strategies.tensors(s, low=low, high=high)).numpy()
        for s, low, high in zip(shapes, (0.5, 0.6), (2, 2.3), strict=True)
    )
    if name == "mod":
        assume((np.abs(x / y - np.round(x / y)) > 1e-3).all())
    judge(torch, getattr(tl, name), theirs(torch, name), [x, y], dtype)


@DTYPES
@judged(["where", "clip", "clamp", "masked_fill", "prelu", "astype"])
@given(data=st.data())
def test_choice(torch, name, dtype, data):
    x, y = (data.draw(strategies.tensors((3, 4, 2), low=-2.1, high=2)).numpy() for _ in range(2))
    mask, slopes = x > 0.3, np.float64([0.1, 0.2, -0.3, 0.4])
    ours, there, arrays = {
        "where": (lambda x, y: tl.where(mask, x, y), lambda x, y: torch.where(torch.tensor(mask), x, y), [x, y]),
        "clip": (lambda x: tl.clip(x, -0.5, 1.2), lambda x: torch.clip(x, -0.5, 1.2), [x]),
        "clamp": (lambda x: tl.clamp(x, max=0.3), lambda x: torch.clamp(x, max=0.3), [x]),
        "masked_fill": (
            lambda x, y: tl.masked_fill(x, mask, y),
            lambda x, y: torch.masked_fill(x, torch.tensor(mask), y),
            [x, y[0, 0, 0]],
        ),
        "prelu": (tl.prelu, torch.nn.functional.prelu, [x, slopes]),
        "astype": (lambda x: x.astype(dtype) * 2, lambda x: x.to(x.dtype) * 2, [x]),
    }[name]
    judge(torch, ours, there, arrays, dtype)


# Along axes

NAMES = {"axis": "dim", "keepdims": "keepdim"}


@DTYPES
@judged(
    [
        "sum",
        "mean",
        "var",
        "std",
        "amax",
        "amin",
        "max",
        "min",
        "logsumexp",
        "norm",
        "prod",
        "any",
        "all",
        "count_nonzero",
        "median",
        "argmax",
        "argmin",
    ]
)
@given(data=st.data())
def test_reductions(torch, name, dtype, data):
    shape = data.draw(strategies.shapes(1, 3, max_side=3))
    x = data.draw(strategies.tensors(shape, low=-1.1)).numpy()
    several = name in ("sum", "mean", "var", "std", "amax", "amin", "logsumexp", "norm", "count_nonzero")
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    if several:
        axis = data.draw(st.just(axis) | st.sets(st.integers(0, len(shape) - 1), min_size=1).map(tuple))
    options = {"axis": axis, "keepdims": data.draw(st.booleans())}
    there = {NAMES[k]: v for k, v in options.items()}
    counted = np.prod([shape[a] for a in ([axis] if isinstance(axis, int) else axis)])
    if name in ("var", "std"):
        assume(counted > 1 or name == "var")
        there["correction"] = 0
    if name == "median":
        assume(counted % 2)
    if name == "count_nonzero":
        options.pop("keepdims"), there.pop("keepdim")
    function = {"norm": torch.linalg.vector_norm}.get(name, getattr(torch, name))

    def theirs(x):
        found = function(x, **there)
        return found[0] if name in ("max", "min", "median") else found

    judge(torch, lambda x: getattr(tl, name)(x, **options), theirs, [x], dtype)


@DTYPES
@pytest.mark.parametrize("p", [0, 0.5, 1, 2, 2.5, 3, -1, np.inf, -np.inf])
@given(data=st.data())
def test_norms(torch, p, dtype, data):
    x = data.draw(strategies.tensors(strategies.shapes(1, 2), low=-1.1)).numpy()
    judge(torch, lambda x: tl.norm(x, p, -1), lambda x: torch.linalg.vector_norm(x, p, -1), [x], dtype)


ALONG = {  # ours, PyTorch's, of x and an axis
    "cumsum": (tl.cumsum, lambda x, d: x.cumsum(d)),
    "cumprod": (tl.cumprod, lambda x, d: x.cumprod(d)),
    "softmax": (tl.softmax, lambda x, d: x.softmax(d)),
    "log_softmax": (tl.log_softmax, lambda x, d: x.log_softmax(d)),
    "sort": (tl.sort, lambda x, d: x.sort(d)[0]),
    "argsort": (lambda x, d: tl.argsort(x, d, descending=True), lambda x, d: x.argsort(d, descending=True)),
    "topk": (lambda x, d: tl.topk(x, 1, d), lambda x, d: tuple(x.topk(1, d))),
    "flip": (tl.flip, lambda x, d: x.flip(d)),
    "roll": (lambda x, d: tl.roll(x, -2, d), lambda x, d: x.roll(-2, d)),
    "unbind": (tl.unbind, lambda x, d: x.unbind(d)),
    "chunk": (lambda x, d: tl.chunk(x, 2, d), lambda x, d: x.chunk(2, d)),
    "split": (lambda x, d: tl.split(x, [1, 2], d), lambda x, d: x.tensor_split([1, 2], d)),
    "repeat": (lambda x, d: tl.repeat(x, 3, d), lambda x, d: x.repeat_interleave(3, d)),
    "unsqueeze": (tl.unsqueeze, lambda x, d: x.unsqueeze(d)),
    "expand_dims": (tl.expand_dims, lambda x, d: x.unsqueeze(d)),
    "moveaxis": (lambda x, d: tl.moveaxis(x, d, 0), lambda x, d: x.moveaxis(d, 0)),
    "swapaxes": (lambda x, d: tl.swapaxes(x, d, -1), lambda x, d: x.swapaxes(d, -1)),
    "transpose": (lambda x, d: tl.transpose(x, d, 0), lambda x, d: x.transpose(d, 0)),
    "stack": (
        lambda x, d: tl.stack([x, x * 2], d),
        lambda x, d: x.new_tensor(0) + __import__("torch").stack([x, x * 2], d),
    ),
    "concatenate": (lambda x, d: tl.concatenate([x, x * 2], d), lambda x, d: __import__("torch").cat([x, x * 2], d)),
    "cat": (lambda x, d: tl.cat([x, x * 2], d), lambda x, d: __import__("torch").cat([x, x * 2], d)),
    "concat": (lambda x, d: tl.concat([x, x * 2], d), lambda x, d: __import__("torch").concat([x, x * 2], d)),
    "diff": (
        lambda x, d: (tl.diff(x, dim=d), tl.diff(x, 2, d, x * 2, x)),
        lambda x, d: (x.diff(dim=d), x.diff(2, d, x * 2, x)),
    ),
}


@DTYPES
@judged(list(ALONG))
@given(data=st.data())
def test_functions_along_an_axis(torch, name, dtype, data):
    shape = data.draw(strategies.shapes(1, 3))
    x = data.draw(strategies.tensors(shape)).numpy()
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    ours, there = ALONG[name]
    judge(torch, lambda x: ours(x, axis), lambda x: there(x, axis), [x], dtype)


@pytest.mark.parametrize("name", ["prod", "cumprod"])
@given(data=st.data())
def test_products_with_zeros(torch, name, data):
    x = data.draw(strategies.tensors(strategies.shapes(1, 2), distinct=False)).numpy()  # of nine values, 0 is one
    judge(torch, lambda x: getattr(tl, name)(x, axis=-1), lambda x: getattr(torch, name)(x, dim=-1), [x], np.float64)


# Shapes

X = (2, 3, 4)


def stacked(join, x):
    """Tensors with three axes, with one, and with none; and a single one."""
    return join([x, x]), join([x[0, 0], x[0, 1]]), join([x[0, 0, 0], x[0, 0, 1]]), join([x[0]])


SHAPES = {  # ours, PyTorch's, of a tensor of shape X
    "reshape": (lambda x: tl.reshape(x, 4, -1), lambda x: x.reshape(4, -1)),
    "flatten": (lambda x: tl.flatten(x, 1), lambda x: x.flatten(1)),
    "permute": (lambda x: tl.permute(x, 2, 0, 1), lambda x: x.permute(2, 0, 1)),
    "squeeze": (lambda x: tl.squeeze(x[:1]), lambda x: x[:1].squeeze()),
    "broadcast_to": (lambda x: tl.broadcast_to(x, (5, 2, 3, 4)), lambda x: x.broadcast_to((5, 2, 3, 4))),
    "tile": (lambda x: tl.tile(x, (2, 1, 3, 2)), lambda x: x.tile(2, 1, 3, 2)),
    "roll": (lambda x: tl.roll(x, (1, -7), (0, 2)), lambda x: x.roll((1, -7), (0, 2))),
    "flip": (lambda x: tl.flip(x, (0, 2)), lambda x: x.flip(0, 2)),
    "tril": (lambda x: tl.tril(x, 1), lambda x: x.tril(1)),
    "triu": (lambda x: tl.triu(x, -1), lambda x: x.triu(-1)),
    "diagonal": (lambda x: tl.diagonal(x, -1, 2, 0), lambda x: x.diagonal(-1, 2, 0)),
    "trace": (lambda x: tl.trace(x[0]), lambda x: x[0].trace()),
    "diag": (
        lambda x: (tl.diag(x[0]), tl.diag(x[0], -1), x[0].diag(9), tl.diag(x[0, 0]), tl.diag(x[0, 0], 2)),
        lambda x: (x[0].diag(), x[0].diag(-1), x[0].diag(9), x[0, 0].diag(), x[0, 0].diag(2)),
    ),
    "hstack": (lambda x: stacked(tl.hstack, x), lambda x: stacked(__import__("torch").hstack, x)),
    "vstack": (lambda x: stacked(tl.vstack, x), lambda x: stacked(__import__("torch").vstack, x)),
    "mm": (lambda x: (tl.mm(x[0], x[1].T), x[0].mm(x[1].T)), lambda x: (x[0].mm(x[1].T), x[0] @ x[1].T)),
    "bmm": (lambda x: tl.bmm(x, x.transpose(1, 2)), lambda x: x.bmm(x.transpose(1, 2))),
    "getitem": (lambda x: x[[1, 0, 1], :, ::2], lambda x: x[[1, 0, 1], :, ::2]),
    "linear": (
        lambda x: tl.linear(x, x[0], x[0, :, 0]),
        lambda x: __import__("torch").nn.functional.linear(x, x[0], x[0, :, 0]),
    ),
    "matmul": (lambda x: tl.matmul(x, x.transpose(1, 2)), lambda x: x @ x.transpose(1, 2)),
}


@DTYPES
@judged(list(SHAPES))
@given(x=strategies.tensors(X))
def test_shapes(torch, name, dtype, x):
    judge(torch, *SHAPES[name], [x.numpy()], dtype)


@DTYPES
@judged(["pad"])
@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@given(widths=st.tuples(*[st.integers(0, 2)] * 4), x=strategies.tensors((2, 3, 3, 4)))
def test_padding(torch, name, mode, dtype, widths, x):
    there = torch.nn.functional.pad
    judge(torch, lambda x: tl.pad(x, widths, mode=mode), lambda x: there(x, widths, mode=mode), [x.numpy()], dtype)


@DTYPES
@judged(["gather", "scatter", "scatter_add", "take_along_axis", "one_hot", "meshgrid"])
@given(data=st.data())
def test_picking(torch, name, dtype, data):
    axis = data.draw(st.integers(-3, 2))
    shape = [data.draw(st.integers(1, n)) for n in X]
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    index = rng.integers(0, X[axis], shape)
    unique = np.argsort(rng.random(X), axis)[
        tuple(slice(n) for n in shape)
    ]  # where two set one place, PyTorch promises nothing
    x, src = (data.draw(strategies.tensors(s)).numpy() for s in (X, tuple(shape)))
    wide = rng.integers(0, X[axis], [5 if i == axis % 3 else n for i, n in enumerate(X)])
    i, u, w = (torch.tensor(a) for a in (index, unique, wide))
    ours, there, arrays = {
        "gather": (lambda x: tl.gather(x, axis, index), lambda x: x.gather(axis, i), [x]),
        "scatter": (lambda x, s: tl.scatter(x, axis, unique, s), lambda x, s: x.scatter(axis, u, s), [x, src]),
        "scatter_add": (
            lambda x, s: tl.scatter_add(x, axis, index, s),
            lambda x, s: x.scatter_add(axis, i, s),
            [x, src],
        ),
        "take_along_axis": (
            lambda x: tl.take_along_axis(x, wide, axis),
            lambda x: torch.take_along_dim(x, w, axis),
            [x],
        ),
        "one_hot": (lambda x: tl.one_hot(index, 4), lambda x: torch.nn.functional.one_hot(i, 4), [x]),
        "meshgrid": (
            lambda x, y: tl.meshgrid(x, y),
            lambda x, y: torch.meshgrid(x, y, indexing="xy"),
            [x[0, 0], src[0, :, 0]],
        ),
    }[name]
    judge(torch, ours, there, arrays, dtype)


# Products, and norms of matrices

PATTERNS = "ij,jk->ik bij,bjk->bik ii->i iij->ji ij->j i,j->ij ij,ij-> ij,kj,k->i abc,cd,bd->a ij,ij->i a,b,c,abc->"
PATTERNS += " ba aab,bc->ac ...ij,...jk->...ik i...->... ...,..."


@DTYPES
@judged(["einsum"])
@pytest.mark.parametrize("pattern", PATTERNS.split())
@given(sides=st.lists(st.integers(1, 4), min_size=9, max_size=9), seed=st.integers(0, 99))
def test_einsum(torch, name, pattern, dtype, sides, seed):
    length = dict(zip("abcdijk01", sides, strict=True))
    terms = pattern.split("->")[0].replace("...", "01").split(",")
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal([length[c] for c in term]) for term in terms]
    judge(torch, lambda *x: tl.einsum(pattern, *x), lambda *x: torch.einsum(pattern, *x), arrays, dtype)


BILINEAR = {  # ours, PyTorch's, shapes
    "dot": (tl.dot, "dot", [(4,), (4,)]),
    "inner": (tl.inner, "inner", [(2, 4), (3, 4)]),
    "outer": (tl.outer, "outer", [(3,), (4,)]),
    "tensordot": (lambda x, y: tl.tensordot(x, y, ([1, 2], [1, 0])), None, [(2, 3, 4), (4, 3, 5)]),
    "linalg.norm": (lambda x: tl.linalg.norm(x, "fro", (1, 2)), "fro", [(2, 3, 4)]),
}
JUDGED |= {"dot", "inner", "outer", "tensordot"}


@pytest.mark.parametrize("name", BILINEAR)
@given(seed=st.integers(0, 999))
def test_products_and_norms_of_matrices(torch, name, seed):
    ours, there, shapes = BILINEAR[name]
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(s) for s in shapes]
    if name == "tensordot":
        function = lambda x, y: torch.tensordot(x, y, ([1, 2], [1, 0]))  # noqa: E731
    elif name == "linalg.norm":
        function = lambda x: torch.linalg.matrix_norm(x, there, (1, 2))  # noqa: E731
    else:
        function = find(torch, "torch", there)
    judge(torch, ours, function, arrays, np.float64, seed)


# The vocabulary itself

ELSEWHERE = {  # words of functions that other files compare with PyTorch
    **dict.fromkeys(["floor_divide", "true_divide"], "test_options"),
    **dict.fromkeys(
        ["batch_norm", "dropout", "dropout2d", "embedding", "group_norm", "layer_norm"], "test_functional, test_modules"
    ),
    **dict.fromkeys(
        [
            name
            for kind in ("convolution", "pooling", "resize", "unfold")
            for name in FUNCTIONS[f"{kind}, of networks"][1]
        ],
        "test_convolution, test_pooling, test_modules",
    ),
    **dict.fromkeys(FUNCTIONS["losses, of networks"][1], "test_functional, test_modules"),
    **dict.fromkeys([*FUNCTIONS["creation"][1], "allclose"], "test_words, test_tensor"),
    **dict.fromkeys(FUNCTIONS["dtypes, of NumPy"][1], "test_words"),
    **dict.fromkeys(FUNCTIONS["derivatives"][1], "test_calculus, test_grad_mode"),
    **dict.fromkeys(FUNCTIONS["methods"][1], "test_tensor_words"),
}


def test_every_function_is_compared_with_pytorch():
    words = {name for _, names in FUNCTIONS.values() for name in names}
    assert words <= JUDGED | ELSEWHERE.keys()


def test_the_table_has_every_public_name():
    words = {name for _, names in FUNCTIONS.values() for name in names}
    errors = {name for name in tl.__all__ if isinstance(getattr(tl, name), type) and name[0].isupper()}
    assert set(tl.__all__) - errors - OWN.keys() - {"__version__"} <= words
    for module, _, names in CLASSES.values():
        assert set(names) <= set(module.__all__)
    named = {name for module, _, names in CLASSES.values() for name in names}
    ours = {"LeNet5", "StateError", "init", "Optimizer", "Schedule", "clip_grad_norm_"}
    ours |= {"Call", "record_calls", "summary", "functional", "utils", "lr_scheduler"}
    assert {*tl.nn.__all__, *tl.optim.__all__} - named <= ours


def test_pytorch_has_every_word_of_the_table(torch):
    rows = [*FUNCTIONS.values(), *((place, names) for _, place, names in CLASSES.values())]
    missing = [
        f"{place}.{there}" for place, names in rows for there in names.values() if find(torch, place, there) is None
    ]
    assert not missing


def test_the_table_in_the_readme_is_current():
    assert block("vocabulary")[0] == table(), "run: python tests/tools/vocabulary.py --write"
