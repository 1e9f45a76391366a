"""Modules: what they hold, how they show themselves, their state, and what they refuse."""

import copy
import inspect
import pickle
import re

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn
from tinygrad_lenet.errors import ArgumentError, DTypeError, ShapeError, TinygradLenetError
from tinygrad_lenet.nn import init


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.second = nn.Linear(3, 2, generator=0)
        self.scale = nn.Parameter([2.0])
        self.first = nn.Sequential(nn.Linear(2, 2, generator=1), nn.ReLU())
        self.register_buffer("count", tl.zeros(2))
        self.label = "anything"

    def forward(self, x):
        return self.first(self.second(x)) * self.scale


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 2, generator=0), nn.Linear(2, 2, generator=1)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x))


# What a module holds


def test_what_is_assigned_is_found_in_that_order():
    block = Block()
    assert [name for name, _ in block.named_modules()] == ["", "second", "first", "first.0", "first.1"]
    # as in PyTorch a module's own come before those of its children
    names = ["scale", "second.weight", "second.bias", "first.0.weight", "first.0.bias"]
    assert [name for name, _ in block.named_parameters()] == names
    assert [p is q for p, q in zip(block.parameters(), dict(block.named_parameters()).values(), strict=True)] == [1] * 5
    assert [name for name, _ in block.named_buffers()] == ["count"]
    assert [name for name, _ in block.named_children()] == ["second", "first"]
    assert set(block.state_dict()) == {*names, "count"}
    block.second = nn.ReLU()  # replaced, and so forgotten
    assert "second.weight" not in dict(block.named_parameters())
    del block.scale
    with pytest.raises(AttributeError, match=r"Block.* has no attribute 'scale'"):
        _ = block.scale


def test_what_is_shared_is_listed_once():
    tied = Tied()
    assert [name for name, _ in tied.named_parameters()] == ["a.weight", "a.bias", "b.bias"]
    shared = nn.ReLU()
    model = nn.Sequential(shared, nn.Tanh(), shared)
    assert [name for name, _ in model.named_modules()] == ["", "0", "1"]
    assert len(model) == 3
    tied.me = tied  # a cycle ends
    assert len(list(tied.parameters())) == 3
    assert len(tied.state_dict()) == 4


def test_a_shared_parameter_has_both_names_in_the_state(torch):
    """PyTorch's state has both, and its strict loading demands both."""
    theirs, ours = torch.nn.Module(), Tied()
    theirs.a, theirs.b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    theirs.b.weight = theirs.a.weight
    assert sorted(ours.state_dict()) == sorted(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("wrap", [list, tuple, lambda layers: dict(enumerate(layers))])
def test_layers_in_a_container_are_found_under_pytorch_s_names(wrap):
    model = nn.Module()
    model.layers = wrap([nn.Linear(2, 2), nn.Linear(2, 2)])
    names = [name for name, _ in model.named_parameters()]
    assert names == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    model.eval()
    assert [m.training for m in model.modules()] == [False] * 3


def test_training_mode_and_zero_grad_reach_all_below():
    block = Block()
    assert all(m.training for m in block.modules())
    assert block.eval() is block
    assert not any(m.training for m in block.modules())
    block.first.train()
    assert [m.training for m in block.modules()] == [False, False, True, True, True]
    block(tl.ones(1, 3)).sum().backward()
    assert all(p.grad is not None for p in block.parameters())
    block.zero_grad()
    assert all(p.grad is None for p in block.parameters())


def test_repr_draws_the_tree_with_counts():
    assert repr(Block()) == (
        "Block()  # 15 parameters\n"
        "  (second): Linear(3, 2)  # 8 parameters\n"
        "  (first): Sequential()  # 6 parameters\n"
        "    (0): Linear(2, 2)  # 6 parameters\n"
        "    (1): ReLU()"
    )
    model = nn.LeNet5(batch_norm=True)
    assert repr(model).startswith("LeNet5()  # 61,750 parameters\n  (conv1): Conv2d(1, 6, kernel_size=(5, 5), padding=")
    assert re.findall(r"\((\w+)\): \w+\(.*# ([\d,]+) par", repr(model)) == [
        *(("conv1", "156"), ("conv2", "2,416"), ("fc1", "48,120"), ("fc2", "10,164"), ("fc3", "850")),
        *(("norm1", "12"), ("norm2", "32")),
    ]
    assert sum(p.size for p in nn.LeNet5().parameters()) == 61_706
    assert repr(nn.Conv2d(2, 4, 3, stride=2, groups=2, bias=False)) == (
        "Conv2d(2, 4, kernel_size=(3, 3), stride=2, groups=2, bias=False)  # 36 parameters"
    )


def test_sequential_is_indexed_iterated_and_extended():
    a, b, c = nn.Linear(2, 3, generator=0), nn.Tanh(), nn.Linear(3, 1, generator=1)
    model = nn.Sequential(a, b)
    assert model.append(c) is model
    assert [*model] == [a, b, c] == [model[0], model[1], model[-1]]
    assert len(model) == 3
    x = tl.ones(2, 2)
    np.testing.assert_array_equal(model(x).numpy(), c(b(a(x))).numpy())
    named = nn.Sequential({"in": a, "squash": b})
    assert list(named.state_dict()) == ["in.weight", "in.bias"]
    assert len(named.append(c)) == 3
    assert named[-1] is c
    assert nn.Sequential()(x) is x


def test_a_slice_of_a_sequential_is_one():
    model = nn.Sequential(nn.Linear(2, 3, generator=0), nn.Tanh(), nn.ReLU())
    x = tl.ones(1, 2)
    np.testing.assert_array_equal(model[:2](x).numpy(), model[1](model[0](x)).numpy())


def test_appending_never_replaces_a_module():
    model = nn.Sequential({"1": nn.ReLU()}).append(nn.Tanh())
    assert [type(m) for m in model] == [nn.ReLU, nn.Tanh]


@pytest.mark.parametrize(
    "model",
    [
        lambda: nn.LeNet5(batch_norm=True, generator=0),
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.PReLU(), nn.Dropout(generator=5)),
        Tied,
    ],
)
def test_modules_can_be_copied_and_pickled(model):
    model = model()
    first = next(model.parameters())
    first.requires_grad = False  # frozen stays frozen
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for twin in twins:
        assert repr(twin) == repr(model)
        for (name, p), (other, q) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
            assert (name, p.requires_grad, type(p)) == (other, q.requires_grad, type(q))
            np.testing.assert_array_equal(p.numpy(), q.numpy())
            assert not np.shares_memory(p.numpy(), q.numpy())
        if isinstance(model, nn.Sequential):  # the generator goes on where it stood
            x = tl.randn(8, 3, generator=0)
            np.testing.assert_array_equal(twin(x).numpy(), copy.deepcopy(model)(x).numpy())


# State


def test_state_is_a_copy_and_makes_the_round_trip(tmp_path):
    model, other = (nn.LeNet5(batch_norm=True, generator=seed) for seed in (0, 1))
    model(tl.randn(4, 1, 28, 28, generator=0))  # moves the running statistics
    np.savez(tmp_path / "weights.npz", **model.state_dict())
    with np.load(tmp_path / "weights.npz") as state:
        other.load_state_dict(state)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], value)
        assert other.state_dict()[name].dtype == value.dtype
        value[...] = 7
    assert not (model.fc3.weight.numpy() == 7).any()
    assert int(other.norm1.num_batches_tracked) == 1
    x = tl.randn(2, 1, 28, 28, generator=1)
    np.testing.assert_array_equal(other.eval()(x).numpy(), model.eval()(x).numpy())


def test_a_failed_load_lists_everything_and_changes_nothing():
    model = nn.LeNet5(generator=0)
    before, state = model.state_dict(), nn.LeNet5(generator=1).state_dict()
    state["fc3.bias"], state["stranger"] = np.zeros(11), np.zeros(1)
    del state["fc2.bias"], state["fc1.bias"]
    words = r"missing: fc1\.bias, fc2\.bias; unexpected: stranger; misshapen: fc3\.bias .*\(10,\), given \(11,\)"
    with pytest.raises(nn.StateError, match=words):
        model.load_state_dict(state)
    with pytest.raises(nn.StateError, match=r"fit\. misshapen: fc3\.bias"):
        model.load_state_dict(state, strict=False)
    with pytest.raises(KeyError, match="strict=False"):
        model.load_state_dict({})
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    del state["fc3.bias"]
    model.load_state_dict(state, strict=False)
    np.testing.assert_array_equal(model.conv1.weight.numpy(), state["conv1.weight"])
    np.testing.assert_array_equal(model.fc3.bias.numpy(), before["fc3.bias"])


@pytest.mark.parametrize("values", [np.ones(2, complex), np.array(["a", "b"]), np.array([None, 1.0])])
def test_a_state_that_holds_no_numbers_is_refused_by_name(values):
    model = nn.Linear(2, 2, generator=0)
    before = model.state_dict()
    with pytest.raises(TinygradLenetError, match="bias"):
        model.load_state_dict(before | {"weight": np.ones((2, 2)), "bias": values})
    np.testing.assert_array_equal(model.weight.numpy(), before["weight"])


def test_a_load_after_the_forward_pass_is_noticed_by_backward():
    model = nn.Sequential(nn.Linear(2, 2, generator=0), nn.Linear(2, 1, generator=0))
    loss = model(tl.ones(1, 2)).sum()
    model.load_state_dict(model.state_dict())
    with pytest.raises(tl.GradientError, match="linear"):
        loss.backward()


# Mistakes

MISTAKES = [
    (lambda: nn.LeNet5(activation="gelu"), ArgumentError, "'relu', 'tanh', .*'gelu'"),
    (lambda: nn.LeNet5(pool="min"), ArgumentError, "'max' or 'avg', got 'min'"),
    (lambda: nn.LeNet5()(tl.zeros(1, 1, 32, 32)), ShapeError, r"\(N, 1, 28, 28\), got \(1, 1, 32, 32\)"),
    (lambda: nn.LeNet5()([[1.0]]), ShapeError, r"LeNet5: .*got \(1, 1\)"),
    (lambda: nn.Linear(-3, 2), ArgumentError, "Linear: in_features .*-3"),
    (lambda: nn.Linear(3, 2)(tl.ones(2, 4)), ShapeError, r"^Linear\(3, 2\): .*\(..., 3\) .* got \(2, 4\) and \(2, 3\)"),
    (lambda: nn.Conv2d(3, 2, 3, groups=2), ArgumentError, "groups=2 must divide in_channels=3"),
    (lambda: nn.Conv2d(3, 2, 0), ArgumentError, "kernel_size must be at least 1, got 0"),
    (
        lambda: nn.Conv2d(3, 2, 3)(tl.ones(2, 4, 5, 5)),
        ShapeError,
        r"Conv2d\(3, 2.*\(N, 3, H, W\) .*, got \(2, 4, 5, 5\)",
    ),
    (lambda: nn.Dropout(1.5), ArgumentError, "Dropout: p .*1.5"),
    (lambda: nn.BatchNorm2d(3)(tl.ones(2, 4, 5, 5)), ShapeError, r"^BatchNorm2d\(3\): .*got \(2, 4, 5, 5\)"),
    (lambda: nn.BatchNorm1d(3)(tl.ones(2, 3, 4, 4)), ShapeError, r"^BatchNorm1d\(3\): .*\(N, C, L\), got \(2, 3, 4, 4"),
    (lambda: init.calculate_gain("gelu"), ArgumentError, "'linear', .*'gelu'"),
    (lambda: init.xavier_normal_(tl.zeros(3)), ShapeError, r"two axes, got shape \(3,\)"),
    (lambda: init.kaiming_normal_(tl.zeros(3, 3), mode="fan"), ArgumentError, "'fan_in' or 'fan_out', got 'fan'"),
    (lambda: nn.Sequential(nn.ReLU(), tl.relu), DTypeError, "element 1 of modules must be a Module, got function"),
    (lambda: nn.Sequential(nn.ReLU()).append(tl.relu), DTypeError, "module must be a Module, got function"),
    (lambda: nn.Sequential({"forward": nn.ReLU()}), ArgumentError, "forward"),
    (lambda: nn.Sequential(nn.ReLU())[3], tl.OutOfRangeError, "3"),
    (lambda: nn.Module()(1), NotImplementedError, "Module has no forward method"),
]


@pytest.mark.parametrize(("call", "error", "words"), MISTAKES)
def test_mistakes_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_batch_that_is_refused_is_not_counted():
    norm = nn.BatchNorm1d(3)
    with pytest.raises(ShapeError, match="more than one value"):
        norm(tl.ones(1, 3))
    assert int(norm.num_batches_tracked) == 0


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2, 2), (2, 3, 0)])
def test_an_empty_batch_leaves_the_running_statistics(torch, shape):
    found = []
    for lib, zeros in ((nn, tl.zeros), (torch.nn, torch.zeros)):
        norm = getattr(lib, {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d"}[len(shape)])(3)
        x = zeros(shape, requires_grad=True)
        out = norm(x)
        (out.sum() * 2).backward()
        values = norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.weight.grad, norm.bias.grad
        found.append([tuple(out.shape), tuple(x.grad.shape), *(value.tolist() for value in values)])
    assert found[0] == found[1]


# Functions as modules


def options_of(cls):
    return str(inspect.signature(cls)).replace("'", "")


def test_a_module_has_the_options_of_its_function():
    assert options_of(nn.Tanh) == "()"
    assert options_of(nn.LeakyReLU) == "(negative_slope: Real = 0.01, inplace=False)"
    assert options_of(nn.HuberLoss) == "(reduction: Reduction = mean, delta: PositiveReal = 1.0)"
    assert options_of(nn.MaxPool1d).startswith("(kernel_size: int, stride: int | None = None, padding: int = 0, ")
    assert nn.Softmax(dim=0).options == nn.Softmax(axis=0).options == nn.Softmax(0).options
    assert nn.Softmax(0).options == {"axis": 0, "dtype": None}
    assert nn.LeakyReLU.__doc__.startswith("ReLU with a slope for negative inputs")
    assert tl.leaky_relu.__doc__.splitlines()[0] in nn.LeakyReLU.__doc__


def test_a_users_subclass_has_its_own_options():
    class Leak(nn.LeakyReLU):
        def __init__(self, percent):
            super().__init__(percent / 100)

    class Scaled(nn.LeakyReLU):
        scale = 2

    assert options_of(Leak) == "(percent)"
    assert Leak(10)(-1.0).item() == tl.leaky_relu(-1.0, 0.1).item()
    assert options_of(Scaled) == options_of(nn.LeakyReLU)
    with pytest.raises(DTypeError, match=r"^Scaled: negative_slope must be a number, got 'x'$"):
        Scaled("x")
    with pytest.raises(TypeError, match=r"^Scaled\(\) takes \(negative_slope.*\): got an unexpected .* 'slope'$"):
        Scaled(slope=True)


def test_older_pickles_have_the_options_as_attributes():
    model = nn.Upsample.__new__(nn.Upsample)
    model.__setstate__(
        {"training": False, "size": (2, 4), "scale_factor": None, "mode": "nearest", "align_corners": None}
    )
    assert vars(model) == vars(nn.Upsample((2, 4)).eval())
    assert model(tl.ones(1, 1, 1, 1)).shape == (1, 1, 2, 4)


def test_sequences_take_a_kernel_size_of_one_element():
    assert nn.Conv1d(2, 3, (5,)).weight.shape == nn.Conv1d(2, 3, 5).weight.shape
    with pytest.raises(ArgumentError, match=r"^Conv1d: kernel_size must be an integer"):
        nn.Conv1d(2, 3, (5, 5))
