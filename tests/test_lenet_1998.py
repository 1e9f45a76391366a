"""The network, the loss and the optimiser of 1998, which examples/lenet_1998.py defines."""

import doctest
import subprocess
import sys
from pathlib import Path

import lenet_1998
import numpy as np
import pytest
import test_old_files as old
from test_reproducible import digits, parameters

import tinygrad_lenet as tl
from tinygrad_lenet import data, nn
from tinygrad_lenet.errors import ArgumentError, DTypeError, GradientError, ShapeError

EXAMPLE = Path(__file__).parents[1] / "examples" / "lenet_1998.py"
OLD = Path(__file__).parent / "files" / "9d5ff89"  # its package had these classes
RNG = np.random.default_rng


C3_TABLE, CODES = lenet_1998.C3_TABLE, lenet_1998.CODES
LeNet5Classic, PartialConv2d = lenet_1998.LeNet5Classic, lenet_1998.PartialConv2d
ScaledTanh, Subsampling = lenet_1998.ScaledTanh, lenet_1998.Subsampling
MAPLoss, StochasticDiagonalLM = lenet_1998.MAPLoss, lenet_1998.StochasticDiagonalLM
gauss_newton_diagonal = lenet_1998.gauss_newton_diagonal


def images(count, seed=0):
    """Random images as the network takes them."""
    return LeNet5Classic.prepare(RNG(seed).random((count, 1, 28, 28), np.float32))


def test_the_docstrings_are_right():
    found = doctest.testmod(lenet_1998, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 10
    assert found.failed == 0


# The network


def test_the_classic_network_has_the_parameters_of_the_paper_layer_by_layer():
    model = LeNet5Classic(generator=0)
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
    layer = PartialConv2d(C3_TABLE, 5, generator=0)
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
    model = LeNet5Classic(generator=0)
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
    images = LeNet5Classic.prepare(np.ones((1, 1, 28, 28), np.float32)).numpy()
    np.testing.assert_allclose([images[0, 0, 0, 0], images[0, 0, 2, 2]], [-0.1, 1.175], rtol=1e-6)
    model = LeNet5Classic(generator=0)
    x = tl.tensor(RNG(0).standard_normal((3, 1, 32, 32)).astype(np.float32))
    features = model.body(x).numpy()
    np.testing.assert_allclose(model(x).numpy(), -((features[:, None] - CODES) ** 2).sum(2), rtol=1e-5)
    assert model(CODES.mean() + x).shape == (3, 10)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: PartialConv2d(["012", "13"], 3, generator=7), [0.0429815, 0.03725791, -0.00449695, -0.1619918]),
        (lambda: Subsampling(6, generator=7), [-0.5936816, 0.4482641, 0.0369878, 0.42976]),
        (lambda: LeNet5Classic(generator=7), [0.03750911, 0.4076338, -3.870759e-05, -1.452898]),
    ],
)
def test_a_seed_gives_the_same_initial_weights_as_ever(make, expected):
    np.testing.assert_allclose(digits(parameters(make())), expected, 1e-6, 1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (ScaledTanh(), (2, 3)),
        (Subsampling(2, generator=0), (2, 2, 4, 4)),
        (PartialConv2d(["01", "2", "02"], 2, generator=0), (2, 3, 4, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_gradients_of_the_layers(layer, shape):
    parameters = {name: p.numpy().astype(np.float64) for name, p in layer.named_parameters()}

    def function(x, *weights):
        vars(layer).update(zip(parameters, weights, strict=True))
        return layer(x)

    assert tl.testing.gradcheck(function, (RNG(0).standard_normal(shape), *parameters.values()))


def test_the_network_is_exported_to_onnx():
    pytest.importorskip("onnx", reason="ONNX is not installed")
    model, x = LeNet5Classic(generator=0), images(2)
    made = tl.onnx.export(model, x, None)
    expected = model(x).numpy()
    np.testing.assert_allclose(tl.onnx.load(made)(x).numpy(), expected, rtol=2e-5)
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = ort.InferenceSession(made.SerializeToString())
    name = session.get_inputs()[0].name
    np.testing.assert_allclose(session.run(None, {name: x.numpy()})[0], expected, rtol=2e-5)
    np.testing.assert_allclose(
        session.run(None, {name: images(5, 1).numpy()})[0], model(images(5, 1)).numpy(), rtol=2e-5
    )


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_weights_are_read_again(tmp_path, kind):
    if kind == "safetensors":
        pytest.importorskip("safetensors")
    first, second = LeNet5Classic(generator=1), LeNet5Classic(generator=2)
    tl.save(tmp_path / f"a.{kind}", first)
    second.load_state_dict(tl.load(tmp_path / f"a.{kind}"))
    np.testing.assert_array_equal(second(images(2)).numpy(), first(images(2)).numpy())


# Files of versions in which these classes were part of the package


def test_the_weights_have_their_old_names():
    assert old.names_of(LeNet5Classic()) == tl.load_checkpoint(OLD / "values.ckpt")["names"]["LeNet5Classic"]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(PartialConv2d(["01", "2"], 2), (1, 3, 3, 3)), (Subsampling(2), (1, 2, 2, 2))],
    ids=["PartialConv2d", "Subsampling"],
)
def test_a_layer_computes_the_same_with_its_old_weights(layer, shape):
    prefix = f"{type(layer).__name__}/"
    saved = tl.load(OLD / "layers.npz").items()
    state = {key.removeprefix(prefix): array for key, array in saved if key.startswith(prefix)}
    expected = state.pop("output")
    layer.load_state_dict(state)
    np.testing.assert_allclose(layer(old.filled(shape)).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_optimizer_goes_on_from_its_old_state():
    state = tl.load_checkpoint(OLD / "learners.ckpt")["StochasticDiagonalLM"]
    dtypes = np.float32, np.float64
    params = [tl.tensor(w, dtype=d, requires_grad=True) for w, d in zip(state["weights"], dtypes, strict=True)]
    optimizer = StochasticDiagonalLM([{"params": params[:1]}, {"params": params[1:], "lr": 9}], lr=9, mu=9)
    optimizer.load_state_dict(state["optimizer"])
    for time in (4, 5, 6):
        for i, p in enumerate(params):
            p.grad = tl.tensor(old.filled(p.shape, p.dtype, time + i))
        optimizer.step()
    weights = [p.numpy().ravel().tolist() for p in params]
    assert weights == old.approximately(state["after"]["weights"], 1e-6)


# The loss


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_map_loss_is_equation_9(reduction):
    penalties, labels = RNG(0).uniform(0, 8, (5, 10)), RNG(1).integers(0, 10, 5)
    each = [y[d] + np.log(np.exp(-2.5) + np.exp(-y).sum()) for y, d in zip(penalties, labels, strict=True)]
    found = MAPLoss(2.5, reduction)(tl.tensor(-penalties), labels)
    np.testing.assert_allclose(found.item(), getattr(np, reduction)(each), rtol=1e-12)


def test_the_second_derivative_of_the_loss_is_the_frameworks():
    x = (CODES[[3, 8]] + 0.3 * RNG(0).standard_normal((2, 84))).astype(np.float64)
    loss = MAPLoss(5.0, reduction="sum")
    for row in np.concatenate([0.5 * x, 0.9 * x]):  # far from the codes, and near
        function = lambda f: loss(-((f - CODES.astype(np.float64)) ** 2).sum(axis=1).reshape(1, 10), [3])  # noqa: E731
        exact = np.diag(tl.hessian(function)(tl.tensor(row)).numpy())
        np.testing.assert_allclose(loss.second_derivative(row[None])[0], exact, rtol=1e-8, atol=1e-10)


# The optimiser


def test_gauss_newton_of_the_last_layer_is_the_exact_one():
    body = nn.Sequential(nn.Linear(5, 4, generator=0), ScaledTanh())
    x, second = RNG(0).standard_normal((6, 5)), RNG(1).uniform(0.5, 2, (6, 4))
    found = gauss_newton_diagonal(body, x, second)
    weight, bias = (tl.tensor(p.numpy().astype(np.float64)) for p in body.parameters())
    total = [np.zeros(weight.shape), np.zeros(bias.shape)]
    for row, h in zip(x, second, strict=True):
        function = lambda w, b: 1.7159 * (2 / 3 * (tl.tensor(row) @ w.T + b)).tanh()  # noqa: E731, B023
        for i, jacobian in enumerate(tl.jacobian(function, argnums=(0, 1))(weight, bias)):
            total[i] += np.einsum("i...,i->...", jacobian.numpy() ** 2, h)
    for a, b in zip(found, total, strict=True):
        np.testing.assert_allclose(a, b / 6, rtol=1e-5)


def test_gauss_newton_through_a_chain_of_single_units_is_exact():
    body = nn.Sequential(nn.Linear(1, 1), ScaledTanh(), nn.Linear(1, 1), ScaledTanh(), nn.Linear(1, 1))
    for i, p in enumerate(body.parameters()):
        p.data = np.full(p.shape, 0.3 + 0.2 * i)
    found = gauss_newton_diagonal(body, [[0.7]], [[2.0]])
    body(tl.tensor([[0.7]])).sum().backward()
    for h, p in zip(found, body.parameters(), strict=True):
        np.testing.assert_allclose(h, 2 * p.grad.numpy() ** 2, rtol=1e-5)


def test_gauss_newton_propagates_as_the_paper_says_layer_by_layer():
    generator = RNG(3)
    body = nn.Sequential(
        {
            "c1": nn.Conv2d(1, 2, 3, generator=generator),
            "f1": ScaledTanh(),
            "s2": Subsampling(2, generator),
            "f2": ScaledTanh(),
            "c3": PartialConv2d(["0", "01", "1"], 2, generator),
            "flatten": nn.Flatten(),
            "f4": nn.Linear(3, 2, generator=generator),
        }
    )
    x, second = generator.standard_normal((3, 1, 6, 6)), generator.uniform(0.5, 2, (3, 2))
    found = dict(zip([n for n, _ in body.named_parameters()], gauss_newton_diagonal(body, x, second), strict=True))
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
    optimizer = StochasticDiagonalLM([w], lr=0.1, mu=0.5)
    h = np.zeros(3)
    for step in range(6):
        if step == 2:
            h = np.array([0.0, 1.0, 2.0])
            optimizer.set_curvature([h])
        if step == 4:
            tl.save_checkpoint(tmp_path / "a", optimizer.state_dict())
            optimizer = StochasticDiagonalLM([w], lr=9, mu=9)
            optimizer.load_state_dict(tl.load_checkpoint(tmp_path / "a"))
        optimizer.zero_grad()
        (w**3).sum().backward()
        optimizer.step()
        expected -= 0.1 / (0.5 + h) * 3 * expected**2
        np.testing.assert_allclose(w.numpy(), expected, rtol=1e-12)
    with pytest.raises(ArgumentError, match=r"parameter 0.*\(3,\).*least element -1"):
        optimizer.set_curvature([[-1.0, 0, 0]])


# The training


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: LeNet5Classic()(tl.zeros(1, 1, 28, 28)), ShapeError, r"32, 32.*28, 28.*prepare"),
        (lambda: LeNet5Classic.prepare(np.zeros((1, 28, 28))), ShapeError, r"\(N, 1, 28, 28\), got \(1, 28, 28\)"),
        (
            lambda: LeNet5Classic.prepare(np.zeros((1, 1, 28, 28), np.uint8)),
            DTypeError,
            "prepare: .*divide them by 255",
        ),
        (lambda: Subsampling(6)(tl.zeros(2, 1, 4, 4)), ShapeError, r"Subsampling.*\(N, 6, H, W\)"),
        (lambda: PartialConv2d(["00"], 3), ArgumentError, "each row of table"),
        (lambda: PartialConv2d(["0", ""], 3), ArgumentError, "each row of table"),
        (lambda: MAPLoss()([[1.0, 2.0]], [2]), ArgumentError, "labels must lie in 0 ... 1, got 2"),
        (lambda: MAPLoss()([[1.0, 2.0]], [-1]), ArgumentError, "labels must lie in 0 ... 1, got -1"),
        (lambda: MAPLoss()([[1.0, 2.0]], [True]), ShapeError, "integer labels .*bool"),
        (lambda: MAPLoss()([[1.0, 2.0]], [0, 1]), ShapeError, r"\(1, 2\) and \(2,\)"),
        (lambda: gauss_newton_diagonal(nn.Sequential(nn.ReLU()), [1.0], [1.0]), DTypeError, "no rule for ReLU"),
        (lambda: StochasticDiagonalLM(nn.Linear(1, 1).parameters(), mu=0), ArgumentError, "mu.*0"),
        (
            lambda: StochasticDiagonalLM(nn.Linear(1, 1).parameters()).set_curvature([[[1]]]),
            ShapeError,
            "set_curvature",
        ),
    ],
)
def test_mistakes_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_the_rate_grows_and_falls_as_in_the_papers_table():
    rates = [lenet_1998.learning_rate(60_000 * epoch) for epoch in range(1, 20)]
    assert rates == [1e-4] + [4e-5] * 3 + [2e-5] * 3 + [1e-5] * 4 + [2e-6] * 8
    first = [lenet_1998.learning_rate(seen) for seen in range(0, 60_000, 1000)]
    assert first == sorted(first)
    assert first[0] == pytest.approx(1e-6)


def test_a_loss_that_is_not_finite_stops_the_training():
    model = LeNet5Classic(generator=0)
    model.body.f6.bias.data = np.full(84, np.nan)
    pixels, labels = RNG(0).random((20, 1, 28, 28), np.float32), np.arange(20) % 10
    with pytest.raises((GradientError, ArgumentError), match=r"nan|finite"):
        next(lenet_1998.train(model, data.Subset((pixels, labels), slice(None)), epochs=1))


def test_a_short_run_learns_and_predict_reads_its_weights(mnist, tmp_path):
    options = ["--examples", "5000", "--epochs", "1", "--save", "w.npz"]
    done = subprocess.run(
        [sys.executable, EXAMPLE, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    accuracy = float(done.stdout.split("test loss")[1].split("accuracy ")[1].split("%")[0])
    assert accuracy > 60  # 69.6 %; chance is 10 %
    classes = ", ".join("0123456789")
    assert tl.load_metadata(tmp_path / "w.npz") == {"model": "LeNet5Classic", "dataset": "MNIST", "classes": classes}
    model = LeNet5Classic()
    model.load_state_dict(tl.load(tmp_path / "w.npz"))
    test_set = data.MNIST(mnist.parent, train=False, normalize=False)
    scores = model(LeNet5Classic.prepare(test_set[:1000][0])).numpy()
    assert abs((scores.argmax(1) == test_set.labels[:1000]).mean() - accuracy / 100) < 0.1
    image = pytest.importorskip("PIL.Image")
    image.fromarray(test_set.images[0]).save(tmp_path / "7.png")
    command = [sys.executable, EXAMPLE.with_name("predict.py"), "w.npz", "7.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("7.png: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--examples", "0"], "--examples must be at least 1"),
        (["--examples", "60001"], "--examples must be at most 60000"),
        (["--save", ""], "--save: the name is empty"),
        (["--save", "tests.npz/"], "tests.npz is not a regular file"),
        (["--save", "x.pt"], "--save must end in"),
        (["--save", "no/such/folder/x.npz"], "does not exist; make it first"),
    ],
)
def test_options_that_cannot_be_are_refused_before_training(capsys, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests.npz").mkdir()
    with pytest.raises(SystemExit):
        lenet_1998.main(options)
    assert words in capsys.readouterr().err
