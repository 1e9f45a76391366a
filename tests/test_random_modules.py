"""Random modules have the parameters, buffers and states here that they have in PyTorch."""

import copy

import numpy as np
import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from test_loss_state import same_states
from test_module_state import again_pickled

import tinygrad_lenet as tl
from tinygrad_lenet import nn, training
from tinygrad_lenet.errors import ArgumentError

ATTRIBUTES = ["a", "b", "c"]


def box(torch, items):
    """PyTorch does not look into lists: a module with these attributes gives the names that the elements have here."""
    made = torch.nn.Module()
    for key, value in items.items() if isinstance(items, dict) else enumerate(items):
        setattr(made, str(key), value)
    return made


class Twins:
    """A module here and one there, to which the same happens."""

    def __init__(self, torch, data, depth=0):
        self.torch, self.data, self.depth = torch, data, depth
        self.ours, self.theirs = nn.Module(), torch.nn.Module()
        self.kinds = {}
        self.made = []  # what may be shared

    def draw(self, choices):
        return self.data.draw(st.sampled_from(choices))

    def tensor(self, kind):
        """A parameter, a tensor or an activation."""
        size = self.draw([1, 2])
        array = np.arange(size, dtype=np.float32)
        if kind == "parameter":
            trainable = self.draw([True, False])
            theirs = self.torch.nn.Parameter(self.torch.tensor(array), requires_grad=trainable)
            return nn.Parameter(array, requires_grad=trainable), theirs
        if kind == "activation":
            w = self.torch.ones(size, requires_grad=True)
            return tl.ones(size, requires_grad=True) * array, w * self.torch.tensor(array)
        return tl.tensor(array), self.torch.tensor(array)

    def value(self, kind, depth=0):
        if kind == "none":
            return None, None
        if kind == "module":
            inner = Twins(self.torch, self.data, self.depth + 1)
            for _ in range(self.draw([0, 1, 3]) if self.depth < 2 else 0):
                inner.act()
            return inner.ours, inner.theirs
        if kind == "container":
            kinds = ["parameter", "tensor", "activation", "none", *(["module", "container"] if depth < 2 else [])]
            pairs = [self.value(self.draw(kinds), depth + 1) for _ in range(self.draw([0, 1, 3]))]
            ours, theirs = [p[0] for p in pairs], [p[1] for p in pairs]
            wrap = self.draw([list, tuple, lambda items: {f"k{i}": v for i, v in enumerate(items)}])
            return wrap(ours), box(self.torch, wrap(theirs))
        shared = [pair for known, pair in self.made if known == kind]
        pair = self.draw(shared) if shared and self.draw([False, True]) else self.tensor(kind)
        self.made.append((kind, pair))
        return pair

    def act(self):
        """Assign, register or delete an attribute. What is refused is refused by both."""
        name = self.draw(ATTRIBUTES)
        before = self.kinds.get(name)
        if before and self.draw([False, False, True]):
            delattr(self.ours, name), delattr(self.theirs, name)
            del self.kinds[name]
            note(f"{self.depth} del {name}")
            return
        if self.draw([False, True]):
            persistent, kind = self.draw([True, False]), self.draw(["tensor", "activation", "none"])
            ours, theirs = self.value(kind)
            note(f"{self.depth} register {name}: {kind}, {persistent}")
            if before not in (None, "buffer"):
                with pytest.raises(ArgumentError):
                    self.ours.register_buffer(name, ours, persistent)
                with pytest.raises(KeyError):
                    self.theirs.register_buffer(name, theirs, persistent)
                return
            self.ours.register_buffer(name, ours, persistent)
            self.theirs.register_buffer(name, theirs, persistent)
            self.kinds[name] = "buffer"
            return
        kinds = {
            "parameter": ["parameter"],
            "module": ["module"],
            "buffer": ["tensor", "activation", "none", "parameter"],
        }.get(before, ["parameter", "module", "container", "tensor", "activation", "none"])
        if before == "container" or isinstance(getattr(self.theirs, name, None), self.torch.nn.Module):
            kinds = ["module"] if before == "module" else ["container"]  # there, a container is a module
        kind = self.draw(kinds)
        note(f"{self.depth} {name} = {kind}")
        ours, theirs = self.value(kind)
        setattr(self.ours, name, ours), setattr(self.theirs, name, theirs)
        self.kinds[name] = "buffer" if before == "buffer" and kind != "parameter" else kind


def names(pairs):
    return sorted(name for name, _ in pairs)


def once(pairs, everything):
    """The numbers of names and of tensors, after checking that each name is one of all."""
    pairs = [*pairs]
    assert {name for name, _ in pairs} <= everything
    return len(pairs), len({id(t) for _, t in pairs})


@given(data=st.data())
def test_random_modules_have_the_state_that_they_have_in_pytorch(torch, data):
    twins = Twins(torch, data)
    for _ in range(data.draw(st.integers(1, 8))):
        twins.act()
    ours, theirs = twins.ours, twins.theirs
    state = theirs.state_dict()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: tuple(v.shape) for k, v in state.items()}
    everything = dict(theirs.named_parameters(remove_duplicate=False))
    assert once(ours.named_parameters(), {*everything}) == once(theirs.named_parameters(), {*everything})
    everything = dict(theirs.named_buffers(remove_duplicate=False))
    assert once(ours.named_buffers(), {*everything}) == once(theirs.named_buffers(), {*everything})
    frozen = [sorted(name for name, p in m.named_parameters() if not p.requires_grad) for m in (ours, theirs)]
    assert len(frozen[0]) == len(frozen[1])
    doubled = {name: 2 * value.detach() for name, value in state.items()}
    ours.load_state_dict(doubled)  # strictly, there and back
    theirs.load_state_dict({name: torch.tensor(array) for name, array in ours.state_dict().items()})
    for twin in (copy.deepcopy(ours), again_pickled(ours), copy.copy(ours)):
        assert same_states(twin.state_dict(), ours.state_dict())
        assert names(twin.named_parameters()) == names(ours.named_parameters())
        assert names(twin.named_buffers()) == names(ours.named_buffers())
        assert names(twin.named_modules()) == names(ours.named_modules())
    average = training.ExponentialMovingAverage(ours)
    average.update()
    assert average.averages.keys() == ours.state_dict().keys()
