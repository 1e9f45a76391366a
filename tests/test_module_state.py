"""The state of a module holds parameters and registered buffers, and no other Tensor, as in PyTorch."""

import collections
import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn, training
from tinygrad_lenet.errors import ArgumentError, DTypeError

Pair = collections.namedtuple("Pair", "first second")


def leaf(*values):
    return tl.tensor(values or [1.0], requires_grad=True)


def again_pickled(model):
    return pickle.loads(pickle.dumps(model))


AGAIN = pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, again_pickled], ids=["copy", "deepcopy", "pickle"])

# A leaf that requires a gradient

HOLDERS = {
    "itself": lambda t: t,
    "list": lambda t: [1, t],
    "tuple": lambda t: (t,),
    "dict": lambda t: {"a": t},
    "nested": lambda t: [{"a": (0, [t])}],
    "named tuple": lambda t: Pair(None, t),
}
NAMES = {"itself": "w", "list": "w.1", "tuple": "w.0", "dict": "w.a", "nested": "w.0.a.1.0", "named tuple": "w.1"}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_leaf_that_would_not_be_trained_is_refused(holder):
    class Model(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.w = value

    with pytest.raises(DTypeError, match=rf"^Model: {NAMES[holder]} requires a gradient.*assign nn\.Parameter\(x\)"):
        Model(HOLDERS[holder](leaf()))
    model = Model(HOLDERS[holder](leaf().detach()))
    with pytest.raises(DTypeError, match="requires a gradient"):
        model.other = HOLDERS[holder](leaf())
    assert not hasattr(model, "other")
    for requires_grad in (True, False):
        parameter = nn.Parameter([1.0], requires_grad=requires_grad)
        model = Model(HOLDERS[holder](parameter))
        assert [(name, p is parameter) for name, p in model.named_parameters()] == [(NAMES[holder], True)]
        assert list(model.state_dict()) == [NAMES[holder]]


def test_a_leaf_in_a_list_that_grows_is_refused_when_parameters_are_listed():
    model = nn.Sequential(nn.Module())
    model[0].weights = []
    model[0].weights.append(leaf())
    with pytest.raises(DTypeError, match=r"0\.weights\.0 requires a gradient, but only a Parameter is trained"):
        tl.optim.SGD(model.parameters(), lr=0.1)
    repr(model), model.eval(), model.state_dict()  # which work


def test_what_needs_no_gradient_or_has_a_history_is_assigned():
    model = nn.Module()
    model.constant, model.activation = tl.ones(2), leaf() * 2
    model.constant = [1, 2]  # plain attributes take anything
    model.activation = "none"
    assert not model.state_dict()


# What forward assigns


class Keeper(nn.Module):
    """A model that holds its activations in every way."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2, generator=0)
        self.norm = nn.BatchNorm1d(2)
        self.table = tl.tensor([[1.0, 2.0], [3.0, 4.0]])
        self.history = [tl.zeros(1)]
        self.by_name = collections.defaultdict(list)

    def forward(self, x):
        self.features = self.same = self.layer(x) @ self.table
        self.pair = Pair(self.features, [self.features * 2, "word"])
        self.ordered = collections.OrderedDict(a=self.features, b=x)
        self.by_name["norm"].append(self.norm(self.features))
        return self.by_name["norm"][-1].sum(axis=1)


X = np.float32([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]])
STATE = ["layer.weight", "layer.bias", "norm.weight", "norm.bias"]
STATE += ["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]


def test_activations_are_not_state():
    model, fresh = Keeper(), Keeper()
    average = training.ExponentialMovingAverage(model)
    for _ in range(2):
        model(X).sum().backward()
        average.update()
    assert sorted(model.state_dict()) == sorted(STATE) == sorted(average.state_dict()["averages"])
    assert [name for name, _ in model.named_parameters()] == STATE[:4]
    assert [name for name, _ in model.named_buffers()] == STATE[4:]
    fresh.load_state_dict(model.state_dict())
    model.load_state_dict(fresh.state_dict())
    training.ExponentialMovingAverage(fresh).load_state_dict(average.state_dict())
    np.testing.assert_array_equal(fresh.eval()(X).numpy(), model.eval()(X).numpy())
    assert "Keeper()  # 10 parameters" in repr(model)
    assert "total" in nn.summary(model, (3, 2))


@AGAIN
def test_a_copy_of_a_model_holds_the_values_of_its_activations(again):
    model = Keeper()
    model(X)
    twin = again(model)
    assert sorted(twin.state_dict()) == sorted(STATE)
    assert twin.features is twin.same is twin.pair.first is twin.ordered["a"]
    assert (type(twin.pair), type(twin.ordered)) == (Pair, collections.OrderedDict)
    assert twin.by_name["missing"] == []
    assert twin.pair.second[1] == "word"
    for copied, own in [
        (twin.features, model.features),
        (twin.pair.second[0], model.pair.second[0]),
        (twin.by_name["norm"][0], model.by_name["norm"][0]),
    ]:
        assert (copied.is_leaf, copied.requires_grad) == (True, False)  # without history
        assert (own.is_leaf, own.requires_grad) == (False, True)  # which the model keeps
        np.testing.assert_array_equal(copied.numpy(), own.numpy())
    twin(X).sum().backward()  # it works on its own
    assert twin.layer.weight.grad is not None


def test_a_copy_does_not_keep_the_graph_alive():
    model = Keeper()
    out = model(X)
    graph = weakref.ref(out)
    twin = copy.deepcopy(model)
    del model, out
    gc.collect()
    assert graph() is None
    assert twin.features.is_leaf


@pytest.mark.parametrize("again", [copy.deepcopy, again_pickled], ids=["deepcopy", "pickle"])
def test_containers_without_activations_are_copied_as_before(again):
    model = nn.Sequential(nn.Module(), nn.Module())
    model[0].shared = model[1].shared = {"a": [tl.ones(1)]}
    model[0].ring = [1]
    model[0].ring.append(model[0].ring)
    model[0].features = leaf() * 2
    twin = again(model)
    assert twin[0].shared is twin[1].shared
    assert twin[0].ring[1] is twin[0].ring


def test_activations_do_not_disturb_checkpoints_and_exports(tmp_path):
    model = Keeper().eval()
    expected = model(X).numpy()
    tl.save_checkpoint(tmp_path / "a.ckpt", {"model": model.state_dict()})
    tl.save(tmp_path / "a.npz", model)
    twin = Keeper().eval()
    for state in (tl.load_checkpoint(tmp_path / "a.ckpt")["model"], tl.load(tmp_path / "a.npz")):
        twin.load_state_dict(state)
        np.testing.assert_array_equal(twin(X).numpy(), expected)
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    made = tl.onnx.export(model, X, tmp_path / "a.onnx")
    onnx.checker.check_model(made, full_check=True)
    names = {initializer.name for initializer in made.graph.initializer}
    assert {name for name in names if not name.startswith("constant")} <= set(STATE)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"input": X})[0], expected, rtol=1e-6)
    np.testing.assert_allclose(tl.onnx.load(made)(X).numpy(), expected, rtol=1e-6)


# Buffers


def test_a_buffer_is_registered_by_name():
    model = nn.Module()
    mean = tl.zeros(2)
    model.register_buffer("mean", mean)
    model.register_buffer("cache", tl.ones(1), persistent=False)
    model.register_buffer("later", None)
    assert [(name, b is mean) for name, b in model.named_buffers()] == [("mean", True), ("cache", False)]
    assert [*model.state_dict()] == ["mean"]
    model.mean = model.mean + 1  # another Tensor stays a buffer
    model.later = tl.ones(3)
    model.cache = tl.zeros(4)
    assert [*model.state_dict()] == ["mean", "later"]
    assert len([*model.buffers()]) == 3
    model.load_state_dict({"mean": [5.0, 6.0], "later": np.ones(3)})
    assert model.mean.tolist() == [5, 6]
    with pytest.raises(nn.StateError, match="unexpected: stranger"):
        model.load_state_dict({**model.state_dict(), "stranger": 1.0})
    model.later = None
    del model.mean
    assert [name for name, _ in model.named_buffers()] == ["cache"]
    model.mean = tl.ones(1)
    assert not model.state_dict()
    model.register_buffer("cache", model.cache)  # again, and now persistent
    assert [*model.state_dict()] == ["cache"]
    with pytest.raises(AttributeError):
        del model.nothing


def test_a_buffer_may_hang_on_a_graph():
    model, w = nn.Module(), leaf(2.0)
    model.register_buffer("mean", tl.zeros(1))
    model.mean = model.mean * 0.9 + w
    model.mean.backward()
    assert w.grad.tolist() == [1]
    assert model.state_dict()["mean"].tolist() == [2]
    model.load_state_dict({"mean": [7.0]})
    assert copy.deepcopy(model).mean.tolist() == again_pickled(model).mean.tolist() == [7]


@AGAIN
def test_copies_have_their_own_register(again):
    model = nn.BatchNorm1d(2)
    twin = again(model)
    del twin.running_mean
    twin.register_buffer("own", tl.ones(1), persistent=False)
    assert [name for name, _ in model.named_buffers()] == ["running_mean", "running_var", "num_batches_tracked"]
    assert [name for name, _ in twin.named_buffers()] == ["running_var", "num_batches_tracked", "own"]
    assert "own" not in again(twin).state_dict()


REFUSED = [
    ("a.b", tl.ones(1), ArgumentError, r"^Model\.register_buffer: name must be a word without dots.*'a\.b'"),
    ("", tl.ones(1), ArgumentError, "name must be a word"),
    ("forward", tl.ones(1), ArgumentError, "no other attribute, got 'forward'"),
    ("weight", tl.ones(1), ArgumentError, "no other attribute, got 'weight'"),
    (1, tl.ones(1), ArgumentError, "name must be a word, got 1"),
    ("b", np.ones(1), DTypeError, "tensor must be a Tensor, got ndarray"),
    ("b", nn.Parameter([1.0]), DTypeError, "tensor must not be a Parameter"),
    ("b", leaf(), DTypeError, "b requires a gradient"),
    ("mean", "word", DTypeError, "tensor must be a Tensor"),
]


@pytest.mark.parametrize(("name", "tensor", "error", "words"), REFUSED)
def test_what_is_no_buffer_is_refused_and_changes_nothing(name, tensor, error, words):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter([1.0])
            self.register_buffer("mean", tl.ones(1))

    model = Model()
    before = dict(vars(model))
    with pytest.raises(error, match=words):
        model.register_buffer(name, tensor)
    assert vars(model) == before


def test_a_buffer_is_replaced_by_tensors_only():
    norm = nn.BatchNorm1d(2)
    with pytest.raises(DTypeError, match="running_mean is a Tensor, which 5 cannot replace"):
        norm.running_mean = 5
    with pytest.raises(DTypeError, match="running_mean is a Tensor, which"):
        norm.running_mean = nn.ReLU()


def test_a_forgotten_super_init_changes_nothing():
    class Model(nn.Module):
        def __init__(self):
            self.register_buffer("mean", tl.ones(2))
            self.w, self.plain = nn.Parameter([1.0]), tl.ones(1)

    class Late(Model):
        def __init__(self):
            super().__init__()
            nn.Module.__init__(self)

    for model in (Model(), Late(), copy.deepcopy(Model()), again_pickled_local(Model())):
        assert [*model.state_dict()] == ["mean", "w"]
    assert nn.Module._buffers == {}


def again_pickled_local(model):
    """Load a pickle whose class pickle does not find."""
    twin = type(model).__new__(type(model))
    twin.__setstate__(pickle.loads(pickle.dumps(model.__getstate__())))
    return twin


# Files of earlier versions, in which every Tensor was part of the state


def old(cls, **attributes):
    """The module that an older pickle gives."""
    model = cls.__new__(cls)
    model.__setstate__({"training": True, **attributes})
    return model


def test_older_pickles_keep_their_buffers():
    model = old(nn.Module, count=tl.ones(2), w=nn.Parameter([1.0]), parts=[tl.zeros(1), {"a": tl.zeros(3)}])
    assert [*model.state_dict()] == ["count", "w", "parts.0", "parts.1.a"]
    model.count = model.count + 1
    model.load_state_dict(copy.deepcopy(model).state_dict())
    norm = old(nn.BatchNorm1d, **{k: v for k, v in vars(nn.BatchNorm1d(2)).items() if k != "_buffers"})
    assert [*norm.state_dict()] == [*nn.BatchNorm1d(2).state_dict()]


def test_older_states_fill_tensors_that_are_plain_attributes_now():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.count, self.parts = nn.Parameter([1.0]), tl.zeros(2), [tl.zeros(1)]

    state = {"w": np.ones(1), "count": np.array([3.0, 4.0]), "parts.0": np.array([5.0])}
    model = Model()
    model.load_state_dict(state)
    assert (model.count.tolist(), model.parts[0].tolist()) == ([3, 4], [5])
    average = training.ExponentialMovingAverage(model)
    average.load_state_dict({"steps": 3, "averages": state})
    assert [*average.state_dict()["averages"]] == ["w"]
    with pytest.raises(nn.StateError, match="unexpected: count"):
        model.load_state_dict({**state, "count": np.ones(3)})
    model.load_state_dict({**state, "count": np.ones(3)}, strict=False)
    assert model.count.tolist() == [3, 4]
    with pytest.raises(nn.StateError, match="unexpected: other"):
        model.load_state_dict({**state, "other": np.ones(3)})
