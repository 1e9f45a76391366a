"""Options with PyTorch's names and meaning: values, dtypes, gradients and edges are PyTorch's."""

import inspect
import pickle

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F

NAN, INF = np.nan, np.inf


def leaves(library, *arrays):
    """The arrays as leaves of one library that require gradients."""
    return [library.tensor(a, requires_grad=True) for a in arrays]


def gradients(outputs, xs, library):
    """The gradients of a weighted sum, so that no two elements count the same; zeros where none arrives."""
    outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
    total = sum(
        (y * library.tensor((1 + np.arange(np.prod(y.shape, dtype=int)) / 4).reshape(y.shape))).sum() for y in outputs
    )
    total.backward()
    return [np.zeros(x.shape) if x.grad is None else np.asarray(x.grad.detach().numpy()) for x in xs]


# Bounds that are tensors

X = np.array([0.0, 1, 2, 3, NAN, 1, 2, 5, -5, NAN, INF, -INF])
LOW = np.array([1.0, 1, 1, 1, 1, NAN, 2, 4, 4, 1, 0, 0])
HIGH = np.array([2.0, 2, 2, 2, 2, 2, 2, 3, 3, NAN, 1, 1])


@pytest.mark.parametrize("bounds", [("min",), ("max",), ("min", "max")])
@pytest.mark.parametrize("shape", [(12,), (3, 12), (1,)])
def test_bounds_of_clip_may_be_tensors(torch, bounds, shape):
    arrays = [np.broadcast_to(X, (3, 12)).copy(), *(np.resize({"min": LOW, "max": HIGH}[b], shape) for b in bounds)]
    found, expected = [], []
    for library, result in ((tl, found), (torch, expected)):
        x, *rest = leaves(library, *arrays)
        y = x.clip(**dict(zip(bounds, rest, strict=True)))
        result += [y.detach().numpy(), *gradients(y, [x, *rest], library)]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_bound_of_one_number_does_not_widen_floats_and_gets_its_gradient():
    x = tl.tensor([1.0, 2.0, 3.0])
    bound = tl.tensor(np.float64(1.5), requires_grad=True)
    y = tl.clip(x, bound, np.float64(2.5))
    y.sum().backward()
    assert y.dtype == np.float32
    assert bound.grad.dtype == np.float64
    assert bound.grad.item() == 1


G = np.random.default_rng(0)
IMAGE = G.standard_normal((4, 7, 6))


# Negative widths of padding

WIDTHS = [(-1, 1), (2, -2), (-2, 3, 1, -1), (-1, -2), (-3, 2), (0, -1, -2, 0)]


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("widths", WIDTHS)
def test_negative_widths_crop(torch, mode, widths):
    if mode == "circular" and widths == (-2, 3, 1, -1):
        widths = (-2, 2, 1, -1)
    found, expected = [], []
    for library, functions, result in ((tl, F, found), (torch, torch.nn.functional, expected)):
        (x,) = leaves(library, IMAGE[:, :5, :5])
        y = functions.pad(x, widths if len(widths) == 4 or mode == "constant" else (*widths, 0, 0), mode=mode)
        result += [y.detach().numpy(), *gradients(y, [x], library)]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    x = tl.tensor(IMAGE[:, :5, :5])
    compiled = tl.compile(lambda v: tl.pad(v, widths, mode))
    for _ in range(3):
        np.testing.assert_array_equal(compiled(x).numpy(), tl.pad(x, widths, mode).numpy())


def test_no_more_can_be_cropped_than_there_is(torch):
    for widths in [(-6, 6), (-3, -3)]:
        with pytest.raises(RuntimeError):
            torch.nn.functional.pad(torch.zeros(5), widths)
        with pytest.raises(tl.ShapeError, match="crop more than there is"):
            tl.pad(tl.zeros(5), widths)
    assert tl.pad(tl.zeros(5), (-2, -3)).shape == (0,)
    layer = tl.nn.ZeroPad2d((-1, 0, 1, 0))
    np.testing.assert_array_equal(layer(tl.tensor(IMAGE))[:, 1:].numpy(), IMAGE[:, :, 1:])


# Rounded quotients

FLOATS = np.array([7, -7, 7, -7, 0, -0.0, INF, -INF, NAN, 1, -1, 0, -0.3, 1e30, 5, 1, 6.3])
BY = np.array([2, 2, -2, -2, 3, 3, 1, 1, 1, 0, 0, 0, 1, 3, INF, 0.1, 0.7])
INTEGERS = (
    np.array([7, -7, 7, -7, 0, 2**62 + 1, -(2**62) - 1, 6, -6, -128]),
    np.array([2, 2, -2, -2, 3, 3, 3, -2, 2, 3]),
)


@pytest.mark.parametrize("mode", [None, "floor", "trunc"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "int8"])
def test_rounded_quotients_are_pytorchs(torch, mode, dtype):
    x, y = (FLOATS, BY) if dtype.startswith("f") else INTEGERS
    x, y = (
        np.where(np.abs(x) > 1e5, 9, x).astype(dtype) if dtype in ("int32", "int8") else x.astype(dtype),
        y.astype(dtype),
    )
    theirs = torch.div(torch.tensor(x), torch.tensor(y), rounding_mode=mode).numpy()
    with np.errstate(all="ignore"):
        found = tl.div(tl.tensor(x), tl.tensor(y), rounding_mode=mode)
        same = [tl.div(x, tl.tensor(y), mode)]
        if mode == "floor":
            same += [tl.tensor(x) // y, x // tl.tensor(y), tl.floor_divide(x, y), np.floor_divide(tl.tensor(x), y)]
            changed = tl.tensor(x)
            changed //= tl.tensor(y)
            same += [changed]
        compiled = tl.compile(lambda a, b: tl.div(a, b, rounding_mode=mode))
        same += [compiled(tl.tensor(x), tl.tensor(y)) for _ in range(3)]
    if mode or dtype.startswith("f"):  # the quotient of integers is NumPy's float64, and PyTorch's float32
        assert found.dtype == theirs.dtype
    np.testing.assert_allclose(found.numpy(), theirs, rtol=1e-6 if mode is None else 0)
    number = theirs == theirs
    np.testing.assert_array_equal(np.signbit(found.numpy()[number]), np.signbit(theirs[number]))
    for other in same:
        assert other.dtype == found.dtype
        np.testing.assert_array_equal(other.numpy(), found.numpy())


def test_a_rounded_quotient_has_the_gradient_zero(torch):
    for mode in (None, "floor", "trunc"):
        ours, theirs = leaves(tl, [7.5, -7.5], [2.0, -2.0]), leaves(torch, [7.5, -7.5], [2.0, -2.0])
        total, expected = (
            ours[0] * ours[0].div(ours[1], rounding_mode=mode),
            theirs[0] * theirs[0].div(theirs[1], rounding_mode=mode),
        )
        total.sum().backward()
        expected.sum().backward()
        np.testing.assert_array_equal(ours[0].grad.numpy(), theirs[0].grad.numpy())
        np.testing.assert_array_equal((0 if ours[1].grad is None else ours[1].grad.numpy()), theirs[1].grad.numpy())
    with pytest.raises(tl.ArgumentError, match=r"div: rounding_mode must be 'trunc' or 'floor', got 'ceil'"):
        tl.div(1.0, 2.0, rounding_mode="ceil")


# PyTorch's names of arguments

M = G.standard_normal((3, 3, 4))
SPELLED = {
    "flip": lambda t, x: t.flip(x, dims=(0, 2)),
    "flip by position": lambda t, x: t.flip(x, (0, 2)),
    "diagonal by position": lambda t, x: x.diagonal(1, 0, 2),
    "tril by position": lambda t, x: x.tril(-1),
    "roll by position": lambda t, x: x.roll((1, -2), (0, 2)),
    "tensordot by position": lambda t, x: t.tensordot(x, x, ([0, 2], [0, 2])),
    "topk by position": lambda t, x: t.topk(x, 2, 1, False, True)[0],
    "softmax by position": lambda t, x: x.softmax(1, x.dtype),
    "clip by position": lambda t, x: t.clip(x, x[0] - 1, x[1]),
    "norm by position": lambda t, x: t.norm(x, "fro"),
    "flip method": lambda t, x: x.flip(dims=(1,)),
    "diagonal": lambda t, x: t.diagonal(x, offset=1, dim1=0, dim2=2),
    "diagonal method": lambda t, x: x.diagonal(1, dim1=1, dim2=2),
    "tril": lambda t, x: t.tril(x, diagonal=1),
    "triu": lambda t, x: x.triu(diagonal=-1),
    "roll": lambda t, x: t.roll(x, shifts=(1, -2), dims=(0, 2)),
    "roll all": lambda t, x: x.roll(shifts=2),
    "tensordot": lambda t, x: t.tensordot(x, x, dims=([0, 2], [0, 2])),
    "arange": lambda t, x: t.arange(end=5) + 0 * x[0, 0, 0],
    "arange from": lambda t, x: t.arange(start=2, end=5) + 0 * x[0, 0, 0],
    "arange from to": lambda t, x: t.arange(2, end=9, step=3) + 0 * x[0, 0, 0],
    "argsort": lambda t, x: t.argsort(x, dim=0, descending=True, stable=True),
    "topk": lambda t, x: t.topk(x, k=2, dim=1, largest=False, sorted=True)[0],
    "topk indices": lambda t, x: x.topk(2, dim=-1, sorted=True)[1],
    "var": lambda t, x: t.var(x, dim=1, correction=1, keepdim=True),
    "var of all": lambda t, x: x.var(correction=0),
    "std": lambda t, x: t.std(x, dim=(0, 2), correction=1),
    "var of one": lambda t, x: x[:, :, :1].var(dim=2, correction=0),
}


@pytest.mark.parametrize("name", SPELLED)
def test_pytorchs_names_of_arguments(torch, name):
    ours, theirs = SPELLED[name](tl, tl.tensor(M)), SPELLED[name](torch, torch.tensor(M))
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12, atol=0)
    compiled = tl.compile(lambda x: SPELLED[name](tl, x))
    for _ in range(3):
        np.testing.assert_array_equal(compiled(tl.tensor(M)).numpy(), ours.numpy())


def test_sort_takes_pytorchs_options_and_returns_the_values(torch):
    theirs = torch.sort(torch.tensor(M), dim=1, descending=True, stable=True)
    np.testing.assert_array_equal(tl.sort(tl.tensor(M), dim=1, descending=True, stable=True).numpy(), theirs.values)


def test_an_argument_is_not_given_under_two_names():
    for call in (lambda: tl.var(M, ddof=1, correction=1), lambda: tl.tril(M, k=1, diagonal=1)):
        with pytest.raises(
            TypeError, match=r"var\(\) got 'ddof' twice, also as 'correction'|tril\(\) got 'diagonal' twice"
        ):
            call()
    with pytest.raises(tl.ArgumentError, match=r"arange: give the number before which to stop"):
        tl.arange()
    np.testing.assert_array_equal(np.tril(tl.tensor(M), k=1).numpy(), np.tril(M, 1))


# The dtype of sums, products and softmax

SUMMED = np.array([[3, -2, 5, 1], [10, 2, 7, -4], [0, 6, -1, 3]])
REDUCTIONS = {
    "sum": [{}, {"dim": 1}, {"dim": (0, 1), "keepdim": True}],
    "mean": [{}, {"dim": 1, "keepdim": True}],
    "prod": [{}, {"dim": 1}],
    "cumsum": [{"dim": 1}],
    "cumprod": [{"dim": 0}],
    "softmax": [{"dim": 1}],
    "log_softmax": [{"dim": 0}],
}


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "int8"])
@pytest.mark.parametrize("given", ["float16", "float32", "float64", "int64", "uint8", "bool"])
def test_a_dtype_is_pytorchs(torch, name, given, dtype):
    x = np.abs(SUMMED).astype(given)
    for options in REDUCTIONS[name]:
        try:
            theirs = getattr(torch, name)(torch.tensor(x), **options, dtype=getattr(torch, dtype)).numpy()
        except (RuntimeError, NotImplementedError):
            with pytest.raises(tl.DTypeError, match=f"{name}: dtype must be a float, such as 'float32', got int"):
                getattr(tl, name)(x, **options, dtype=dtype)
            continue
        ours = getattr(tl, name)(x, **options, dtype=dtype)
        assert ours.dtype == dtype
        tolerance = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-14}.get(dtype, 0)
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=tolerance, atol=tolerance * dtype.startswith("f"))
        compiled = tl.compile(lambda v, o=options: getattr(v, name)(**o, dtype=np.dtype(dtype)))
        for _ in range(3):
            np.testing.assert_array_equal(compiled(tl.tensor(x)).numpy(), ours.numpy())


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize(("given", "dtype"), [("float32", "float64"), ("float64", "float32"), ("float16", "float32")])
def test_gradients_flow_through_a_dtype(torch, name, given, dtype):
    x = (SUMMED / 64).astype(given)
    found, expected = [], []
    for library, result in ((tl, found), (torch, expected)):
        (leaf,) = leaves(library, x)
        y = getattr(library, name)(
            leaf, **REDUCTIONS[name][-1], dtype=getattr(torch, dtype) if library is torch else dtype
        )
        result += gradients(y, [leaf], library)
    assert found[0].dtype == given
    tolerance = 1e-3 if given == "float16" else 1e-5
    np.testing.assert_allclose(found[0], expected[0], rtol=tolerance, atol=tolerance)


def test_a_sum_in_integers_has_no_gradient():
    x = tl.tensor([1.5, 2.5], requires_grad=True)
    assert not tl.sum(x, dtype="int64").requires_grad
    assert not tl.cumsum(x, dtype="int64").requires_grad
    assert tl.sum(x, dtype="int64").item() == 3
    assert np.sum(x.detach(), dtype=np.int64).item() == 3


# Norms


def test_the_frobenius_norm_is_a_word(torch):
    for options in ({}, {"dim": 1}, {"dim": (0, 2), "keepdim": True}):
        ours, theirs = tl.norm(tl.tensor(M), p="fro", **options), torch.norm(torch.tensor(M), p="fro", **options)
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-14)
    assert tl.tensor([3.0, 4.0]).norm("fro").item() == 5
    with pytest.raises(tl.ArgumentError, match=r"norm: p must be a number or 'fro', got 'nuc'"):
        tl.norm(M, p="nuc")


# Two tensors


@pytest.mark.parametrize("name", ["max", "min"])
def test_the_larger_of_two_tensors(torch, name):
    x, y = np.array([[1.0, 2, 3, NAN], [5, -1, 3, INF]]), np.array([2.0, 2, NAN, 1])
    for call in (
        lambda t, a, b: getattr(t, name)(a, b),
        lambda t, a, b: getattr(a, name)(b),
        lambda t, a, b: getattr(t, name)(a, other=b),
        lambda t, a, b: getattr(b, name)(a[0]),
    ):
        found, expected = [], []
        for library, result in ((tl, found), (torch, expected)):
            xs = leaves(library, x, y)
            z = call(library, *xs)
            result += [z.detach().numpy(), *gradients(z, xs, library)]
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        compiled = tl.compile(lambda a, b, call=call: call(tl, a, b))
        for _ in range(3):
            np.testing.assert_array_equal(compiled(tl.tensor(x), tl.tensor(y)).numpy(), found[0])
    assert getattr(tl, name)(tl.arange(3), tl.tensor(1)).shape == (3,)  # not along axis 1


# Options that are accepted, and change nothing

INPLACE = "ReLU ReLU6 LeakyReLU ELU CELU SELU SiLU Mish Hardtanh Hardsigmoid Hardswish"


@pytest.mark.parametrize("name", INPLACE.split())
def test_inplace_gives_the_same_values_in_new_memory(torch, name):
    x = tl.tensor(M)
    positional = [p.default for p in inspect.signature(getattr(torch.nn, name)).parameters.values()][:-1]
    for layer in (getattr(tl.nn, name)(inplace=True), getattr(tl.nn, name)(*positional[: NUMBERS.get(name, 0)], True)):
        np.testing.assert_array_equal(layer(x).numpy(), getattr(tl.nn, name)()(x).numpy())
        np.testing.assert_array_equal(x.numpy(), M)
        assert repr(layer) == repr(getattr(tl.nn, name)())
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(layer))(x).numpy(), layer(x).numpy())
    with pytest.raises(tl.DTypeError, match=f"{name}: inplace must be True or False, got 'yes'"):
        getattr(tl.nn, name)(inplace="yes")


NUMBERS = {"LeakyReLU": 1, "ELU": 1, "CELU": 1, "Hardtanh": 2}  # of the options before it


def test_other_activations_have_no_inplace():
    with pytest.raises(TypeError, match=r"Tanh.*inplace"):
        tl.nn.Tanh(inplace=True)


def test_a_layer_pickled_without_a_new_option_has_its_default():
    layer = tl.nn.MaxPool2d(2)
    state = {name: value for name, value in layer.__getstate__().items() if name != "return_indices"}
    old = tl.nn.MaxPool2d.__new__(tl.nn.MaxPool2d)
    old.__setstate__(state)
    np.testing.assert_array_equal(old(tl.tensor(IMAGE)).numpy(), layer(tl.tensor(IMAGE)).numpy())


def test_an_lstm_projects_nothing():
    assert tl.nn.LSTM(3, 4, generator=0, proj_size=0)(tl.zeros(5, 2, 3))[0].shape == (5, 2, 4)
    with pytest.raises(tl.UnsupportedError, match=r"LSTM: proj_size must be 0, got 2; .* use nn\.Linear"):
        tl.nn.LSTM(3, 4, proj_size=2)


# Options of backward()


def double(library, x, y):
    """A penalty on a gradient, by two backward passes."""
    (x * x * x * y).sum().backward(create_graph=True)
    slope = x.grad
    x.grad, y.grad = None, None
    (slope * slope).sum().backward()
    return x.grad, y.grad


def test_backward_records_itself(torch):
    arrays = np.array([1.0, -2.0, 3.0]), np.array([0.5, 4.0, 1.0])
    ours, theirs = leaves(tl, *arrays), leaves(torch, *arrays)
    with pytest.warns(UserWarning, match="reference cycle"):
        expected = double(torch, *theirs)
    for found, wanted in zip(double(tl, *ours), expected, strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())

    x, y = leaves(tl, *arrays)
    (x * x).sum().backward()  # an earlier gradient is added to
    (x * x * y).sum().backward(create_graph=True)
    np.testing.assert_array_equal(x.grad.detach().numpy(), 2 * arrays[0] + 2 * arrays[0] * arrays[1])
    np.testing.assert_array_equal(tl.grad(x.grad.sum(), y)[0].numpy(), 2 * arrays[0])


def test_a_recorded_backward_pass_in_a_compiled_function():
    w = tl.tensor([1.0, -2.0, 3.0], requires_grad=True)

    @tl.compile
    def step(x):
        w.grad = None
        (w * w * w * x).sum().backward(create_graph=True)
        slope = w.grad
        w.grad = None
        (slope * slope).sum().backward()
        return slope.detach()

    for k in (1.0, 2.0, 3.0, 4.0):
        np.testing.assert_allclose(step(tl.tensor([k, k, k])).numpy(), 3 * w.numpy() ** 2 * k, rtol=1e-6)
        np.testing.assert_allclose(w.grad.numpy(), 36 * w.numpy() ** 3 * k**2, rtol=1e-6)


def test_backward_adds_to_the_given_leaves_only(torch):
    arrays = np.array([1.0, -2.0]), np.array([0.5, 4.0])
    for choose in (lambda x, y: x, lambda x, y: [y], lambda x, y: (x, y)):
        found, expected = [], []
        for library, result in ((tl, found), (torch, expected)):
            x, y = leaves(library, *arrays)
            z = x * y
            (z * z).sum().backward(inputs=choose(x, y), retain_graph=True)
            result += [None if g is None else g.numpy().copy() for g in (x.grad, y.grad)]
            (z * z).sum().backward(None, None, False, choose(x, y))
            result += [x.grad, y.grad]
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    x, y = leaves(tl, *arrays)
    unused = tl.tensor(1.0, requires_grad=True)
    (x * 2).sum().backward(inputs=[unused])
    assert unused.grad is x.grad is None
    for wrong in ([], [x, x * 2], tl.ones(2), [3]):
        with pytest.raises(tl.GradientError, match="backward: inputs must be leaves that require a gradient, got"):
            (x * y).sum().backward(inputs=wrong)


# Names in an exported file


def test_inputs_and_outputs_of_a_file_have_the_names_asked_for():
    pytest.importorskip("onnx")
    model = tl.nn.Linear(4, 3)
    made = tl.onnx.export(model, tl.zeros(2, 4), None, input_names=["pixels"], output_names=["gemm"])
    assert [i.name for i in made.graph.input] == ["pixels"]
    assert [o.name for o in made.graph.output] == ["gemm"]
    x = tl.randn(5, 4, generator=0)
    np.testing.assert_allclose(tl.onnx.load(made)(x).detach().numpy(), model(x).detach().numpy(), rtol=1e-6)

    two = lambda a, b: (a + b, a.reshape(-1, 2) * 2)  # noqa: E731
    made = tl.onnx.export(two, (tl.zeros(2, 4), tl.zeros(2, 4)), None, True, ("b", "a"), ("sum", "relu"))
    assert [i.name for i in made.graph.input] == ["b", "a"]
    for ours, theirs in zip(tl.onnx.load(made)(x, x), two(x, x), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    for names in (["a"], ["a", "a"], ["a", ""], ["a", 1]):
        with pytest.raises(tl.ArgumentError, match="export: input_names must be 2 names that no parameter has"):
            tl.onnx.export(two, (tl.zeros(2, 4), tl.zeros(2, 4)), None, input_names=names)
    with pytest.raises(tl.ArgumentError, match="export: output_names must be 1 names that"):
        tl.onnx.export(model, tl.zeros(2, 4), None, output_names=["weight"])
    with pytest.raises(tl.DTypeError, match="export: input_names must be a list of names, got 'x'"):
        tl.onnx.export(model, tl.zeros(2, 4), None, input_names="x")


def test_rounded_quotients_are_exported():
    pytest.importorskip("onnxruntime")
    from test_export import agree

    x, y = np.array([7, -7, 7, -7, 0]), np.array([2, 2, -2, -2, 3])
    for dtype in ("int64", "float32"):
        for mode in (None, "floor", "trunc"):
            if mode or dtype != "int64":
                agree(lambda a, b, mode=mode: tl.div(a, b, rounding_mode=mode), x.astype(dtype), y.astype(dtype))
        agree(lambda a, b: a // b, x.astype(dtype), y.astype(dtype))
        agree(lambda a: tl.softmax(a.astype("float32"), dtype="float64").astype("float32"), x.astype(dtype))
    agree(lambda a: tl.sum(a, 0, dtype="int64"), np.array([[1.5, -2.5]], np.float32), dynamic_batch=False)


# Messages

LAYERS = {
    "Conv2d": lambda: tl.nn.Conv2d(1, 1, 1),
    "ConvTranspose1d": lambda: tl.nn.ConvTranspose1d(1, 1, 1),
    "BatchNorm2d": lambda: tl.nn.BatchNorm2d(2),
    "LSTM": lambda: tl.nn.LSTM(2, 2),
    "ZeroPad2d": lambda: tl.nn.ZeroPad2d(1),
    "MSELoss": tl.nn.MSELoss,
    "MaxPool2d": lambda: tl.nn.MaxPool2d(2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_called_with_wrong_arguments_has_its_own_name(name):
    layer = LAYERS[name]()
    for args, options in (((), {}), ((1,) * 9, {}), ((M,), {"bogus": 1})):
        with pytest.raises(TypeError) as caught:
            layer(*args, **options)
        assert str(caught.value).startswith(f"{name}.forward() ")
