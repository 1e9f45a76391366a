"""What the tests of bad input to objects share: things to call in place of classes and methods, and what objects are.

A case is a thing to call, with valid calls; ``hostile`` makes them odd or wrong, and judges. Numbers outside of the
domain of their argument must be refused besides.
"""

import contextlib
import inspect
import math
import os
import re

import hostile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import tinygrad_lenet as tl

THOROUGH = settings().max_examples >= 1000
EXAMPLES = settings().max_examples if THOROUGH else max(5, settings().max_examples // 5)
QUIET = [*HealthCheck]
COUNTS = {}  # of cases, by name


@pytest.fixture(scope="module", autouse=True)
def limits(request, tmp_path_factory):
    """Memory is bounded, files are written where they go with the test, and cases are counted."""
    here = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("hostile"))
    try:
        with hostile.memory_limit():
            yield
    finally:
        os.chdir(here)
    plugins = request.config.pluginmanager
    with plugins.get_plugin("capturemanager").global_and_fixture_disabled():
        line = f"\n{sum(COUNTS.values()):,} cases of bad input so far, for {len(COUNTS)} classes, methods and functions"
        plugins.get_plugin("terminalreporter").write_line(line)


def call(*args, **kwargs):
    return args, kwargs


def rng(seed=0):
    return np.random.default_rng(seed)


def floats(*shape, seed=0):
    return tl.tensor(rng(seed).uniform(-1, 1, shape).astype(np.float32))


# What objects are, to be compared with what they are later


def snapshot(value, seen=()):
    """All that an object holds, as far down as the package goes."""
    if isinstance(value, tl.Tensor):
        return ("tensor", hostile.frozen(value.numpy()), None if value._grad is None else value._grad.numpy().tobytes())
    if isinstance(value, np.ndarray):
        return hostile.frozen(value)
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if id(value) in seen or len(seen) > 20:
        return "see above"
    seen = (*seen, id(value))
    if isinstance(value, (list, tuple)):
        return (type(value), [snapshot(v, seen) for v in value])
    if isinstance(value, dict):
        return (dict, [(k, snapshot(v, seen)) for k, v in value.items()])
    if hasattr(value, "__dict__") and type(value).__module__.startswith("tinygrad_lenet"):
        return (type(value), snapshot(vars(value), seen))
    return value if isinstance(value, (int, float, str, type(None))) and value == value else repr(value)


# Things to call: plain functions whose names and signatures are those of classes and methods


def signed(function, name, like, without=()):
    """The function under the name and with the parameters of another."""
    parameters = [p for p in inspect.signature(like).parameters.values() if p.name not in without]
    function.__name__ = function.__qualname__ = name
    function.__signature__ = inspect.Signature(parameters)
    return function


@contextlib.contextmanager
def renamed(name, depth=0):
    """Python names the base class that has the method, in what it says of wrong names or numbers of arguments, that
    many calls further down.
    """
    try:
        yield
    except TypeError as error:
        inside = error.__traceback__.tb_next
        for _ in range(depth):
            inside = inside and inside.tb_next
        if inside and inside.tb_next is None:
            raise TypeError(re.sub(r"^[\w.<>]+\(\)", f"{name}()", str(error))) from None
        raise


def making(cls, use=lambda made: None, without=(), first=None):
    """Make an object, and use it."""
    names = list(inspect.signature(cls).parameters)

    def make(*args, **kwargs):
        if "generator" in names[len(args) :]:
            kwargs.setdefault("generator", 0)  # the same values each time
        with renamed(cls.__name__):
            made = cls(*args, **kwargs) if first is None else cls(first(), *args, **kwargs)
        return use(made)

    return signed(make, cls.__name__, cls, without)


def method(make, name, look=lambda result: result):
    """A method of a fresh object, which is as it was if that refuses; or if it shall only look."""

    def run(*args, **kwargs):
        made = make()
        before = snapshot(made)
        try:
            if name == "forward":  # behind the door, where users call it
                with renamed(type(made).__name__, depth=1):
                    result = made(*args, **kwargs)
            else:
                with renamed(type(made).__name__):
                    result = getattr(made, name)(*args, **kwargs)
            return look(result)
        except tl.TinygradLenetError:
            assert snapshot(made) == before, f"{name} refused, and changed {type(made).__name__}"
            raise

    return signed(run, type(make()).__name__, getattr(make(), name))


def collector():
    """A list of things to call, and how one more is put there; a slow one gets only a ``share`` of the examples."""
    cases = []

    def case(name, function, *calls, names=(), keep=(), changes=(), shares=False, share=1, words=(), strict=True):
        options = {
            "names": names,
            "changes": changes,
            "shares": shares,
            "words": (*words, "of shape"),
            "strict": strict,
        }
        cases.append((name, function, [*calls], options, keep, share))

    return cases, case


# Where numbers lie, by the name of the argument and, where it differs, of the function: what is outside is refused

ZERO_UP, ONE_UP, PART = (0, math.inf), (1, math.inf), (0, 1)
DOMAINS = {
    **dict.fromkeys(("p", "dropout", "pct_start", "alpha"), PART),
    **dict.fromkeys(("lr", "weight_decay", "momentum", "lr_decay", "initial_accumulator_value", "max_lr"), ZERO_UP),
    **dict.fromkeys(("gamma", "eta_min", "min_delta", "degrees", "translate", "std", "gain"), ZERO_UP),
    **dict.fromkeys(("patience", "cooldown", "max_norm", "atol", "rtol"), ZERO_UP),
    **dict.fromkeys(("in_features", "out_features", "in_channels", "out_channels", "embedding_dim"), ZERO_UP),
    **dict.fromkeys(("groups", "num_groups", "num_layers", "hidden_size", "input_size", "channels"), ONE_UP),
    **dict.fromkeys(("batch_size", "step_size", "T_max", "total_steps", "total_iters", "num_classes"), ONE_UP),
    "base_momentum": PART,
    "max_momentum": PART,
    "start_factor": PART,
    "end_factor": PART,
    "factor": PART,
    "decay": PART,
    "norm_type": (0, math.inf),
    "sigma": (0, 1e6),
    "eps": ZERO_UP,
    "ElasticDistortion.alpha": (0, 1e6),
    "ELU.alpha": (-math.inf, math.inf),
    "CELU.alpha": (-math.inf, math.inf),
    "MultiMarginLoss.p": (1, 2),
}
INFINITE = {"max_norm", "norm_type"}  # may be inf


def outside(name, function, args, kwargs):
    """Which number lies outside of its domain, if any."""
    try:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
    except TypeError:
        return ""
    for key, value in given.items():
        low, high = DOMAINS.get(f"{name}.{key}") or DOMAINS.get(key) or (-math.inf, math.inf)
        if isinstance(value, (int, float, np.integer, np.floating)) and (key in DOMAINS or f"{name}.{key}" in DOMAINS):
            fine = low <= float(value) <= high and (abs(float(value)) != math.inf or key in INFINITE)
            if not fine:
                return f"{key} lies outside of {low} … {high}"
    return ""


def run(name, function, calls, options, keep, share):
    """The property of one case."""

    @settings(max_examples=max(3, EXAMPLES // share), suppress_health_check=QUIET, deadline=None)
    @given(hostile.arguments(function, calls, keep))
    def property_(drawn):
        forbidden = drawn.forbidden or outside(name.partition("(")[0], function, drawn.args, drawn.kwargs)
        COUNTS[name] = COUNTS.get(name, 0) + 1
        hostile.judge(function, drawn._replace(forbidden=forbidden), **options)

    property_()
