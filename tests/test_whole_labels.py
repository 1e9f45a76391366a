"""Class indices and indices of rows may be floats that are whole numbers: ``tl.tensor([0, 1, 2])`` is float32."""

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F

SCORES = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
LABELS = [2.0, 0.0, 3.0]
WEIGHT = np.array([1, 2, 3, 4], "float32")
CALLS = {
    "cross_entropy": lambda f, x, y, _: f.cross_entropy(x, y),
    "cross_entropy, smooth": lambda f, x, y, _: f.cross_entropy(x, y, label_smoothing=0.1),
    "cross_entropy, weight": lambda f, x, y, w: f.cross_entropy(x, y, weight=w, reduction="sum"),
    "cross_entropy, ignored": lambda f, x, y, _: f.cross_entropy(x, y, ignore_index=2),
    "nll_loss": lambda f, x, y, _: f.nll_loss(x, y),
    "nll_loss, ignored": lambda f, x, y, _: f.nll_loss(x, y, ignore_index=3, reduction="none"),
    "multi_margin_loss": lambda f, x, y, w: f.multi_margin_loss(x, y, weight=w),
    "embedding": lambda f, x, y, _: f.embedding(y % 3, x).sum(1),
    "embedding, padding": lambda f, x, y, _: f.embedding(y % 3, x, padding_idx=0).sum(1),
}
COUNTS = {"one_hot": lambda f, y: f.one_hot(y), "one_hot of 6": lambda f, y: f.one_hot(y, 6)}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients_are_those_of_integers(name, dtype):
    torch = pytest.importorskip("torch")
    x = tl.tensor(SCORES, requires_grad=True)
    found = CALLS[name](F, x, tl.tensor(LABELS, dtype=dtype), WEIGHT)
    found.sum().backward()
    theirs = torch.tensor(SCORES, requires_grad=True)
    labels = torch.tensor(LABELS).long()
    expected = CALLS[name](torch.nn.functional, theirs, labels, torch.tensor(WEIGHT))
    expected.sum().backward()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.detach(), expected.detach(), rtol=1e-5)
    np.testing.assert_allclose(x.grad, theirs.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", COUNTS)
def test_one_hot_is_that_of_integers(name):
    torch = pytest.importorskip("torch")
    found = COUNTS[name](F, tl.tensor(LABELS))
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, COUNTS[name](torch.nn.functional, torch.tensor(LABELS).long()))


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "multi_margin_loss"])
def test_labels_do_not_decide_the_dtype_of_the_loss(name):
    half = tl.tensor(SCORES, dtype="float16")
    assert CALLS[name](F, half, tl.tensor(LABELS), WEIGHT.astype("float16")).dtype == np.float16


def test_floats_of_the_shape_of_the_input_stay_probabilities():
    torch = pytest.importorskip("torch")
    ones = np.eye(3, 4, dtype="float32")
    expected = torch.nn.functional.cross_entropy(torch.tensor(SCORES), torch.tensor(ones))
    np.testing.assert_allclose(tl.cross_entropy(tl.tensor(SCORES), ones), expected, rtol=1e-6)


@pytest.mark.parametrize("bad", [0.5, np.nan, np.inf, -np.inf, 1e300, -1.5])
@pytest.mark.parametrize("name", [*CALLS, *COUNTS])
def test_other_floats_are_refused(name, bad):
    labels = np.array([0, bad, 1])
    call = COUNTS[name] if name in COUNTS else lambda f, y: CALLS[name](f, tl.tensor(SCORES), y, WEIGHT)
    if name.startswith("embedding"):
        call = lambda f, y: f.embedding(y, SCORES)  # noqa: E731
    with pytest.raises(tl.DTypeError, match="indices must be whole numbers, got"):
        call(F, labels)


@pytest.mark.parametrize("bad", [4, -1, 2**40, -(2**40)])
@pytest.mark.parametrize("name", [*CALLS, "one_hot of 6"])
def test_whole_numbers_out_of_range_are_refused_as_integers_are(name, bad):
    call = COUNTS[name] if name in COUNTS else lambda f, y: CALLS[name](f, tl.tensor(SCORES), y, WEIGHT)
    if name.startswith("embedding"):
        call = lambda f, y: f.embedding(y, SCORES)  # noqa: E731
    bad = bad + 2 if name in COUNTS and bad > 0 else bad
    with pytest.raises((tl.ArgumentError, tl.OutOfRangeError), match=f"(is|got) {bad} ") as integers:
        call(F, np.array([0, bad, 1]))
    with pytest.raises(type(integers.value), match=f"(is|got) {bad} "):
        call(F, np.array([0.0, bad, 1.0]))


def test_labels_without_elements_or_axes_and_the_usual_ignored_one():
    assert F.embedding(tl.zeros(0), SCORES).shape == (0, 4)
    assert F.one_hot(tl.zeros(0)).shape == (0, 0)
    assert F.one_hot(tl.zeros(0), 4).shape == (0, 4)
    assert F.cross_entropy(tl.zeros(0, 4), tl.zeros(0), reduction="sum").item() == 0
    scores, two = tl.tensor(SCORES), tl.tensor(2.0)
    assert F.cross_entropy(scores[0], two).item() == F.cross_entropy(scores[0], 2).item()
    np.testing.assert_array_equal(F.embedding(two, SCORES), SCORES[2])
    np.testing.assert_array_equal(F.one_hot(two), [0, 0, 1])
    floats, integers = (F.cross_entropy(scores, y, reduction="none") for y in (tl.tensor([-100, 3, 0]), [-100, 3, 0]))
    np.testing.assert_array_equal(floats, integers)
    assert floats[0].item() == 0


def test_labels_that_require_a_gradient_get_none():
    labels = tl.tensor(LABELS, requires_grad=True)
    scores = tl.tensor(SCORES, requires_grad=True)
    tl.cross_entropy(scores, labels).backward()
    assert scores.grad is not None
    assert labels.grad is None


@pytest.mark.parametrize("name", [*CALLS, "one_hot of 6"])
def test_a_compiled_function_reads_the_labels_of_each_call(name):
    def loss(x, y):
        return COUNTS[name](F, y) * x.sum() if name in COUNTS else CALLS[name](F, x, y, WEIGHT)

    compiled = tl.compile(loss)
    for shift in range(5):
        labels = tl.tensor([(label + shift) % 4 for label in LABELS])
        scores = tl.tensor(SCORES + np.float32(shift))
        np.testing.assert_array_equal(compiled(scores, labels), loss(scores, labels))
    with pytest.raises(tl.DTypeError, match="whole numbers"):
        compiled(tl.tensor(SCORES), tl.tensor([0.5, 1, 1]))
