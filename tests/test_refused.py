"""Mistakes in calls of public functions: each is refused in a sentence. Unusual arguments are not."""

import numpy as np
import odd
import pytest
from hostile import memory_limit, same, time_limit
from test_bad_input import IDS, leaf, part_of_a_gradient, product, setitem

import tinygrad_lenet as tl


@pytest.fixture(scope="module", autouse=True)
def limits():
    with memory_limit():
        yield


X = np.ones((2, 3), np.float32)
REFUSED = [
    ("a number for a matrix", lambda: tl.linear(1.0, X), tl.ShapeError, r"linear: expected x \(\.\.\., "),
    ("a number that the dtype cannot hold", lambda: tl.tensor([1], dtype="int8") + 300, OverflowError, "add: .*int8"),
    ("None for a tensor", lambda: tl.prod(None), tl.DTypeError, "prod: x: .*NoneType"),
    ("a complex number beside floats", lambda: tl.hardtanh(X, 0, np.array([1j])), tl.DTypeError, "hardtanh: max_val"),
    ("a long double beside floats", lambda: tl.mul(X, np.longdouble(1)), tl.DTypeError, "mul: y: .*float128|float64"),
    ("text as numbers", lambda: tl.tensor(["1", "2"], dtype="float32"), tl.DTypeError, "tensor: .*list gives <U1"),
    ("nothing as NaN", lambda: tl.tensor(None, dtype="float32"), tl.DTypeError, "tensor: .*NoneType gives object"),
    ("dates as integers", lambda: tl.tensor(np.zeros(2, "M8[D]"), dtype="int64"), tl.DTypeError, "datetime64"),
    ("complex without its imaginary part", lambda: tl.tensor(X * 1j, dtype="float32"), tl.DTypeError, "complex64"),
    ("a mask that hides values", lambda: tl.tensor(np.ma.masked_less(X, 2)), tl.ArgumentError, "masked"),
    ("a list that holds itself", lambda: tl.tensor(odd.FACTORIES["endless"]()), tl.DTypeError, "tensor: list"),
    ("no dtype", lambda: tl.tensor(X).astype(None), tl.DTypeError, "astype: None is not a dtype"),
    ("True for an axis", lambda: tl.softmax(X, True), tl.DTypeError, "softmax: axis must be an integer, got True"),
    ("half an axis", lambda: tl.sum(X, 0.5), tl.DTypeError, "sum: axis must be an integer, got 0.5"),
    ("half a cut", lambda: tl.split(X, [1.5], 1), tl.DTypeError, "split: indices_or_sections .* 1.5"),
    ("half a width", lambda: tl.pad(X, ((0.9, 0), (0, 0))), tl.DTypeError, "pad: .* integers"),
    ("cropping more than all", lambda: tl.pad(X, np.int8(-2)), tl.ShapeError, "pad: the negative widths of pad=-2"),
    ("half a length", lambda: tl.zeros(1.5), tl.DTypeError, "zeros: .*integer, got 1.5"),
    ("True for a length", lambda: tl.zeros(True), tl.DTypeError, "zeros: .*integer, got True"),
    ("two point nought classes", lambda: tl.one_hot([0], 2.0), tl.DTypeError, "one_hot: num_classes"),
    ("True for a stride", lambda: tl.unfold(np.ones((1, 1, 3, 3)), 1, stride=(True, 1)), tl.ArgumentError, "stride"),
    ("a kernel without pixels", lambda: tl.conv2d(IMAGES, IMAGES[:, :, :0]), tl.ShapeError, "conv2d: weight .* 0, 4"),
    ("a rule of another shape", lambda: part_of_a_gradient(), tl.GradientError, "_join: the rule of 'tensors' .*, 3"),
    ("an axis for each of a thousand", lambda: tl.sum(X, (7,) * 999), tl.ArgumentError, "^sum.{,1990}$"),
    ("three paddings", lambda: tl.max_pool2d(np.ones((1, 1, 4, 4)), 2, 2, (1, 1, 1)), tl.ArgumentError, "padding"),
    ("no for True", lambda: tl.argmax(X, 0, "no"), tl.DTypeError, "argmax: keepdims must be True or False, got 'no'"),
    ("a list for a slope", lambda: tl.leaky_relu(X, []), tl.DTypeError, "leaky_relu: negative_slope must be a number"),
    ("words in place of a gradient", lambda: tl.ones(2, requires_grad="no"), tl.DTypeError, "ones: requires_grad"),
    ("statistics that stay", lambda: tl.batch_norm(X, X[0], X[0], training=True), tl.DTypeError, "running_m"),
    ("integers to be normalised", lambda: tl.group_norm(IDS[None], 1), tl.DTypeError, "input must"),
    ("a hook that cannot be called", lambda: leaf().register_hook(1), tl.DTypeError, "register_hook: hook"),
    ("a number for a function", lambda: tl.jacobian(3), tl.DTypeError, "jacobian: fn must be a function"),
    ("a number for an op", lambda: tl.primitive(3), tl.DTypeError, "primitive: forward must be a function"),
    ("half a slice", lambda: tl.tensor(X)[0.5:], tl.DTypeError, "getitem: an index is made of integers"),
    ("bytes for shifts", lambda: tl.roll(X, memoryview(b"ab")), tl.DTypeError, "roll: shift must be an integer"),
    ("minus one part", lambda: tl.split(X, np.int8(-1)), tl.ArgumentError, "split: .*indices_or_sections"),
    ("bytes for tensors", lambda: tl.stack(memoryview(b"ab")), tl.DTypeError, "stack: tensors must be a sequence"),
    ("bytes for a shape", lambda: tl.zeros(bytearray(b"ab")), tl.DTypeError, "zeros: .*integer"),
    ("no index", lambda: tl.gather(X, 0, ()), tl.DTypeError, "gather: index must hold integers, got float64"),
    ("half an index", lambda: tl.embedding((0.5, 1.0), X), tl.DTypeError, "embedding: indices .* 0.5"),
    ("an old word for text", lambda: tl.tensor(X).astype("a"), tl.DTypeError, "astype: 'a' is not a dtype"),
    ("an array for tensors", lambda: tl.grad(leaf().sum(), np.array(1)), tl.ArgumentError, "grad: inputs must be"),
    ("minus one for True", lambda: tl.grad(product, 0, create_graph=-1), tl.DTypeError, "grad: create_graph must be"),
    ("70 axes, none of a row", lambda: tl.jacobian(lambda x: x[:0])(np.ones((1,) * 35)), tl.ShapeError, "reshape: "),
    ("text for elements", lambda: setitem(0, "a"), tl.DTypeError, r"x\[...\] = value: "),
    ("an op within is not named", lambda: tl.std(X, 5), tl.AxisError, "^std: there is no axis 5"),
]


@pytest.mark.parametrize(("call", "error", "words"), [p[1:] for p in REFUSED], ids=[p[0] for p in REFUSED])
def test_what_was_accepted_or_failed_inside_is_refused_in_a_sentence(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert isinstance(caught.value, tl.TinygradLenetError)


EQUAL = [
    ("indices that are not signed", lambda: tl.one_hot(np.array([1], np.uint8)), lambda: tl.one_hot([1])),
    ("a small number of groups", lambda: grouped(np.int8(2)), lambda: grouped(2)),
    ("a slope from NumPy", lambda: tl.leaky_relu(X, np.float64(0.1)), lambda: tl.leaky_relu(X, 0.1)),
    ("no dtype", lambda: tl.zeros(2, dtype=None), lambda: tl.zeros(2)),
    ("a list of axes", lambda: tl.linalg.norm(X, "fro", [0, 1]), lambda: tl.linalg.norm(X, "fro", (0, 1))),
    ("an array of widths", lambda: tl.pad(X, np.array([[1, 0], [0, 2]])), lambda: tl.pad(X, ((1, 0), (0, 2)))),
    ("a number of parts", lambda: tl.split(X, np.array(3), 1), lambda: tl.split(X, 3, 1)),
    ("counts of 64 bits", lambda: tl.repeat(X, np.array([1, 2], "u8"), 0), lambda: tl.repeat(X, [1, 2], 0)),
    ("NumPy's names", lambda: np.full_like(a=tl.tensor(X), fill_value=2), lambda: tl.full((2, 3), 2)),
]


def grouped(groups):
    images, weight = np.ones((1, 260, 2, 2), np.float32), np.ones((260, 130, 1, 1), np.float32)
    return tl.conv2d(images, weight, groups=groups)


@pytest.mark.parametrize(("found", "expected"), [p[1:] for p in EQUAL], ids=[p[0] for p in EQUAL])
def test_what_is_merely_unusual_makes_no_difference(found, expected):
    same(found(), expected())


IMAGES = np.ones((1, 1, 4, 4), np.float32)
HUGE = {
    "zeros": lambda: tl.zeros(2**45),
    "ones": lambda: tl.ones(2**33),
    "zeros of wrapped size": lambda: tl.zeros(2**32, 2**32),
    "zeros beyond 64 bits": lambda: tl.zeros(2**64),
    "full": lambda: tl.full((2**20, 2**20), 1.0),
    "rand": lambda: tl.rand(2**33),
    "arange": lambda: tl.arange(1e18),
    "arange of float": lambda: tl.arange(0, 1, 1e-15),
    "eye": lambda: tl.eye(2**31),
    "pad": lambda: tl.pad(X, 2**40),
    "pad replicate": lambda: tl.pad(X, (2**40, 0), "replicate"),
    "tile": lambda: tl.tile(X, 2**40),
    "repeat": lambda: tl.repeat(X, 2**40),
    "broadcast_to": lambda: tl.broadcast_to(X, (2**40, 2, 3)).exp(),
    "one_hot": lambda: tl.one_hot([1], 2**40),
    "cumsum": lambda: tl.cumsum(np.broadcast_to(np.float32(1), (2**34,))),
    "outer": lambda: tl.outer(np.ones(2**18), np.ones(2**18)),
    "matmul": lambda: tl.matmul(np.ones((2**18, 1), np.float32), np.ones((1, 2**18), np.float32)),
    "tensor": lambda: tl.tensor(np.broadcast_to(np.float32(1), (2**34,))),
    "conv2d": lambda: tl.conv2d(IMAGES, np.ones((1, 1, 2, 2)), padding=2**20),
    "unfold": lambda: tl.unfold(IMAGES, 2, padding=2**20),
    "fold": lambda: tl.fold(np.ones((1, 4, 1)), (2**20, 2**20), 2, stride=2**20),
    "max_pool2d": lambda: tl.max_pool2d(IMAGES, 2**20, 1, 2**19),
    "conv_transpose2d": lambda: tl.conv_transpose2d(IMAGES, np.ones((1, 1, 2, 2)), stride=2**20),
    "interpolate": lambda: tl.interpolate(IMAGES, 2**20),
    "adaptive_avg_pool2d": lambda: tl.adaptive_avg_pool2d(IMAGES, 2**20),
    "adaptive_max_pool2d": lambda: tl.adaptive_max_pool2d(IMAGES, 2**20),
    "meshgrid": lambda: [x.exp() for x in tl.meshgrid(np.ones(2**17), np.ones(2**17))],
    "roll": lambda: tl.roll(np.broadcast_to(np.float32(1), (2**34,)), 1),
    "jacobian": lambda: tl.jacobian(lambda x: x * x)(np.ones(2**16)),
}


@pytest.mark.parametrize("name", HUGE)
def test_what_does_not_fit_into_memory_is_an_error_and_not_the_end(name):
    with time_limit(60), pytest.raises(tl.TinygradLenetError, match="|".join([name.split()[0], "tensor", "exp"])):
        HUGE[name]()
    assert tl.add(1.0, 2.0).item() == 3  # and all goes on


def test_a_lack_of_memory_is_python_s_too():
    with pytest.raises(MemoryError, match=r"^zeros: .*\(given: shape=35184372088832\)") as caught:
        tl.zeros(2**45)
    assert isinstance(caught.value, tl.OutOfMemoryError)
