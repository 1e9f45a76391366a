"""Three ways to one function: ``tl.f(x)``, ``F.f(x)``, ``x.f()``; PyTorch's names; and what is not said."""

import inspect

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F
from tinygrad_lenet.core import names

X = np.random.default_rng(0).uniform(0.1, 0.9, (2, 2, 4, 4)).astype(np.float32)
FOLDED = X.reshape(2, 8, 4)

# The names that torch.nn.functional gives to its arguments, in its order, up to where this package follows; without
# size_average and reduce, which PyTorch has deprecated. Those in brackets in the comments are PyTorch's only.
TORCH = {
    "adaptive_avg_pool2d": "input output_size",
    "adaptive_max_pool2d": "input output_size",  # [return_indices]
    "avg_pool1d": "input kernel_size stride padding ceil_mode count_include_pad",
    "avg_pool2d": "input kernel_size stride padding ceil_mode count_include_pad divisor_override",
    "batch_norm": "input running_mean running_var weight bias training momentum eps",
    "binary_cross_entropy": "input target weight reduction",
    "binary_cross_entropy_with_logits": "input target weight reduction pos_weight",
    "celu": "input alpha",
    "conv1d": "input weight bias stride padding dilation groups",
    "conv2d": "input weight bias stride padding dilation groups",
    "conv_transpose1d": "input weight bias stride padding output_padding groups dilation",
    "conv_transpose2d": "input weight bias stride padding output_padding groups dilation",
    "cross_entropy": "input target weight ignore_index reduction label_smoothing",
    "dropout": "input p training",  # [inplace]
    "dropout2d": "input p training",
    "elu": "input alpha",  # [inplace]
    "embedding": "input weight padding_idx",
    "fold": "input output_size kernel_size dilation padding stride",
    "gelu": "input approximate",
    "group_norm": "input num_groups weight bias eps",
    "hardsigmoid": "input",
    "hardswish": "input",
    "hardtanh": "input min_val max_val",
    "huber_loss": "input target reduction delta",
    "interpolate": "input size scale_factor mode align_corners",
    "kl_div": "input target reduction log_target",
    "l1_loss": "input target reduction",  # [weight]
    "layer_norm": "input normalized_shape weight bias eps",
    "leaky_relu": "input negative_slope",  # [inplace]
    "linear": "input weight bias",
    "log_softmax": "input dim",
    "logsigmoid": "input",
    "max_pool1d": "input kernel_size stride padding dilation ceil_mode return_indices",
    "max_pool2d": "input kernel_size stride padding dilation ceil_mode return_indices",
    "mish": "input",
    "mse_loss": "input target reduction",  # [weight]
    "multi_margin_loss": "input target p margin weight reduction",
    "nll_loss": "input target weight ignore_index reduction",
    "one_hot": "tensor num_classes",
    "pad": "input pad mode value",
    "prelu": "input weight",
    "relu": "input",  # [inplace]
    "relu6": "input",
    "selu": "input",
    "sigmoid": "input",
    "silu": "input",
    "smooth_l1_loss": "input target reduction beta",
    "softmax": "input dim",
    "softplus": "input beta threshold",
    "softsign": "input",
    "tanh": "input",
    "unfold": "input kernel_size dilation padding stride",
}
OWN = {"dropout": ["generator"], "dropout2d": ["generator"]}  # arguments that PyTorch does not have, after its own
OWN |= {"log_softmax": ["dtype"], "softmax": ["dtype"]}  # where PyTorch has a private one before it
SPELLINGS = {"x": "input", "axis": "dim"}


def test_the_table_is_complete():
    assert sorted(TORCH) == F.__all__


@pytest.mark.parametrize("name", TORCH)
def test_arguments_come_in_pytorchs_order_under_pytorchs_names(name):
    parameters = [SPELLINGS.get(p, p) for p in inspect.signature(getattr(F, name)).parameters]
    assert parameters == TORCH[name].split() + OWN.get(name, [])


@pytest.mark.parametrize("name", TORCH)
def test_the_table_tells_the_truth_about_pytorch(torch, name):
    try:
        parameters = list(inspect.signature(getattr(torch.nn.functional, name)).parameters)
    except ValueError:
        documented = getattr(torch.nn.functional, name).__doc__
        parameters = documented.split("(", 1)[1].split(")")[0].replace("*", "").replace(" ", "").split(",")
        parameters = [p.split("=")[0] for p in parameters]
    if parameters == ["args", "kwargs"]:
        return  # max_pool2d, dispatched on return_indices
    parameters = [p for p in parameters if p not in ("size_average", "reduce")]
    ours = TORCH[name].split()
    assert parameters[: len(ours)] == ours


CALLS = {  # what a call needs beside the first argument
    "adaptive_avg_pool2d": {"output_size": (3, 2)},
    "adaptive_max_pool2d": {"output_size": (3, 2)},
    "avg_pool1d": {"kernel_size": 2},
    "avg_pool2d": {"kernel_size": 2},
    "batch_norm": {"training": True},
    "binary_cross_entropy": {"target": X},
    "binary_cross_entropy_with_logits": {"target": X},
    "conv1d": {"weight": np.ones((3, 8, 2), np.float32)},
    "conv2d": {"weight": np.ones((3, 2, 2, 2), np.float32)},
    "conv_transpose1d": {"weight": np.ones((8, 3, 2), np.float32)},
    "conv_transpose2d": {"weight": np.ones((2, 3, 2, 2), np.float32)},
    "cross_entropy": {"target": np.ones((2, 4, 4), np.int64)},
    "dropout": {"p": 0.5, "generator": 0},
    "dropout2d": {"p": 0.5, "generator": 0},
    "embedding": {"weight": np.eye(9, dtype=np.float32)},
    "fold": {"output_size": (2, 2), "kernel_size": 1},
    "group_norm": {"num_groups": 2},
    "huber_loss": {"target": X[::-1]},
    "interpolate": {"scale_factor": 2},
    "kl_div": {"target": X[::-1]},
    "l1_loss": {"target": X[::-1]},
    "layer_norm": {"normalized_shape": 4},
    "linear": {"weight": np.ones((3, 4), np.float32)},
    "log_softmax": {"dim": 1},
    "max_pool1d": {"kernel_size": 2},
    "max_pool2d": {"kernel_size": 2},
    "mse_loss": {"target": X[::-1]},
    "multi_margin_loss": {"target": np.array([1, 0])},
    "nll_loss": {"target": np.ones((2, 4, 4), np.int64)},
    "pad": {"pad": (1, 2)},
    "prelu": {"weight": np.float32([0.1, 0.2])},
    "smooth_l1_loss": {"target": X[::-1]},
    "softmax": {"dim": 1},
    "unfold": {"kernel_size": 2},
}


INDICES = np.array([[1, 0, 2], [2, 2, 1]])
FIRST = dict.fromkeys(("fold", "conv1d", "conv_transpose1d", "max_pool1d", "avg_pool1d"), FOLDED)
FIRST |= {"embedding": INDICES, "one_hot": INDICES, "multi_margin_loss": X[:, 0, 0]}


@pytest.mark.parametrize("name", TORCH)
def test_a_call_with_pytorchs_keywords_works_and_gives_the_same(name):
    x = FIRST.get(name, X)
    first = "tensor" if name == "one_hot" else "input"
    function, rest = getattr(F, name), CALLS.get(name, {})
    np.testing.assert_array_equal(function(**{first: x}, **rest).numpy(), function(x, *_in_order(name, rest)).numpy())


def _in_order(name, rest):
    """The same arguments by position, as far as they go without a gap."""
    parameters = inspect.signature(getattr(F, name)).parameters
    values = []
    for p in list(parameters.values())[1:]:
        spelled = SPELLINGS.get(p.name, p.name)
        values.append(rest.get(spelled, p.default))
    return values


REDUCE = ["sum", "mean", "max", "min", "var", "std", "argmax", "argmin", "logsumexp", "prod", "norm", "median", "amax"]
REDUCE += ["amin", "any", "all", "count_nonzero"]


@pytest.mark.parametrize("name", REDUCE)
def test_reductions_take_dim_and_keepdim_for_axis_and_keepdims(name):
    x, function = tl.tensor(X), getattr(tl, name)
    expected = function(x, axis=1, keepdims=True).numpy()
    np.testing.assert_array_equal(function(x, dim=1, keepdim=True).numpy(), expected)
    np.testing.assert_array_equal(getattr(x, name)(dim=1, keepdim=True).numpy(), expected)
    np.testing.assert_array_equal(function(input=x, dim=1, keepdims=True).numpy(), expected)


@pytest.mark.parametrize(
    ("by_axis", "by_dim"),
    [
        (lambda x: x.softmax(axis=1), lambda x: x.softmax(dim=1)),
        (lambda x: x.squeeze(axis=0), lambda x: x.squeeze(dim=0)),
        (lambda x: x.unsqueeze(axis=1), lambda x: x.unsqueeze(dim=1)),
        (lambda x: tl.stack([x, x], axis=1), lambda x: tl.stack([x, x], dim=1)),
        (lambda x: tl.concatenate([x, x], axis=1), lambda x: tl.concatenate([x, x], dim=1)),
    ],
    ids=["softmax", "squeeze", "unsqueeze", "stack", "concatenate"],
)
def test_shapes_take_dim_for_axis(by_axis, by_dim):
    x = tl.tensor(X[:1])
    np.testing.assert_array_equal(by_axis(x).numpy(), by_dim(x).numpy())


def test_both_spellings_at_once_are_refused():
    with pytest.raises(TypeError, match="axis"):
        tl.sum(tl.ones(2, 2), 0, dim=1)
    with pytest.raises(TypeError, match="axis"):
        tl.sum(tl.ones(2, 2), axis=0, dim=1)


# The three ways

METHODS = {name: function for name, function in names.METHODS.items() if name in names.public()}


@pytest.mark.parametrize("name", sorted(set(F.__all__) & set(tl.__all__)))
def test_functional_and_the_package_share_one_function(name):
    assert getattr(F, name) is getattr(tl, name)


def test_all_of_functional_is_in_the_package():
    assert set(F.__all__) <= set(tl.__all__)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_the_function_of_its_name(name):
    assert getattr(tl, name) is METHODS[name] is getattr(tl.Tensor, name)


@pytest.mark.parametrize("name", METHODS)
def test_a_function_takes_arrays_and_lists_as_a_method_takes_its_tensor(name):
    arguments = {
        "pow": (2,),
        "maximum": (0.5,),
        "minimum": (0.5,),
        "clip": (0.2, 0.8),
        "clamp": (0.2, 0.8),
        "masked_fill": (X > 0.5, 2.0),
        "astype": (np.float64,),
        "reshape": (4, -1),
        "permute": (3, 2, 1, 0),
        "broadcast_to": (3, 2, 2, 4, 4),
        "unsqueeze": (0,),
        "matmul": (X,),
        "mm": (X,),
        "bmm": (X,),
        "max_pool2d": (2,),
        "avg_pool2d": (2,),
        "conv2d": (np.ones((3, 2, 2, 2), np.float32),),
        "unfold": (2,),
        "fold": ((2, 2), 1),
        "mod": (0.3,),
        "hypot": (0.3,),
        "arctan2": (0.3,),
        "logaddexp": (0.3,),
        "allclose": (X,),
        "topk": (2,),
        "moveaxis": (0, -1),
        "swapaxes": (0, 1),
        "expand_dims": (0,),
        "roll": (1,),
        "tile": (2,),
        "repeat": (2,),
        "split": (2,),
        "chunk": (2,),
        "gather": (0, np.zeros((1, 2, 4, 4), np.int64)),
        "scatter": (0, np.zeros((1, 2, 4, 4), np.int64), 2.0),
        "scatter_add": (0, np.zeros((1, 2, 4, 4), np.int64), 2.0),
        "take_along_axis": (np.zeros((1, 2, 4, 4), np.int64), 0),
        "dot": (X[0, 0],),
        "inner": (X[0, 0],),
        "outer": (X[0, 0],),
        "div": (0.3,),
        "floor_divide": (0.3,),
    }.get(name, ())
    x = {"fold": FOLDED, "diag": X[0, 0]}.get(name, X)
    expected = getattr(tl.tensor(x), name)(*arguments)
    if name == "allclose":
        assert expected is tl.allclose(x.tolist(), *arguments) is True
        return
    for given in (x, x.tolist(), tl.tensor(x)):
        found = getattr(tl, name)(given, *arguments)
        pairs = zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
        for a, b in pairs:
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a.numpy(), b.numpy())


# What is not said

CUBE = np.random.default_rng(0).permutation(48).reshape(2, 4, 6) / 7
SAME = "amax amin argmax argmin argsort cumsum diagonal expand_dims=0 flip=1 max mean median min moveaxis=0,2 prod"
SAME += " concatenate diff repeat=2 roll=3 sort split=2 squeeze stack std sum swapaxes=0,2 tile=2 trace tril triu var"


@pytest.mark.parametrize("word", SAME.split())
def test_defaults_are_numpys(word):
    name, _, given = word.partition("=")
    rest = [int(n) for n in given.split(",")] if given else []
    found, expected = getattr(tl, name)(CUBE, *rest), getattr(np, name)(CUBE, *rest)
    for a, b in zip(found, expected, strict=True) if name == "split" else [(found, expected)]:
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-12)


def test_defaults_are_pytorchs(torch):
    t = torch.tensor(CUBE)
    for name, rest in (
        ("chunk", (1,)),
        ("chunk", (2,)),
        ("chunk", (5,)),
        ("unbind", ()),
        ("topk", (3,)),
        ("softmax", (-1,)),
    ):
        found, expected = getattr(tl, name)(CUBE, *rest), getattr(torch, name)(t, *rest)
        for a, b in zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]:
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tl.split(CUBE, 3, axis=1), "4 elements cannot be cut into 3 equal parts.*; see chunk"),
        (lambda: tl.split(CUBE, 0), "into 0 equal"),
        (lambda: tl.split(CUBE, -2), "into -2 equal"),
        (lambda: tl.chunk(CUBE, 0), "at least 1, got 0"),
        (lambda: tl.linear(CUBE, np.ones((2, 5))), r"linear: expected x \(\.\.\., 5\).*got \(2, 4, 6\) and \(2, 5\)"),
        (lambda: tl.linear(CUBE, np.ones(6)), r"linear: .*\(6,\)"),
        (lambda: tl.linear(np.array(1.0), np.ones((2, 5))), r"linear: .*\(out_features, 5\), got \(\) and"),
        (lambda: tl.sum(CUBE, 3), "there is no axis 3; a tensor with 3 axes has axes -3 ... 2"),
        (lambda: tl.sum(np.array(1.0), 0), "there is no axis 0; this tensor has no axes"),
        (lambda: tl.stack([CUBE, CUBE[0]]), r"stack: .* one shape, got \(2, 4, 6\), \(4, 6\)"),
        (lambda: tl.concatenate([CUBE, CUBE[0]], 1), r"concatenate: .*axis 1 only, got \(2, 4, 6\), \(4, 6\)"),
        (lambda: tl.concatenate([CUBE, CUBE[:1]], 2), r"concatenate: .*axis 2 only, got \(2, 4, 6\), \(1, 4, 6\)"),
        (lambda: tl.concatenate([CUBE, CUBE[:, :, :1]], 1), r"concatenate: .*\(2, 4, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises((tl.ShapeError, tl.ArgumentError), match=words):
        call()
