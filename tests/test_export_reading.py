"""Models that read values of their input while they are exported: the file would hold one value for every input."""

import contextlib
import copy
import math
import operator
import pickle
import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_export import agree, runtime

import tinygrad_lenet as tl
import tinygrad_lenet.functional as F
from tinygrad_lenet import nn

onnx = pytest.importorskip("onnx", reason="ONNX is not installed")

X = np.array([[1.5, -2.0, 0.25], [0.5, 3.0, -1.0]], np.float32)


def caught(t):
    try:
        return int(t.item() > 0)
    except Exception:  # as careless code does
        return 1


def looked(t):
    with contextlib.suppress(Exception):
        bool(t > 0)
    return 1


# What a model may do with a number that depends on its input; each gives a number of Python.
NUMBERS = {
    "if": lambda t: 2 if t > 0 else 3,
    "bool": lambda t: int(bool(t > 0)),
    "not": lambda t: 2 if not t > 0 else 3,
    "and": lambda t: int((t > 0 and 5) == 5),
    "while": lambda t: next(i for i in range(9) if not t > 100),
    "==": lambda t: 2 if t == 0 else 3,
    "in": lambda t: 2 if t in [0.0, 1.0] else 3,
    "int": lambda t: int(t),
    "float": lambda t: float(t),
    "complex": lambda t: complex(t).real,
    "range": lambda t: len([*range(t.astype("int64"))]) + 1,
    "list": lambda t: [1, 2, 3][(t > 0).astype("int64")],
    "item": lambda t: t.item(),
    "numpy": lambda t: float(t.numpy()),
    "data": lambda t: float(t.data),
    "tolist": lambda t: t.tolist(),
    "np.asarray": lambda t: float(np.asarray(t)),
    "np.array": lambda t: float(np.array([t, t])[0]),
    "np.float64": lambda t: float(np.float64(t)),
    "np.isnan": lambda t: 2 if np.isnan(t) else 3,
    "np.allclose": lambda t: 2 if np.allclose(t, 0) else 3,
    "dlpack": lambda t: float(np.from_dlpack(t)),
    "math.sqrt": lambda t: math.sqrt(abs(t)),
    "math.floor": lambda t: math.floor(t),
    "max": lambda t: float(max([t, t + 1])),
    "format": lambda t: float(f"{t:.3f}"),
    "%": lambda t: float(operator.mod("%.3f", t)),
    "detach": lambda t: float(t.detach()),
    "view": lambda t: float(t.reshape(1)[0]),
    "sorted": lambda t: sorted([(t, 1), (t + 1, 2)])[0][1],
    "caught": caught,
    "looked": looked,
    "pickle": lambda t: float(pickle.loads(pickle.dumps(t))),
    "option": lambda t: tl.full((1,), t).item(),
    "tensor": lambda t: tl.tensor(t).item(),
    "list of tensors": lambda t: tl.tensor([t, 1.0])[0].item(),
}
# What a model may do with a tensor that depends on its input; each gives a tensor.
TENSORS = {
    "mask": lambda x: x[x > 0],
    "index in a tuple": lambda x: x[:, x[0].argmax()],
    "index in a list": lambda x: x[[x[:, 0].argmax()]],
    "slice": lambda x: x[:, : x[0].argmax() + 1],
    "one_hot": lambda x: F.one_hot(x.argmax(axis=1)),
    "repeat": lambda x: tl.repeat(x, x[0].argmax() + 1),
    "written": lambda x: written(tl.zeros(2, 3), x > 0),
    "written to": lambda x: written(x * 2, 1.0),
    "part written to": lambda x: part(x * 2),
    "deepcopy": lambda x: copy.deepcopy(x) * 2,
    "sign": lambda x: x * tl.tensor(np.sign(x.numpy())),
    "iteration": lambda x: sum(row for row in x if row.sum() > 0),
    "vjp": lambda x: tl.vjp(lambda v: v.relu(), x)[1](tl.ones(2, 3)),
    "grad": lambda x: tl.grad(lambda v: v.relu().sum())(x),
    "backward": lambda x: x * backward(x),
}
# What picks by values of the input, and does not read them.
PICKING = {
    "clip": lambda x: x.clip(x.min(), x.max() - 1),
    "clip, bounds of rows": lambda x: x.clip(x.min(1, keepdims=True) + 1, x.max(1, keepdims=True) - 1),
    "clip, one bound": lambda x: x.clip(max=x[0]),
    "sort": lambda x: x.sort(axis=1),
    "topk": lambda x: x.topk(2, axis=1)[0],
    "median": lambda x: x.median(axis=1),
    "take_along_axis": lambda x: tl.take_along_axis(x, x.argsort(1), 1),
    "gather": lambda x: x.gather(1, x.argmax(axis=1, keepdims=True)),
    "index": lambda x: x[x.argmax(axis=0)],
    "embedding": lambda x: F.embedding(x.argmax(axis=1), np.arange(6.0).reshape(3, 2)),
    "nll_loss": lambda x: F.nll_loss(x, x.argmax(axis=1)),
    "multi_margin_loss": lambda x: F.multi_margin_loss(x, x.argmax(axis=1)),
    "cross_entropy, weight": lambda x: tl.cross_entropy(x, x.argmax(axis=1), weight=np.arange(3, dtype="f4") + 1),
    "cross_entropy, ignored": lambda x: tl.cross_entropy(x, x.argmax(axis=1), ignore_index=2),
    "cross_entropy, weights": lambda x: tl.cross_entropy(x, [0, 1], weight=abs(x[0])),
    "cross_entropy, images": lambda x: tl.cross_entropy(tl.stack([x, -x], -1), tl.stack([x, -x], -1).argmax(axis=1)),
}


def written(y, value):
    y[:, 1:] = value[:, 1:] if isinstance(value, tl.Tensor) else value
    return y


def part(y):
    y[0] += 1
    return y


def backward(x):
    with tl.enable_grad():
        w = tl.tensor([1.0, 1.0, 1.0], requires_grad=True)
        (w * x).relu().sum().backward()
    return w.grad > 0


def refused(model, array, dynamic):
    with pytest.raises(tl.UnsupportedError) as error:
        tl.onnx.export(model, array, None, dynamic_batch=dynamic)
    text = str(error.value)
    assert re.match(
        r"export: at .*\.py, line \d+ \(.+\), .+ a value that depends on the input: the file would hold", text
    )
    assert text.count(" at ") == 1
    return text


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_of_the_input_is_refused_with_its_line(name, dynamic):
    def model(x):
        return x * NUMBERS[name](x.sum())

    text = refused(model, X, dynamic)
    if name != "pickle":
        assert "test_export_reading.py" in text


@pytest.mark.parametrize("name", TENSORS)
def test_values_of_the_input_as_data_are_refused_with_their_line(name):
    text = refused(TENSORS[name], X, False)
    if name != "deepcopy":
        assert "test_export_reading.py" in text


@pytest.mark.parametrize("name", PICKING)
def test_what_picks_by_values_of_the_input_follows_them(name):
    made = tl.onnx.export(PICKING[name], X, None, dynamic_batch=False)
    for x in (X, np.random.default_rng(1).standard_normal(X.shape).astype(np.float32)):
        np.testing.assert_allclose(runtime(made, x)[0], PICKING[name](tl.tensor(x)).numpy(), rtol=1e-5, atol=1e-6)


def test_the_message_names_the_file_the_line_and_the_source():
    def model(x):
        y = x * 2
        if y.sum() > 0:
            return y
        return x

    line = model.__code__.co_firstlineno + 2
    text = refused(model, X, True)
    assert f"{__file__}, line {line} (if y.sum() > 0:), bool() reads a value" in text
    exec(compile("def model(x):\n    return x if x.sum() > 0 else -x", "<nowhere>", "exec"), space := {})
    with pytest.raises(tl.UnsupportedError, match="export: at <nowhere>, line 2, bool"):
        tl.onnx.export(space["model"], X, None)


class Model(nn.Module):
    """Reads what does not depend on the input."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter([2.0, 3.0, 4.0])
        self.limit = tl.tensor([0.5, 0.5, 0.5])
        self.linear = nn.Linear(3, 3, generator=0)

    def forward(self, x):
        if self.scale.sum() > 8 and self.limit[0] > 0.1 and x.shape[1] == 3 and x.dtype == np.float32 and x.ndim == 2:
            x = x * float(self.scale[0]) * self.limit.numpy()
        table = tl.tensor(self.scale.tolist())
        y = self.linear(x) + table[[*range(int(self.scale[1]))]] * np.size(x[0]) * np.shape(x)[1]
        sys.stdout.write(f"{x} {x!r} {[x]}")  # without values
        y += tl.ones(3) * self.scale.item() if self.scale.size == 1 else tl.ones(3)
        return y if x is not None and len(x) else x


def test_what_does_not_depend_on_the_input_can_be_read(capsys):
    agree(Model(), X, others=[(X[:1] * 3 - 1,)])
    text = "tensor(of an input, shape=(2, 3), dtype=float32)"
    assert capsys.readouterr().out.startswith(f"{text} {text} [{text}]")


def test_an_update_in_place_is_an_op():

    def model(x):
        y = x * 2
        y += 1
        total = tl.zeros(1, 3)
        for _ in range(2):
            total += y[:1]
        y *= total
        return y, total

    agree(model, X[:1], others=[(X[1:] * 2,)], dynamic_batch=False)


def test_pytorchs_words_of_changes_in_place_are_ops_too():
    def model(x):
        y = x * 2
        z = tl.zeros(1, 3).fill_(3)
        z.add_(y, alpha=2).mul_(y)
        z.copy_(z.clamp(min=0)).add_(1)
        return z.masked_fill(z > 4, -1), z

    agree(model, X[:1], others=[(X[1:] * 2,)], dynamic_batch=False)
    refused(lambda x: (x * 2).copy_(x[:, :1]), X, False)  # only a part of the shape


def test_a_view_of_memory_that_was_changed_is_refused():
    def model(x):
        y = x * 2
        view = y[:1]
        y += 1
        return view

    refused(model, X, False)


class Counter(nn.Module):
    """Changes a buffer in place."""

    def __init__(self, at):
        super().__init__()
        self.calls, self.at = tl.tensor([1.0]), at
        self.last = None

    def forward(self, x):
        if self.at == "before":
            self.calls += 1
        y = x * self.calls
        if self.at == "after":
            self.calls[0] = 7
        self.__dict__["last"] = y
        return y


@pytest.mark.parametrize("at", ["before", "after"])
def test_an_export_leaves_buffers_as_they_were_and_computes_the_first_call(at):
    model = Counter(at)
    made = tl.onnx.export(model, X, None)
    assert model.calls.item() == 1
    assert type(model.last) is tl.Tensor
    assert isinstance(model.last.sum().item(), float)  # readable after the export
    np.testing.assert_array_equal(runtime(made, X)[0], X * (2 if at == "before" else 1))


def test_a_tensor_is_no_slower_outside_of_an_export():
    """The guards are a class of their own: the methods of Tensor know nothing of them."""
    before = {name: value for name, value in vars(tl.Tensor).items() if callable(value)}
    tl.onnx.export(lambda x: x * 2, X, None)
    assert {name: value for name, value in vars(tl.Tensor).items() if callable(value)} == before
    x = tl.tensor(X)
    tl.onnx.export(lambda x: x * 2, x, None)
    assert type(x) is tl.Tensor


def test_cross_entropy_of_labels_that_are_an_input_is_exported():
    logits, labels = X.repeat(2, axis=0), np.array([0, 2, 1, 1])
    for options in ({}, {"label_smoothing": 0.1}, {"reduction": "sum"}, {"reduction": "none"}):
        model = lambda x, y, options=options: tl.cross_entropy(x, y, **options)  # noqa: E731
        made = tl.onnx.export(model, (logits, labels), None, dynamic_batch=False)
        other = np.array([2, 2, 0, 1])
        expected = model(tl.tensor(logits), tl.tensor(other))
        np.testing.assert_allclose(runtime(made, logits, other)[0], expected.numpy(), rtol=1e-5)


# Drawn programs: steps on a tensor (2, 3), of which some read it.
STEPS = {
    "x * 2": lambda x, w: x * 2,
    "x + w": lambda x, w: x + w,
    "relu": lambda x, w: x.relu(),
    "+=": lambda x, w: plus(x, w),
    "mean": lambda x, w: x - x.mean(axis=1, keepdims=True),
    "where": lambda x, w: tl.where(x > 0, x, w),
    "where of a number": lambda x, w: tl.where(x[0, 1] > 0, x, -x),
    "x if w": lambda x, w: x if w.sum() > 0 else -x,
    "float of w": lambda x, w: x * float(w[0]),
    "shape": lambda x, w: x * x.shape[1] if len(x) else x,
    "loop": lambda x, w: tl.stack([row * i for i, row in enumerate(x)]),
    "w changed": lambda x, w: x * plus(w * 1, 1),
    "constant": lambda x, w: x + tl.tensor(np.arange(3, dtype=np.float32)),
    "if": lambda x, w: x if x.sum() > 0 else x * 3,
    "if any": lambda x, w: x if (x > 1).any() else x * 3,
    "number": lambda x, w: x * (1 + int(x[0, 0] > 0)),
    "w by x": lambda x, w: x + w[x[0].argmax().item()],
    "mask": lambda x, w: x * (x.numpy() > 0),
    "sort": lambda x, w: x.sort(axis=1),
    "w from x": lambda x, w: x * written(w.reshape(1, 3) * 1, x[:1]),
    "caught": lambda x, w: x * caught(x.sum()),
}
READING = {"if", "if any", "number", "w by x", "mask", "w from x", "caught"}


def plus(x, y):
    x = x * 1
    x += y
    return x


@given(st.lists(st.sampled_from([*STEPS]), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_drawn_programs_are_refused_or_right_for_other_inputs(names, seed):
    rng = np.random.default_rng(seed)
    w = tl.tensor(rng.standard_normal(3).astype(np.float32))

    def program(x):
        for name in names:
            x = STEPS[name](x, w)
        return x

    arrays = rng.standard_normal((5, 2, 3)).astype(np.float32)
    if READING & {*names}:
        refused(program, arrays[0], False)
        return
    made = tl.onnx.export(program, arrays[0], None, dynamic_batch=False)
    for array in arrays:
        np.testing.assert_allclose(runtime(made, array)[0], program(tl.tensor(array)).numpy(), rtol=1e-5, atol=1e-5)
