"""Layers for sequences and images, recurrent networks and their losses: PyTorch as a judge of values, first and second
gradients; and what only a user of modules meets: lists, states, names, mistakes.
"""

import itertools

import numpy as np
import pytest
from judges import judge, judge_outputs, widen

import tinygrad_lenet as tl
from tinygrad_lenet import nn
from tinygrad_lenet.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError
from tinygrad_lenet.testing import gradcheck

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script. is deprecated:DeprecationWarning", "ignore:reduction. 'mean' divides:UserWarning"
)
SEQUENCES, IMAGES = (2, 4, 9), (2, 4, 7, 9)


def options(**lists):
    """All combinations."""
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


STRIDES = [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "groups": 2, "bias": False}]
TRANSPOSED = [{}, {"stride": 2, "padding": 1, "output_padding": 1}, {"dilation": 2, "groups": 2, "bias": False}]
POOLS = [{}, {"stride": 2, "padding": 1}, {"ceil_mode": True}]
SIZES = [{"size": (5, 13)}, {"size": 14}, {"scale_factor": 2}, {"scale_factor": (1.5, 0.7)}, {"scale_factor": 0.5}]
LAYERS = [  # name, positional arguments, options, shape of the input
    *(("Conv1d", (4, 6, 3), o, SEQUENCES) for o in [*STRIDES, {"padding": "same"}]),
    *(("ConvTranspose1d", (4, 6, 3), o, SEQUENCES) for o in TRANSPOSED),
    *(("ConvTranspose2d", (4, 6, (3, 2)), o, IMAGES) for o in TRANSPOSED),
    *(("MaxPool1d", (3,), o, SEQUENCES) for o in [*POOLS, {"dilation": 2, "stride": 1}]),
    *(("AvgPool1d", (3,), o, SEQUENCES) for o in [*POOLS, {"padding": 1, "count_include_pad": False}]),
    *(
        (f"Adaptive{kind}Pool2d", (size,), {}, IMAGES)
        for kind in ("Avg", "Max")
        for size in (1, 2, (3, 4), (None, 5), 7, (9, 11))
    ),
    *(("Upsample", (), {"mode": "nearest", **o}, IMAGES) for o in SIZES),
    *(("Upsample", (), {"mode": "bilinear", "align_corners": a, **o}, IMAGES) for o in SIZES for a in (False, True)),
    *((f"{name}Pad2d", (p,), {}, IMAGES) for name in ("Zero", "Reflection", "Replication") for p in (2, (1, 2, 3, 0))),
    *(("ConstantPad2d", (p, 0.5), {}, IMAGES) for p in (2, (1, 2, 3, 0))),
    ("LayerNorm", (9,), {}, IMAGES),
    ("LayerNorm", ((7, 9),), {"eps": 1e-3}, IMAGES),
    ("LayerNorm", (9,), {"elementwise_affine": False}, IMAGES),
    ("GroupNorm", (2, 4), {}, IMAGES),
    ("GroupNorm", (4, 4), {"eps": 0.1}, SEQUENCES),
    ("GroupNorm", (1, 4), {"affine": False}, IMAGES),
    ("Unflatten", (1, (2, -1)), {}, SEQUENCES),
    ("Identity", (1, 2), {"three": 3}, SEQUENCES),
    ("PReLU", (4,), {}, IMAGES),
    *((name, (), {}, IMAGES) for name in ("CELU", "ELU", "GELU", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU")),
    *((name, (), {}, IMAGES) for name in ("LogSigmoid", "Mish", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid")),
    *((name, (), {}, IMAGES) for name in ("Softplus", "Softsign", "Tanh")),
    ("GELU", (), {"approximate": "tanh"}, IMAGES),
    ("CELU", (0.3,), {}, IMAGES),
    ("Hardtanh", (-0.2, 0.4), {}, IMAGES),
    *((name, (), {"num_embeddings": 5, "embedding_dim": 3, **o}, (4, 6)) for name, o in [("Embedding", {})]),
    ("Embedding", (5, 3), {"padding_idx": -4}, (4, 6)),
]
CELLS = options(num_layers=[1, 2], bidirectional=[False, True], bias=[True, False])
LAYERS += [(name, (3, 4), o, (5, 2, 3)) for name in ("RNN", "LSTM", "GRU") for o in CELLS]
LAYERS += [(name, (3, 4), {"batch_first": True}, (2, 5, 3)) for name in ("RNN", "LSTM", "GRU")]
LAYERS += [("RNN", (3, 4), {"nonlinearity": "relu"}, (5, 2, 3))]
# In their gradients of float64, PyTorch has constants of float32.
SLACK = {"Hardsigmoid": 1e-7, "CELU": 1e-7}


def twins(torch, name, args, options, dtype):
    """A layer of each library with PyTorch's initial weights."""
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    theirs = theirs.to(getattr(torch, np.dtype(dtype).name))
    if dtype == np.float64:
        widen(ours)
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    names = [[name for name, _ in model.named_parameters()] for model in (ours, theirs)]
    assert names[0] == names[1]
    return ours, theirs


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("name", "args", "options", "shape"), LAYERS)
def test_layers_agree_with_torch(torch, name, args, options, shape, dtype):
    ours, theirs = twins(torch, name, args, options, dtype)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, shape) if name == "Embedding" else 1.5 * rng.standard_normal(shape).astype(dtype)
    a, b = tl.tensor(x, requires_grad=x.dtype.kind == "f"), torch.tensor(x, requires_grad=x.dtype.kind == "f")
    a_all, b_all = [a, *ours.parameters()], [b, *theirs.parameters()]
    judge_outputs(torch, ours(a), theirs(b), a_all, b_all, dtype, slack=SLACK.get(name, 0.0))


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_a_given_state_agrees_with_torch(torch, name):
    ours, theirs = twins(torch, name, (3, 4, 2), {}, np.float64)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((5, 2, 3)), *(rng.standard_normal((2, 2, 4)) for _ in range(ours.states))]
    given = lambda x, *states: (x, states if len(states) > 1 else states[0])  # noqa: E731
    judge(torch, lambda *xs: ours(*given(*xs)), lambda *ts: theirs(*given(*ts)), arrays, np.float64)


REDUCTIONS = ["mean", "sum", "none"]
LOSSES = [  # name, options, targets
    *(("SmoothL1Loss", o, "values") for o in options(reduction=REDUCTIONS, beta=[1.0, 0.3, 0.0])),
    *(("HuberLoss", o, "values") for o in options(reduction=REDUCTIONS, delta=[1.0, 2.3])),
    *(("MultiMarginLoss", o, "classes") for o in options(reduction=REDUCTIONS, p=[1, 2], margin=[1.0, 0.7])),
    *(("KLDivLoss", {"reduction": r}, "probabilities") for r in [*REDUCTIONS, "batchmean"]),
    *(("KLDivLoss", {"reduction": r, "log_target": True}, "values") for r in [*REDUCTIONS, "batchmean"]),
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("name", "options", "targets"), LOSSES)
def test_losses_agree_with_torch(torch, name, options, targets, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 5, 4))
    y = {"values": y, "classes": np.array([0, 1, 3, 3, 2]), "probabilities": np.abs(y)}[targets]
    if targets == "probabilities":
        y[0, 1] = 0  # 0 log 0 is 0
    y = y.astype(dtype) if targets != "classes" else y
    ours, theirs = getattr(nn, name)(**options), getattr(torch.nn, name)(**options)
    judge(torch, lambda x: ours(x, y), lambda x: theirs(x, torch.tensor(y)), [x], dtype)


def test_weighted_margins_agree_with_torch(torch):
    x, weight = np.random.default_rng(0).standard_normal((5, 4)), np.random.default_rng(1).uniform(0.5, 2, 4)
    y = np.array([0, 1, 3, 3, 2])
    for p in (1, 2):
        ours = nn.MultiMarginLoss(p, weight=weight)
        theirs = torch.nn.MultiMarginLoss(p, weight=torch.tensor(weight))
        judge(torch, lambda x: ours(x, y), lambda x: theirs(x, torch.tensor(y)), [x], np.float64)  # noqa: B023


@pytest.mark.parametrize(("name", "order"), [("SmoothL1Loss", 2), ("HuberLoss", 2), ("MultiMarginLoss", 2)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_losses_have_gradients_of_second_order(name, order, reduction):
    x, y = 2 * np.random.default_rng(3).standard_normal((2, 5, 4))
    y = np.array([0, 1, 3, 3, 2]) if name == "MultiMarginLoss" else y
    assert gradcheck(lambda x: getattr(nn, name)(reduction=reduction)(x, y), [x], order=order)


# In training


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_dropout_between_recurrent_layers_is_there_in_training_alone(name):
    x = tl.randn(5, 2, 3, generator=0)
    one, two = (getattr(nn, name)(3, 4, 2, dropout=0.5, generator=7) for _ in range(2))
    first = one(x)[0].numpy()
    np.testing.assert_array_equal(first, two(x)[0].numpy())  # the same generator
    assert (first != one(x)[0].numpy()).any()  # which goes on
    one.eval()
    plain = getattr(nn, name)(3, 4, 2)
    plain.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(one(x)[0].numpy(), plain(x)[0].numpy())


def test_dropout2d_drops_whole_channels():
    x = tl.ones(50, 8, 3, 2, requires_grad=True)
    layer = nn.Dropout2d(0.25, generator=0)
    out = layer(x)
    channels = out.numpy().reshape(50, 8, 6)
    assert (channels == channels[..., :1]).all()
    assert set(np.unique(channels)) == {0, np.float32(1 / 0.75)}
    assert abs((channels[..., 0] == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 400)
    out.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), out.numpy())
    assert layer.eval()(x) is x or (layer(x).numpy() == 1).all()


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_a_recurrent_network_learns_to_remember(name):
    """The first of six bits, told at the end: what a network without memory cannot do."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (64, 6, 1)).astype(np.float32)
    cell, head = getattr(nn, name)(1, 12, batch_first=True, generator=0), nn.Linear(12, 2, generator=1)
    optimizer = tl.optim.Adam([*cell.parameters(), *head.parameters()], lr=0.03)
    for _ in range(120):
        optimizer.zero_grad()
        logits = head(cell(bits)[0][:, -1])
        tl.cross_entropy(logits, bits[:, 0, 0].astype(int)).backward()
        optimizer.step()
    assert (logits.numpy().argmax(1) == bits[:, 0, 0]).all()


def test_an_embedding_gives_no_gradient_to_its_padding():
    layer = nn.Embedding(5, 3, padding_idx=1, generator=0)
    assert not layer.weight.numpy()[1].any()
    layer(np.array([1, 2, 2, 1])).sum().backward()
    np.testing.assert_array_equal(layer.weight.grad.numpy()[:, 0], [0, 0, 2, 0, 0])


# Lists


def test_a_list_of_modules_is_a_list():
    layers = nn.ModuleList([nn.Linear(2, 3), nn.ReLU()])
    layers.append(nn.Linear(3, 1)).extend([nn.Tanh()])
    assert [type(layer).__name__ for layer in layers] == ["Linear", "ReLU", "Linear", "Tanh"]
    assert layers[-1] is list(layers)[3]
    assert [name for name, _ in layers.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    layers[1] = nn.Sigmoid()
    layers[-2] = nn.Linear(3, 2)
    assert [type(layer).__name__ for layer in layers] == ["Linear", "Sigmoid", "Linear", "Tanh"]
    assert len(layers[1:]) == 3
    assert isinstance(layers[1:], nn.ModuleList)
    assert len(list(layers.eval().modules())) == 5
    assert not any(module.training for module in layers.modules())
    with pytest.raises(NotImplementedError, match="ModuleList"):
        layers(tl.ones(2))


# Mistakes

X1, X2 = tl.ones(*SEQUENCES), tl.ones(*IMAGES)
MISTAKES = [
    (lambda: nn.Conv1d(3, 4, 2)(X1), ShapeError, r"Conv1d.*\(N, 3, L\).*\(2, 4, 9\)"),
    (lambda: nn.ConvTranspose2d(3, 4, 2)(X2), ShapeError, r"ConvTranspose2d.*\(N, 3, H, W\).*\(2, 4, 7, 9\)"),
    (
        lambda: tl.conv1d(X1, tl.ones(5, 3, 2)),
        ShapeError,
        r"conv1d: .*4 channels.*\(O, 4 / groups, k\), got \(5, 3, 2\)",
    ),
    (
        lambda: tl.conv_transpose1d(X1, tl.ones(3, 2)),
        ShapeError,
        r"conv_transpose1d: .*\(4, O / groups, k\), got \(3, 2",
    ),
    (lambda: nn.Conv1d(4, 4, 20)(X1), ShapeError, "20.*9"),
    (lambda: nn.MaxPool1d(3)(X2), ShapeError, r"MaxPool1d.*\(2, 4, 7, 9\)"),
    (lambda: nn.AdaptiveAvgPool2d(0)(X2), ArgumentError, r"AdaptiveAvgPool2d\(output_size=0\): output_size.*0"),
    (lambda: nn.Upsample()(X2), ArgumentError, "size.*scale_factor"),
    (lambda: nn.Upsample(size=3, scale_factor=2)(X2), ArgumentError, "size.*scale_factor"),
    (lambda: nn.Upsample(size=3, mode="cubic")(X2), ArgumentError, "'nearest' or 'bilinear'.*'cubic'"),
    (lambda: nn.Upsample(size=3, align_corners=True)(X2), ArgumentError, "align_corners"),
    (lambda: nn.ReflectionPad2d(9)(X2), ShapeError, "reflect.*9"),
    (lambda: nn.LayerNorm(5)(X2), ShapeError, r"\(5,\).*\(2, 4, 7, 9\)"),
    (lambda: nn.GroupNorm(3, 4), ArgumentError, "num_groups=3 must divide num_channels=4"),
    (lambda: nn.GroupNorm(2, 6)(X2), ShapeError, r"6.*\(2, 4, 7, 9\)"),
    (lambda: nn.Embedding(5, 3, padding_idx=5), ArgumentError, "one of 5 rows, got 5"),
    (lambda: nn.Embedding(5, 3)(np.array([5])), OutOfRangeError, "5"),
    (lambda: nn.Embedding(5, 3)(X1 + 0.5), DTypeError, "whole numbers, got "),
    (lambda: nn.LSTM(3, 4)(X1), ShapeError, r"LSTM\(3, 4\).*\(L, N, 3\).*\(2, 4, 9\)"),
    (lambda: nn.GRU(9, 4, batch_first=True)(X1[..., :3]), ShapeError, r"\(N, L, 9\).*\(2, 4, 3\)"),
    (lambda: nn.RNN(3, 4, nonlinearity="elu"), ArgumentError, "'tanh' or 'relu', got 'elu'"),
    (lambda: nn.GRU(3, 0), ArgumentError, "GRU.*at least 1"),
    (lambda: nn.GRU(3, 4, dropout=1.5), ArgumentError, "1.5"),
    (lambda: nn.GRU(9, 4)(X1, tl.zeros(1, 2, 4)), ShapeError, r"state.*\(1, 4, 4\).*\(1, 2, 4\)"),
    (lambda: nn.LSTM(9, 4)(X1, (tl.zeros(1, 4, 4),)), ShapeError, "2 state"),
    (lambda: nn.GRU(9, 4)(X1[:0]), ShapeError, "at least one step"),
    (lambda: nn.Unflatten(3, (2, 2))(X1), ArgumentError, "Unflatten.*3"),
    (lambda: nn.Unflatten(1, (3, 2))(X1), ShapeError, r"axis 1 of the input \(2, 4, 9\) cannot be cut into \(3, 2\)"),
    (lambda: nn.ModuleList([3]), DTypeError, "ModuleList: each of modules must be a Module, got int"),
    (lambda: nn.ModuleList([nn.ReLU()])[1], OutOfRangeError, "there are 1 modules, no number 1"),
    (lambda: nn.ModuleList([nn.ReLU()]).__setitem__(0, 3), DTypeError, "got int"),
    (lambda: nn.SmoothL1Loss(beta=-1.0)(X1, X1), ArgumentError, "beta.*-1"),
    (lambda: nn.HuberLoss(delta=0.0)(X1, X1), ArgumentError, "delta.*0"),
    (lambda: nn.KLDivLoss("batch")(X1, X1), ArgumentError, "'batchmean'.*'batch'"),
    (lambda: nn.MultiMarginLoss(p=3)(X1[0], [0, 1, 2, 0]), ArgumentError, "p .*3"),
    (
        lambda: nn.MultiMarginLoss()(X1[0], [0, 1, 9, 0]),
        ArgumentError,
        r"a target is 9 .given: input=Tensor float32 of shape",
    ),
]


@pytest.mark.parametrize(("call", "error", "words"), MISTAKES)
def test_mistakes_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
