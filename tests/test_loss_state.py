"""The state of losses: the names of their weights are PyTorch's."""

import copy

import numpy as np
import pytest
from test_module_state import again_pickled, leaf, old

import tinygrad_lenet as tl
from tinygrad_lenet import nn, training
from tinygrad_lenet.errors import DTypeError


def same_states(a, b):
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


WEIGHTED = [("CrossEntropyLoss", ["weight"]), ("NLLLoss", ["weight"]), ("MultiMarginLoss", ["weight"])]
WEIGHTED += [("BCELoss", ["weight"])]
WEIGHTED += [("BCEWithLogitsLoss", names) for names in (["weight"], ["pos_weight"], ["weight", "pos_weight"])]
UNWEIGHTED = ["MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "KLDivLoss"]


def loss_of(library, tensor, name, names):
    return getattr(library, name)(**{n: tensor(np.float32([1, 2, 3]) + i) for i, n in enumerate(names)})


def value_of(loss):
    x = np.float32([[1, 2, 3], [0, -1, 1]]) / 4
    x = abs(x) if isinstance(loss, nn.BCELoss) else x
    target = x > 0.2 if isinstance(loss, (nn.BCELoss, nn.BCEWithLogitsLoss)) else np.array([0, 2])
    return loss(x, target.astype(np.float32) if target.dtype == bool else target).item()


@pytest.mark.parametrize(("name", "names"), [*WEIGHTED, *((name, []) for name in UNWEIGHTED)])
def test_losses_name_their_state_as_pytorch_does(torch, name, names):
    assert {loss for loss, _ in WEIGHTED} | {*UNWEIGHTED} == {n for n in nn.__all__ if n.endswith("Loss")}
    ours, theirs = loss_of(nn, tl.tensor, name, names), loss_of(torch.nn, torch.tensor, name, names)
    assert [*ours.state_dict()] == [*theirs.state_dict()] == names
    assert [n for n, _ in ours.named_buffers()] == [n for n, _ in theirs.named_buffers()]
    theirs.load_state_dict({n: 2 * torch.tensor(array) for n, array in ours.state_dict().items()})
    ours.load_state_dict(theirs.state_dict())
    for n in names:
        np.testing.assert_array_equal(getattr(ours, n).numpy(), getattr(theirs, n).numpy())
    if not names:
        return
    expected = value_of(getattr(nn, name)(**{n: getattr(ours, n) for n in names}))
    assert value_of(ours) == value_of(again_pickled(ours)) == value_of(copy.deepcopy(ours)) == expected
    plain = getattr(nn, name)()
    assert not plain.state_dict()
    for n in names:
        setattr(plain, n, getattr(ours, n))
    assert [*plain.state_dict()] == names
    assert value_of(plain) == expected


@pytest.mark.parametrize(("name", "names"), WEIGHTED)
def test_older_files_and_pickles_of_losses_load(name, names):
    loss = loss_of(nn, tl.tensor, name, names)
    pickled = old(type(loss), options=loss.options)
    assert pickled.state_dict().keys() == loss.state_dict().keys()
    assert value_of(pickled) == value_of(loss)
    assert repr(pickled) == repr(loss)
    for model, prefix in ((loss, ""), (nn.Sequential({"a": nn.ReLU(), "options": loss}), "options.")):
        state = {f"{prefix}options.{n}": np.float32([7, 8, 9]) for n in names}
        average = training.ExponentialMovingAverage(model)
        average.load_state_dict({"steps": 1, "averages": state})
        model.load_state_dict(state)
        assert [a.tolist() for a in model.state_dict().values()] == [[7, 8, 9]] * len(names)
        assert same_states(average.averages, model.state_dict())
        with pytest.raises(nn.StateError, match="unexpected: "):
            model.load_state_dict({**model.state_dict(), **state})


def test_weights_that_are_not_tensors_are_options_and_parameters_are_learned():
    listed = nn.CrossEntropyLoss(weight=[1.0, 2.0, 3.0])
    assert not listed.state_dict()
    assert value_of(listed) == value_of(nn.CrossEntropyLoss(weight=tl.tensor([1.0, 2.0, 3.0])))
    learned = nn.BCEWithLogitsLoss(pos_weight=nn.Parameter([1.0, 2.0, 3.0]))
    assert [name for name, _ in learned.named_parameters()] == ["pos_weight"]
    learned(np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)).backward()
    assert learned.pos_weight.grad is not None
    with pytest.raises(DTypeError, match=r"pos_weight requires a gradient.*nn\.Parameter"):
        nn.BCEWithLogitsLoss(pos_weight=leaf())
