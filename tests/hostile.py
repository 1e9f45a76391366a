"""Wrong, odd and huge arguments for any function, and the judge of what it makes of them.

``arguments(function, calls)`` draws one of the function's valid calls, and makes it unusual (which must not matter) or
wrong. ``judge(function, case)`` demands a right result or an error of the package that names what is at fault; nothing
that was passed in may be changed, nor the state of the program. See ``test_bad_input.py`` for the use.
"""

import array
import contextlib
import copy
import decimal
import fractions
import inspect
import re
import signal
import threading
import warnings
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet.primitive import Draw

try:
    import resource
except ImportError:  # not on Windows
    resource = None

SECONDS = 20  # after which a call counts as hung
COUNTS: dict[str, int] = {}  # how many cases were judged, by name


class Sub(np.ndarray):
    """A subclass of the user's own."""


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
    if isinstance(value, (list, tuple)):
        return type(value)(materialise(v, seed + i, dtype) for i, v in enumerate(value))
    return copy.copy(value) if isinstance(value, (np.ndarray, dict, set, np.random.Generator)) else value


def calls_of(function):
    """The calls by which a primitive is checked."""
    return function.op.cases if hasattr(function, "op") else []


# Unusual, but equal


def _shifted(a):
    """Not aligned to its element size: a field of packed records."""
    out = np.zeros(a.shape, np.dtype([("pad", "i1"), ("value", a.dtype)]))["value"]
    out[...] = a
    return out


def _apart(a):
    out = np.zeros([2 * n for n in a.shape], a.dtype)[(slice(None, None, 2),) * a.ndim]
    out[...] = a
    return out


def _read_only(a):
    a.flags.writeable = False
    return a


LAYOUTS = {
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "fortran": lambda a: np.array(a, order="F"),
    "backwards": lambda a: np.ascontiguousarray(a[(slice(None, None, -1),) * a.ndim])[
        (slice(None, None, -1),) * a.ndim
    ],
    "apart": _apart,
    "unaligned": _shifted,
    "read-only": _read_only,
    "subclass": lambda a: a.view(Sub),
    "matrix": lambda a: a.view(np.matrix) if a.ndim == 2 else a.view(Sub),
    "masked": lambda a: np.ma.masked_array(a),
    "tensor": tl.tensor,
    "leaf": lambda a: tl.tensor(a, requires_grad=a.dtype.kind == "f"),
    "within a graph": lambda a: tl.tensor(a, requires_grad=a.dtype.kind == "f") + 0,
    "view": lambda a: tl.tensor(a.T).T,
}
NUMBERS = {
    "int8": np.int8,
    "uint8": lambda n: np.uint8(n) if n >= 0 else np.int16(n),
    "int64": np.int64,
    "uint64": lambda n: np.uint64(n) if n >= 0 else np.int64(n),
    "0-d": lambda n: np.array(n),
    "0-d tensor": lambda n: tl.tensor(np.array(n)),
}


# Wrong, or odd


def _generator():
    yield from (1, 2)


def _endless():
    found: list[Any] = []
    found.append(found)
    return found


def _deep():
    found: Any = 1.0
    for _ in range(2000):
        found = [found]
    return found


def _freed():
    x = tl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * x
    y.sum().backward()
    return y


class Liar:
    """Says that it is an array, and is none."""

    shape, ndim, dtype = (2, 3), 2, np.dtype(np.float32)

    def __repr__(self):
        return "<Liar>"


class Broken:
    """Fails whatever one asks it for."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("this array is broken")

    def __index__(self):
        raise RuntimeError("this index is broken")

    def __bool__(self):
        raise RuntimeError("this truth is broken")

    def __repr__(self):
        return "<Broken>"


_INTEGERS = [-1, 0, 1, 2, 3, 7, -2, -7, 255, 256, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, 2**63, -(2**63)]
_INTEGERS += [2**64, 2**100, -(2**100)]
_FLOATS = [0.5, 2.0, -1.5, 0.0, float("nan"), float("inf"), -float("inf"), 1e300, 1e-300, 1e18]
SCALARS: list[Any] = [*_INTEGERS, *_FLOATS, None, True, False, 1j, "", "a", "same", "none", "float32", "mean", b"x"]
SCALARS += [np.True_, np.int8(-1), np.uint8(2), np.int64(3), np.uint64(2**63), np.float16(1), np.float32(2.0)]
SCALARS += [
    np.float64("nan"),
    np.longdouble(1),
    np.complex64(1),
    np.datetime64("2020-01-01"),
    np.str_("x"),
    np.bytes_(b"x"),
]
SCALARS += [
    decimal.Decimal(1),
    fractions.Fraction(1, 2),
    Ellipsis,
    NotImplemented,
    object,
    int,
    np.float32,
    slice(None),
]
SEQUENCES: list[Any] = [
    (),
    (0,),
    (1,),
    (2,),
    (1, 2),
    (2, 1),
    (1, 2, 3),
    (0, 0),
    (-1, -1),
    (-1, 0),
    (1.5, 2),
    (2.0, 2.0),
]
SEQUENCES += [(True, False), ("a", "b"), (None, None), (None, 2), (2**63, 1), (2**40, 1), (2**40, 2**40), (1, 1, 1, 1)]
SEQUENCES += [((1, 1), (2, 2)), ((1,), (2,)), ((1, 2), 3), ((1.5, 1), (1, 1)), (1,) * 40, (1,) * 70, (float("nan"), 1)]
SEQUENCES += [(0, 1, 2, 3, 4, 5), ((0, 1), (1, 0)), ((0, 1), (2, 3), (4, 5), (6, 7)), (np.int64(1), np.uint8(2))]
FACTORIES: dict[str, Any] = {
    "[]": list, "[1]": lambda: [1], "[1, 2]": lambda: [1, 2], "[1.5]": lambda: [1.5], "[[]]": lambda: [[]],
    "ragged": lambda: [[1, 2], [3]], "nested": lambda: [[[1.0], [2.0]]], "of None": lambda: [None],
    "of text": lambda: ["1", "2"], "of arrays": lambda: [np.zeros(2), np.zeros(3)],
    "of tensors": lambda: [tl.ones(2), tl.ones(2)], "of leaves": lambda: [tl.ones(2, requires_grad=True)],
    "of huge ints": lambda: [2**100, 1], "endless": _endless, "deep": _deep, "range": lambda: range(3),
    "dict": dict, "{'a': 1}": lambda: {"a": 1}, "set": set, "{1, 2}": lambda: {1, 2}, "frozenset": frozenset,
    "lambda": lambda: lambda *a, **k: None, "generator": _generator, "iterator": lambda: iter([1, 2]),
    "object": object, "memoryview": lambda: memoryview(b"abcd"), "array.array": lambda: array.array("d", [1, 2]),
    "bytearray": lambda: bytearray(b"ab"), "Liar": Liar, "Broken": Broken, "freed": _freed,
    "0-d int tensor": lambda: tl.tensor(np.array(1)), "0-d float tensor": lambda: tl.tensor(1.0),
    "0-d bool tensor": lambda: tl.tensor(True), "int tensor": lambda: tl.tensor(np.array([1, 0])),
    "0-d leaf": lambda: tl.tensor(2.0, requires_grad=True), "rng": lambda: np.random.default_rng(0),
    "module": lambda: np, "exception": lambda: ValueError("x"),
}  # fmt: skip
DTYPES = [
    "O",
    "c8",
    "c16",
    "V4",
    "U2",
    "S3",
    "M8[D]",
    "m8[s]",
    "g",
    "f2",
    "f4",
    "f8",
    "?",
    "u1",
    "i1",
    "i2",
    "i4",
    "i8",
]
DTYPES += ["u8", ">f4", ">f8", ">i2", ">i8", "fields"]
SHAPES = [(), (0,), (1,), (2,), (3,), (0, 3), (3, 0), (1, 1), (2, 3), (3, 2), (3, 3), (2, 0, 3), (2, 2, 2), (1, 2, 3)]
SHAPES += [(2, 2, 4, 4), (1, 3, 5, 4), (0, 2, 4, 4), (2, 2, 0, 4), (2, 1, 1, 2, 2), (1,) * 33, (1000, 0)]
FILLS = ["some", "zero", "nan", "inf", "-inf", "huge", "tiny", "negative"]


def odd_array(dtype, shape, fill):
    """An array of a dtype, shape and kind of values."""
    if dtype == "fields":
        return np.zeros(shape, [("a", "f4"), ("b", "i2")])
    kind = np.dtype(dtype)
    values = np.random.default_rng(1).uniform(-2, 3, shape)
    if fill == "zero" or kind.kind in "VMmUS":
        return np.zeros(shape, kind)
    if fill == "negative":
        values = -np.abs(values)
    if fill in ("nan", "inf", "-inf", "huge", "tiny") and kind.kind in "fcO":
        number = {"huge": 3e38 if kind.itemsize > 2 else 6e4, "tiny": 1e-40}.get(fill) or float(fill)
        values = np.where(values > 0, number, values)
    if fill == "huge" and kind.kind in "iu":
        return np.full(shape, np.iinfo(kind).max, kind)
    with np.errstate(all="ignore"):
        return (np.abs(values) if kind.kind == "u" else values).astype(kind)


def wrong_values():
    """Anything but what one should pass."""
    arrays = st.builds(odd_array, st.sampled_from(DTYPES), st.sampled_from(SHAPES), st.sampled_from(FILLS))
    layouts = st.sampled_from([*[None] * 8, "apart", "read-only", "subclass", "backwards"])
    arrays = st.builds(lambda a, how: LAYOUTS[how](a) if how else a, arrays, layouts)
    tensors = st.builds(
        lambda a, leaf: tl.tensor(a, requires_grad=leaf and a.dtype.kind == "f"),
        st.builds(
            odd_array, st.sampled_from(["f4", "f8", "f2", "?", "u1", "i8"]), *map(st.sampled_from, (SHAPES, FILLS))
        ),
        st.booleans(),
    )
    made = st.sampled_from([*FACTORIES]).map(lambda name: FACTORIES[name]())
    return st.sampled_from(SCALARS) | st.sampled_from(SEQUENCES) | arrays | tensors | made


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
    """Whether a value may be passed where a parameter is annotated so; True wherever that cannot be told."""
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
            found = isinstance(plain, (bool, np.bool_)) or (isinstance(plain, (int, np.integer)) and plain in (0, 1))
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


def parameters_of(function):
    """By name; empty if the function does not tell."""
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {}


@st.composite
def arguments(draw, function, calls=None, keep=()):
    """A call of a function: a valid one of which some arguments are odd or wrong.

    ``calls`` are valid calls, ``(args, kwargs)``, with :func:`tl.draw` for tensors; those of its checks if it is a
    primitive. ``keep`` names parameters that stay as they are, such as functions to be differentiated.
    """
    chosen = draw(st.sampled_from(calls or calls_of(function)))
    args, kwargs = list(materialise(chosen[0])), dict(materialise(tuple(chosen[1].items())))
    parameters = parameters_of(function)
    names = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters.values() if p.kind is p.VAR_POSITIONAL), "")

    def name_of(place):
        return place if isinstance(place, str) else names[place] if place < len(names) else rest

    places: list[Any] = [p for p in [*range(len(args)), *kwargs] if name_of(p) not in keep]
    if not places or draw(st.integers(0, 3)) == 0:
        return _unusual(draw, args, kwargs, places)
    # Arguments that have defaults are given too.
    taken = {name_of(p) for p in places}
    places += [
        p.name
        for p in parameters.values()
        if p.name not in taken and p.name not in keep and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        and (p.default is not p.empty)
    ]  # fmt: skip
    forbidden = []
    for place in draw(st.lists(st.sampled_from(places), min_size=1, max_size=3, unique=True)):
        value = draw(wrong_values())
        (kwargs if isinstance(place, str) else args)[place] = value
        annotation = getattr(parameters.get(name_of(place)), "annotation", None)
        if not admits(annotation, value):
            forbidden.append(f"{name_of(place)} is {annotation}")
    wrong = draw(st.integers(0, 39))
    if wrong == 0:
        kwargs["no_such_argument"] = 1
        forbidden.append("no_such_argument")
    elif wrong == 1 and args:
        del args[-1]
    elif wrong == 2:
        args.append(draw(wrong_values()))
    return Case(args, kwargs, None, ", ".join(forbidden))


def _unusual(draw, args, kwargs, places):
    """The same call with arrays of other layouts, and integers of other types."""
    plain = list(args), dict(kwargs)
    for place in places:
        there = kwargs if isinstance(place, str) else args
        value = there[place]
        if isinstance(value, np.ndarray):
            there[place] = LAYOUTS[draw(st.sampled_from([*LAYOUTS]))](value.copy())
        elif type(value) is int and draw(st.booleans()):
            there[place] = NUMBERS[draw(st.sampled_from([*NUMBERS]))](value)
        elif isinstance(value, tuple) and value and all(type(v) is int for v in value) and draw(st.booleans()):
            how = draw(st.sampled_from(["int8", "uint8", "int64", "uint64"]))
            there[place] = draw(st.sampled_from([tuple, list]))(NUMBERS[how](v) for v in value)
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

    def stop(*_):
        raise Hung(f"it took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
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


def _arrays_in(value):
    if isinstance(value, np.ndarray):
        return [value]
    return [a for v in value for a in _arrays_in(v)] if isinstance(value, (list, tuple)) else []


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


def check_error(error, name, function, args, kwargs, names=()):
    """One of ours that names the function and the argument; or what Python says of a call that does not fit."""
    message = str(error)
    inside = error.__traceback__.tb_next  # below _called: the function itself
    if not isinstance(error, tl.TinygradLenetError):
        binding = type(error) is TypeError and re.search(
            r"\w+\(\) (takes|missing|got|needs|has no argument)|takes no keyword arguments", message
        )
        assert binding, f"{type(error).__name__} from inside: {message}"
        assert not inside or name.strip("_") in message, message
        return
    words = {name, name.strip("_"), *names}
    assert any(word in message for word in words), f"the message does not name {name}: {message}"
    given = [*parameters_of(function), *kwargs]
    for value in [*args, *kwargs.values()]:
        given += [str(value.shape), str(value.dtype)] if hasattr(value, "shape") and hasattr(value, "dtype") else []
        given += [type(value).__name__, repr(value)[:200]] if not hasattr(value, "shape") else []
    rest = message.removeprefix(name)
    assert any(str(word) in rest for word in given if word), f"the message names no argument: {message}"
    assert len(message) < 3000, f"a message of {len(message)} characters"


def check_result(result, args, kwargs, shares=False):
    """Tensors of admitted dtypes with memory of their own, and gradients that fit the leaves."""
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
            assert isinstance(error, tl.TinygradLenetError), f"backward: {type(error).__name__}: {error}"
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


def judge(function, case, name=None, names=(), shares=False, changes=()):
    """Call the function, and look at what comes of it.

    ``name`` is what its messages begin with, or one of ``names``; ``shares``: whether results may be views of arrays
    that were passed; ``changes``: positions of arguments that it is meant to change.
    """
    name = name or function.__name__
    COUNTS[name] = COUNTS.get(name, 0) + 1
    args, kwargs = case.args, case.kwargs
    values = [*args, *kwargs.values()]
    before, around = [frozen(v) for v in values], state()
    result, error = _called(function, args, kwargs)
    assert state() == around, "the state of the program was changed"
    for i, (value, old) in enumerate(zip(values, before, strict=True)):
        assert i in changes or frozen(value) == old, f"argument {i} was changed"
    if error is not None:
        try:
            check_error(error, name, function, args, kwargs, names)
        except AssertionError as complaint:
            raise complaint from error
        if case.plain is not None and not any(type(v) in (np.ndarray, tl.Tensor) and v.ndim == 0 for v in values):
            raise AssertionError("arguments that are merely unusual were refused") from error
        return
    assert not case.forbidden, f"accepted, though {case.forbidden}"
    check_result(result, args, kwargs, shares)
    if case.plain is not None and not changes:
        expected, error = _called(function, *case.plain)
        assert error is None, error
        same(result, expected)
