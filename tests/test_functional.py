"""Losses, batch normalisation and dropout: against formulas in NumPy, against PyTorch, and at their limits."""

import itertools

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F
from tinygrad_lenet.errors import ArgumentError, DTypeError, ShapeError
from tinygrad_lenet.testing import gradcheck

EXACT = {"rtol": 1e-12, "atol": 1e-14}
# Two float32 programs that sum in another order: a few units of 2^-24 of the largest term, which is about 10 here.
SINGLE = {"rtol": 3e-6, "atol": 1e-6}
DTYPES = {"float32": SINGLE, "float64": EXACT}
SHAPES = [(5,), (4, 5), (3, 5, 2), (2, 5, 3, 2)]
REDUCTIONS = ["mean", "sum", "none"]


def rng(seed=0):
    return np.random.default_rng(seed)


def classes(shape, kind, seed=1):
    """Class indices for logits of a shape, 5 classes; and the index to ignore."""
    target = rng(seed).integers(0, 5, shape[:1] * (len(shape) > 1) + shape[2:])
    target.flat[0], target.flat[-1] = 2, 3  # at least one is ignored, and not all
    return target, 2 if kind == "some" else -100


def value_and_gradient(loss, x):
    """The loss and the gradient for an upstream gradient of unequal values."""
    x = tl.tensor(x, requires_grad=True)
    found = loss(x)
    up = rng(2).uniform(0.5, 1.5, found.shape).astype(found.dtype)
    found.backward(up)
    assert found.dtype == x.dtype == x.grad.dtype
    return found.numpy(), x.grad.numpy()


def torch_value_and_gradient(torch, loss, x):
    x = torch.tensor(x, requires_grad=True)
    found = loss(x)
    found.backward(torch.tensor(rng(2).uniform(0.5, 1.5, found.shape).astype(x.detach().numpy().dtype)))
    return found.detach().numpy(), x.grad.numpy()


def agree(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, **tolerance)


def by_formula(x, target, weight, ignore, reduction, smoothing, logits=True):
    """Cross-entropy as its definition says: a loop over the samples, in float64."""
    flat = x.reshape(1, -1) if x.ndim == 1 else np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
    flat = flat - np.log(np.exp(flat).sum(1, keepdims=True)) if logits else flat
    losses, total = [], 0.0
    for logp, c in zip(flat, target.reshape(-1), strict=True):
        if c == ignore:
            losses.append(0.0)
            continue
        p = np.full(5, smoothing / 5)
        p[c] += 1 - smoothing
        losses.append(-(weight * p * logp).sum())
        total += weight[c]
    losses = np.array(losses).reshape(target.shape)
    return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / total}[reduction]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["none", "some"])
def test_cross_entropy_and_nll_are_their_formulas(shape, kind):
    x, weight = rng().standard_normal(shape), rng(3).uniform(0.5, 2, 5)
    target, ignore = classes(shape, kind)
    for reduction, smoothing, w in itertools.product(REDUCTIONS, (0.0, 0.1, 1.0), (None, weight)):
        options = {"weight": w, "ignore_index": ignore, "reduction": reduction}
        w = np.ones(5) if w is None else w
        found = F.cross_entropy(tl.tensor(x), target, label_smoothing=smoothing, **options).numpy()
        np.testing.assert_allclose(found, by_formula(x, target, w, ignore, reduction, smoothing), **EXACT)
        if not smoothing:
            found = F.nll_loss(tl.tensor(x), target, **options).numpy()
            np.testing.assert_allclose(found, by_formula(x, target, w, ignore, reduction, 0, logits=False), **EXACT)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["none", "some", "probabilities"])
def test_cross_entropy_and_nll_agree_with_torch(torch, dtype, shape, kind):
    x, weight = rng().standard_normal(shape).astype(dtype), rng(3).uniform(0.5, 2, 5).astype(dtype)
    target, ignore = classes(shape, kind)
    if kind == "probabilities":
        target = np.exp(rng(4).standard_normal(shape))
        target = (target / target.sum(min(1, len(shape) - 1), keepdims=True)).astype(dtype)
    for name, reduction, smoothing, w in itertools.product(
        ("cross_entropy", "nll_loss"), REDUCTIONS, (0.0, 0.1, 1.0), (None, weight)
    ):
        if name == "nll_loss" and (smoothing or kind == "probabilities"):
            continue
        options = {"reduction": reduction, "ignore_index": ignore}
        options |= {"label_smoothing": smoothing} if name == "cross_entropy" else {}
        ours, theirs = getattr(F, name), getattr(torch.nn.functional, name)
        tw = None if w is None else torch.tensor(w)
        found = value_and_gradient(lambda x, f=ours, w=w, o=options: f(x, target, weight=w, **o), x)
        expected = torch_value_and_gradient(
            torch, lambda x, f=theirs, w=tw, o=options: f(x, torch.tensor(target), weight=w, **o), x
        )
        agree(found, expected, DTYPES[dtype])


FORMULAS = {
    "mse_loss": lambda x, t: (x - t) ** 2,
    "l1_loss": lambda x, t: np.abs(x - t),
    "binary_cross_entropy_with_logits": lambda x, t, weight=1, pos_weight=1: (
        -weight * (pos_weight * t * np.log(1 / (1 + np.exp(-x))) + (1 - t) * np.log(1 - 1 / (1 + np.exp(-x))))
    ),
}
FACTORS = {"weight": rng(5).uniform(0.5, 2, (4, 1)), "pos_weight": rng(6).uniform(0.5, 2, 3)}
ELEMENTWISE = [(name, {}) for name in FORMULAS] + [("binary_cross_entropy_with_logits", FACTORS)]


def elementwise(dtype="float64"):
    x, target = (3 * rng().standard_normal((4, 3))).astype(dtype), rng(1).random((4, 3)).astype(dtype)
    x[0, 0] = target[0, 0]  # where l1 has its kink
    return x, target


@pytest.mark.parametrize(("name", "factors"), ELEMENTWISE)
def test_elementwise_losses_are_their_formulas(name, factors):
    x, target = elementwise()
    values = FORMULAS[name](x, target, **factors)
    for reduction, expected in (("none", values), ("sum", values.sum()), ("mean", values.mean())):
        found = getattr(F, name)(x, target, reduction=reduction, **factors)
        np.testing.assert_allclose(found.numpy(), expected, **EXACT)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "factors"), ELEMENTWISE)
def test_elementwise_losses_agree_with_torch(torch, dtype, name, factors):
    x, target = elementwise(dtype)
    factors = {key: value.astype(dtype) for key, value in factors.items()}
    tensors = {key: torch.tensor(value) for key, value in factors.items()}
    ours, theirs = getattr(F, name), getattr(torch.nn.functional, name)
    for r in REDUCTIONS:
        found = value_and_gradient(lambda x, r=r: ours(x, target, reduction=r, **factors), x)
        expected = torch_value_and_gradient(
            torch, lambda x, r=r: theirs(x, torch.tensor(target), reduction=r, **tensors), x
        )
        agree(found, expected, DTYPES[dtype])


def test_losses_are_finite_and_right_for_huge_logits_in_float32():
    for x in ([1e4, -1e4, 0.0], [-1e4, -1e4, 1e4], [1e4, 1e4, -1e4]):
        x = np.array([x], np.float32)
        for c in range(3):
            loss, gradient = value_and_gradient(lambda x, c=c: F.cross_entropy(x, [c], reduction="sum"), x)
            up = rng(2).uniform(0.5, 1.5, ()).astype(np.float32)
            wide = x[0].astype(float)
            shares = np.exp(wide - wide.max()) / np.exp(wide - wide.max()).sum()
            np.testing.assert_allclose(loss, np.log(np.exp(wide - wide.max()).sum()) + wide.max() - wide[c], rtol=1e-6)
            np.testing.assert_allclose(gradient[0], up * (shares - np.eye(3)[c]), rtol=1e-6)
            smooth, gradient = value_and_gradient(
                lambda x, c=c: F.cross_entropy(x, [c], reduction="sum", label_smoothing=0.3), x
            )
            p = 0.1 + 0.7 * np.eye(3)[c]
            logp = wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())
            np.testing.assert_allclose(smooth, -(p * logp).sum(), rtol=1e-6)
            np.testing.assert_allclose(gradient[0], up * (shares - p), rtol=1e-6, atol=1e-7)
    x = np.array([1e4, -1e4, 1e4, -1e4, 0.0, 30.0, -30.0, 100.0], np.float32)
    t = np.array([1, 0, 0, 1, 1, 1, 0, 0.25], np.float32)
    up = rng(2).uniform(0.5, 1.5, x.shape).astype(np.float32)
    loss, gradient = value_and_gradient(lambda x: F.binary_cross_entropy_with_logits(x, t, reduction="none"), x)
    wide = x.astype(float)
    np.testing.assert_allclose(loss, np.maximum(wide, 0) - wide * t + np.log1p(np.exp(-np.abs(wide))), rtol=1e-6)
    tail = np.exp(-np.abs(wide)) / (1 + np.exp(-np.abs(wide)))  # the share of the side that x is not on
    expected = np.where(wide >= 0, (1 - t) - tail, tail - t)
    # sigmoid(30) is 1 in float32: the gradient there is lost at 2^-24 of 1, as in any float32 program.
    np.testing.assert_allclose(gradient, up * expected, rtol=1e-6, atol=2**-24)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_all_targets_ignored_gives_what_torch_gives(torch, name):
    x, target = rng().standard_normal((3, 5)), np.full(3, 2)
    ours, theirs = getattr(F, name), getattr(torch.nn.functional, name)
    for reduction in REDUCTIONS:
        with np.errstate(all="ignore"):  # 0 / 0 warns, as always in NumPy
            found = value_and_gradient(lambda x, r=reduction: ours(x, target, ignore_index=2, reduction=r), x)
        expected = torch_value_and_gradient(
            torch, lambda x, r=reduction: theirs(x, torch.tensor(target), ignore_index=2, reduction=r), x
        )
        agree(found, expected, EXACT)
        assert np.isnan(found[0]).all() == (reduction == "mean")


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_losses_have_second_derivatives(reduction):
    x, weight = rng().standard_normal((3, 5)), rng(3).uniform(0.5, 2, 5)
    p = rng(4).random((3, 5))
    for target, options in (
        ([1, 2, 4], {}),
        ([1, 2, 4], {"weight": weight, "ignore_index": 2}),
        ([1, 2, 4], {"weight": weight, "label_smoothing": 0.2}),
    ):
        assert gradcheck(lambda x, t=target, o=options: F.cross_entropy(x, t, reduction=reduction, **o), [x], order=2)
    assert gradcheck(lambda x, p: F.cross_entropy(x, p, reduction=reduction, label_smoothing=0.1), [x, p], order=2)
    assert gradcheck(lambda x: F.nll_loss(x.log_softmax(1), [1, 2, 4], weight, 2, reduction), [x], order=2)
    for loss in (F.mse_loss, F.l1_loss, F.binary_cross_entropy_with_logits):
        assert gradcheck(lambda x, p, f=loss: f(x, p, reduction=reduction), [x, p], order=2)


# Batch normalisation


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2), (2, 3, 2, 3), (4, 1, 3)], ids=str)
def test_batch_norm_normalises_and_has_gradients_of_second_order(shape):
    c = shape[1]
    x, weight, bias = 3 + 2 * rng().standard_normal(shape), rng(1).uniform(0.5, 2, c), rng(2).standard_normal(c)
    axes = (0, *range(2, len(shape)))
    out = F.batch_norm(tl.tensor(x), training=True, eps=0).numpy()
    np.testing.assert_allclose(out.mean(axes), 0, atol=1e-13)
    np.testing.assert_allclose(out.var(axes), 1, rtol=1e-13)
    mean, var = tl.tensor(rng(3).standard_normal(c)), tl.tensor(rng(4).uniform(0.5, 2, c))
    assert gradcheck(lambda *a: F.batch_norm(a[0], None, None, *a[1:], training=True), [x, weight, bias], order=2)
    assert gradcheck(lambda *a: F.batch_norm(a[0], mean, var, *a[1:]), [x, weight, bias], order=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2), (2, 3, 2, 3)], ids=str)
@pytest.mark.parametrize("momentum", [0.1, 0.7, 1.0, 0.0])
def test_batch_norm_and_its_running_statistics_agree_with_torch(torch, dtype, shape, momentum):
    weight, bias, tolerance = rng(1).uniform(0.5, 2, 3).astype(dtype), np.arange(3).astype(dtype), DTYPES[dtype]
    mean, var = tl.zeros(3, dtype=dtype), tl.ones(3, dtype=dtype)
    tmean, tvar = torch.tensor(mean.numpy().copy()), torch.tensor(var.numpy().copy())
    for training in (True, True, False, True, False):
        x = (1 + 2 * rng(int(training) + 5).standard_normal(shape)).astype(dtype)
        ours = [tl.tensor(a, requires_grad=True) for a in (x, weight, bias)]
        theirs = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
        out = F.batch_norm(ours[0], mean, var, *ours[1:], training=training, momentum=momentum)
        expected = torch.nn.functional.batch_norm(
            theirs[0], tmean, tvar, *theirs[1:], training=training, momentum=momentum
        )
        up = rng(9).standard_normal(shape).astype(dtype)
        out.backward(up)
        expected.backward(torch.tensor(up))
        agree([out.numpy(), mean.numpy(), var.numpy()], [expected.detach().numpy(), tmean, tvar], tolerance)
        agree([a.grad.numpy() for a in ours], [a.grad.numpy() for a in theirs], tolerance)
        assert {a.dtype for a in (out, mean, var)} == {np.dtype(dtype)}


def test_running_statistics_are_the_mean_and_the_unbiased_variance():
    x = rng().standard_normal((4, 2, 3))
    mean, var = tl.tensor([1.0, 2.0], dtype=np.float64), tl.tensor([3.0, 4.0], dtype=np.float64)
    F.batch_norm(x, mean, var, training=True, momentum=0.25)
    np.testing.assert_allclose(mean.numpy(), 0.75 * np.array([1, 2]) + 0.25 * x.mean((0, 2)), rtol=1e-14)
    np.testing.assert_allclose(var.numpy(), 0.75 * np.array([3, 4]) + 0.25 * x.var((0, 2), ddof=1), rtol=1e-14)
    assert not mean.requires_grad
    kept = mean.numpy().copy(), var.numpy().copy()
    out = F.batch_norm(x, mean, var, eps=0.5).numpy()
    np.testing.assert_allclose(out, (x - kept[0][:, None]) / np.sqrt(kept[1] + 0.5)[:, None], rtol=1e-13)
    agree([mean.numpy(), var.numpy()], kept, {"rtol": 0})  # evaluation leaves them


# Dropout


def test_dropout_keeps_the_mean_and_its_gradient_has_the_same_mask():
    x = tl.ones(400, 500, requires_grad=True)
    for p in (0.1, 0.5, 0.9):
        x.grad = None
        out = F.dropout(x, p, generator=3)
        values, counts = np.unique(out.numpy(), return_counts=True)
        np.testing.assert_allclose(values, [0, 1 / (1 - p)], rtol=1e-6)
        assert abs(counts[0] / x.size - p) < 5 * np.sqrt(p * (1 - p) / x.size)  # five standard errors
        up = rng(1).standard_normal(x.shape).astype(np.float32)
        out.backward(up)
        np.testing.assert_array_equal(x.grad.numpy(), up * out.numpy())
        np.testing.assert_array_equal(F.dropout(x, p, generator=3).numpy(), out.numpy())
        assert (F.dropout(x, p, generator=4).numpy() != out.numpy()).any()
    source = np.random.default_rng(0)
    assert (F.dropout(x, generator=source).numpy() != F.dropout(x, generator=source).numpy()).any()
    assert F.dropout(tl.ones(4, dtype=np.float64), 0.3).dtype == np.float64


def test_dropout_of_none_of_all_and_in_evaluation():
    x = tl.tensor([1.0, -2.0], requires_grad=True)
    np.testing.assert_array_equal(F.dropout(x, 0.0).numpy(), x.numpy())
    np.testing.assert_array_equal(F.dropout(x, 0.7, training=False).numpy(), x.numpy())
    out = F.dropout(x, 1.0)
    np.testing.assert_array_equal(out.numpy(), [0, 0])
    out.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 0])


# Mistakes

X, T = tl.zeros(3, 4), [0, 1, 2]
LISTED = [[0.25] * 4] * 3
MISTAKES = [
    (lambda: F.cross_entropy(X, [0, 1, 4]), ArgumentError, r"4 classes, 0 \.\.\. 3, but a target is 4"),
    (lambda: F.nll_loss(X, [0, -1, 1]), ArgumentError, "nll_loss: .*a target is -1"),
    (lambda: F.cross_entropy(X, [0, 1]), ShapeError, r"\(3, 4\).*needs class indices of shape \(3,\), got \(2,\)"),
    (lambda: F.cross_entropy(X, [0.0, 1.5, 2.0]), DTypeError, "whole numbers, got 1.5"),
    (lambda: F.cross_entropy(tl.tensor(1.0), 0), ShapeError, "cross_entropy: .*axis of classes"),
    (lambda: F.nll_loss(tl.tensor(1.0), 0), ShapeError, "nll_loss"),
    (
        lambda: F.cross_entropy(X, T, label_smoothing=1.5),
        ArgumentError,
        r"label_smoothing must lie in \[0, 1\], got 1.5",
    ),
    (lambda: F.cross_entropy(X, T, reduction="avg"), ArgumentError, "cross_entropy: reduction must .*'avg'"),
    (lambda: F.l1_loss(X, X, reduction=None), ArgumentError, "l1_loss: reduction must .*None"),
    (lambda: F.cross_entropy(X, T, weight=tl.ones(5)), ShapeError, r"cross_entropy: .*weight.*\(5,\)"),
    (lambda: F.cross_entropy(X, T, tl.ones(5), label_smoothing=0.1), ShapeError, r"cross_entropy: .*weight.*\(5,\)"),
    (lambda: F.nll_loss(X, T, weight=tl.ones(2)), ShapeError, r"nll_loss: .*weight.*\(2,\)"),
    (lambda: F.mse_loss(X, tl.ones(4)), ShapeError, r"mse_loss: input \(3, 4\) and target \(4,\)"),
    (lambda: F.binary_cross_entropy_with_logits(X, tl.ones(4)), ShapeError, r"\(3, 4\) and target \(4,\)"),
    (lambda: F.dropout(X, 1.5), ArgumentError, "dropout: p .* got 1.5"),
    (lambda: F.dropout(X, float("nan")), ArgumentError, "dropout: p .* got nan"),
    (lambda: F.dropout(X, generator="a"), ArgumentError, "generator must be .* got str"),
    (lambda: F.dropout(tl.arange(4), generator=0), DTypeError, "dropout: .*int64"),
    (lambda: F.prelu(X, tl.ones(3)), ShapeError, r"prelu: .*\(3, 4\).*got \(3,\)"),
    (lambda: F.batch_norm(tl.ones(3), training=True), ShapeError, r"batch_norm: .*got \(3,\)"),
    (lambda: F.batch_norm(tl.ones(1, 3), training=True), ShapeError, r"more than one value, .*\(1, 3\); call eval"),
    (lambda: F.batch_norm(tl.ones(2, 3)), ArgumentError, "needs running_mean and running_var"),
    (lambda: F.batch_norm(X, training=True, weight=tl.ones(5)), ShapeError, r"batch_norm: .*weight.*\(5,\)"),
    (lambda: F.batch_norm(tl.ones(2, 1), training=True, bias=tl.ones(4)), ShapeError, r"batch_norm: .*bias.*\(4,\)"),
    (lambda: F.batch_norm(X, tl.ones(5), tl.ones(5), training=True), ShapeError, "batch_norm: .*running_mean"),
    (lambda: F.batch_norm(tl.ones(2, 1), tl.ones(4), tl.ones(4)), ShapeError, "batch_norm: .*running_mean"),
]


@pytest.mark.parametrize(("call", "error", "words"), MISTAKES)
def test_mistakes_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_weights_and_lists_do_not_widen_float32():
    wide = np.ones(4)
    assert F.cross_entropy(X, T, weight=wide).dtype == np.float32
    assert F.cross_entropy(X, T, weight=wide, label_smoothing=0.1).dtype == np.float32
    assert F.cross_entropy(X, LISTED).dtype == np.float32  # a list of numbers is float32, as everywhere


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_of_integers_is_refused(training):
    with pytest.raises(tl.DTypeError, match="batch_norm: input must be floats, got int64"):
        F.batch_norm(tl.arange(6).reshape(3, 2), tl.zeros(2), tl.ones(2), training=training)
