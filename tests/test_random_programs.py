"""A share of the random programs; faults that they must find; and which ops take part."""

import inspect
import os
import re

import numpy as np
import pytest
from hypothesis import settings
from program_ops import ABSENT, EVERY
from programs import Leaf, Line, Maker, Program
from random_programs import Failure, Unjudged, run, shrunk, verdict

import tinygrad_lenet as tl
from tinygrad_lenet import checkpointing
from tinygrad_lenet.core import accumulation
from tinygrad_lenet.core.primitive import REGISTRY
from tinygrad_lenet.core.tensor import Tensor


def number(dev):
    """The seeds of as many programs as the profile of hypothesis asks for; in ``ci`` always the same."""
    profile, examples = os.environ.get("HYPOTHESIS_PROFILE", "dev"), settings.default.max_examples
    first = 0 if profile == "ci" else int(np.random.default_rng().integers(2**31))
    return range(first, first + {"dev": dev, "ci": 3 * dev}.get(profile, 10 * examples))


def test_programs_give_what_pytorch_gives(torch):
    failures, counts = run(torch, number(150))
    assert not failures, "\n\n".join(failures)
    assert counts["unjudged"] <= counts["programs"] / 100, counts
    assert counts["skipped"] <= counts["programs"] / 2, counts  # results of five or six checks of each


def test_programs_give_what_numpy_and_differences_give():
    failures, counts = run(None, number(40))
    assert not failures, "\n\n".join(failures)
    assert not counts["unjudged"], counts


# Faults, planted: each must be found among these many programs.

PROGRAMS = 300


def rule(op, **rules):
    def plant(patch):
        for name in rules:
            patch.setitem(op.op.rules, name, rules[name])
        op.op.plans.clear()

    return plant


def attribute(owner, name, make):
    return lambda patch: patch.setattr(owner, name, make(getattr(owner, name)))


def hooks_only_see(run):
    def hooked(vertex, gradient):
        run(vertex, gradient)
        return gradient

    return hooked


def first_axis_only(unbroadcast):
    def summed(gradient, shape, dtype):
        if gradient.shape != shape and len(gradient.shape) == len(shape):
            at = [i for i, n in enumerate(shape) if n != gradient.shape[i]]
            for i in at[1:]:
                gradient = gradient[(slice(None),) * i + (slice(1),)]
        return unbroadcast(gradient, shape, dtype)

    return summed


PLANTS = {
    "a sign": rule(tl.sub, y=lambda g: g),
    "the second order": rule(tl.true_divide, y=lambda g, out, y: -g * getattr(out, "detach", lambda: out)() / y),
    "broadcasting undone along one axis": attribute(accumulation, "unbroadcast", first_axis_only),
    "hooks that replace nothing": attribute(accumulation, "hooked", hooks_only_see),
    "changes that are not counted": attribute(
        Tensor, "_write", lambda write: lambda self, key, value: self._data.__setitem__(key, value)
    ),
    "checkpoints that hear of no change": attribute(
        checkpointing._Trace, "difference", lambda _: lambda self, first: None
    ),
    "permuted in the same direction": rule(tl.permute, x=lambda g, axes: g.transpose(*axes)),
}


@pytest.fixture
def plans():
    yield
    for op in REGISTRY.values():
        op.plans.clear()


@pytest.mark.parametrize("name", PLANTS)
def test_planted_faults_are_found(torch, name, monkeypatch, plans):
    PLANTS[name](monkeypatch)
    for seed in range(PROGRAMS):
        with np.errstate(all="ignore"):
            program = Maker(seed).program()
        try:
            failure, _ = verdict(torch, program)
        except Unjudged:
            continue
        if failure is not None:
            return
    pytest.fail("no program failed")


def test_a_failure_is_shrunk_to_a_program_that_shows_it(torch, monkeypatch, plans):
    rule(tl.tanh, x=lambda g, out: g * out)(monkeypatch)
    leaves = (Leaf("v0", np.array([[0.5, -1.0]]), "fortran", True), Leaf("v1", np.array([2.0]), grad=True))
    texts = ["v0 * v1", "tl.sin(v2)", "tl.tanh(v3)", "tl.exp(v1)", "tl.add(v4, v5)"]
    lines = tuple(Line((f"v{i + 2}",), text) for i, text in enumerate(texts))
    program = Program(leaves, lines, ("v6",))
    failure, _ = verdict(torch, program)
    assert isinstance(failure, Failure)
    small, failure = shrunk(torch, program, failure)
    assert [line.text for line in small.lines] == ["tl.tanh(v0)"]
    assert not small.leaves[0].layout
    env = {}
    exec(str(small), env)
    assert env["v4"].shape == (1, 2)


def test_a_seed_makes_one_program():
    with np.errstate(all="ignore"):
        assert [str(Maker(i).program()) for i in range(5)] == [str(Maker(i).program()) for i in range(5)]
        programs = [Maker(i).program() for i in range(60)]
    kinds = {line.kind for program in programs for line in program.lines}
    assert kinds == {"op", "view", "write", "hook", "checkpoint"}
    assert any(line.quiet for program in programs for line in program.lines)
    assert {leaf.layout for p in programs for leaf in p.leaves} == {"", "fortran", "strided", "backwards", "broadcast"}
    assert any(not leaf.values.size for p in programs for leaf in p.leaves)
    assert any(p.wild for p in programs)


# Those of the registry that other ops are made of, and have no public name: by one that calls them.
WITHIN = {
    "cast": "astype",
    "select": "where",
    "softmax_nll": "cross_entropy",
    "bell": "erf",
    "normalize": "batch_norm",
    "channel_moments": "batch_norm",
    "checked_index": "cross_entropy",
    "count_classes": "cross_entropy",
    "conv2d_input_grad": "conv2d",
    "conv2d_weight_grad": "conv2d",
}


def test_every_op_takes_part_or_says_why_not():
    text = "\n".join(form.text for form in EVERY)
    names = {op.name for op in REGISTRY.values() if op.forward.__module__.startswith("tinygrad_lenet.")}
    names = {WITHIN.get(name, name) for name in names if name[0] != "_"}
    functions = {
        n
        for n in tl.__all__
        if inspect.isfunction(getattr(tl, n)) and "Array" in str(inspect.signature(getattr(tl, n)))
    }
    missing = {n for n in names | functions if not re.search(rf"tl(\.linalg)?\.{n}\(", text)} - ABSENT.keys()
    assert not missing, f"not in tests/tools/program_ops.py: {sorted(missing)}"
    assert not {n for n in ABSENT if f"tl.{n}(" in text}
