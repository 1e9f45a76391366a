"""What helps a training loop, and what looks inside a model; LeNet-5 of 1998 and its second derivatives."""

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import data, nn, optim, training
from tinygrad_lenet.errors import ArgumentError, DTypeError, GradientError, OutOfRangeError, ShapeError
from tinygrad_lenet.nn.lenet_classic import C3_TABLE, CODES

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
    with pytest.raises(ShapeError, match=r"^evaluate: expected logits \(N, C\) from the model"):
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
    assert nn.first_nonfinite(model, x) == ""
    assert nn.first_nonfinite(model, tl.tensor([[[[np.nan]]]])) == "input 0 holds nan in 1 of 1 elements"
    model.conv2.weight.data = model.conv2.weight.numpy() * np.float32(1e38)
    words = nn.first_nonfinite(model, x * 1e3)
    assert words.startswith("the output of layer conv2 (Conv2d) holds ")
    bad = model.fc2.weight.numpy().copy()
    bad[3, 4] = np.inf
    model.fc2.weight.data = bad
    assert nn.first_nonfinite(model, x) == "parameter fc2.weight holds inf in 1 of 10,080 elements"


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
        (lambda: training.accuracy(np.ones((0, 3)), np.ones(0, int)), ShapeError, "no samples"),
        (lambda: training.confusion_matrix([0, 1], [0], 2), ShapeError, r"\(2,\) and \(1,\)"),
        (lambda: training.confusion_matrix([0, 2], [0, 1], 2), OutOfRangeError, "0 … 1, got 0 … 2"),
        (lambda: training.confusion_matrix([0.5], [1.0], 2), ArgumentError, "integers, got float64"),
        (lambda: training.evaluate(nn.Identity(), []), ArgumentError, "no batch"),
        (lambda: training.ExponentialMovingAverage(nn.Identity(), 1), ArgumentError, r"\[0, 1\), got 1"),
        (lambda: training.EarlyStopping(0), ArgumentError, "at least 1.*0"),
        (lambda: training.EarlyStopping(mode="best"), ArgumentError, "'best'"),
        (lambda: optim.StochasticDiagonalLM(nn.Linear(1, 1).parameters(), mu=0), ArgumentError, "mu.*0"),
        (lambda: nn.LeNet5Classic()(tl.zeros(1, 1, 28, 28)), ShapeError, r"32, 32.*28, 28.*prepare"),
        (lambda: nn.gauss_newton_diagonal(nn.Sequential(nn.ReLU()), [1.0], [1.0]), DTypeError, "no rule for ReLU"),
    ],
)
def test_mistakes_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


# LeNet-5 of 1998


def test_the_classic_network_has_the_parameters_of_the_paper_layer_by_layer():
    model = nn.LeNet5Classic(generator=0)
    counts = {name: sum(p.size for p in layer.parameters()) for name, layer in model.body.named_children()}
    layers = {name: count for name, count in counts.items() if count}
    assert layers == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120, "f6": 10164}
    assert sum(p.size for p in model.parameters()) == 60_000
    shapes = {}
    with nn.record_calls(model) as calls:
        model(tl.zeros(1, 1, 32, 32))
    shapes = {call.name.removeprefix("body."): call.output.shape[1:] for call in calls}
    expected = {"c1": (6, 28, 28), "s2": (6, 14, 14), "c3": (16, 10, 10), "s4": (16, 5, 5), "c5": (120, 1, 1)}
    assert {name: shapes[name] for name in expected} == expected


def test_c3_sees_the_maps_of_the_papers_table():
    said = "012, 123, 234, 345, 045, 015, 0123, 1234, 2345, 0345, 0145, 0125, 0134, 1245, 0235, 012345"
    assert said.split(", ") == C3_TABLE
    layer = nn.PartialConv2d(C3_TABLE, 5, generator=0)
    x = RNG(0).standard_normal((2, 6, 9, 8)).astype(np.float32)
    whole = layer(tl.tensor(x)).numpy()
    first = 0
    for o, row in enumerate(C3_TABLE):
        channels = [int(c) for c in row]
        weight = layer.weight.numpy()[first : first + len(row)]
        first += len(row)
        alone = tl.conv2d(x[:, channels], weight[None], layer.bias.numpy()[o : o + 1])
        np.testing.assert_allclose(whole[:, o], alone.numpy()[:, 0], atol=1e-5)


def test_initial_weights_lie_within_their_bounds_and_fill_them():
    model = nn.LeNet5Classic(generator=0)
    fans = {"c1": 25, "s2": 4, "s4": 4, "c5": 400, "f6": 120}
    for name, fan in fans.items():
        values = np.concatenate([p.numpy().ravel() for p in getattr(model.body, name).parameters()])
        assert 0.7 * 2.4 / fan < np.abs(values).max() <= 2.4 / fan
    kernels, biases = model.body.c3.weight.numpy(), model.body.c3.bias.numpy()
    first = 0
    for row, bias in zip(C3_TABLE, biases, strict=True):
        bound = 2.4 / (25 * len(row))
        assert 0.9 * bound < np.abs(kernels[first : first + len(row)]).max() <= bound
        assert abs(bias) <= bound
        first += len(row)


def test_codes_and_images_are_those_of_the_paper():
    assert CODES.shape == (10, 84)
    assert set(np.unique(CODES)) == {-1, 1}
    distances = ((CODES[:, None] - CODES) ** 2).sum(2) + 1e9 * np.eye(10)
    assert distances.min() >= 4 * 5  # no two digits differ in fewer than five pixels
    images = nn.LeNet5Classic.prepare(np.ones((1, 1, 28, 28), np.float32)).numpy()
    np.testing.assert_allclose([images[0, 0, 0, 0], images[0, 0, 2, 2]], [-0.1, 1.175], rtol=1e-6)
    model = nn.LeNet5Classic(generator=0)
    x = tl.tensor(RNG(0).standard_normal((3, 1, 32, 32)).astype(np.float32))
    features = model.body(x).numpy()
    np.testing.assert_allclose(model(x).numpy(), -((features[:, None] - CODES) ** 2).sum(2), rtol=1e-5)
    assert model(CODES.mean() + x).shape == (3, 10)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_map_loss_is_equation_9(reduction):
    penalties, labels = RNG(0).uniform(0, 8, (5, 10)), RNG(1).integers(0, 10, 5)
    each = [y[d] + np.log(np.exp(-2.5) + np.exp(-y).sum()) for y, d in zip(penalties, labels, strict=True)]
    found = nn.MAPLoss(2.5, reduction)(tl.tensor(-penalties), labels)
    np.testing.assert_allclose(found.item(), getattr(np, reduction)(each), rtol=1e-12)


def test_the_second_derivative_of_the_loss_is_the_frameworks():
    x = (CODES[[3, 8]] + 0.3 * RNG(0).standard_normal((2, 84))).astype(np.float64)
    loss = nn.MAPLoss(5.0, reduction="sum")
    for row in 0.5 * x:
        function = lambda f: loss(-((f - CODES.astype(np.float64)) ** 2).sum(axis=1).reshape(1, 10), [3])  # noqa: E731
        exact = np.diag(tl.hessian(function)(tl.tensor(row)).numpy())
        np.testing.assert_allclose(loss.second_derivative(row[None])[0], exact, rtol=1e-8, atol=1e-10)


def test_gauss_newton_of_the_last_layer_is_the_exact_one():
    body = nn.Sequential(nn.Linear(5, 4, generator=0), nn.ScaledTanh())
    x, second = RNG(0).standard_normal((6, 5)), RNG(1).uniform(0.5, 2, (6, 4))
    found = nn.gauss_newton_diagonal(body, x, second)
    weight, bias = (tl.tensor(p.numpy().astype(np.float64)) for p in body.parameters())
    total = [np.zeros(weight.shape), np.zeros(bias.shape)]
    for row, h in zip(x, second, strict=True):
        function = lambda w, b: 1.7159 * (2 / 3 * (tl.tensor(row) @ w.T + b)).tanh()  # noqa: E731, B023
        for i, jacobian in enumerate(tl.jacobian(function, argnums=(0, 1))(weight, bias)):
            total[i] += np.einsum("i...,i->...", jacobian.numpy() ** 2, h)
    for a, b in zip(found, total, strict=True):
        np.testing.assert_allclose(a, b / 6, rtol=1e-5)


def test_gauss_newton_through_a_chain_of_single_units_is_exact():
    body = nn.Sequential(nn.Linear(1, 1), nn.ScaledTanh(), nn.Linear(1, 1), nn.ScaledTanh(), nn.Linear(1, 1))
    for i, p in enumerate(body.parameters()):
        p.data = np.full(p.shape, 0.3 + 0.2 * i)
    found = nn.gauss_newton_diagonal(body, [[0.7]], [[2.0]])
    body(tl.tensor([[0.7]])).sum().backward()
    for h, p in zip(found, body.parameters(), strict=True):
        np.testing.assert_allclose(h, 2 * p.grad.numpy() ** 2, rtol=1e-5)


def test_gauss_newton_of_float16_is_that_of_float32():
    found = []
    for dtype in (np.float16, np.float32):
        body = nn.Sequential(nn.Conv2d(1, 1, 2), nn.Subsampling(1), nn.ScaledTanh(), nn.Flatten(), nn.Linear(1, 1))
        for module in body:
            for name, p in [*module.named_parameters()]:
                setattr(module, name, nn.Parameter(np.full(p.shape, 1 / 1024, dtype)))
        x, second = np.full((70_000, 1, 3, 3), 300.0, dtype), np.full((70_000, 1), 4.0, dtype)
        found.append(nn.gauss_newton_diagonal(body, x, second))
    for a, b in zip(*found, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_gauss_newton_propagates_as_the_paper_says_layer_by_layer():
    generator = RNG(3)
    body = nn.Sequential(
        {
            "c1": nn.Conv2d(1, 2, 3, generator=generator),
            "f1": nn.ScaledTanh(),
            "s2": nn.Subsampling(2, generator),
            "f2": nn.ScaledTanh(),
            "c3": nn.PartialConv2d(["0", "01", "1"], 2, generator),
            "flatten": nn.Flatten(),
            "f4": nn.Linear(3, 2, generator=generator),
        }
    )
    x, second = generator.standard_normal((3, 1, 6, 6)), generator.uniform(0.5, 2, (3, 2))
    found = dict(zip([n for n, _ in body.named_parameters()], nn.gauss_newton_diagonal(body, x, second), strict=True))
    with nn.record_calls(body) as calls:
        body(tl.tensor(x))
    out = {call.name: call.output.numpy() for call in calls}
    p = {name: tensor.numpy().astype(np.float64) for name, tensor in body.named_parameters()}
    slope = lambda y: (1.7159 * 2 / 3 * (1 - (y / 1.7159) ** 2)) ** 2  # noqa: E731
    n = len(x)
    close = lambda name, value: np.testing.assert_allclose(found[name], value / n, rtol=1e-4)  # noqa: E731
    close("f4.weight", second.T @ out["c3"].reshape(n, 3) ** 2)
    close("f4.bias", second.sum(0))
    h = (second @ p["f4.weight"] ** 2).reshape(n, 3, 1, 1)
    places = [(0, 0), (1, 0), (1, 1), (2, 1)]  # output and channel of each kernel
    close("c3.weight", np.array([(h[:, o] * out["f2"][:, c] ** 2).sum(0) for o, c in places]))
    close("c3.bias", h.sum((0, 2, 3)))
    back = np.zeros((n, 2, 2, 2))
    for (o, c), kernel in zip(places, p["c3.weight"], strict=True):
        back[:, c] += h[:, o] * kernel**2
    h = back * slope(out["f2"])
    sums = out["f1"].reshape(n, 2, 2, 2, 2, 2).sum((3, 5))
    close("s2.coefficient", (h * sums**2).sum((0, 2, 3)).reshape(2, 1, 1))
    close("s2.bias", h.sum((0, 2, 3)).reshape(2, 1, 1))
    h = np.repeat(np.repeat(h * p["s2.coefficient"] ** 2, 2, 2), 2, 3) * slope(out["f1"])
    windows = np.lib.stride_tricks.sliding_window_view(x[:, 0], (3, 3), axis=(1, 2))
    close("c1.weight", np.einsum("noij,nijab->oab", h, windows**2)[:, None])
    close("c1.bias", h.sum((0, 2, 3)))


def test_the_diagonal_method_is_its_formula_and_goes_on_after_a_checkpoint(tmp_path):
    w, expected = tl.tensor([1.0, -2.0, 3.0], dtype=np.float64, requires_grad=True), np.array([1.0, -2.0, 3.0])
    optimizer = optim.StochasticDiagonalLM([w], lr=0.1, mu=0.5)
    h = np.zeros(3)
    for step in range(6):
        if step == 2:
            h = np.array([0.0, 1.0, 2.0])
            optimizer.set_curvature([h])
        if step == 4:
            tl.save_checkpoint(tmp_path / "a", optimizer.state_dict())
            optimizer = optim.StochasticDiagonalLM([w], lr=9, mu=9)
            optimizer.load_state_dict(tl.load_checkpoint(tmp_path / "a"))
        optimizer.zero_grad()
        (w**3).sum().backward()
        optimizer.step()
        expected -= 0.1 / (0.5 + h) * 3 * expected**2
        np.testing.assert_allclose(w.numpy(), expected, rtol=1e-12)
    with pytest.raises(ArgumentError, match=r"parameter 0.*\(3,\).*least element -1"):
        optimizer.set_curvature([[-1.0, 0, 0]])
