"""The table of a model, and how the error of a layer names it."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idx_files import REPOSITORY

import tinygrad_lenet as tl
from tinygrad_lenet import nn
from tinygrad_lenet.errors import ShapeError

sys.path.insert(0, str(REPOSITORY / "examples"))
few = settings(max_examples=50, deadline=None)


class Own(nn.Module):
    """A module of the user's, with a parameter and a function of it."""

    def __init__(self, function, *shape):
        super().__init__()
        self.weight = nn.Parameter(np.ones(shape, np.float32)) if shape else None
        self.function = function

    def forward(self, x):
        return self.function(x) if self.weight is None else self.function(x, self.weight)


def work(model, shape):
    """The multiply-adds of each row of the table, and of the whole."""
    lines = [line.split("  ") for line in nn.summary(model, shape).splitlines()]
    return {words[0]: words[-1].strip() for words in lines[1:]}


# Multiply-adds


@few
@given(st.data())
def test_the_work_of_a_convolution_is_what_pytorch_counts(data):
    torch = pytest.importorskip("torch")
    counter = pytest.importorskip("torch.utils.flop_counter")
    number = lambda most: data.draw(st.integers(1, most))  # noqa: E731
    transposed, dims, groups = data.draw(st.booleans()), number(2), number(3)
    sizes = {"in_channels": groups * number(2), "out_channels": groups * number(2), "kernel_size": number(3)}
    options = sizes | {"stride": number(3), "dilation": number(2), "groups": groups}
    options["padding"] = data.draw(st.integers(0, 2))
    name = f"Conv{'Transpose' * transposed}{dims}d"
    shape = (number(2), options["in_channels"], *(number(5) + 4 for _ in range(dims)))
    theirs = getattr(torch.nn, name)(**options)
    with counter.FlopCounterMode(display=False) as found:
        theirs(torch.zeros(shape))
    function = getattr(tl, f"conv_transpose{dims}d" if transposed else f"conv{dims}d")
    layer = getattr(nn, name)(**options)
    keep = {name: options[name] for name in ("stride", "padding", "dilation", "groups")}
    own = Own(lambda x, weight: function(x, weight, **keep), *layer.weight.shape)
    for model in (layer, own):
        assert int(work(model, shape)["total"].replace(",", "")) == found.get_total_flops() // 2


PRODUCTS = {
    "@": (lambda x, w: x @ w, (5, 3, 4), (4, 2), 5 * 3 * 4 * 2),
    "@ a stack": (lambda x, w: x @ w, (5, 1, 3, 4), (7, 4, 2), 5 * 7 * 3 * 4 * 2),
    "a vector": (lambda x, w: x @ w, (3, 4), (4,), 3 * 4),
    "NumPy's": (lambda x, w: np.matmul(x, w), (3, 4), (4, 2), 3 * 4 * 2),
    "of arrays": (lambda x, w: tl.matmul(x.numpy(), w.numpy()), (3, 4), (4, 2), 3 * 4 * 2),
    "linear": (tl.linear, (5, 3, 4), (2, 4), 5 * 3 * 4 * 2),
    "einsum": (lambda x, w: tl.einsum("nij,jk->nik", x, w), (5, 3, 4), (4, 2), 5 * 3 * 4 * 2),
    "einsum of three": (lambda x, w: tl.einsum("ij,jk,kl->il", x, w, w), (3, 4), (4, 4), 2 * 3 * 4 * 4),
    "tensordot": (lambda x, w: tl.tensordot(x, w, 2), (5, 3, 4), (3, 4, 2), 5 * 3 * 4 * 2),
    "attention": (lambda x, _: (x @ x.transpose(1, 2)).softmax(2) @ x, (2, 5, 3), (1,), 2 * 2 * 5 * 5 * 3),
    "unfold": (lambda x, w: w @ tl.unfold(x, 3), (2, 1, 5, 5), (4, 9), 2 * 4 * 9 * 3 * 3),
    "a gradient": (lambda x, w: tl.grad(lambda w: (x @ w).sum())(w), (3, 4), (4, 2), 2 * 3 * 4 * 2),
    "none": (lambda x, w: (x * w).sum(1), (3, 4), (4,), 0),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_in_modules_of_the_user_s_are_counted(name):
    function, shape, weight, expected = PRODUCTS[name]
    own = Own(function, *weight)
    assert work(own, shape) == {"(itself)": f"{expected:,}", "total": f"{expected:,}"}
    twice = nn.Sequential({"a": nn.Identity(), "b": own, "c": nn.Flatten(0), "d": Own(lambda x: x)})
    assert work(twice, shape) == {"a": "0", "b": f"{expected:,}", "c": "0", "d": "0", "total": f"{expected:,}"}


def test_the_partial_convolution_of_1998_is_counted():
    lenet_1998 = pytest.importorskip("lenet_1998")
    rows = work(lenet_1998.LeNet5Classic(generator=0), (1, 1, 32, 32))
    assert rows["body.c3"] == "240,000"  # as a full convolution, which it is computed as
    counted = ("body.c1", "body.c3", "body.c5", "body.f6")
    assert {name for name, found in rows.items() if found != "0"} == {*counted, "total"}
    assert rows["total"] == f"{117_600 + 240_000 + 48_000 + 10_080:,}"


def test_a_row_counts_what_no_row_within_it_does():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            before = x @ x.transpose(1, 2)  # 2 * 3 * 3 * 4
            return before @ self.query(x) @ self.key(x).transpose(1, 2)  # 2 * 3 * 3 * 4, twice

    rows = work(nn.Sequential(Attention()), (2, 3, 4))
    assert rows == {"0.query": "96", "0.key": "96", "0": str(3 * 72), "total": str(2 * 96 + 3 * 72)}
    shared = nn.Linear(4, 4)
    assert work(nn.Sequential(shared, shared), (3, 4))["total"] == "96"


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_recurrent_layers_are_counted_and_show_each_output(kind, gates):
    model = kind(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    table = nn.summary(model, (2, 5, 3))
    expected = 2 * 5 * gates * 4 * 2 * (3 + 4 + 8 + 4)  # batch, steps, rows, directions, inputs and states
    assert table.splitlines()[-1].split()[-1] == f"{expected:,}"
    assert "(2, 5, 8), (4, 2, 4)" in table


def test_work_that_is_not_known_is_no_zero():
    @tl.primitive
    def doubled(x: tl.Array) -> tl.Array:
        return x * 2

    linear = nn.Linear(4, 4)
    rows = work(nn.Sequential(linear, Own(doubled), Own(lambda x: doubled(linear(x))), nn.ReLU()), (4, 4))
    assert rows == {"0": "64", "1": "?", "2": "?", "3": "0", "total": "128 + ?"}
    assert work(Own(lambda x, w: doubled(x @ w), 4, 4), (4, 4))["total"] == "64 + ?"
    assert work(Own(doubled), (4, 4)) == {"(itself)": "?", "total": "?"}


def test_an_op_is_counted_once_whatever_the_call_it_is_in_does():
    class Caught(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Own(lambda x: tl.zeros(1, 1) @ x)

        def forward(self, x):
            try:
                return self.inner(x @ x)
            except ShapeError:
                return x @ x

    class Called(nn.Module):
        def __call__(self, x):
            return x @ x

    assert work(Caught(), (2, 2)) == {"(itself)": "16", "total": "16"}
    assert work(Called(), (2, 2)) == {"total": "8"}


def test_the_table_is_a_string_that_a_console_shows():
    table = nn.summary(nn.Sequential(nn.Linear(4, 3)), (1, 4))
    assert isinstance(table, str)
    assert repr(table) == str(table) == f"{table}" == table
    assert table.splitlines()[0].startswith("layer ")


# Errors that name the layer


def test_a_wrong_size_after_flatten_names_the_layer_and_where_it_is():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential({"flat": nn.Flatten(), "fc": nn.Linear(401, 10)}))
    with pytest.raises(ShapeError) as caught:
        model(tl.zeros(2, 1, 12, 12))
    assert str(caught.value) == (
        "Linear(401, 10): expected x (..., 401) and a weight (out_features, 401), got (2, 400) and (10, 401)"
    )
    assert caught.value.__notes__ == ["in layer fc of Sequential", "in layer 1 of Sequential"]


ONE = np.ones((1, 1, 2, 2), np.float32)
WRONG = [
    (nn.Linear(3, 2, bias=False), ONE),
    (nn.Conv2d(1, 6, 5), ONE),
    (nn.Conv2d(2, 6, 5), ONE),
    (nn.Conv1d(1, 6, 5), ONE[0]),
    (nn.ConvTranspose2d(1, 6, 1, padding=3), ONE),
    (nn.MaxPool2d(3, stride=2), ONE),
    (nn.MaxPool2d(2), ONE[0, 0]),
    (nn.AvgPool1d(2), ONE),
    (nn.AdaptiveAvgPool2d(2), ONE[0, 0]),
    (nn.AdaptiveMaxPool2d(2), ONE[0, 0]),
    (nn.Upsample(scale_factor=2), ONE[0, 0]),
    (nn.BatchNorm2d(4), ONE),
    (nn.LayerNorm(4), ONE),
    (nn.GroupNorm(2, 4), ONE),
    (nn.Embedding(3, 2), [5]),
    (nn.Dropout2d(0.5), ONE[0]),
    (nn.Unflatten(1, (2, 3)), ONE),
    (nn.ReflectionPad2d(3), ONE),
    (nn.GRU(3, 4, batch_first=True), ONE[0]),
    (nn.Softmax(5), ONE),
]


@pytest.mark.parametrize(("layer", "x"), WRONG)
def test_each_layer_names_itself_with_its_options(layer, x):
    named = f"{type(layer).__name__}({layer.extra_repr()}): "
    for model in (layer, nn.Sequential(layer), Own(lambda x: layer(x))):
        with pytest.raises(tl.TinygradLenetError) as caught:
            model(x)
        assert str(caught.value).startswith(named)


def test_errors_of_the_user_s_code_keep_their_words():
    model = nn.Sequential(nn.Identity(), Own(lambda x: x @ tl.ones(5, 5)))
    with pytest.raises(ShapeError, match=r"^matmul: "):
        model(tl.ones(2, 2))

    class Wider(nn.Linear):
        def forward(self, x):
            return super().forward(x)

    with pytest.raises(ShapeError, match=r"^linear: expected x \(..., 2\) .*, got \(4,\) and"):
        Wider(2, 3)(tl.ones(4))
    layer = nn.Linear(2, 3)
    layer.bias = nn.Parameter(tl.ones(4))  # the input is right
    with pytest.raises(ShapeError, match=r"^Linear\(2, 3\): .* needs a bias of shape \(3,\), got \(4,\)"):
        layer(tl.ones(2))
    with pytest.raises(ZeroDivisionError) as caught:
        nn.Sequential(Own(lambda x: 1 / 0))(1)
    assert caught.value.__notes__ == ["in layer 0 of Sequential"]
