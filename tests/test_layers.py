"""Every layer and LeNet-5 against PyTorch's, with the same weights; and initial values."""

import math

import numpy as np
import pytest
from judges import widen

import tinygrad_lenet as tl
from tinygrad_lenet import nn
from tinygrad_lenet.nn import init
from tinygrad_lenet.testing import gradcheck


def rng(seed=0):
    return np.random.default_rng(seed)


def near(found, expected, tolerance):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


LAYERS = [
    ("Linear", (4, 3), {}, (5, 4)),
    ("Linear", (4, 3), {"bias": False}, (2, 5, 4)),
    ("Conv2d", (2, 4, (3, 2)), {"stride": (2, 1), "padding": (1, 0)}, (2, 2, 7, 6)),
    ("Conv2d", (4, 6, 3), {"groups": 2, "dilation": 2, "padding": "same", "bias": False}, (2, 4, 7, 6)),
    ("MaxPool2d", ((3, 2),), {"stride": (2, 1), "padding": (1, 0), "ceil_mode": True}, (2, 2, 6, 7)),
    ("MaxPool2d", (2,), {"dilation": (1, 2)}, (2, 2, 6, 7)),
    ("AvgPool2d", ((3, 2),), {"stride": (2, 1), "padding": (1, 0), "ceil_mode": True}, (2, 2, 6, 7)),
    ("AvgPool2d", (3,), {"padding": 1, "count_include_pad": False}, (2, 2, 6, 7)),
    ("AvgPool2d", (2, 1), {"divisor_override": 3}, (2, 2, 6, 7)),
    ("BatchNorm1d", (4,), {}, (5, 4)),
    ("BatchNorm1d", (4,), {"momentum": None, "eps": 0.1}, (5, 4, 3)),
    ("BatchNorm2d", (3,), {"momentum": 0.3}, (4, 3, 2, 5)),
    ("BatchNorm2d", (3,), {"affine": False, "track_running_stats": False}, (4, 3, 2, 5)),
    ("Flatten", (), {}, (2, 3, 4)),
    ("Flatten", (0, 1), {}, (2, 3, 4)),
    ("PReLU", (), {}, (5, 4)),
    ("PReLU", (4,), {"init": 0.1}, (5, 4, 2)),
    *((name, (), {}, (5, 4)) for name in ("ReLU", "Sigmoid", "Tanh", "LeakyReLU", "ELU", "Softplus")),
    ("LeakyReLU", (0.3,), {}, (5, 4)),
    ("ELU", (0.5,), {}, (5, 4)),
    ("Softplus", (3.0, 2.0), {}, (5, 4)),
    *((name, (), {"dim": dim}, (5, 4, 3)) for name in ("Softmax", "LogSoftmax") for dim in (1, -1)),
]


@pytest.mark.parametrize(("name", "args", "options", "shape"), LAYERS)
def test_layers_agree_with_torch(torch, name, args, options, shape):
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    state = theirs.state_dict()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: tuple(v.shape) for k, v in state.items()}
    ours.load_state_dict(state)
    for seed in range(3):
        x = (2 * rng(seed).standard_normal(shape)).astype(np.float32)
        a, b = tl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        out, expected = ours.train(seed < 2)(a), theirs.train(seed < 2)(b)
        up = rng(9).standard_normal(out.shape).astype(np.float32)
        out.backward(up)
        expected.backward(torch.tensor(up))
        pairs = {"output": (out, expected), "input": (a.grad, b.grad)}
        pairs |= {k: (p.grad, dict(theirs.named_parameters())[k].grad) for k, p in ours.named_parameters()}
        pairs |= {k: (p, dict(theirs.named_buffers())[k]) for k, p in ours.named_buffers()}
        for key, (found, wanted) in pairs.items():
            # Sums of at most 100 terms of about 1, in another order: a few units of 2^-24 of the largest.
            np.testing.assert_allclose(found.numpy(), wanted.detach(), rtol=1e-5, atol=3e-6, err_msg=key)
            assert str(found.dtype) == str(wanted.dtype).removeprefix("torch.")
        ours.zero_grad()
        theirs.zero_grad()
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})  # and back, strictly


LOSSES = [("CrossEntropyLoss", {"label_smoothing": 0.1}), ("NLLLoss", {"ignore_index": 1, "reduction": "sum"})]
LOSSES += [("MSELoss", {"reduction": "sum"}), ("L1Loss", {}), ("BCEWithLogitsLoss", {"reduction": "none"})]


@pytest.mark.parametrize(("name", "options"), LOSSES)
def test_losses_agree_with_torch(torch, name, options):
    x, target = rng().standard_normal((4, 3)), np.array([0, 1, 2, 0])
    target = target if name in ("CrossEntropyLoss", "NLLLoss") else rng(1).random((4, 3))
    found = getattr(nn, name)(**options)(tl.tensor(x), target)
    expected = getattr(torch.nn, name)(**options)(torch.tensor(x), torch.tensor(target))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(("shape", "size"), [((4,), 1), ((3, 4), 4), ((2, 3, 4), 3), ((2, 3, 4, 2), 3), ((2, 3), 1)])
def test_prelu_agrees_with_torch(torch, shape, size):
    x, weight = rng().standard_normal(shape), rng(1).uniform(-0.5, 0.5, size)
    x.flat[0] = 0.0
    ours = [tl.tensor(a, requires_grad=True) for a in (x, weight)]
    theirs = [torch.tensor(a, requires_grad=True) for a in (x, weight)]
    out, expected = tl.prelu(*ours), torch.nn.functional.prelu(*theirs)
    up = rng(2).standard_normal(shape)
    out.backward(up)
    expected.backward(torch.tensor(up))
    near(out.numpy(), expected.detach().numpy(), 1e-13)
    for a, b in zip(ours, theirs, strict=True):
        near(a.grad.numpy(), b.grad.numpy(), 1e-13)
    x.flat[0] = 0.5
    assert gradcheck(tl.prelu, [x, weight], order=2)


@pytest.mark.parametrize("huge", [np.inf, 3e38])
def test_prelu_does_nothing_with_the_product_where_it_is_not_taken(huge):
    x, weight = tl.tensor([huge, 1.0], requires_grad=True), tl.tensor([2.5], requires_grad=True)
    tl.prelu(x, weight).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1, 1])
    np.testing.assert_array_equal(weight.grad.numpy(), [0])


def test_dropout_has_a_generator_of_its_own():
    x = tl.ones(50)
    one, two = nn.Dropout(generator=3), nn.Dropout(generator=3)
    first = one(x).numpy()
    np.testing.assert_array_equal(first, two(x).numpy())
    assert (one(x).numpy() != first).any()  # it goes on
    assert one.eval()(x).tolist() == [1.0] * 50
    assert not list(one.parameters())


def torch_lenet(torch, activation, pool, batch_norm):
    """LeNet-5 in PyTorch with the same attribute names, as a module for its state and a function of images."""
    TN = torch.nn
    act = {"relu": TN.ReLU, "tanh": TN.Tanh, "elu": TN.ELU, "sigmoid": TN.Sigmoid}[activation]()
    down = (TN.MaxPool2d if pool == "max" else TN.AvgPool2d)(2)
    model, norms = TN.Module(), [TN.Identity(), TN.Identity()]
    model.conv1, model.conv2 = TN.Conv2d(1, 6, 5, padding="same"), TN.Conv2d(6, 16, 5)
    model.fc1, model.fc2, model.fc3 = TN.Linear(400, 120), TN.Linear(120, 84), TN.Linear(84, 10)
    if batch_norm:
        norms = model.norm1, model.norm2 = TN.BatchNorm2d(6), TN.BatchNorm2d(16)
    features = [model.conv1, norms[0], act, down, model.conv2, norms[1], act, down, TN.Flatten()]
    return model, TN.Sequential(*features, model.fc1, act, model.fc2, act, model.fc3)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("activation", "pool"), [("relu", "max"), ("tanh", "avg"), ("elu", "max"), ("sigmoid", "avg")])
def test_lenet_agrees_with_torch(torch, batch_norm, activation, pool):
    options = {"activation": activation, "pool": pool, "batch_norm": batch_norm}
    ours, (theirs, forward) = nn.LeNet5(**options, generator=0), torch_lenet(torch, **options)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: (*v.shape,) for k, v in theirs.state_dict().items()
    }
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})
    x, target = rng().standard_normal((6, 1, 28, 28)), np.arange(6)
    for dtype, logits_to, gradients_to in ((np.float32, 1e-6, 1e-5), (np.float64, 1e-13, 1e-13)):
        if dtype == np.float64:
            widen(ours), theirs.double(), forward.zero_grad()
        logits, expected = ours(x.astype(dtype)), forward(torch.tensor(x.astype(dtype)))
        assert logits.dtype == dtype
        near(logits.numpy(), expected.detach().numpy(), logits_to)
        tl.cross_entropy(logits, target).backward()
        torch.nn.functional.cross_entropy(expected, torch.tensor(target)).backward()
        # A bias before batch norm has the gradient 0, a sum of terms as large as its weight's: so all are measured
        # against the largest gradient of all.
        names = [name for name, _ in ours.named_parameters()]
        found = np.concatenate([p.grad.numpy().ravel() for p in ours.parameters()])
        wanted = np.concatenate([dict(theirs.named_parameters())[name].grad.numpy().ravel() for name in names])
        near(found, wanted, gradients_to)
    again = widen(nn.LeNet5(**options, generator=1))
    again.load_state_dict(theirs.state_dict())
    near(again.eval()(x).numpy(), forward.eval()(torch.tensor(x)).detach().numpy(), 1e-13)


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "leaky_relu", "elu"])
@pytest.mark.parametrize(("pool", "batch_norm"), [("max", False), ("avg", True)])
def test_lenet_learns_a_small_batch(activation, pool, batch_norm):
    model = nn.LeNet5(3, 2, activation=activation, pool=pool, batch_norm=batch_norm, generator=0)
    x, target = tl.randn(6, 2, 28, 28, generator=1), [0, 1, 2, 0, 1, 2]
    optimizer = tl.optim.SGD(model.parameters(), lr=0.001)
    losses = []
    for _ in range(5):
        loss = tl.cross_entropy(model(x), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True)


def test_the_same_seed_gives_the_same_weights():
    for build in (nn.LeNet5, lambda **o: nn.Linear(3, 4, **o), lambda **o: nn.Conv2d(1, 2, 3, **o)):
        one, two, other = (build(generator=seed).state_dict() for seed in (5, np.random.default_rng(5), 6))
        for name, value in one.items():
            np.testing.assert_array_equal(value, two[name])
            assert (value != other[name]).any() or not value.any()


# Initial values


def test_gains_and_fans_are_torchs(torch):
    for args in [("relu",), ("tanh",), ("sigmoid",), ("linear",), ("selu",), ("leaky_relu",), ("leaky_relu", 0.3)]:
        assert init.calculate_gain(*args) == pytest.approx(torch.nn.init.calculate_gain(*args), rel=1e-15)
    for shape in ((3, 4), (6, 2, 5, 3), (2, 3, 4)):
        assert init.fans(tl.zeros(*shape)) == torch.nn.init._calculate_fan_in_and_fan_out(torch.zeros(shape))


def test_initial_values_have_their_variance_and_bounds():
    fan_in, fan_out, gain = 50 * 6, 400 * 6, init.calculate_gain("leaky_relu", 0.2)
    xavier = 2 / (fan_in + fan_out)
    kinds = {"xavier_{}_": ({"gain": 1.5}, 1.5**2 * xavier)}
    for mode, fan in (("fan_in", fan_in), ("fan_out", fan_out)):
        kinds["kaiming_{}_" + " " * len(mode)] = ({"mode": mode, "a": 0.2}, gain**2 / fan)
    for kind, (options, variance) in kinds.items():
        for law, kurtosis in (("uniform", 1.8), ("normal", 3.0)):
            w = tl.zeros(400, 50, 3, 2, requires_grad=True)
            assert getattr(init, kind.strip().format(law))(w, generator=7, **options) is w
            values = w.numpy().astype(float).ravel()
            error = math.sqrt((kurtosis - 1) / values.size)  # of the sample variance, relative
            assert abs(values.mean()) < 5 * math.sqrt(variance / values.size)
            assert abs(values.var() / variance - 1) < 5 * error
            assert abs((values**4).mean() / values.var() ** 2 - kurtosis) < 0.1
            if law == "uniform":
                assert 0.999 < np.abs(values).max() / math.sqrt(3 * variance) <= 1 + 1e-6
    w = init.uniform_(init.normal_(tl.zeros(1000), 5, 0.1, generator=0), 2, 3, generator=0).numpy()
    assert 2 <= w.min() < w.max() <= 3
    w = tl.zeros(2, requires_grad=True)
    assert init.ones_(w).tolist() == [1, 1]
    assert init.zeros_(w).tolist() == [0, 0]
    assert init.constant_(w, 0.5).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(("layer", "fan"), [(nn.Linear(100, 300, generator=0), 100), (nn.Conv2d(4, 500, 5), 100)])
def test_layers_begin_as_in_torch(layer, fan):
    for p in layer.parameters():
        values = p.numpy()
        assert np.abs(values).max() <= 1 / math.sqrt(fan)
        assert abs(values.var() * 3 * fan - 1) < 5 * math.sqrt(0.8 / values.size)
