"""Helpers of a training loop, and tools that look inside a model."""

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import data, nn, training
from tinygrad_lenet.errors import ArgumentError, GradientError, OutOfRangeError, ShapeError

RNG = np.random.default_rng


# Metrics


def test_metrics_equal_plain_counting():
    labels, guesses = RNG(0).integers(0, 4, (2, 300))
    matrix = training.confusion_matrix(labels, tl.tensor(guesses), 4)
    for i, j in np.ndindex(4, 4):
        assert matrix[i, j] == sum(a == i and b == j for a, b in zip(labels, guesses, strict=True))
    assert training.accuracy(np.eye(4)[guesses], labels) == np.trace(matrix) / 300


def test_classes_may_be_floats_that_are_whole():
    labels = np.array([0.0, 1.0, 1.0])
    assert training.accuracy(np.eye(2)[[0, 1, 0]], labels) == 2 / 3
    assert training.confusion_matrix(labels, [0, 1, 0], 2).tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("batches", [[(tl.tensor(1.0), [0])], [(tl.ones(1, 2), [0]), (tl.ones(1, 3), [0])]])
def test_evaluate_refuses_outputs_that_are_not_logits(batches):
    with pytest.raises(ShapeError, match=r"^evaluate: the model must return logits"):
        training.evaluate(nn.Identity(), batches)


def test_evaluate_goes_through_all_and_leaves_the_model_as_it_was():
    x, y = RNG(0).standard_normal((23, 5)).astype(np.float32), RNG(1).integers(0, 3, 23)
    model = nn.Sequential(
        nn.Linear(5, 8, generator=0), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3, generator=1)
    )
    model[2].eval()
    before = {name: value.tobytes() for name, value in model.state_dict().items()}
    found = training.evaluate(model, data.DataLoader((x, y), 10))
    assert [module.training for module in model.modules()] == [True, True, True, False, True]
    assert before == {name: value.tobytes() for name, value in model.state_dict().items()}
    logits = model.eval()(tl.tensor(x))
    np.testing.assert_allclose(found.logits, logits.numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.loss, tl.cross_entropy(logits, y).item(), rtol=1e-6)
    assert found.accuracy == (logits.numpy().argmax(1) == y).mean()
    np.testing.assert_array_equal(found.confusion.sum(axis=1), np.bincount(y, minlength=3))


def test_the_moving_average_is_the_formula_and_goes_on_after_a_checkpoint(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2, generator=0), nn.BatchNorm1d(2))
    average = training.ExponentialMovingAverage(model, 0.9)
    expected = model.state_dict()
    for t in range(1, 30):
        model[0].weight.data = RNG(t).standard_normal((2, 2))
        model(tl.tensor(RNG(t).standard_normal((4, 2)).astype(np.float32)))
        average.update()
        d = min(0.9, (1 + t) / (10 + t))
        for name, now in model.state_dict().items():
            expected[name] = d * expected[name] + (1 - d) * now if now.dtype.kind == "f" else now
        if t == 10:
            tl.save_checkpoint(tmp_path / "a", average.state_dict())
            average = training.ExponentialMovingAverage(model, 0.9)
            average.load_state_dict(tl.load_checkpoint(tmp_path / "a"))
    own = model.state_dict()
    with average.applied():
        for name, value in model.state_dict().items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-5)
    assert {k: v.tobytes() for k, v in own.items()} == {k: v.tobytes() for k, v in model.state_dict().items()}
    with pytest.raises(ShapeError, match="this model has"):
        training.ExponentialMovingAverage(nn.Linear(3, 3)).load_state_dict(average.state_dict())


@pytest.mark.parametrize("mode", ["max", "min"])
def test_early_stopping_waits_as_long_as_it_says(mode):
    sign = 1 if mode == "max" else -1
    watch = training.EarlyStopping(patience=3, min_delta=0.1, mode=mode)
    values = [0.5, 0.55, 0.7, 0.75, 0.6, 0.79]
    told = []
    for value in values:
        assert not watch.stop
        told.append(watch.step(sign * value))
    assert told == [True, False, True, False, False, False]
    assert watch.stop
    again = training.EarlyStopping(3, 0.1, mode)
    again.load_state_dict(watch.state_dict())
    assert (again.stop, again.best, again.best_epoch) == (True, sign * 0.7, 3)


def test_gradients_of_parts_add_up_to_those_of_the_whole_batch():
    x, y = RNG(0).standard_normal((12, 1, 28, 28)), RNG(1).integers(0, 10, 12)
    model = nn.LeNet5(generator=0)
    tl.cross_entropy(model(x), y).backward()
    whole = [p.grad.numpy().copy() for p in model.parameters()]
    model.zero_grad()
    for part in np.split(np.arange(12), 3):
        (tl.cross_entropy(model(x[part]), y[part]) / 3).backward()
    for p, expected in zip(model.parameters(), whole, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), expected, atol=1e-6)


# Looking inside


def test_the_summary_of_lenet5_is_what_one_counts_by_hand():
    lines = nn.summary(nn.LeNet5(generator=0), (1, 1, 28, 28)).splitlines()
    rows = {line.split()[0]: line.split() for line in lines}
    counted = {name: rows[name][-2:] for name in ("conv1", "conv2", "fc1", "fc2", "fc3", "total")}
    assert counted == {
        "conv1": ["156", "117,600"],  # 6 x 25 weights, 28 x 28 places
        "conv2": ["2,416", "240,000"],
        "fc1": ["48,120", "48,000"],
        "fc2": ["10,164", "10,080"],
        "fc3": ["850", "840"],
        "total": ["61,706", "416,520"],
    }
    assert "(1, 16, 5, 5)" in "".join(lines)
    assert len({len(line) for line in lines}) == 1


def test_the_summary_counts_shared_layers_once_and_transposed_ones_right():
    layer = nn.Linear(3, 3)
    model = nn.Sequential({"a": layer, "b": layer, "c": nn.Unflatten(1, (3, 1, 1)), "d": nn.ConvTranspose2d(3, 2, 4)})
    total = nn.summary(model, (5, 3)).splitlines()[-1].split()
    assert total == ["total", str(12 + 3 * 2 * 16 + 2), str(5 * (9 + 9 + 3 * 2 * 16))]
    with pytest.raises(ArgumentError, match=r"input_shape.* at least 1, got 0"):
        nn.summary(model, (0, 3))


def test_recording_leaves_the_model_as_it_was_even_after_an_error():
    model = nn.LeNet5(generator=0)
    before = {key: list(vars(module)) for key, module in model.named_modules()}
    with pytest.raises(ShapeError), nn.record_calls(model):
        model(tl.zeros(1, 3, 28, 28))
    assert before == {key: list(vars(module)) for key, module in model.named_modules()}
    assert model(tl.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_the_first_layer_that_goes_bad_is_named():
    model, x = nn.LeNet5(generator=0), tl.tensor(RNG(0).standard_normal((2, 1, 28, 28)).astype(np.float32))
    nan = tl.tensor(np.nan)
    with pytest.raises(GradientError, match="input 0 holds nan in 1 of 1,568 elements"):
        training.check_finite(model, nan, tl.where(np.arange(1568).reshape(x.shape) == 3, np.nan, x))
    model.conv2.weight.data = model.conv2.weight.numpy() * np.float32(1e38)
    with pytest.raises(GradientError, match=r"the output of layer conv2 \(Conv2d\) holds "):
        training.check_finite(model, nan, x * 1e3)
    bad = model.fc2.weight.numpy().copy()
    bad[3, 4] = np.inf
    model.fc2.weight.data = bad
    with pytest.raises(GradientError, match=r"parameter fc2\.weight holds inf in 1 of 10,080 elements"):
        training.check_finite(model, nan, x)


def test_check_finite_passes_what_is_finite_and_names_what_is_not():
    model = nn.Sequential(nn.Linear(2, 2, generator=0), nn.Linear(2, 2, generator=1))
    x = tl.ones(1, 2)
    loss = model(x).sum()
    loss.backward()
    training.check_finite(model, loss, x)
    model[1].weight.grad = tl.tensor([[0, np.inf], [0, 0]])
    model[0].weight.grad = tl.tensor([[0, np.nan], [0, 0]])
    with pytest.raises(GradientError, match=r"gradient of 1\.weight is not finite"):
        training.check_finite(model, loss, x)
    with pytest.raises(GradientError, match=r"the loss is nan: it begins in the loss itself"):
        training.check_finite(model, tl.tensor(np.nan), x)
    with pytest.raises(GradientError, match=r"the loss is inf: input 0 holds"):
        training.check_finite(model, tl.tensor(np.inf), x * np.nan)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: training.accuracy(np.ones((2, 3)), [0]), ShapeError, r"\(2, 3\) and \(1,\)"),
        (lambda: training.accuracy(np.ones((0, 3)), np.ones(0, int)), ShapeError, "with samples and classes"),
        (lambda: training.confusion_matrix([0, 1], [0], 2), ShapeError, r"\(2,\) and \(1,\)"),
        (lambda: training.confusion_matrix([0, 2], [0, 1], 2), OutOfRangeError, "0 ... 1, got 0 ... 2"),
        (lambda: training.confusion_matrix([0.5], [1.0], 2), ArgumentError, "integers, got float64"),
        (lambda: training.evaluate(nn.Identity(), []), ArgumentError, "no batch"),
        (lambda: training.ExponentialMovingAverage(nn.Identity(), 1), ArgumentError, r"\[0, 1\), got 1"),
        (lambda: training.EarlyStopping(0), ArgumentError, "at least 1.*0"),
        (lambda: training.EarlyStopping(mode="best"), ArgumentError, "'best'"),
    ],
)
def test_mistakes_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
