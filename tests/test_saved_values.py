"""What a checkpoint or a file of weights holds comes back as an equal value of the same type, or is refused by name."""

import collections
import enum
import itertools
import math
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet.errors import ArgumentError, DTypeError

Pair = collections.namedtuple("Pair", ["x", "y"])


class Color(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Word(enum.StrEnum):
    RED = "red"


class Bits(enum.IntFlag):
    A = 1


def subclass(kind):
    return type(f"Own{kind.__name__.title()}", (kind,), {})


def identical(a, b):
    """Equal, of the same type, all the way down; floats and arrays bit by bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (np.ndarray, np.generic)):
        order = a.flags.f_contiguous == b.flags.f_contiguous if isinstance(a, np.ndarray) and a.ndim > 1 else True
        return order and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, float):
        return a.hex() == b.hex()
    if isinstance(a, dict):
        return identical(list(a.items()), list(b.items()))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(identical, a, b))
    return a == b


def there_and_back(folder, state):
    tl.save_checkpoint(folder / "a", state)
    return tl.load_checkpoint(folder / "a")


SCALARS = [
    *(np.dtype(code).type(n) for code in "?bBhHiIlL" for n in (0, 1, 100)),
    *(kind(n) for kind in (np.float16, np.float32, np.float64) for n in (0.1, -0.0, math.inf, -math.inf)),
    *(np.frombuffer(bits, kind)[0] for kind, bits in ((">f8", b"\x7f\xf8\0\0\0\0\1\2"), ("<f4", b"\1\2\xc0\xff"))),
    np.int64(-(2**63)),
    np.uint64(2**64 - 1),
]
KEPT = [
    *SCALARS,
    *(0.1, -0.0, 5e-324, sys.float_info.max, math.inf, -math.inf, math.nan),
    *(0, -1, True, False, None, 10**4299, -(2**10000)),
    *("", "a\0b", "\ud800", "\udc00\ud800", "\U0001f600", "\u2028"),
    *([], (), {}, [[], [()]], ((1,), [2.0]), {"": {"a": (None,)}}),
    {1: "a", -(2**70): "b", "1": "c", False: "d"},
    {True: 1},
    *(np.zeros(shape, dtype) for shape in ((), (0,), (0, 3), (1,) * 32) for dtype in ("?", "u1", "f2", ">f8")),
    np.arange(6, dtype=">i2").reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(4.0)[::-2],
    np.frombuffer(b"\1\2\xc0\xff\1\2\xc0\x7f", "<f4"),  # NaNs of all kinds
    np.array([1.5], np.longdouble),
]


@pytest.mark.parametrize("value", KEPT, ids=lambda value: f"{type(value).__name__} {str(value)[:20]!r}")
def test_what_is_kept_has_the_same_bits_and_type(tmp_path, value):
    state = {"a": [value, (value,)], 3: {"b": value}}
    assert identical(there_and_back(tmp_path, state), state)
    assert identical(there_and_back(tmp_path, value), value)


NUMBERS = st.sampled_from([np.bool_, np.int8, np.uint16, np.int32, np.uint64, np.float16, np.float32, np.float64])


@given(NUMBERS, st.binary(min_size=8, max_size=8))
def test_any_scalar_comes_back(tmp_path_factory, kind, bits):
    value = np.frombuffer(bits, kind)[0] if kind is not np.bool_ else kind(bits[0] & 1)
    assert identical(there_and_back(tmp_path_factory.getbasetemp(), {"a": value}), {"a": value})


@given(st.text(st.characters(codec=None, categories=["Cs", "L"]), max_size=6))
def test_any_text_comes_back(tmp_path_factory, text):
    if not any("\ud800" <= a <= "\udbff" and "\udc00" <= b <= "\udfff" for a, b in itertools.pairwise(text)):
        for state in (text, {text: 1}):
            assert identical(there_and_back(tmp_path_factory.getbasetemp(), state), state)


def masked(mask=(True, False)):
    return np.ma.array([1.0, 2.0], mask=mask)


def quiet_matrix():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.matrix([[1.0]])


def memory_map(folder):
    np.save(folder / "m.npy", np.arange(3.0))
    return np.load(folder / "m.npy", mmap_mode="r")


REFUSED = {
    "masked array": (masked(), "a MaskedArray of float64"),
    "masked array without a mask": (np.ma.array([1.0]), "a MaskedArray"),
    "masked": (np.ma.masked, "a MaskedConstant"),
    "matrix": (quiet_matrix(), "a matrix of float64"),
    "array of an own class": (np.zeros(2).view(subclass(np.ndarray)), "a OwnNdarray of float64"),
    "record array": (np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]), "a recarray of"),
    "structured array": (np.zeros(2, [("a", "i4")]), "a ndarray of"),
    "array of objects": (np.array([None]), "a ndarray of object"),
    "array of complex numbers": (np.zeros(2, complex), "a ndarray of complex128"),
    "array of dates": (np.zeros(2, "M8[s]"), r"a ndarray of datetime64\[s\]"),
    "array of durations": (np.zeros(2, "m8[s]"), r"a ndarray of timedelta64\[s\]"),
    "array of text": (np.array(["a"]), "a ndarray of <U1"),
    "array of bytes": (np.array([b"a"]), r"a ndarray of \|S1"),
    "array of variable text": (np.array(["a"], np.dtypes.StringDType()), "a ndarray of StringDType"),
    "NumPy's text": (np.str_("a"), "a str_ of <U1"),
    "NumPy's bytes": (np.bytes_(b"a"), "a bytes_"),
    "NumPy's complex number": (np.complex128(1), "a complex128"),
    "NumPy's date": (np.datetime64("2020-01-01"), "a datetime64"),
    "record": (np.zeros(1, [("a", "i4")])[0], "a void"),
    "float of an own class": (subclass(float)(0.5), "a OwnFloat"),
    "integer of an own class": (subclass(int)(3), "a OwnInt"),
    "text of an own class": (subclass(str)("a"), "a OwnStr"),
    "list of an own class": (subclass(list)([1]), "a OwnList"),
    "tuple of an own class": (subclass(tuple)([1]), "a OwnTuple"),
    "dict of an own class": (subclass(dict)(a=1), "a OwnDict"),
    "NumPy number of an own class": (subclass(np.float64)(0.5), "a OwnFloat64"),
    "named tuple": (Pair(1, 2), "a Pair"),
    "enum": (Color.RED, "a Color"),
    "enum of integers": (Number.ONE, "a Number"),
    "enum of words": (Word.RED, "a Word"),
    "enum of bits": (Bits.A, "a Bits"),
    "ordered dict": (collections.OrderedDict(a=1), "a OrderedDict"),
    "dict with a default": (collections.defaultdict(int, a=1), "a defaultdict"),
    "counter": (collections.Counter("ab"), "a Counter"),
    "version": (sys.version_info, "a version_info"),
    "bytes": (b"a", "a bytes"),
    "bytearray": (bytearray(b"a"), "a bytearray"),
    "complex number": (1j, "a complex"),
    "set": ({1}, "a set"),
    "range": (range(3), "a range"),
    "deque": (collections.deque([1]), "a deque"),
    "dtype": (np.dtype("f4"), "a Float32DType"),
    "type": (int, "a type"),
    "module": (tl.nn.Linear(1, 1), "a Linear.*convert it, or save its state_dict"),
    "generator": (np.random.default_rng(0), "a Generator"),
    "huge integer": (10**4300, "cannot be written: Exceeds the limit"),
    "tuple as a key": ({(1, 2): 3}, r"a dict with the key \(1, 2\)"),
    "float as a key": ({0.5: 3}, "a dict with the key 0.5"),
    "None as a key": ({None: 3}, "a dict with the key None"),
    "NumPy number as a key": ({np.int64(3): 3}, r"a dict with the key np.int64\(3\)"),
    "enum as a key": ({Number.ONE: 3}, "a dict with the key .*"),
    "text of an own class as a key": ({subclass(str)("a"): 3}, "a dict with the key 'a'"),
}
if np.dtype(np.longlong).type is not np.dtype(np.longlong(0).dtype.str).type:
    REFUSED["a number of another name"] = (np.longlong(3), "a (longlong|int64)")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named_with_its_place_and_nothing_is_written(tmp_path, name):
    value, words = REFUSED[name]
    if name == "huge integer":  # Python's own limit, which knows no place
        with pytest.raises(DTypeError, match=f"save_checkpoint: state {words}"):
            tl.save_checkpoint(tmp_path / "a", value)
        return
    for state, place in ((value, "state"), ({"a": [0, {3: (value,)}]}, r"state\['a'\]\[1\]\[3\]\[0\]")):
        with pytest.raises(DTypeError, match=rf"save_checkpoint: {place} (is )?{words}"):
            tl.save_checkpoint(tmp_path / "a", state)
    assert not list(tmp_path.iterdir())


def test_a_memory_map_is_refused_by_a_checkpoint_and_taken_as_weights(tmp_path):
    with pytest.raises(DTypeError, match="state is a memmap of float64"):
        tl.save_checkpoint(tmp_path / "a", memory_map(tmp_path))
    tl.save(tmp_path / "a.npz", {"a": memory_map(tmp_path)})
    assert identical(tl.load(tmp_path / "a.npz"), {"a": np.arange(3.0)})


def test_tensors_come_back_as_arrays(tmp_path):
    state = {"a": tl.ones(2, requires_grad=True), "b": tl.nn.Parameter(np.float16([1, 2])), "c": tl.tensor(3)}
    assert identical(there_and_back(tmp_path, state), {name: value.numpy() for name, value in state.items()})


# Weights


KINDS = ["npz", "safetensors"]


@pytest.fixture(params=KINDS)
def path(request, tmp_path):
    if request.param == "safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"a.{request.param}"


def test_weights_of_every_dtype_come_back(path):
    state = {
        f"{dtype} {shape}": np.ones(shape, dtype)
        for dtype in ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
        for shape in ((), (0,), (2, 3))
    }
    state["nan"] = np.frombuffer(b"\1\2\xc0\xff\1\2\xc0\x7f\0\0\0\x80", "<f4")
    tl.save(path, state)
    found = tl.load(path)
    assert sorted(found) == sorted(state)
    assert all(identical(found[name], array) for name, array in state.items())


def test_weights_in_other_forms_come_back_as_plain_arrays(path):
    state = {"big": np.arange(3, dtype=">i4"), "turned": np.ones((2, 3)).T, "scalar": np.float32(2), "list": [1, 2]}
    state |= {"tensor": tl.ones(2), "number": 3, "strided": np.arange(6.0)[::2], "bool": True}
    tl.save(path, state)
    found = tl.load(path)
    for name, value in state.items():
        expected = value.numpy() if isinstance(value, tl.Tensor) else np.asarray(value)
        assert type(found[name]) is np.ndarray
        assert found[name].dtype == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (masked(), "must be a plain array, got a MaskedArray; convert it"),
        (masked(False), "must be a plain array, got a MaskedArray"),
        (np.ma.masked, "must be a plain array, got a MaskedConstant"),
        (quiet_matrix(), "must be a plain array, got a matrix"),
        (np.zeros(2).view(subclass(np.ndarray)), "must be a plain array, got a OwnNdarray"),
        (np.zeros(2, complex), "must hold numbers, got complex128"),
        (np.zeros(2, np.longdouble), "must hold numbers, got"),
        (np.zeros(2, [("a", "i4")]), "must hold numbers"),
        (np.zeros(2, "M8[s]"), "must hold numbers"),
        (np.array(["a"]), "must hold numbers"),
        (np.array([None]), "must hold numbers"),
        (None, "must hold numbers"),
        (b"a", "must hold numbers"),
        ({"a": 1}, "must hold numbers"),
        (2**70, "must hold numbers"),
        ([[1], [2, 3]], "must be an array of numbers"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_weights_that_are_refused_are_named(path, value, words):
    if isinstance(value, np.ndarray) and value.dtype == np.longdouble and value.itemsize == 8:
        pytest.skip("here it is float64")
    with pytest.raises(DTypeError, match=rf"save: in the state layer\.weight {words}"):
        tl.save(path, {"good": np.ones(2), "layer.weight": value})
    assert not path.exists()


@pytest.mark.parametrize("name", ["\ud800", "a\udc00", "a\0b", "__metadata__", 3, None])
def test_names_that_no_file_can_hold_are_refused(path, name):
    with pytest.raises(ArgumentError, match="a name in the state"):
        tl.save(path, {name: np.ones(2)})
    assert not path.exists()


def test_dtypes_of_other_libraries_are_refused(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for name in ("bfloat16", "float8_e5m2", "float8_e4m3fn", "int4"):
        array = np.ones(2, getattr(ml_dtypes, name))
        with pytest.raises(DTypeError, match=f"state is a ndarray of {name}"):
            tl.save_checkpoint(tmp_path / "a", array)
        with pytest.raises(DTypeError, match=f"state is a {name} of {name}"):
            tl.save_checkpoint(tmp_path / "a", array[0])
        with pytest.raises(DTypeError, match="must hold numbers"):
            tl.save(tmp_path / "a.npz", {"a": array})
