"""Wrong states for all that loads one; and the smallest case of each fault that was found in objects."""

import math

import hostile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from objects import COUNTS, EXAMPLES, QUIET, limits, rng, snapshot  # noqa: F401
from odd import FACTORIES
from test_bad_modules import chain
from test_bad_objects import LABELS, SCHEDULES, Tiny, leaves, sgd, stepped, tiny_folder

import tinygrad_lenet as tl
from tinygrad_lenet import data, nn, onnx, optim, testing, training, visualize

# The smallest case of each fault that was found


def two_names():
    return nn.Sequential({"a": nn.Linear(1, 1), "a.b": nn.Linear(1, 1)})


def own_list():
    model = nn.Tanh()
    model.layers = [nn.Linear(1, 1)]
    model.layers.append(model.layers)
    return model


def option(name, value):
    optimizer = sgd()
    optimizer.param_groups[0][name] = value
    return optimizer


X = np.ones((2, 1, 4, 4), np.float32)
FAULTS = [
    (lambda: nn.Linear(2**70, 1), "Linear: .*memory"),
    (lambda: nn.Linear(3, 2.0), "Linear: out_features must be an integer"),
    (lambda: nn.Linear(3, 2, bias="no"), "Linear: bias must be True or False"),
    (lambda: nn.Conv2d(-4, 2, 3, groups=2), "Conv2d: in_channels must be at least 0"),
    (lambda: nn.Conv2d(1, 1, 3, padding=np.array(["", ""]))(X[:, :, :3, :3]), r"Conv2d\(1, 1, .*\): padding must be"),
    (lambda: nn.Conv2d(1, 1, 3)(np), r"Conv2d\(.*\): the input"),
    (lambda: nn.MaxPool2d(2, ceil_mode="no"), "MaxPool2d: ceil_mode"),
    (
        lambda: nn.MaxPool2d(2, padding=FACTORIES["deep"]())(X),
        r"MaxPool2d\(2, padding=<Deep>\): padding",
    ),  # was a RecursionError
    (lambda: nn.AvgPool1d(2, padding="ab"), "AvgPool1d: padding"),
    (lambda: nn.Upsample(FACTORIES["deep"]())(X), r"Upsample\(size=<Deep>, mode=nearest\): size"),
    (lambda: nn.Dropout("0.5"), "Dropout: p must be a number"),
    (lambda: nn.Dropout(float("nan")), "Dropout: p must lie in"),
    (lambda: nn.BatchNorm1d(3, momentum=2), "BatchNorm1d: momentum must lie in"),
    (lambda: nn.BatchNorm1d(3, eps=-1), "BatchNorm1d: eps must lie in"),
    (lambda: nn.LayerNorm("ab"), "LayerNorm: normalized_shape"),
    (lambda: nn.PReLU(2**62), "PReLU: .*memory"),
    (lambda: nn.ZeroPad2d((1, 2)), "ZeroPad2d: padding"),
    (lambda: nn.Unflatten(1, (-1, -1)), "Unflatten: only one length"),
    (
        lambda: nn.Unflatten(1, (2, 2))(np.zeros((0, 6), np.float32)),
        r"Unflatten\(1, \(2, 2\)\): axis 1",
    ),  # was (0, 2, 2)
    (lambda: nn.GRU(2, 2, 1.5), "GRU: num_layers"),
    (lambda: nn.LSTM(2, 2)(X[0, :, :, :2], 5), r"LSTM\(2, 2\): state must be a pair"),
    (
        lambda: nn.LSTM(3, 2, batch_first=True)(np.zeros((2, 0, 3), np.float32)),
        r"LSTM\(.*\): the input .* shape \(2, 0, 3\)",
    ),
    (lambda: nn.LeNet5(activation=["relu"]), "LeNet5: activation must be"),
    (lambda: nn.GELU(tl.ones(1)), "GELU: approximate must be"),
    (lambda: nn.Sequential(nn.Tanh())["0"], "Sequential: an index must be an integer"),
    (lambda: nn.Sequential({"": nn.Tanh()}), "Sequential: a name must be a word"),
    (two_names, "Sequential: a name must be a word"),
    (lambda: nn.Parameter((True, False)), "Parameter: data: only floats"),
    (lambda: nn.ModuleList(3), "ModuleList: modules must be Modules"),
    (lambda: setattr(nn.LeNet5(), "pool", 3), "LeNet5: pool is a Module"),
    (
        lambda: setattr(nn.Linear(1, 1), "weight", np.ones((1, 1))),
        "Linear: weight is a Parameter",
    ),  # was learned no more
    (lambda: nn.Tanh().train("no"), "Tanh.train: mode"),
    (lambda: nn.Tanh().load_state_dict(None), "Tanh.load_state_dict: state must be"),
    (lambda: nn.Linear(1, 1).load_state_dict({"weight": [[1], [2, 3]], "bias": [0]}), "load_state_dict: weight"),
    (lambda: nn.Linear(1, 1).load_state_dict({"weight": [[1e300]], "bias": [0]}), "float32, which cannot hold"),
    (
        lambda: nn.Linear(1, 1).load_state_dict({"weight": np.ma.masked_less([[1.0]], 2), "bias": [0]}),
        "weight is a masked array",
    ),  # lost the mask
    (lambda: nn.BatchNorm1d(1).load_state_dict({"num_batches_tracked": 2.5}, False), "int64, which cannot hold"),
    (lambda: nn.init.uniform_(tl.zeros(2, dtype="int64")), "uniform_: tensor must be of floats"),  # was all zeros
    (lambda: nn.init.uniform_(tl.zeros(2), 1, -1), "uniform_: a must be the lower end"),
    (lambda: nn.init.normal_(tl.zeros(2), std=-1), "normal_: std must lie in"),
    (lambda: nn.summary(nn.Tanh(), 3.5), "summary: input_shape"),
    (lambda: nn.record_calls(3).__enter__(), "record_calls: model must be a Module"),
    (lambda: optim.SGD(leaves(), lr="0.1"), "SGD: lr must be a number"),
    (lambda: optim.SGD(leaves(), lr=math.inf), "SGD: lr must lie in"),
    (lambda: optim.SGD(leaves(), dampening=math.nan), "SGD: dampening must lie in"),
    (lambda: optim.Adam(leaves(), betas=0.9), "Adam: betas must be"),
    (lambda: optim.SGD("abc"), "SGD: params must be Tensors"),
    (lambda: option("lr", math.nan).step(), "SGD.step: lr must lie in"),  # was a step to NaN
    (lambda: option("momentum", None).step(), "SGD.step: momentum must be a number"),  # was half a step
    (lambda: sgd().load_state_dict({}), "SGD.load_state_dict: the state lacks param_groups, state"),
    (lambda: optim.clip_grad_norm_(leaves(), -1), "clip_grad_norm_: max_norm must lie in"),  # turned gradients round
    (lambda: optim.clip_grad_norm_(leaves() * 2 and [*leaves()[:1]] * 2, 0.1), "given twice"),  # scaled twice
    (lambda: optim.clip_grad_norm_(leaves(), math.nan), "clip_grad_norm_: max_norm must lie in"),  # did nothing
    (lambda: optim.StepLR(sgd(), 0.5), "StepLR: step_size must be an integer"),
    (lambda: optim.StepLR(nn.Tanh(), 1), "StepLR: optimizer must be a Optimizer"),
    (lambda: optim.ExponentialLR(sgd(), -1), "ExponentialLR: gamma must lie in"),
    (
        lambda: [s.step() for s in [optim.ExponentialLR(sgd(), 1e200)] * 2],
        "ExponentialLR.step: after 2 steps a rate is not finite.*gamma",
    ),
    (lambda: optim.ReduceLROnPlateau(sgd(), factor=-1), "ReduceLROnPlateau: factor must lie in"),
    (lambda: data.DataLoader({"a": 1}), "DataLoader: the data set is a dict"),  # was a KeyError of the first batch
    (lambda: data.DataLoader(LABELS, shuffle="no"), "DataLoader: shuffle"),  # shuffled
    (
        lambda: list(data.DataLoader((X, LABELS[:2]), transform=lambda x, g: x[:1])),
        "for a batch of 2",
    ),  # labels shifted
    (lambda: setattr(data.DataLoader(LABELS), "epoch", -1), "DataLoader.epoch: epoch must be at least 0"),
    (
        lambda: data.DataLoader(LABELS).load_state_dict({"batch": 0}),
        "DataLoader.load_state_dict: the state lacks seed, epoch",
    ),
    (lambda: data.Subset(LABELS, slice(0, 2, 0)), "Subset: indices"),
    (lambda: data.Subset(LABELS, leaves()[1:]), "Subset: indices"),  # was the GradientError of the leaf
    (lambda: data.random_split(LABELS, 5), "random_split: lengths"),
    (lambda: data.RandomAffine("9"), "RandomAffine: degrees must be a number"),
    (lambda: data.RandomAffine(degrees=math.inf), "RandomAffine: degrees must lie in"),  # gave garbage
    (lambda: data.ElasticDistortion()(X[:, :0], rng()), "ElasticDistortion: expected images"),
    (lambda: data.Compose(3), "Compose: transforms must be"),
    (lambda: data.read_idx(0), "read_idx: path must be the name of a file"),  # waited for the keyboard
    (lambda: data.read_idx("a\0b"), "read_idx: path must be the name of a file, got"),
    (lambda: Tiny(tiny_folder(), train="test"), "Tiny: train must be True or False"),  # was the training set
    (lambda: training.accuracy([[1.0, 2.0]], [2]), "accuracy: labels must lie in"),
    (lambda: training.confusion_matrix([0], [0], 2**40), "confusion_matrix: num_classes must be at most"),
    (lambda: training.evaluate(nn.Tanh(), 3), "evaluate: loader"),
    (lambda: training.EarlyStopping("5"), "EarlyStopping: patience"),
    (lambda: training.EarlyStopping().load_state_dict({"epoch": 1}), "EarlyStopping.load_state_dict: the state lacks"),
    (lambda: tl.save_checkpoint("a", FACTORIES["endless"]()), "save_checkpoint: state is nested too deeply"),
    (lambda: tl.save_checkpoint("", {}), "save_checkpoint: path must be"),  # wrote .tmp, and then failed
    (lambda: tl.save_checkpoint("a", 10**5000), "save_checkpoint: state cannot be written"),
    (lambda: tl.save("a.npz", {1: X}), "save: a name in the state"),
    (lambda: tl.save("a.npz", 3), "save: state must be a module"),
    (lambda: tl.load(3), "load: path must be the name of a file"),
    (lambda: visualize.tiles(X[:, 0], columns=0), "tiles: columns must be at least 1"),
    (lambda: visualize.tiles(X[:, 0], names=["a"]), "tiles: there are 2 images, but 1 names"),
    (lambda: visualize.curves([{}]), "curves: each row of history"),
    (lambda: visualize.graph(3), "graph: tensor must be a Tensor"),
    (lambda: testing.numerical_jacobian(np.float32, [[1.0]]), "the function fn must return a Tensor"),
    (lambda: testing.gradcheck(3, [1.0]), "gradcheck: fn must be a function"),
    (lambda: testing.gradcheck(tl.tanh, [1.0], eps=0), "gradcheck: eps must lie in"),
    (lambda: onnx.export(3, X, None), "export: model must be a function"),
    (lambda: onnx.export(lambda x: 3, X, None), "export: the model must give a Tensor"),
]


@pytest.mark.parametrize(("call", "words"), FAULTS, ids=[words for _, words in FAULTS])
def test_faults_that_were_found(call, words):
    with pytest.raises(tl.TinygradLenetError, match=words):
        call()


def test_what_is_odd_but_right():
    assert "(see above)" in repr(own_loop())
    assert [name for name, _ in own_list().named_parameters()] == ["layers.0.weight", "layers.0.bias"]
    assert nn.Unflatten(1, (2, -1))(np.zeros((0, 6), np.float32)).shape == (0, 2, 3)
    assert nn.BatchNorm2d(0)(np.zeros((4, 0, 2, 2), np.float32)).shape == (4, 0, 2, 2)
    assert nn.Linear(0, 2)(np.zeros((4, 0), np.float32)).shape == (4, 2)
    nn.init.kaiming_normal_(tl.zeros(3, 0))
    assert training.accuracy([[float("nan"), 1.0], [2.0, 1.0]], [0, 0]) == 0.5
    assert data.Compose(iter([lambda x, g: x + 1]))(X, rng()).sum() == 2 * X.sum()
    large = tl.tensor(np.full(4, 1e30, np.float32), requires_grad=True)
    large.grad = large.detach().clone()
    assert optim.clip_grad_norm_(large, 1.0).item() == pytest.approx(2e30)
    np.testing.assert_allclose(large.grad.numpy(), 0.5)
    table = tl.ones(5, 3, requires_grad=True)
    index = np.zeros((1,) * 33, np.int64)  # more axes than NumPy's add.at survives
    tl.embedding(index, table).sum().backward()
    assert table.grad.numpy()[0].tolist() == [1, 1, 1]
    visualize.curves([])  # without a warning: one is an error here
    visualize.curves([{"epoch": 1}])
    widened = option("weight_decay", np.float64(0.1))
    stepped(widened)


def own_loop():
    parent, child = nn.Tanh(), nn.ReLU()
    parent.child, child.parent = child, parent
    return parent


def states():
    """Things with a state, each with an expression that makes it."""
    optimizer = sgd()
    optimizer.step()
    yield chain(), chain().state_dict()
    yield sgd(), optimizer.state_dict()
    for cls, valid in SCHEDULES.items():
        schedule = cls(sgd(), *valid[0])
        yield schedule, schedule.state_dict()
    yield data.DataLoader(LABELS, seed=0), data.DataLoader(LABELS, seed=0).state_dict()
    yield training.ExponentialMovingAverage(chain()), training.ExponentialMovingAverage(chain()).state_dict()
    yield training.EarlyStopping(), training.EarlyStopping().state_dict()


KINDS = [type(made).__name__ for made, _ in states()]


@pytest.mark.parametrize("number", range(len(KINDS)), ids=KINDS)
def test_bad_states(number):
    @settings(max_examples=max(EXAMPLES, 10), suppress_health_check=QUIET, deadline=None)
    @given(hostile.WRONG_VALUES, st.randoms(use_true_random=False), st.integers(0, 3))
    def property_(value, random, how):
        made, state = list(states())[number]
        place, key = {"": state}, ""
        while isinstance(place[key], (dict, list)) and place[key] and (key == "" or random.random() < 0.7):
            place = place[key]
            key = random.choice(list(place)) if isinstance(place, dict) else random.randrange(len(place))
        if how == 0 and isinstance(place, dict):
            del place[key]
        elif how == 1 and isinstance(place, dict):
            place["another"] = value
        else:
            place[key] = value
        state, before = place.get("", state) if key == "" else state, snapshot(made)
        COUNTS[f"{KINDS[number]}.load_state_dict"] = COUNTS.get(f"{KINDS[number]}.load_state_dict", 0) + 1
        _, error = hostile._called(made.load_state_dict, [state], {})
        if error is not None:
            assert isinstance(error, tl.TinygradLenetError), f"{type(error).__name__} from inside: {error}"
            assert KINDS[number] in str(error), f"the message does not name {KINDS[number]}: {error}"
            assert snapshot(made) == before, "refused, and changed"

    property_()
