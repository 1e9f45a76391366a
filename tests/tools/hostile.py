"""Wrong, odd and huge arguments for any function, and the judge of what it makes of them.

``arguments(function, calls)`` draws one of the function's valid calls, and makes it unusual (which must not matter) or
wrong. ``judge(function, case)`` demands a right result or an error of the package that names what is at fault; nothing
that was passed in may be changed, nor the state of the program. See ``test_bad_input.py`` for the use.
"""

import array
import contextlib
import copy
import functools
import inspect
import re
import signal
import threading
import warnings
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from odd import LAYOUTS, NUMBERS, WRONG_VALUES

import tinygrad_lenet as tl
from tinygrad_lenet.core.primitive import Draw
from tinygrad_lenet.errors import brief

try:
    import resource
except ImportError:  # not on Windows
    resource = None

SECONDS = 20  # after which a call counts as hung
COUNTS: dict[str, int] = {}  # how many cases were judged, by name


class Case(NamedTuple):
    """A call; an equal one with plain arguments, if there is one; and what must not be accepted, and why."""

    args: list[Any]
    kwargs: dict[str, Any]
    plain: tuple[list[Any], dict[str, Any]] | None = None
    forbidden: str = ""


# Valid calls


def materialise(value, seed=0, dtype=np.float32):
    """A fresh value: what :func:`tl.draw` describes as an array, a copy of all else."""
    if isinstance(value, Draw):
        if value.values is not None:
            return np.array(value.values, dtype)
        size = int(np.prod(value.shape))
        steps = (np.random.default_rng(seed).permutation(size) + 0.3) / max(size, 1)
        return (value.low + (value.high - value.low) * steps).reshape(value.shape).astype(dtype)
    if hasattr(value, "_fields"):
        return value  # geometry, which nobody can write to
    if isinstance(value, (list, tuple)):
        return type(value)(materialise(v, seed + i, dtype) for i, v in enumerate(value))
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        return value.astype(dtype)
    return copy.copy(value) if isinstance(value, (np.ndarray, dict, set, np.random.Generator)) else value


def calls_of(function):
    """The calls by which a primitive is checked."""
    return function.op.cases if hasattr(function, "op") else []


# What an annotation forbids

_ALIASES = {
    "Axis": "int | tuple[int, ...] | None",
    "Pair": "int | tuple[int, int]",
    "Padding": "int | str | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]",
}


def _choices(annotation):
    """The parts of ``a | tuple[b | c] | d`` at its top level."""
    parts, depth = [""], 0
    for c in annotation:
        depth += (c == "[") - (c == "]")
        if c == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += c
    return [part.strip() for part in parts]


def admits(annotation, value):
    """Return True if a value may be passed where a parameter is annotated so; True wherever that cannot be told."""
    if not isinstance(annotation, str):
        return True
    plain = value
    if isinstance(value, (np.ndarray, tl.Tensor)):
        if value.ndim or value.dtype.kind in "OV":
            return True  # arrays in place of numbers and tuples: let the function decide
        plain = value.item() if isinstance(value, tl.Tensor) else value[()]
    for choice in _choices(annotation):
        choice = _ALIASES.get(choice, choice)
        if " | " in choice and "[" not in choice.split(" | ")[0]:
            if admits(choice, value):
                return True
            continue
        if choice == "None":
            found = value is None
        elif choice == "int":
            found = isinstance(plain, (int, np.integer)) and not isinstance(plain, bool)
        elif choice == "float":
            found = isinstance(plain, (bool, int, float, np.integer, np.floating, np.bool_))
        elif choice == "bool":
            whole = isinstance(plain, (int, np.integer)) and not isinstance(plain, np.timedelta64)
            found = isinstance(plain, (bool, np.bool_)) or (whole and plain in (0, 1))
        elif choice == "str":
            found = isinstance(plain, str)
        elif choice.startswith(("tuple[", "Sequence[", "list[")):
            inner = choice.partition("[")[2][:-1]
            if isinstance(value, (str, bytes, bytearray, memoryview)):
                found = False
            elif isinstance(value, (list, tuple)):
                inner = inner.removesuffix(", ...")
                found = all(any(admits(part, v) for part in _split(inner)) for v in value)
            else:
                found = hasattr(value, "__iter__")
        else:
            return True
        if found:
            return True
    return False


def _split(inner):
    parts, depth = [""], 0
    for c in inner:
        depth += (c == "[") - (c == "]")
        if c == "," and not depth:
            parts.append("")
        else:
            parts[-1] += c
    return [part.strip() for part in parts]


@functools.cache
def parameters_of(function):
    """By name; empty if the function does not tell."""
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {}


# Made once, as WRONG_VALUES is.
_UP_TO = {n: st.integers(0, n - 1) for n in range(1, 41)}
_LAYOUT, _NUMBER, _COIN = st.sampled_from([*LAYOUTS]), st.sampled_from([*NUMBERS]), st.booleans()


@st.composite
def arguments(draw, function, calls=None, keep=()):
    """A call of a function: a valid one of which some arguments are odd or wrong.

    ``calls`` are valid calls, ``(args, kwargs)``, with :func:`tl.draw` for tensors; those of its checks if it is a
    primitive. ``keep`` names parameters that stay as they are, such as functions to be differentiated.
    """
    calls = calls or calls_of(function)
    chosen = calls[draw(_UP_TO[len(calls)])]
    args, kwargs = list(materialise(chosen[0])), dict(materialise(tuple(chosen[1].items())))
    parameters = parameters_of(function)
    names = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters.values() if p.kind is p.VAR_POSITIONAL), "")

    def name_of(place):
        return place if isinstance(place, str) else names[place] if place < len(names) else rest

    def annotation_of(place):
        return str(getattr(parameters.get(name_of(place)), "annotation", None))

    places: list[Any] = [p for p in [*range(len(args)), *kwargs] if name_of(p) not in keep]
    if not places or draw(_UP_TO[4]) == 0:
        return _unusual(
            draw, args, kwargs, places, {p for p in places if "Array" in annotation_of(p) or name_of(p) == "data"}
        )
    # Arguments that have defaults are given too.
    taken = {name_of(p) for p in places}
    places += [
        p.name
        for p in parameters.values()
        if p.name not in taken and p.name not in keep and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        and (p.default is not p.empty)
    ]  # fmt: skip
    forbidden = {}
    for place in {places[draw(_UP_TO[len(places)])]: None for _ in range(draw(_UP_TO[3]) + 1)}:
        value = draw(WRONG_VALUES)
        (kwargs if isinstance(place, str) else args)[place] = value
        annotation = getattr(parameters.get(name_of(place)), "annotation", None)
        if not admits(annotation, value):
            forbidden[place] = f"{name_of(place)} is {annotation}"
    wrong = draw(_UP_TO[40])
    if wrong == 0:
        kwargs["no_such_argument"] = 1
        forbidden[""] = "there is no_such_argument"
    elif wrong == 1 and args:
        del args[-1]
        forbidden.pop(len(args), None)
    elif wrong == 2:
        args.append(draw(WRONG_VALUES))
    return Case(args, kwargs, None, ", ".join(forbidden.values()))


def _unusual(draw, args, kwargs, places, operands):
    """The same call with arrays of other layouts, and integers of other types."""
    plain = list(args), dict(kwargs)
    for place in places:
        there = kwargs if isinstance(place, str) else args
        value = there[place]
        if isinstance(value, np.ndarray):
            if value.dtype == np.int64 and draw(_COIN):  # indices, of which the dtype makes no difference
                value = value.astype(["i1", "u1", "i2", "u4", "u8"][draw(_UP_TO[5])])
            there[place] = LAYOUTS[draw(_LAYOUT)](value.copy())
        elif type(value) is int and place not in operands and draw(_COIN):
            there[place] = NUMBERS[draw(_NUMBER)](value)
        elif isinstance(value, tuple) and value and all(type(v) is int for v in value) and draw(_COIN):
            how = ["int8", "uint8", "int64", "uint64"][draw(_UP_TO[4])]
            there[place] = (tuple, list)[draw(_COIN)](NUMBERS[how](v) for v in value)
    return Case(args, kwargs, plain)


# The judge


class Hung(BaseException):
    """It took too long."""


@contextlib.contextmanager
def time_limit(seconds=SECONDS):
    """Raise :class:`Hung` in what takes longer; in the main thread, where there are signals."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_, frame):
        if frame.f_code.co_name != "gc_callback":  # hypothesis' own, in which an error is lost: the next one will do
            raise Hung(f"it took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def memory_limit(more=4 << 30):
    """Let the process take so many bytes more, and no more: what is too large fails, before the machine swaps."""
    try:
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    except (OSError, AttributeError, ValueError):  # no such limit on this system
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def frozen(value, depth=0):
    """What a value is now, to be compared with what it is later."""
    if isinstance(value, tl.Tensor):
        return ("tensor", frozen(value.numpy()), value.requires_grad, value._version[0])
    if isinstance(value, np.ndarray):
        content = repr(value.tolist()) if value.dtype.hasobject else value.tobytes()
        return ("array", type(value), value.dtype.str, value.shape, value.strides, value.flags.writeable, content)
    if depth < 5 and isinstance(value, (list, tuple)):
        return (type(value), [frozen(v, depth + 1) for v in value])
    if depth < 5 and isinstance(value, dict):
        return (dict, [(k, frozen(v, depth + 1)) for k, v in value.items()])
    if isinstance(value, (set, frozenset, bytearray, array.array)):
        return (type(value), repr(value))
    return id(value)


def state():
    """What no function may change behind one's back."""
    random = np.random.get_state(legacy=False)["state"]  # noqa: NPY002  # that nobody uses it is to be seen
    return tl.is_grad_enabled(), np.geterr(), tl.get_num_threads(), random["pos"], random["key"].tobytes()


def tensors_in(value, depth=0):
    """All Tensors of a result or of arguments."""
    if isinstance(value, tl.Tensor):
        return [value]
    if depth < 4 and isinstance(value, (list, tuple)):
        return [t for v in value for t in tensors_in(v, depth + 1)]
    if depth < 4 and isinstance(value, dict):
        return [t for v in value.values() for t in tensors_in(v, depth + 1)]
    return []


def _arrays_in(value, depth=0):
    if isinstance(value, np.ndarray):
        return [value]
    inner = value if depth < 5 and isinstance(value, (list, tuple)) else ()  # a list may hold itself
    return [a for v in inner for a in _arrays_in(v, depth + 1)]


ADMITTED = [np.dtype(code) for code in "?bhilqBHILQefd"]
_ORDINARY = "overflow|underflow|invalid value|divide by zero|Mean of empty|Degrees of freedom|empty slice"


def _called(function, args, kwargs):
    """The result, or the error; warnings are faults, but those that NumPy gives for NaN and inf."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            with time_limit():
                outcome = function(*args, **kwargs), None
        except Exception as error:
            outcome = None, error
    for warning in heard:
        ordinary = issubclass(warning.category, RuntimeWarning) and re.search(_ORDINARY, str(warning.message))
        assert ordinary, f"{warning.category.__name__}: {warning.message} ({warning.filename}:{warning.lineno})"
    return outcome


def check_error(error, name, function, args, kwargs, names=(), words=()):
    """One of ours that names the function and the argument; or what Python says of a call that does not fit."""
    message = str(error)
    inside = error.__traceback__.tb_next  # below _called: the function itself
    if not isinstance(error, tl.TinygradLenetError):
        binding = type(error) is TypeError and re.search(
            r"\S+\(\) (takes|missing|got|needs|has no argument)|takes no keyword arguments", message
        )
        assert binding, f"{type(error).__name__} from inside: {message}"
        functions = [getattr(v, "__name__", type(v).__name__) for v in [*args, *kwargs.values()] if callable(v)]
        called = [name.split(".")[-1].strip("_"), *functions]  # what was passed in may be called too
        assert not inside or "" in names or any(word in message for word in called), message
        return
    assert any(word in message for word in (name, name.strip("_"), *names)), (
        f"the message does not name {name}: {message}"
    )
    given = [*parameters_of(function), *kwargs, *words]
    for value in [*args, *kwargs.values()]:
        given += [type(value).__name__, brief(value)]
        with contextlib.suppress(Exception):
            given += [str(value.dtype) if hasattr(value, "dtype") else "", str(np.shape(value))]
    # Of NumPy's own functions the parameters are not known; an error about the graph is about no argument.
    known = not isinstance(error, tl.GradientError) and not name.startswith("np.")
    rest = message.removeprefix(name)
    found = re.search(r"(argument|input) (number|\d)", rest) or any(word in rest for word in given if word)
    assert found or not known, f"the message names no argument: {message}"
    assert len(message) < 3000, f"a message of {len(message)} characters"


def check_result(result, args, kwargs, shares=False, private=False):
    """Tensors of admitted dtypes with memory of their own, and gradients that fit the leaves. What is private computes
    the gradients of what its composite passes, and of the rest says no more than that it has none.
    """
    given = _arrays_in([*args, *kwargs.values()])
    outputs = tensors_in(result)
    for y in outputs:
        array = y._data
        assert type(array) is np.ndarray, type(array)
        assert array.dtype in ADMITTED, array.dtype
        if not shares:
            assert not any(np.may_share_memory(array, a) for a in given), "the result shares memory with an argument"
    leaves = [t for t in tensors_in([*args, *kwargs.values()]) if t.is_leaf and t.requires_grad]
    for t in leaves:
        assert t.grad is None
    for y in outputs:
        if not (y.requires_grad and y.dtype.kind == "f"):
            continue
        seed = np.random.default_rng(0).uniform(-1, 1, y.shape).astype(y.dtype)
        _, error = _called(y.backward, [seed], {"retain_graph": True})
        if error is not None:
            ours = isinstance(error, tl.TinygradLenetError) or (private and isinstance(error, (ValueError, IndexError)))
            assert ours, f"backward: {type(error).__name__}: {error}"
            continue
        for t in leaves:
            if t.grad is not None:
                assert t.grad.shape == t.shape, f"a gradient of shape {t.grad.shape} for {t.shape}"
                assert t.grad.dtype == t.dtype, f"a gradient of {t.grad.dtype} for {t.dtype}"
    for t in leaves:
        t.grad = None


def same(found, expected):
    """Results of one call with arguments of different layouts: equal up to the order of sums."""
    found, expected = tensors_in(found) or [found], tensors_in(expected) or [expected]
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        if not isinstance(b, tl.Tensor):
            continue
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        with np.errstate(all="ignore"):
            x, y = a.numpy(), b.numpy()
            if y.dtype.kind != "f":
                np.testing.assert_array_equal(x, y)
                continue
            size = np.max(np.abs(y), initial=1.0, where=np.isfinite(y))
            np.testing.assert_allclose(x, y, rtol=0, atol=64 * np.finfo(y.dtype).eps * size)


def judge(function, case, name=None, names=(), shares=False, changes=(), strict=True, words=()):
    """Call the function, and look at what comes of it.

    ``name`` is what its messages begin with, or one of ``names``, and ``words`` name arguments too; ``shares``: whether
    results may be views of arrays that were passed; ``changes``: positions or names of what it is meant to change;
    ``strict``: whether unusual layouts must be taken.
    """
    name = name or function.__name__
    COUNTS[name] = COUNTS.get(name, 0) + 1
    args, kwargs = case.args, case.kwargs
    values = [*args, *kwargs.values()]
    before, around = [frozen(v) for v in values], state()
    result, error = _called(function, args, kwargs)
    assert state() == around, "the state of the program was changed"
    for key, value, old in zip([*range(len(args)), *kwargs], values, before, strict=True):
        assert key in changes or frozen(value) == old, f"argument {key} was changed"
    if error is not None:
        try:
            check_error(error, name, function, args, kwargs, names, words)
        except AssertionError as complaint:
            raise complaint from error
        if (
            strict
            and case.plain is not None
            and not any(type(v) in (np.ndarray, tl.Tensor) and v.ndim == 0 for v in values)
        ):
            raise AssertionError("arguments that are merely unusual were refused") from error
        return
    private = name.startswith("_")
    assert not case.forbidden or private, f"accepted, though {case.forbidden}"
    check_result(result, args, kwargs, shares, private)
    if case.plain is not None and not changes:
        expected, error = _called(function, *case.plain)
        assert error is None, error
        same(result, expected)
