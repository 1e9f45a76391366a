"""NumPy as a judge: for every function that both have, the same values, shapes, dtypes and errors, for drawn arguments
of all dtypes, with zeros of both signs, infinities and NaN among them, and mistakes.
"""

import operator
import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_lenet as tl
from tinygrad_lenet.testing import strategies

FLOATS, INTEGERS = [np.float64, np.float32, np.float16], [np.int64, np.int32, np.int8, np.uint8]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.5, np.inf, -np.inf, np.nan]
# What a function may differ in, in units in the last place; of all others the bits are the same.
ULPS = dict.fromkeys(["einsum", "inner", "matmul", "std", "tensordot", "dot", "mean", "var", "trace"], 8)
ULPS["linalg.norm"] = 64
BASES = (IndexError, ValueError, TypeError, OverflowError)
COVERED = set()


def covers(*names):
    COVERED.update(names)
    return pytest.mark.parametrize("name", names)


def find(module, name):
    for part in name.split("."):
        module = getattr(module, part)
    return module


def outcome(function, *args, **kwargs):
    """What a call returns, as a list of arrays, or the error that it raises."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            found = function(*args, **kwargs)
        except BASES as error:
            return error
    return [np.asarray(a) for a in (found if isinstance(found, (tuple, list)) else [found])]


# NumPy's ** is not its power: x ** 0.5 is a square root, x ** 2 a square. Ours is NumPy's **.
def same(name, *args, ours=None, **kwargs):
    """The call to both gives the same, or an error of the same kind."""
    expected = outcome(operator.pow if name == "pow" else find(np, name), *args, **kwargs)
    found = outcome(find(tl, name), *args, **(kwargs if ours is None else ours))
    if isinstance(expected, BASES):
        assert isinstance(found, BASES), f"NumPy refuses: {expected!r}; we give {found}"
        kinds = [kind for kind in BASES if isinstance(expected, kind)]
        assert isinstance(found, tuple(kinds)), f"{found!r}, NumPy's {expected!r}"
        return
    assert not isinstance(found, BASES), f"NumPy gives {expected}, we {found!r}"
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if a.dtype.kind == "f" and name in ULPS:
            largest = np.max(np.abs(b), initial=1e-30, where=np.isfinite(b)).astype(float)
            with np.errstate(over="ignore"):
                np.testing.assert_allclose(a, b, rtol=0, atol=ULPS[name] * np.finfo(a.dtype).eps * largest)
        else:
            np.testing.assert_array_equal(a, b)


def elements(dtype, low=None, special=True):
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return st.booleans()
    if dtype.kind in "iu":
        return st.integers(-4 if dtype.kind == "i" else 0, 5)
    normal = st.integers(-40, 40).map(lambda n: n / 8)
    return normal | st.sampled_from(SPECIAL) if special else normal


@st.composite
def arrays(draw, shape=None, dtypes=(*FLOATS, *INTEGERS, np.bool_), special=True, min_dims=0):
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(strategies.shapes(min_dims, min_side=0)) if shape is None else shape
    return draw(hnp.arrays(dtype, shape, elements=elements(dtype, special=special)))


# Elementwise

UNARY = "abs arccos arcsin arctan ceil cos cosh exp expm1 floor log log10 log1p log2 logical_not sign sin sinh sqrt"
UNARY += " square tan tanh isnan isinf isfinite"


@covers(*UNARY.split())
@given(x=arrays())
def test_functions_of_one_array(name, x):
    same(name, x)


@covers("reciprocal")
@given(x=arrays(dtypes=FLOATS))
def test_reciprocals_of_floats(name, x):
    """Of integers ours are floats, as PyTorch's; NumPy's are integers, 0 but for ±1."""
    same(name, x)


@covers(
    *[
        "add",
        "arctan2",
        "floor_divide",
        "hypot",
        "logaddexp",
        "logical_and",
        "logical_or",
        "maximum",
        "minimum",
        "mod",
        "pow",
        "true_divide",
    ]
)
@given(data=st.data())
def test_functions_of_two_arrays(name, data):
    shapes = data.draw(
        strategies.broadcastable_shapes(min_side=0) | st.tuples(strategies.shapes(), strategies.shapes())
    )
    same(name, *(data.draw(arrays(shape)) for shape in shapes))


@covers("bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor")
@given(data=st.data())
def test_bits(name, data):
    shapes = data.draw(strategies.broadcastable_shapes(min_side=0))
    args = [data.draw(arrays(shape, dtypes=(*INTEGERS, np.bool_, np.float32))) for shape in shapes]
    same(name, *args[: 1 + (name != "bitwise_not")])


@covers("add", "floor_divide", "maximum", "mod", "pow", "hypot")
@given(x=arrays(), number=st.sampled_from([2, -1, 0, 0.5, True, np.float32(2), np.int8(3), np.float64(0.25)]))
def test_numbers_do_not_widen(name, x, number):
    same(name, x, number)
    same(name, number, x)


@covers("clip")
@given(x=arrays(), low=st.sampled_from([None, -1, 0.5, 2]), high=st.sampled_from([None, 1, 1.5]))
def test_clip(name, x, low, high):
    if low is high is None:  # NumPy before 2.1 refuses that
        np.testing.assert_array_equal(tl.clip(x, low, high).numpy(), x)
    else:
        same(name, x, low, high)


@covers("round")
@given(x=arrays(), decimals=st.integers(-1, 2))
def test_round(name, x, decimals):
    same(name, x, decimals)


@covers("where")
@given(data=st.data(), shapes=strategies.broadcastable_shapes(3, min_side=0))
def test_where(name, data, shapes):
    same(name, data.draw(arrays(shapes[0], [np.bool_])), *(data.draw(arrays(s)) for s in shapes[1:]))


@covers("astype")
@given(x=arrays(special=False), dtype=st.sampled_from([*FLOATS, *INTEGERS, np.bool_]))
def test_astype(name, x, dtype):
    same(name, x, dtype)


# Along axes

AXES = st.none() | st.integers(-4, 3) | st.lists(st.integers(-3, 2), max_size=3).map(tuple)
ONE_AXIS = st.integers(-4, 3)


@covers("all", "amax", "amin", "any", "count_nonzero", "max", "mean", "min", "prod", "std", "sum", "var")
@given(x=arrays(min_dims=1), axis=AXES, keepdims=st.booleans())
def test_reductions(name, x, axis, keepdims):
    same(name, x, axis=axis, keepdims=keepdims)


@covers("std", "var")
@given(x=arrays(special=False), axis=AXES, ddof=st.integers(0, 2))
def test_deviations(name, x, axis, ddof):
    same(name, x, axis=axis, ddof=ddof)


@covers("argmax", "argmin", "median")
@given(x=arrays(min_dims=1), axis=st.none() | ONE_AXIS, keepdims=st.booleans())
def test_reductions_over_one_axis(name, x, axis, keepdims):
    same(name, x, axis=axis, keepdims=keepdims)


@covers("cumsum", "cumprod")
@given(x=arrays(min_dims=1), axis=st.none() | ONE_AXIS)
def test_running_sums(name, x, axis):
    valid = axis is None or -x.ndim <= axis < x.ndim
    wider = {np.float16: np.float32, np.float32: np.float64}.get(x.dtype.type)
    if name == "cumprod" and wider and valid:  # ours are rounded once, NumPy's after each element
        with np.errstate(all="ignore"):
            exact = getattr(np, name)(x, axis, dtype=wider).astype(x.dtype)
            np.testing.assert_array_equal(getattr(tl, name)(x, axis).numpy(), exact)
    else:
        same(name, x, axis)


@covers("sort", "argsort")
@given(x=arrays(min_dims=1), axis=ONE_AXIS)
def test_sorting(name, x, axis):
    same(name, x, axis, ours={}, stable=True)  # ours always are


@pytest.mark.parametrize("name", ["sum", "amax", "mean", "var", "argmax", "median", "count_nonzero", "cumsum", "sort"])
def test_a_tensor_without_axes_has_none_to_reduce(name):
    """NumPy's functions take an axis 0 of it or refuse it, each as it likes; ours refuse it."""
    for axis in (0, -1):
        with pytest.raises(tl.AxisError, match=f"there is no axis {axis}; this tensor has no axes"):
            getattr(tl, name)(np.array(1.0), axis=axis)
    if name != "sort":
        same(name, np.array(1.5))


# Shapes


@covers("flip")
@given(x=arrays(), axis=AXES)
def test_flip(name, x, axis):
    same(name, x, axis)


@covers("roll")
@given(x=arrays(), shift=st.integers(-5, 5), axis=st.none() | ONE_AXIS)
def test_roll(name, x, shift, axis):
    same(name, x, shift, axis)
    same(name, x, (shift, 1), axis)


@covers("expand_dims")
@given(x=arrays(), axis=st.integers(-5, 4) | st.lists(st.integers(-5, 4), min_size=1, max_size=2).map(tuple))
def test_expand_dims(name, x, axis):
    same(name, x, axis)


@covers("squeeze")
@given(data=st.data(), axis=AXES)
def test_squeeze(name, data, axis):
    same(name, data.draw(arrays(data.draw(strategies.shapes(1, max_side=2)))), axis)


@covers("moveaxis", "swapaxes")
@given(x=arrays(), source=ONE_AXIS, destination=ONE_AXIS)
def test_axes_that_move(name, x, source, destination):
    same(name, x, source, destination)
    if name == "moveaxis":
        same(name, x, (source, 0), (destination, -1))


@covers("transpose")
@given(x=arrays(), axes=st.permutations(range(3)))
def test_transpose(name, x, axes):
    """Without axes; with two ours is PyTorch's, and ``permute`` is NumPy's of all."""
    same(name, x)
    np.testing.assert_array_equal(
        tl.permute(np.zeros((2, 3, 4)), axes).shape, np.zeros((2, 3, 4)).transpose(axes).shape
    )


@covers("reshape", "broadcast_to")
@given(x=arrays(), shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), free=st.booleans())
def test_shapes(name, x, shape, free):
    same(name, x, shape)
    if free and name == "reshape":
        same(name, x, (-1, *shape[1:]))


@covers("repeat")
@given(
    x=arrays(min_dims=1),
    repeats=st.integers(-1, 3) | st.lists(st.integers(0, 2), min_size=1, max_size=4),
    axis=st.none() | ONE_AXIS,
)
def test_repeat(name, x, repeats, axis):
    assume(repeats != -1 or x.size)  # which NumPy lets pass
    same(name, x, repeats, axis)


@covers("tile")
@given(x=arrays(), reps=st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=4).map(tuple))
def test_tile(name, x, reps):
    same(name, x, reps)


@covers("split")
@given(x=arrays(), parts=st.integers(1, 4) | st.lists(st.integers(-1, 5), max_size=3), axis=ONE_AXIS)
def test_split(name, x, parts, axis):
    same(name, x, parts, axis)


@covers("tril", "triu")
@given(x=arrays(min_dims=2), k=st.integers(-3, 3))
def test_triangles(name, x, k):
    same(name, x, k)


@covers("diagonal", "trace")
@given(x=arrays(), offset=st.integers(-3, 3), axes=st.tuples(ONE_AXIS, ONE_AXIS))
def test_diagonals(name, x, offset, axes):
    same(name, x, offset)
    if name == "diagonal":
        same(name, x, offset, *axes)


@covers("concatenate", "concat", "stack")
@given(data=st.data(), x=arrays(), axis=ONE_AXIS)
def test_joining(name, data, x, axis):
    shapes = [x.shape, data.draw(st.just(x.shape) | strategies.shapes())]
    same(name, [x, *(data.draw(arrays(shape)) for shape in shapes)], axis)


@covers("hstack", "vstack")
@given(data=st.data(), x=arrays())
def test_joining_along_a_fixed_axis(name, data, x):
    shapes = [x.shape, data.draw(st.just(x.shape) | strategies.shapes())]
    same(name, [x, *(data.draw(arrays(shape)) for shape in shapes)])


@covers("diag")
@given(x=arrays(), k=st.integers(-4, 4))
def test_diag(name, x, k):
    same(name, x, k)


@covers("diff")
@given(data=st.data(), x=arrays(min_dims=1), n=st.integers(0, 4), axis=ONE_AXIS)
def test_diff(name, data, x, n, axis):
    assume(n or -x.ndim <= axis < x.ndim)  # where NumPy does nothing, it does not look at the axis either
    edge = st.none() | st.sampled_from([0, 2.5]).map(x.dtype.type) | arrays() | arrays(x.shape)
    before, after = (data.draw(edge) if n and x.dtype.kind == "f" else None for _ in "ab")
    given = {key: value for key, value in (("prepend", before), ("append", after)) if value is not None}
    same(name, x, n, axis, **given)


@covers("allclose")
@given(data=st.data(), shapes=strategies.broadcastable_shapes(min_side=0), equal_nan=st.booleans())
def test_allclose(name, data, shapes, equal_nan):
    x, y = (data.draw(arrays(shape)) for shape in shapes)
    same(name, x, y, equal_nan=equal_nan)
    same(name, x, x + data.draw(st.sampled_from([0, 1e-9, 1e-3])), 1e-2, 1e-4)
    assert type(tl.allclose(x, x)) is bool


@covers("pad")
@given(data=st.data(), x=arrays(min_dims=1), mode=st.sampled_from(["constant", "edge", "reflect", "wrap"]))
def test_pad(name, data, x, mode):
    """Mirrored, ours is PyTorch's: by no more than there is."""
    most = [{"reflect": min(2, max(n - 1, 0)), "wrap": min(2, n)}.get(mode, 2) for n in x.shape]
    widths = [(data.draw(st.integers(0, m)), data.draw(st.integers(0, m))) for m in most]
    names = {"edge": "replicate", "wrap": "circular"}
    same(name, x, widths, mode=mode, ours={"mode": names.get(mode, mode)})


@covers("take_along_axis")
@given(data=st.data(), x=arrays(), axis=ONE_AXIS)
def test_take_along_axis(name, data, x, axis):
    shape = [data.draw(st.integers(1, 3)) if i == axis % max(x.ndim, 1) else n for i, n in enumerate(x.shape)]
    same(name, x, data.draw(hnp.arrays(np.int64, shape, elements=st.integers(-3, 3))), axis)


@covers("meshgrid")
@given(data=st.data(), indexing=st.sampled_from(["xy", "ij"]), count=st.integers(1, 3))
def test_meshgrid(name, data, indexing, count):
    same(name, *(data.draw(arrays((data.draw(st.integers(0, 3)),))) for _ in range(count)), indexing=indexing)


# Products

NUMBERS = [*FLOATS[:2], np.int64, np.int8]


@covers("matmul", "inner", "dot")
@given(data=st.data(), n=st.integers(0, 3), wrong=st.integers(0, 5))
def test_products(name, data, n, wrong):
    first, second = (data.draw(strategies.shapes(0, 2, min_side=0, max_side=3)) for _ in range(2))
    n2 = n + 1 if wrong == 0 else n
    if name == "dot":  # PyTorch's: of two vectors
        first, second = (n,), (n2,)
    elif name == "inner":
        first, second = (*first, n), (*second, n2)
    else:
        lead = first[: max(0, len(first) - 1)]
        first, second = (*first, n), (n2, *second[:1]) if len(second) < 2 else (*lead, n2, 2)
    x, y = (data.draw(arrays(s, NUMBERS, special=False)) for s in (first, second))
    same(name, x, y)
    if name == "inner":
        same(name, x[..., 0] if n else x, y.flat[0] if y.size else y)
        same(name, x.flat[0] if x.size else x, y)


@covers("outer")
@given(x=arrays(dtypes=NUMBERS, special=False), y=arrays(dtypes=NUMBERS, special=False))
def test_products_of_all_with_all(name, x, y):
    same(name, x, y)


@covers("tensordot")
@given(data=st.data(), axes=st.integers(0, 2) | st.sampled_from([([0], [1]), ([1, 0], [0, 1]), (0, 0), ([2], [0])]))
def test_tensordot(name, data, axes):
    x, y = (data.draw(arrays((2, 2, 2)[: data.draw(st.integers(1, 3))], NUMBERS, special=False)) for _ in "xy")
    same(name, x, y, axes)
    same(name, x, y)


PATTERNS = ["ij,jk->ik", "ij,jk", "ii", "ii->i", "ij->ji", "ba", "...i,i->...", "i,j", "ij,ij->", "ij,jk,k->i", "ij->k"]
PATTERNS += ["i->ii", "ij,k->ijk", "i...->...", "ij,jk->", "", "ij->"]


@covers("einsum")
@given(data=st.data(), pattern=st.sampled_from(PATTERNS), sides=st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_einsum(name, data, pattern, sides):
    length = dict(zip("ijk", sides, strict=True), a=2, b=3)
    wrong = data.draw(st.integers(0, 6)) == 0
    shapes = [tuple(length[c] for c in t.replace("...", "ab")) for t in pattern.split("->")[0].split(",")]
    shapes = [(*shapes[0], 2), *shapes[1:]] if wrong else shapes
    if "ii" not in pattern:  # lengths of 1 broadcast; of i in ii->i NumPy then returns what was in the memory
        shapes = [tuple(1 if data.draw(st.integers(0, 5)) == 0 else n for n in s) for s in shapes]
    # NumPy adds up int8 in int8, which overflows; ours in int64, as both do in sum.
    same(name, pattern, *(data.draw(arrays(s, [*FLOATS[:2], np.int64], special=False)) for s in shapes))


@covers("linalg.norm")
@given(
    x=strategies.shapes(1).flatmap(lambda shape: arrays(shape, FLOATS[:2], special=False)),
    ord=st.sampled_from([None, 1, 2, 3, -1, np.inf, -np.inf, 0, "fro", "two"]),
    axis=st.none() | ONE_AXIS | st.tuples(ONE_AXIS, ONE_AXIS),
    keepdims=st.booleans(),
)
def test_norm(name, x, ord, axis, keepdims):
    vectors = isinstance(axis, int) or (axis is None and x.ndim == 1)
    assume(ord in (None, "fro", "two") or vectors)  # of matrices, there is only "fro"
    same(name, x, ord, axis, keepdims)


# New arrays


@covers("zeros", "ones")
@given(shape=strategies.shapes(min_side=0), dtype=st.sampled_from([*FLOATS, *INTEGERS, np.bool_]))
def test_filled(name, shape, dtype):
    same(name, shape, dtype=dtype)


@covers("full", "eye", "arange")
@given(n=st.integers(0, 4), m=st.integers(0, 4), dtype=st.sampled_from([*FLOATS, *INTEGERS]))
def test_new(name, n, m, dtype):
    args = {"full": ((n, m), 2), "eye": (n, m), "arange": (n, 3 * m, 2)}[name]
    same(name, *args, dtype=dtype)


@covers("linspace")
@given(start=st.integers(-9, 9), stop=st.floats(-5, 5), num=st.integers(0, 9), dtype=st.sampled_from(FLOATS))
def test_linspace(name, start, stop, num, dtype):
    same(name, start, stop, num, dtype=dtype)


@covers("zeros_like", "ones_like", "full_like")
@given(x=arrays(), dtype=st.none() | st.sampled_from([*FLOATS, *INTEGERS, np.bool_]))
def test_filled_like(name, x, dtype):
    same(name, x, *[2] * (name == "full_like"), dtype=dtype)


@covers("empty")
def test_empty_is_zeros(name):
    np.testing.assert_array_equal(tl.empty(2, 3).numpy(), np.zeros((2, 3)))


# Methods


@given(x=arrays(), data=st.data())
def test_indexing(x, data):
    index = data.draw(strategies.indices(x.shape))
    expected, found = outcome(lambda: x[index]), outcome(lambda: tl.tensor(x)[index])
    assert (found[0].shape, found[0].dtype) == (expected[0].shape, expected[0].dtype)
    np.testing.assert_array_equal(found[0], expected[0])


def test_every_function_that_both_have_is_compared():
    both = {name for name in tl.__all__ if hasattr(np, name) and callable(getattr(tl, name))}
    both |= {f"linalg.{name}" for name in tl.linalg.__all__ if hasattr(np.linalg, name)}
    assert both - {"from_dlpack", "load", "save"} == COVERED  # of other libraries' memory, and of files
