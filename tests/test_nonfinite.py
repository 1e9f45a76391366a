"""NaN and infinities: one in each argument of every op; values and gradients are those of PyTorch."""

import numpy as np
import pytest
from judges import listed

import tinygrad_lenet as tl

inf, nan = np.inf, np.nan
RNG = np.random.default_rng(5)
X, Y = RNG.uniform(0.3, 0.9, (2, 3, 4)), RNG.uniform(0.3, 0.9, (3, 4))
V, W = RNG.uniform(0.2, 0.8, 3), RNG.uniform(0.2, 0.8, (3, 4))
IMAGES, KERNEL = RNG.uniform(-1, 1, (2, 2, 4, 5)), RNG.uniform(-1, 1, (2, 2, 2, 3))
LOGITS, MASK = RNG.uniform(-1, 1, (4, 3)), RNG.uniform(0, 1, (3, 4)) > 0.5
CLASSES = np.array([2, 0, 1, 2])
IGNORED = np.array([2, -100, 1, 2])
SHARES = RNG.uniform(0.1, 0.9, (4, 3))
INDEX = np.array([[0, 2, 1, 0], [1, 1, 0, 2]])


def cases(torch):
    """Name, ours, PyTorch's, arrays of floats."""
    F, T = torch.nn.functional, torch.tensor
    unary = (
        "abs ceil clone cos cosh erf exp expm1 floor log log10 log1p log2 neg reciprocal round sign sin sinh sqrt "
        "square tan arccos arcsin arctan sigmoid tanh relu logical_not rsqrt isnan isinf isfinite"
    )
    for name in unary.split():
        yield name, getattr(tl, name), getattr(torch, name), [Y]
    kinked = "celu elu gelu hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish relu6 selu silu softplus softsign"
    for name in kinked.split():
        yield name, getattr(tl, name), getattr(F, name), [Y]
        yield f"{name} below", getattr(tl, name), getattr(F, name), [-Y]
    yield "gelu tanh", lambda x: tl.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh"), [Y]
    yield "celu 0.5", lambda x: tl.celu(x, 0.5), lambda x: F.celu(x, 0.5), [Y]
    yield "elu 0.5", lambda x: tl.elu(x, 0.5), lambda x: F.elu(x, 0.5), [Y]
    yield "leaky_relu 0", lambda x: tl.leaky_relu(x, 0.0), lambda x: F.leaky_relu(x, 0.0), [Y]
    yield "leaky_relu -1", lambda x: tl.leaky_relu(x, -1.0), lambda x: F.leaky_relu(x, -1.0), [Y]
    yield "softplus beta", lambda x: tl.softplus(x, 2.0, 1.0), lambda x: F.softplus(x, 2.0, 1.0), [Y]
    yield "hardtanh", lambda x: tl.hardtanh(x, 0.4, 0.6), lambda x: F.hardtanh(x, 0.4, 0.6), [Y]
    yield "prelu", tl.prelu, F.prelu, [Y - 0.6, V[:1]]
    yield "prelu of channels", tl.prelu, F.prelu, [X - 0.6, V]
    yield "clip", lambda x: tl.clip(x, 0.4, 0.6), lambda x: x.clip(0.4, 0.6), [Y]
    yield "clip below", lambda x: tl.clip(x, min=0.5), lambda x: x.clip(min=0.5), [Y]
    yield "round decimals", lambda x: tl.round(x, 1), lambda x: x.round(decimals=1), [Y]
    binary = "add sub mul div pow maximum minimum hypot arctan2 logaddexp eq ne lt le gt ge logical_and logical_or"
    for name in binary.split():
        yield name, getattr(tl, name), getattr(torch, name), [X, Y]
    yield "mod", tl.mod, torch.remainder, [X * 3, Y]
    for power in (0, 1, 2, 3, -1, 0.5, -2.5):
        yield f"pow {power}", lambda x, p=power: x**p, lambda x, p=power: x**p, [Y]
    for base in (0.0, 1.0, 2.0, 0.5):
        yield f"{base} to the power", lambda x, b=base: b**x, lambda x, b=base: b**x, [Y]
    yield "pow of 0", lambda x, y: tl.pow(x, y), torch.pow, [Y * 0, Y]
    yield "pow to 0", lambda x, y: tl.pow(x, y), torch.pow, [Y, Y * 0]
    yield "where", lambda x, y: tl.where(MASK, x, y), lambda x, y: torch.where(T(MASK), x, y), [X, Y]
    yield "astype", lambda x: x.astype(np.float64), lambda x: x.double(), [Y]

    # Reductions, and along an axis
    for name in ("sum", "mean", "amax", "amin", "logsumexp", "prod"):
        yield name, lambda x, n=name: getattr(tl, n)(x, 1), lambda x, n=name: getattr(torch, n)(x, 1), [X]
    for name in ("max", "min", "any", "all", "median", "argmax", "argmin"):
        yield name, lambda x, n=name: getattr(tl, n)(x, 1), lambda x, n=name: listed(getattr(torch, n)(x, 1))[0], [X]
    yield "sum of all", tl.sum, torch.sum, [X]
    yield "count_nonzero", lambda x: tl.count_nonzero(x, 1), lambda x: torch.count_nonzero(x, 1), [X]
    for name in ("var", "std"):
        for ddof in (0, 1):
            yield (
                f"{name} {ddof}",
                lambda x, n=name, d=ddof: getattr(tl, n)(x, -1, ddof=d),
                lambda x, n=name, d=ddof: getattr(torch, n)(x, -1, correction=d),
                [X],
            )
    for p in (0, 0.5, 1, 2, 2.5, 3, -1, inf, -inf):
        yield f"norm {p}", lambda x, p=p: tl.norm(x, p, 1), lambda x, p=p: torch.linalg.vector_norm(x, p, 1), [X]
    yield (
        "linalg.norm",
        lambda x: tl.linalg.norm(x, "fro", (1, 2)),
        lambda x: torch.linalg.matrix_norm(x, "fro", (1, 2)),
        [X],
    )
    for name in ("cumsum", "cumprod", "softmax", "log_softmax"):
        yield name, lambda x, n=name: getattr(tl, n)(x, 1), lambda x, n=name: getattr(torch, n)(x, 1), [X]
    yield "sort", lambda x: tl.sort(x, 1), lambda x: x.sort(1)[0], [X]
    yield "sort down", lambda x: tl.sort(x, 1, True), lambda x: x.sort(1, True)[0], [X]
    yield "argsort", lambda x: tl.argsort(x, 1), lambda x: torch.argsort(x, dim=1, stable=True), [X]
    yield "topk", lambda x: tl.topk(x, 2, 1), lambda x: tuple(x.topk(2, 1)), [X]
    yield "topk smallest", lambda x: tl.topk(x, 2, 1, False), lambda x: tuple(x.topk(2, 1, False)), [X]

    # Elements that move
    i = T(INDEX)
    yield "flip", lambda x: tl.flip(x, 1), lambda x: x.flip(1), [X]
    yield "roll", lambda x: tl.roll(x, 1, 1), lambda x: x.roll(1, 1), [X]
    yield "tile", lambda x: tl.tile(x, (2, 1)), lambda x: x.tile(2, 1), [Y]
    yield "repeat", lambda x: tl.repeat(x, 2, 0), lambda x: x.repeat_interleave(2, 0), [Y]
    yield "concatenate", lambda *x: tl.concatenate(x), lambda *x: torch.cat(x), [Y, W]
    yield "diff", lambda x: tl.diff(x, 2, 1), lambda x: torch.diff(x, 2, 1), [X]
    yield "diag", tl.diag, torch.diag, [V]
    yield "diag of a matrix", tl.diag, torch.diag, [Y]
    yield "stack", lambda *x: tl.stack(x), lambda *x: torch.stack(x), [Y, W]
    yield "split", lambda x: tl.split(x, [1, 2]), lambda x: x.tensor_split([1, 2]), [Y]
    yield "tril", tl.tril, torch.tril, [X]
    yield "triu", tl.triu, torch.triu, [X]
    yield "diagonal", tl.diagonal, torch.diagonal, [Y]
    yield "trace", tl.trace, torch.trace, [Y]
    yield "broadcast_to", lambda x: tl.broadcast_to(x, (2, 3, 4)), lambda x: x.broadcast_to((2, 3, 4)), [Y]
    yield "getitem", lambda x: x[[1, 0, 1]], lambda x: x[[1, 0, 1]], [Y]
    yield "gather", lambda x: tl.gather(x, 0, INDEX), lambda x: x.gather(0, i), [Y]
    unique = np.array([[0, 2, 1, 0], [1, 1, 0, 2]])
    yield (
        "scatter",
        lambda x, y: tl.scatter(x, 0, unique, y),
        lambda x, y: x.scatter(0, T(unique), y[:2]),
        [Y, W],
    )
    yield "scatter_add", lambda x, y: tl.scatter_add(x, 0, INDEX, y), lambda x, y: x.scatter_add(0, i, y[:2]), [Y, W]
    for mode in ("constant", "reflect", "replicate", "circular"):
        yield (
            f"pad {mode}",
            lambda x, m=mode: tl.pad(x, (1, 2, 1, 0), m),
            lambda x, m=mode: F.pad(x, (1, 2, 1, 0), m),
            [IMAGES],
        )
    yield "embedding", lambda x: tl.embedding(INDEX, x), lambda x: F.embedding(i, x), [Y]
    yield "embedding padded", lambda x: tl.embedding(INDEX, x, 1), lambda x: F.embedding(i, x, 1), [Y]

    # Products
    yield "matmul", tl.matmul, torch.matmul, [X, W.T]
    yield "linear", tl.linear, F.linear, [X, W, V]
    yield "dot", tl.dot, torch.dot, [V, W[:, 0]]
    yield "inner", tl.inner, torch.inner, [X, W]
    yield "outer", tl.outer, torch.outer, [V, W[0]]
    yield (
        "tensordot",
        lambda x, y: tl.tensordot(x, y, ([1, 2], [0, 1])),
        lambda x, y: torch.tensordot(x, y, ([1, 2], [0, 1])),
        [X, W],
    )
    for pattern in ("bij,ij->b", "bij,kj->bik", "bij,ij->bij", "bij,kj->i"):
        yield (
            f"einsum {pattern}",
            lambda x, y, p=pattern: tl.einsum(p, x, y),
            lambda x, y, p=pattern: torch.einsum(p, x, y),
            [X, W],
        )

    # Images
    def conv(**options):
        return lambda *a: tl.conv2d(*a, **options), lambda *a: F.conv2d(*a, **options)

    yield "conv2d", *conv(), [IMAGES, KERNEL, V[:2]]
    yield "conv2d padded", *conv(padding=1, stride=2), [IMAGES, KERNEL, V[:2]]
    yield "conv2d dilated", *conv(padding=(1, 2), dilation=2), [IMAGES, KERNEL, V[:2]]
    yield "conv2d groups", *conv(groups=2), [IMAGES, KERNEL[:, :1], V[:2]]
    yield (
        "conv1d",
        lambda *a: tl.conv1d(*a, padding=1),
        lambda *a: F.conv1d(*a, padding=1),
        [X, W.reshape(4, 3, 1), W[0]],
    )
    for o in ({}, {"stride": 2}, {"stride": 2, "padding": 1, "output_padding": 1}, {"dilation": 2}):
        yield (
            f"conv_transpose2d {o}",
            lambda *a, o=o: tl.conv_transpose2d(*a, **o),
            lambda *a, o=o: F.conv_transpose2d(*a, **o),
            [IMAGES, KERNEL, V[:2]],
        )
    yield "unfold", lambda x: tl.unfold(x, (2, 3), padding=1), lambda x: F.unfold(x, (2, 3), padding=1), [IMAGES]
    columns = RNG.uniform(-1, 1, (1, 4, 9))
    yield "fold", lambda x: tl.fold(x, 4, 2), lambda x: F.fold(x, (4, 4), 2), [columns]
    for a in ((2,), (2, 1), (2, 1, 1), (3, 2, 1), (2, 2, 0, 2), (2, 3, 1, 1, True)):
        yield f"max_pool2d {a}", lambda x, a=a: tl.max_pool2d(x, *a), lambda x, a=a: F.max_pool2d(x, *a), [IMAGES]
    for a in ((2,), (2, 1), (2, 1, 1), (3, 2, 1), (3, 2, 1, True), (3, 2, 1, False, False), ((4, 5),)):
        yield f"avg_pool2d {a}", lambda x, a=a: tl.avg_pool2d(x, *a), lambda x, a=a: F.avg_pool2d(x, *a), [IMAGES]
    yield "max_pool1d", lambda x: tl.max_pool1d(x, 2, 1, 1), lambda x: F.max_pool1d(x, 2, 1, 1), [X]
    yield "avg_pool1d", lambda x: tl.avg_pool1d(x, 2, 1, 1), lambda x: F.avg_pool1d(x, 2, 1, 1), [X]
    for s in (1, 2, 3, (3, 2), (4, 5), (6, 7), (None, 2)):
        yield (
            f"adaptive_avg_pool2d {s}",
            lambda x, s=s: tl.adaptive_avg_pool2d(x, s),
            lambda x, s=s: F.adaptive_avg_pool2d(x, s),
            [IMAGES],
        )
        yield (
            f"adaptive_max_pool2d {s}",
            lambda x, s=s: tl.adaptive_max_pool2d(x, s),
            lambda x, s=s: F.adaptive_max_pool2d(x, s),
            [IMAGES],
        )
    for o in (
        {"size": (8, 10)},
        {"size": (3, 7)},
        {"scale_factor": 1.7},
        *(
            {"mode": "bilinear", "size": s, "align_corners": c}
            for s in ((8, 10), (3, 7), (1, 1), (4, 5), (4, 9), (7, 9))
            for c in (False, True)
        ),
        {"mode": "bilinear", "scale_factor": 0.6},
    ):
        yield f"interpolate {o}", lambda x, o=o: tl.interpolate(x, **o), lambda x, o=o: F.interpolate(x, **o), [IMAGES]

    # Normalisation
    stats = [np.array([0.1, 0.2]), np.array([0.5, 2.0])]
    for eps in (1e-5, 0.1):
        yield (
            f"batch_norm {eps}",
            lambda x, w, b, e=eps: tl.batch_norm(x, None, None, w, b, True, 0.1, e),
            lambda x, w, b, e=eps: F.batch_norm(x, None, None, w, b, True, 0.1, e),
            [IMAGES, V[:2], V[1:]],
        )
    yield (
        "batch_norm with statistics",
        lambda x, m, v, w, b: tl.batch_norm(x, m.detach(), v.detach(), w, b),
        lambda x, m, v, w, b: F.batch_norm(x, m.detach(), v.detach(), w, b),
        [IMAGES, *stats, V[:2], V[1:]],
    )
    yield (
        "layer_norm",
        lambda x, w, b: tl.layer_norm(x, 4, w, b),
        lambda x, w, b: F.layer_norm(x, (4,), w, b),
        [X, W[0], W[1]],
    )
    yield (
        "group_norm",
        lambda x, w, b: tl.group_norm(x, 1, w, b),
        lambda x, w, b: F.group_norm(x, 1, w, b),
        [IMAGES, V[:2], V[1:]],
    )
    yield "dropout", lambda x: tl.dropout(x, 1.0), lambda x: F.dropout(x, 1.0), [Y]

    # Losses
    for r in ("none", "mean", "sum"):
        for name in ("mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss"):
            yield (
                f"{name} {r}",
                lambda x, y, n=name, r=r: getattr(tl, n)(x, y, reduction=r),
                lambda x, y, n=name, r=r: getattr(F, n)(x, y, reduction=r),
                [Y, W],
            )
        for name in ("huber_loss", "smooth_l1_loss"):
            o = {"delta" if name[0] == "h" else "beta": 0.05}
            yield (
                f"{name} {o} {r}",
                lambda x, y, n=name, r=r, o=o: getattr(tl, n)(x, y, reduction=r, **o),
                lambda x, y, n=name, r=r, o=o: getattr(F, n)(x, y, reduction=r, **o),
                [Y, W],
            )
        for log_target in (False, True):
            yield (
                f"kl_div {log_target} {r}",
                lambda x, y, g=log_target, r=r: tl.kl_div(x, y, r, g),
                lambda x, y, g=log_target, r=r: F.kl_div(x, y, reduction=r, log_target=g),
                [-Y, W],
            )
        zero = W.copy()
        zero[0] = 0
        zero[1, 0] = -0.5
        yield (
            f"kl_div of zeros {r}",
            lambda x, y, r=r: tl.kl_div(x, y, r),
            lambda x, y, r=r: F.kl_div(x, y, reduction=r),
            [-Y, zero],
        )
        yield (
            f"bce {r}",
            lambda x, y, w, p, r=r: tl.binary_cross_entropy_with_logits(x, y, w.detach(), r, p.detach()),
            lambda x, y, w, p, r=r: F.binary_cross_entropy_with_logits(
                x, y, w.detach(), reduction=r, pos_weight=p.detach()
            ),
            [Y - 0.5, W, Y, W[0]],
        )
        for what, target in (("classes", CLASSES), ("ignored", IGNORED)):
            for smooth in (0.0, 0.1):
                yield (
                    f"cross_entropy {what} {smooth} {r}",
                    lambda x, r=r, t=target, s=smooth: tl.cross_entropy(x, t, reduction=r, label_smoothing=s),
                    lambda x, r=r, t=target, s=smooth: F.cross_entropy(x, T(t), reduction=r, label_smoothing=s),
                    [LOGITS],
                )
                yield (
                    f"cross_entropy weighted {what} {smooth} {r}",
                    lambda x, w, r=r, t=target, s=smooth: tl.cross_entropy(
                        x, t, w.detach(), reduction=r, label_smoothing=s
                    ),
                    lambda x, w, r=r, t=target, s=smooth: F.cross_entropy(
                        x, T(t), w.detach(), reduction=r, label_smoothing=s
                    ),
                    [LOGITS, V],
                )
            yield (
                f"nll_loss {what} {r}",
                lambda x, w, r=r, t=target: tl.nll_loss(x, t, w.detach(), reduction=r),
                lambda x, w, r=r, t=target: F.nll_loss(x, T(t), w.detach(), reduction=r),
                [-SHARES, V],
            )
        for smooth in (0.0, 0.1):
            yield (
                f"cross_entropy of shares {smooth} {r}",
                lambda x, y, w, r=r, s=smooth: tl.cross_entropy(x, y, w.detach(), reduction=r, label_smoothing=s),
                lambda x, y, w, r=r, s=smooth: F.cross_entropy(x, y, w.detach(), reduction=r, label_smoothing=s),
                [LOGITS, SHARES, V],
            )
        for p in (1, 2):
            yield (
                f"multi_margin_loss {p} {r}",
                lambda x, w, r=r, p=p: tl.multi_margin_loss(x, CLASSES, p, 1.0, w.detach(), r),
                lambda x, w, r=r, p=p: F.multi_margin_loss(x, T(CLASSES), p, 1.0, w.detach(), reduction=r),
                [LOGITS, V],
            )


# What differs on purpose, as the docstrings say, or because PyTorch's own kernels differ from each other: the beginning
# of the name of a case, where, for which numbers, and why.
DIFFERENT = [
    ("sign", "value", [nan], "NumPy's sign of NaN is NaN, PyTorch's 0"),
    ("gelu", "value", [inf], "PyTorch's kernel for float32 gives NaN, that for float64 inf"),
    ("gelu tanh", "gradient", [inf, -inf], "the limit, where PyTorch has NaN"),
    ("mish", "gradient", [inf, -inf], "the limit, where PyTorch has NaN"),
    ("softsign", "gradient", [inf, -inf], "the limit, where PyTorch has NaN"),
    ("hardtanh", "gradient", [nan], "PyTorch gives 0, but the gradient at the end of an array that fills no register"),
    ("relu6", "gradient", [nan], "PyTorch gives 0, but the gradient at the end of an array that fills no register"),
    ("pow 0.5", "gradient", [-inf], "C's pow(-inf, -0.5) is 0, PyTorch's NaN"),
    *((f"{e} {kind}".strip(), where, [nan], "NaN shares the gradient as in PyTorch's max; its amax makes all NaN")
        for e, kind in (("amax", ""), ("amin", ""), ("norm", "inf"), ("norm", "-inf"))
        for where in ("gradient", "seed")),
    ("prod", "gradient", [nan, inf, -inf], "the product of the others, where PyTorch divides inf by inf"),
    ("cumprod", "gradient", [nan, inf, -inf], "the product of the others, where PyTorch divides inf by inf"),
    ("var", "gradient", [inf, -inf], "all NaN, where PyTorch gives the others an infinity"),
    ("conv", "float32", [nan, inf, -inf], "PyTorch leaves out the zeros of padding in float32, not in float64"),
    ("max_pool", "gradient", [nan], "a window with a NaN has no gradient"),
    ("adaptive_max_pool", "gradient", [nan], "a window with a NaN has no gradient"),
    ("batch_norm", "value", [inf, -inf], "an infinite weight times the distance from the mean; PyTorch has inf - inf"),
    ("group_norm", "value", [inf, -inf], "an infinite weight times the distance from the mean; PyTorch has inf - inf"),
    ("group_norm", "gradient", [inf, -inf], "of an infinite weight"),
    ("layer_norm", "gradient", [inf, -inf], "of an infinite weight"),
    ("kl_div of zeros", "value", [nan, inf, -inf], "where the target is 0 an infinite input does not matter"),
    ("kl_div of zeros", "gradient", [nan, inf, -inf, None], "where the target is 0 the gradients are 0"),
    ("kl_div of zeros", "seed", [nan], "where the target is 0 the gradients are 0"),
    ("bce", "value", [inf, -inf], "infinite logits, and infinite targets, which are no probabilities"),
    ("bce", "gradient", [inf, -inf], "infinite logits, and infinite targets, which are no probabilities"),
    ("cross_entropy", "value", [inf], "an infinite logit of another class: inf, where PyTorch has inf - inf"),
    ("cross_entropy weighted", "gradient", [inf, -inf], "of an infinite weight"),
    ("multi_margin_loss", "value", [nan], "PyTorch counts NaN as 0"),
    ("multi_margin_loss", "gradient", [nan], "PyTorch counts NaN as 0"),
]  # fmt: skip


def differs(name, where, value, dtype):
    return any(
        name.startswith(start)
        and (kind == where or (kind == "float32" == np.dtype(dtype).name))
        and any(v is value or v == value for v in values)
        for start, kind, values, _ in DIFFERENT
    )


def pictures(torch, ours, theirs, arrays, weights, places):
    """Values and gradients of both, in pairs: (where, ours, PyTorch's)."""
    xs = [tl.tensor(a, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, requires_grad=True) for a in arrays]
    ys, us = listed(ours(*xs)), listed(theirs(*ts))
    found = [("value", y.numpy(), u.detach().numpy()) for y, u in zip(ys, us, strict=True)]
    pairs = [(y, u) for y, u in zip(ys, us, strict=True) if y.requires_grad and u.requires_grad]
    if not pairs:
        return found
    seeds = [weights(u.shape, y.dtype) for y, u in pairs]
    expected = torch.autograd.grad([u for _, u in pairs], ts, [torch.tensor(s) for s in seeds], allow_unused=True)
    for create_graph in (False, True):
        gradients = tl.grad(
            [y for y, _ in pairs], xs, [tl.tensor(s) for s in seeds], create_graph=create_graph, retain_graph=True,
            allow_unused=True,
        )  # fmt: skip
        for a, g, h in zip(arrays, gradients, expected, strict=True):
            if g is not None or h is not None:
                found.append((places, *(np.zeros_like(a) if v is None else v.numpy() for v in (g, h))))
    return found


try:
    import torch as _torch

    CASES = [*cases(_torch)]
except ImportError:
    CASES = []


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("values", [(nan,), (inf,), (-inf,), (inf, -inf), (inf, inf)])
def test_running_statistics_of_a_batch_with_infinities_are_pytorchs(torch, values, dtype):
    images, statistics = IMAGES.astype(dtype), [np.zeros(2, dtype), np.ones(2, dtype)]
    images[0, 0, 0, : len(values)] = values
    ours, theirs = [tl.tensor(s) for s in statistics], [torch.tensor(s) for s in statistics]
    tl.batch_norm(images, *ours, training=True)
    torch.nn.functional.batch_norm(torch.tensor(images), *theirs, training=True)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), 1e-5)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:.*:UserWarning")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", CASES, ids=[name for name, *_ in CASES])
def test_one_number_that_is_not_finite_travels_as_in_pytorch(torch, case, dtype):
    name, ours, theirs, arrays = case
    arrays = [a.astype(dtype) for a in arrays]
    trials = [(None, 0, None)]
    trials += [(i, p, v) for i, a in enumerate(arrays) for p in {0, a.size - 1} for v in (nan, inf, -inf)]
    trials += [("seed", 0, nan)]
    for which, place, value in trials:
        given = list(arrays)

        def weights(shape, dtype, seeded=which == "seed"):
            drawn = np.random.default_rng(1).uniform(0.5, 1.5, shape).astype(dtype)
            if seeded and drawn.size:
                drawn.flat[0] = nan
            return drawn

        if which not in (None, "seed"):
            given[which] = given[which].copy()
            given[which].flat[place] = value
        where = "seed" if which == "seed" else "gradient"
        for what, a, b in pictures(torch, ours, theirs, given, weights, where):
            if not differs(name, what, value, dtype):
                tolerance = 1e-6 if dtype == np.float64 else 1e-4
                message = f"{what} with {value} in argument {which} at {place}"
                np.testing.assert_allclose(a, b, tolerance, tolerance, err_msg=message)
