"""Dicts of modules, what layers print, and the first loss of LeNet-5."""

import copy
import itertools
import pickle
import sys

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn, optim
from tinygrad_lenet.errors import DTypeError

RNG = np.random.default_rng
X = RNG(0).standard_normal((4, 3)).astype(np.float32)


# ModuleDict


def heads(n):
    return n.ModuleDict({"b": n.Linear(3, 2), "a": n.Sequential(n.Linear(3, 2), n.ReLU())})


def walk(n, x):
    """A tour through the methods of a dict."""
    d = heads(n)
    found = [list(d), len(d), "a" in d, "c" in d, [*d.keys()], [type(v).__name__ for v in d.values()]]
    d["c"] = n.ReLU()
    d.update({"b": n.Tanh(), "d": n.Identity()})
    found += [[(k, type(v).__name__) for k, v in d.items()], type(d.pop("c")).__name__, list(d)]
    del d["d"]
    found += [list(d), [name for name, _ in d.named_parameters()], [name for name, _ in d.named_modules()]]
    found += [d.eval() is d, d["a"].training, d["b"](x).tolist() == n.Tanh()(x).tolist(), len(n.ModuleDict())]
    for missing in (lambda: d["x"], lambda: d.pop("x"), lambda: d.__delitem__("x")):
        with pytest.raises(KeyError):
            missing()
    return found


def test_a_dict_of_modules_is_pytorchs(torch):
    assert walk(nn, tl.tensor(X)) == walk(torch.nn, torch.tensor(X))
    ours, theirs = nn.Module(), torch.nn.Module()
    ours.heads, theirs.heads = heads(nn), heads(torch.nn)
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    ours.load_state_dict(theirs.state_dict())
    for key in ("a", "b"):
        b = theirs.heads[key](torch.tensor(X)).detach().numpy()
        np.testing.assert_allclose(ours.heads[key](X).numpy(), b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_dict_of_modules_is_copied_and_pickled(again, tmp_path):
    model = nn.Sequential(heads(nn).eval())
    twin = again(model)
    assert [*twin[0]] == ["b", "a"]
    assert not twin[0].training
    np.testing.assert_array_equal(twin[0]["a"](X).numpy(), model[0]["a"](X).numpy())
    twin[0]["a"][0].weight.data = np.zeros((2, 3))
    assert model[0]["a"][0].weight.numpy().any()
    tl.save(tmp_path / "a.npz", model[0])
    fresh = heads(nn)
    fresh.load_state_dict(tl.load(tmp_path / "a.npz"))
    np.testing.assert_array_equal(fresh["b"](X).numpy(), model[0]["b"](X).numpy())


def test_a_dict_of_modules_is_a_module_among_others():
    model = heads(nn)
    assert isinstance(model, nn.Module)
    assert len({model, heads(nn)}) == 2
    assert model != heads(nn)
    assert repr(model).splitlines()[:2] == ["ModuleDict()  # 16 parameters", "  (b): Linear(3, 2)  # 8 parameters"]
    model.double()
    optim.SGD(model.parameters(), lr=0.1)
    assert model["b"].weight.dtype == np.float64
    outer = nn.Module()
    outer.parts = model
    assert [name for name, _ in outer.named_children()] == ["parts"]
    with pytest.raises(DTypeError, match=r"^ModuleDict: modules must be a dict, got list"):
        nn.ModuleDict([3])
    with pytest.raises(DTypeError, match=r"^ModuleDict: element a of modules must be a Module, got int"):
        nn.ModuleDict({"a": 3})
    with pytest.raises(DTypeError, match=r"^ModuleDict: module must be a Module, got int"):
        model["bad"] = 3
    model.update(bad=3)
    with pytest.raises(DTypeError, match="element bad must be a Module, got int"):
        [*model.parameters()]


def test_a_compiled_model_notices_a_change_of_its_dict():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = heads(nn)

        def forward(self, x):
            return sum(head(x).sum() for head in self.heads.values())

    model = Model()
    compiled = tl.compile(model)
    for change in (lambda: None, lambda: model.heads.update(c=nn.Tanh()), lambda: model.heads.pop("a")):
        change()
        assert {compiled(tl.tensor(X)).item() for _ in range(4)} == {model(tl.tensor(X)).item()}
    assert compiled.replayed == 6


def test_pickles_from_before_modules_that_hold_others_moved_load():
    model = nn.Sequential(nn.Linear(3, 2, generator=0), nn.ModuleList([nn.ReLU()]))
    text = pickle.dumps(model, protocol=0).replace(b"tinygrad_lenet.nn.containers", b"tinygrad_lenet.nn.module")
    assert b"containers" not in text
    twin = pickle.loads(text)
    assert (type(twin), type(twin[1])) == (nn.Sequential, nn.ModuleList)
    assert sys.modules["tinygrad_lenet.nn.module"].Sequential is nn.Sequential


# What layers print

BUILT = [
    lambda: nn.BatchNorm2d(3, affine=False),
    lambda: nn.BatchNorm2d(3, eps=0.1, momentum=None, track_running_stats=False),
    lambda: nn.BatchNorm1d(3, momentum=0.2),
    lambda: nn.LayerNorm((2, 3), eps=0.1),
    lambda: nn.LayerNorm(3, bias=False),
    lambda: nn.LayerNorm(3, elementwise_affine=False),
    lambda: nn.GroupNorm(2, 4, affine=False),
    lambda: nn.GroupNorm(2, 4, 0.1),
    lambda: nn.Linear(3, 2, bias=False),
    lambda: nn.Conv2d(4, 6, (3, 2), 2, (1, 0), groups=2, bias=False),
    lambda: nn.ConvTranspose2d(4, 6, 3, 2, output_padding=1, dilation=2),
    lambda: nn.RNN(3, 2, 2, "relu", bias=False, batch_first=True, bidirectional=True),
    lambda: nn.GRU(3, 2, 2, dropout=0.5),
    lambda: nn.Flatten(0, 2),
    lambda: nn.Flatten(),
    lambda: nn.PReLU(3),
    lambda: nn.PReLU(),
    lambda: nn.Embedding(5, 3, padding_idx=1),
    lambda: nn.ZeroPad2d((1, 2, 0, 1)),
    lambda: nn.ConstantPad2d(1, 2.5),
    lambda: nn.ReplicationPad2d(1),
    lambda: nn.AdaptiveMaxPool2d((2, None)),
    lambda: nn.MaxPool2d(2, padding=1),
    lambda: nn.Unflatten(1, (2, 3)),
]


def attributes(layer):
    return {k: v for k, v in vars(layer).items() if not isinstance(v, (tl.Tensor, np.random.Generator))}


@pytest.mark.parametrize("make", BUILT, ids=lambda make: repr(make()).partition("  #")[0])
def test_what_a_layer_prints_makes_it_again(make):
    layer = make()
    twin = eval(repr(layer), vars(nn))
    assert attributes(twin) == attributes(layer)
    shapes = [{name: a.shape for name, a in model.state_dict().items()} for model in (layer, twin)]
    assert shapes[0] == shapes[1]


# LeNet-5 begins with the loss of a guess


@pytest.mark.parametrize(
    ("activation", "pool"), [*itertools.product(["relu", "tanh", "sigmoid", "leaky_relu", "elu"], ["max", "avg"])]
)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_first_loss_of_lenet_is_log_10(activation, pool, batch_norm):
    rng = RNG(0)  # as MNIST: a fifth of the pixels is bright, the rest black, and the mean is 0
    images = rng.uniform(1, 2.8, (64, 1, 7, 7)).repeat(4, 2).repeat(4, 3) * (rng.random((64, 1, 28, 28)) < 0.2)
    images, labels = tl.tensor((images - images.mean()).astype(np.float32)), np.arange(64) % 10
    for seed in range(10):
        model = nn.LeNet5(activation=activation, pool=pool, batch_norm=batch_norm, generator=seed)
        with tl.no_grad():
            loss = tl.cross_entropy(model(images), labels).item()
        assert loss == pytest.approx(np.log(10), rel=0.05)
        loss = tl.cross_entropy(model(images), labels)
        loss.backward()
        assert all(p.grad.numpy().any() for p in model.parameters())  # every layer learns from the first step on
