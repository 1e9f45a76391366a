"""What one should not pass to a function, and what makes no difference if one does."""

import array
import decimal
import fractions
from typing import Any

import numpy as np
from hypothesis import strategies as st

import tinygrad_lenet as tl


class Sub(np.ndarray):
    """A subclass of the user's own."""


# Unusual, but equal


def _shifted(a):
    """Not aligned to its element size: a field of packed records."""
    out = np.zeros(a.shape, np.dtype([("pad", "i1"), ("value", a.dtype)]))["value"]
    out[...] = a
    return out


def _apart(a):
    out = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)[..., ::2]
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
    "apart": lambda a: _apart(a) if a.ndim else a,
    "unaligned": lambda a: _shifted(a) if a.ndim else a,
    "read-only": _read_only,
    "subclass": lambda a: a.view(Sub),
    "matrix": lambda a: a.view(np.matrix) if a.ndim == 2 else a.view(Sub),
    "masked": lambda a: np.ma.masked_array(a),
    "tensor": tl.tensor,
    "leaf": lambda a: tl.tensor(a, requires_grad=a.dtype.kind == "f"),
    "within a graph": lambda a: tl.tensor(a, requires_grad=a.dtype.kind == "f") + a.dtype.type(0),
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


class Deep(list):
    """Lists in lists, deeper than recursion can go."""

    def __init__(self):
        super().__init__([1.0])
        for _ in range(2000):
            self[:] = [list(self)]

    def __repr__(self):
        return "<Deep>"


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
    "of huge ints": lambda: [2**100, 1], "endless": _endless, "deep": Deep, "range": lambda: range(3),
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
        return np.asarray(np.abs(values) if kind.kind == "u" else values).astype(kind)


def _arrays(dtypes):
    return st.builds(odd_array, *map(st.sampled_from, (dtypes, SHAPES, FILLS)))


# Anything but what one should pass. Made once: to make a strategy takes longer than to draw from it.
WRONG_VALUES = st.one_of(
    st.sampled_from(SCALARS),
    st.sampled_from(SEQUENCES),
    st.builds(
        lambda a, how: LAYOUTS[how](a) if how else a,
        _arrays(DTYPES),
        st.sampled_from([*[None] * 8, "apart", "read-only", "subclass", "backwards"]),
    ),
    st.builds(
        lambda a, leaf: tl.tensor(a, requires_grad=leaf and a.dtype.kind == "f"),
        _arrays(["f4", "f8", "f2", "?", "u1", "i8"]),
        st.booleans(),
    ),
    st.sampled_from([*FACTORIES]).map(lambda name: FACTORIES[name]()),
)
