"""The rows of tests/tools/accuracy.py for ops that look at more than one element at once."""

import functools
import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from ulps import HUGE, RNG, large_row, linear_row, log, matrix_row, mp, plus, sigma, some, vector_row

import tinygrad_lenet as tl
from tinygrad_lenet.ops import convolution, indexing, pooling, products, rearrange, resize
from tinygrad_lenet.ops.windows import windows

red = functools.partial(vector_row, "reductions")
soft = functools.partial(vector_row, "softmax, losses")
u = np.float32(2**-23)
NORMAL = RNG.standard_normal((6, 8))
LOGITS = np.float32(
    [
        *NORMAL,
        *NORMAL * 10,
        *NORMAL * 1e4,
        [1e4] * 8,
        [-1e4] * 8,
        [1e4, -1e4] * 4,
        [0] * 8,
        [-math.log(8)] * 8,
        [0, *[-20] * 7],
        [20, *[0] * 7],
        [30, *[-30] * 7],
        [*[-5] * 7, 15],
        [1e-30, *[-80] * 7],
        [0, -17, -40, -60, -80, -95, -100, -104],
        [1 + k * u for k in range(8)],
        [1e4 + k * 2**-10 for k in range(8)],
        10.0 ** np.arange(-40, 0, 5),
        [3e38, 1e38, 0, -1e38, -3e38, 1, 2, 3],
        [0.5, *[-40] * 6, 0.5],
    ]
)
MASKED = np.float32([[-math.inf, 0, 1, -math.inf, 2, 3, -math.inf, -1], [*[-math.inf] * 7, 5]])


def probabilities(x):
    e = np.array([mp.exp(v) for v in x])
    return e / e.sum()


def softmax_truth(x, g):
    p = probabilities(x)
    return (p, None), [(p * (g - (g * p).sum()), p * (abs(g) + (abs(g) * p).sum()))]


def log_softmax_truth(x, g):
    p = probabilities(x)
    rest = [log(1 - p[i]) if p[i] < 0.9 else log(sum(p[:i]) + sum(p[i + 1 :])) for i in range(len(p))]
    value = np.array([log(v) if v < 0.9 else mp.log1p(-mp.exp(r)) for v, r in zip(p, rest, strict=True)])
    return (value, None), [(g - p * g.sum(), abs(g) + p * abs(g).sum())]


def logsumexp_truth(x, g):
    top = max(x)
    value = top + log(sum(mp.exp(v - top) for v in x))
    return (value, abs(top) + log(sum(mp.exp(v - top) for v in x))), [(g * probabilities(x), None)]


def nll_truth(x, index, g):
    others = sum(mp.exp(v - x[int(index)]) for i, v in enumerate(x) if i != index)
    p, hit = probabilities(x), np.arange(len(x)) == int(index)
    rest = sum(p[~hit])
    return (mp.log1p(others) if others < HUGE else log(others), None), [(g * np.where(hit, -rest, p), None)]


soft("softmax", softmax_truth, np.concatenate([LOGITS, MASKED]), bounds=(4, 4), sums="b")
soft("log_softmax", log_softmax_truth, LOGITS, bounds=(4, 4), sums="b")
red("logsumexp", logsumexp_truth, np.concatenate([LOGITS, MASKED]), bounds=(4, 4), sums="f")
INDEX = np.arange(len(LOGITS)) % 8
soft("softmax_nll", nll_truth, LOGITS, INDEX, call=lambda x, i: tl.cross_entropy(x, i, reduction="none"), bounds=(4, 5))
soft(
    "softmax_nll",
    nll_truth,
    LOGITS,
    INDEX * 0,
    call=lambda x, i: tl.cross_entropy(x, i, reduction="none"),
    bounds=(4, 5),
)


def bce_truth(x, y, g):
    sp = np.frompyfunc(plus, 1, 1)
    return (y * sp(-x) + (1 - y) * sp(x), None), [
        (g * (np.frompyfunc(sigma, 1, 1)(x) - y), abs(g) * (np.frompyfunc(sigma, 1, 1)(x) + y)),
        None,
    ]


X, Y = np.float32(np.meshgrid([0, 1e-30, 0.5, -3, 17, -17, 40, -40, 88, 1e4, -1e4, 1e-3], [0, 1, 0.3]))
soft(
    "bce_with_logits",
    bce_truth,
    X,
    Y,
    call=lambda x, y: tl.binary_cross_entropy_with_logits(x, y, reduction="none"),
    bounds=(4, 4),
    sums="b",
)


def kl_truth(x, y, g):
    value = np.array([t * (log(t) - i) if t else mp.mpf(0) for i, t in zip(x, y, strict=True)])
    scale = np.array([t * (abs(log(t)) + abs(i)) if t else mp.mpf(0) for i, t in zip(x, y, strict=True)])
    return (value, scale), [(-g * y, None), None]


X, Y = np.float32(np.meshgrid([-0.5, -1e-6, -88, -1e4, math.log(0.3)], [0, 1, 0.3, 1e-30, 0.9999999]))
soft("kl_div", kl_truth, X, Y, call=lambda x, y: tl.kl_div(x, y, reduction="none"), bounds=(4, 4), sums="f")


def huber_truth(x, y, g):
    d = x - y
    big = abs(d) > 1
    return (np.where(big, abs(d) - mp.mpf(0.5), d * d / 2), None), [
        (s * g * np.where(big, np.sign(d), d), None) for s in (1, -1)
    ]


X, Y = np.float32(np.meshgrid([0, 1e-18, 1e-3, 1 + u, 1 - u, 1e4, -3e38], [0, 1e-3, -1e4]))
soft("huber_loss", huber_truth, X, Y, call=lambda x, y: tl.huber_loss(x, y, reduction="none"), bounds=(4, 4))
soft(
    "mse_loss",
    lambda x, y, g: (((x - y) ** 2, None), [(2 * g * (x - y), None), (-2 * g * (x - y), None)]),
    X[:, :6],
    Y[:, :6],
    call=lambda x, y: tl.mse_loss(x, y, reduction="none"),
    bounds=(2, 2),
)

SCALED = np.float32(
    [
        *NORMAL,
        *NORMAL * 1e30,
        *NORMAL * 1e-30,
        *NORMAL * 1e-42,
        [3e38, *[0] * 7],
        [1e38] * 8,
        [1e-45] * 8,
        [1e38, *[1e-38] * 7],
        [*[0] * 7, -1e-20],
        10.0 ** np.arange(-40, 40, 10),
        [1e20, *[1e19] * 7],
    ]
)


def norm_truth(p):
    def truth(x, g):
        value = sum(abs(v) ** p for v in x) ** (1 / mp.mpf(p))
        return (value, None), [
            (g * np.array([mp.sign(v) * (abs(v) / value) ** (p - 1) if v else mp.mpf(0) for v in x]), None)
        ]

    return truth


red("norm", norm_truth(mp.mpf(2)), SCALED, call=lambda x: tl.norm(x, 2, -1), bounds=(4, 4))
red("norm", norm_truth(mp.mpf(1)), SCALED, call=lambda x: tl.norm(x, 1, -1), bounds=(4, 0))
red("norm", norm_truth(mp.mpf(3)), SCALED, call=lambda x: tl.norm(x, 3, -1), bounds=(4, 6))
red("norm", norm_truth(mp.mpf(0.5)), SCALED, call=lambda x: tl.norm(x, 0.5, -1), bounds=(6, 6))

OFFSET = np.float32(
    [
        *NORMAL,
        *1e4 + NORMAL * 1e-3,
        *1e4 + NORMAL,
        *-1e6 + NORMAL * 1e2,
        *NORMAL * 1e-15,
        *NORMAL * 1e15,
        [1e4] * 7 + [1e4 + 2**-10],
        [1 + k * u for k in range(8)],
        [1e-3 * k for k in range(8)],
        [16777216, 16777218] * 4,
        [*[0] * 7, 1],
        [1e8, *[1] * 7],
    ]
)


def var_truth(root):
    def truth(x, g):
        n = len(x)
        d = x - x.sum() / n
        var = (d * d).sum() / n
        std = mp.sqrt(var)
        return (std if root else var, None), [
            (
                g * d / (n * std if root else n / mp.mpf(2)),
                d * 0 + abs(g) * abs(d).max() / (n * std if root else n / mp.mpf(2)),
            )
        ]

    return truth


red("var", var_truth(False), OFFSET, bounds=(4, 4), sums="b")
red("std", var_truth(True), OFFSET, bounds=(4, 4), sums="b")


def norm_layer_truth(eps):
    def truth(x, g):
        n = len(x)
        d = x - x.sum() / n
        s = mp.sqrt((d * d).sum() / n + eps)
        h = d / s
        m, c = g.sum() / n, (g * h).sum() / n
        return (h, h * 0 + abs(h).max()), [
            ((g - m - h * c) / s, (abs(g) + abs(g).sum() / n + abs(h) * (abs(g * h)).sum() / n) / s)
        ]

    return truth


norms = functools.partial(vector_row, "normalisation")
EPS = mp.mpf(1e-5)
norms("layer_norm", norm_layer_truth(EPS), OFFSET, call=lambda x: tl.layer_norm(x, 8), bounds=(4, 4), sums="fb")
norms(
    "layer_norm",
    norm_layer_truth(mp.mpf(1e-12)),
    OFFSET[:12],
    call=lambda x: tl.layer_norm(x, 8, eps=1e-12),
    bounds=(4, 4),
    sums="fb",
)
norms(
    "group_norm",
    norm_layer_truth(EPS),
    OFFSET,
    call=lambda x: tl.group_norm(x.reshape(-1, 2, 4), 1).reshape(-1, 8),
    bounds=(4, 4),
    sums="fb",
)
norms(
    "batch_norm",
    norm_layer_truth(EPS),
    OFFSET,
    call=lambda x: tl.batch_norm(x.T, training=True).T,
    bounds=(4, 4),
    sums="fb",
)

FACTORS = np.float32(
    [
        *NORMAL,
        *1 + NORMAL * 1e-7,
        [1e30, 1e30, 1e-30, 1e-30] * 2,
        [1e-30, 1e-30, 1e30, 1e30] * 2,
        [0, 1, 2, 3, 4, 5, 6, 7],
        [1e-5] * 8,
    ]
)


def cumprod_truth(x, g):
    values = np.array([mp.fprod(x[: k + 1]) for k in range(len(x))])
    terms = [
        [g[k] * mp.fprod(v for j, v in enumerate(x[: k + 1]) if j != i) for k in range(i, len(x))]
        for i in range(len(x))
    ]
    return (values, None), [(np.array([sum(t) for t in terms]), np.array([sum(map(abs, t)) for t in terms]))]


def prod_truth(x, g):
    return (mp.fprod(x), None), [
        (g * np.array([mp.fprod(v for j, v in enumerate(x) if j != i) for i in range(len(x))]), None)
    ]


red("cumprod", cumprod_truth, FACTORS, call=lambda x: tl.cumprod(x, -1), bounds=(4, 8), sums="b")
red("prod", prod_truth, FACTORS, call=lambda x: tl.prod(x, -1), bounds=(4, 8))


def extreme_truth(best):
    def truth(x, g):
        hit = x == best(x)
        return (best(x), None), [(g * hit / sum(hit.astype(int)), None)]

    return truth


red("max", extreme_truth(max), LOGITS, call=lambda x: tl.max(x, -1), bounds=(0, 1))
red("min", extreme_truth(min), LOGITS, call=lambda x: tl.min(x, -1), bounds=(0, 1))


def convolve(x, w, b=None):
    """Convolution with padding 1, all windows at once."""
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.einsum("ncijab,ocab->noij", sliding_window_view(wide, w.shape[2:], (2, 3)), w)
    return out if b is None else out + b.reshape(-1, 1, 1)


def spread_out(g, w):
    """Its transpose for the images: every output paints its window."""
    (n, _, h, v), (_, c, a, b) = g.shape, w.shape
    out = np.zeros((n, c, h + a - 1, v + b - 1))
    for i, j in np.ndindex(h, v):
        out[:, :, i : i + a, j : j + b] += np.einsum("no,ocab->ncab", g[:, :, i, j], w)
    return out[:, :, 1:-1, 1:-1]


def met(x, g):
    """Its transpose for the kernels: how often each weight met each pixel."""
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    size = [wide.shape[i] - g.shape[i] + 1 for i in (2, 3)]
    return np.einsum("ncijab,noij->ocab", sliding_window_view(wide, size, (2, 3)), g)


structure = functools.partial(linear_row, "shape, picking")
plain = some(3, 4) * np.float32(1e-20)
structure("reshape", lambda x: x.reshape(2, 6), lambda x: x.reshape(2, 6), plain, bounds=(0, 0))
structure("permute", lambda x: x.permute(1, 0), lambda x: x.T, plain, bounds=(0, 0))
wide = lambda m: lambda x: m.broadcast_to(x, (9, 3, 4))
structure("broadcast_to", wide(tl), wide(np), plain, bounds=(0, 2), sums="b")
structure("diagonal", tl.diagonal, np.diagonal, plain, bounds=(0, 0))
structure("on_diagonal", lambda x: rearrange._on_diagonal(x, (4, 4), 0), np.diag, plain[0], bounds=(0, 0))
structure(
    "join", lambda x, y: tl.concatenate([x, y], 1), lambda x, y: np.concatenate([x, y], 1), plain, plain, bounds=(0, 0)
)
PICK = np.array([0, 2, 0, 0])
structure("pick", lambda x: x[PICK], lambda x: x[PICK], plain, bounds=(0, 2), sums="b")
structure(
    "put",
    lambda x: indexing._put((3, 4), (((PICK,),),), x),
    lambda x: np.array([x[0] + x[2] + x[3], x[1] * 0, x[1]]),
    some(4, 4),
    bounds=(2, 0),
    sums="f",
)
structure("take", lambda x: resize._take(x, tuple(PICK), 0), lambda x: x[PICK], plain, bounds=(0, 2), sums="b")
structure(
    "give",
    lambda x: resize._give(x, tuple(PICK), 0, (3, 4)),
    lambda x: np.array([x[0] + x[2] + x[3], x[1] * 0, x[1]]),
    some(4, 4),
    bounds=(2, 0),
    sums="f",
)
structure("pad", lambda x: tl.pad(x, (1, 2)), lambda x: np.pad(x, ((0, 0), (1, 2))), plain, bounds=(0, 0))
total = functools.partial(linear_row, "sums")
for axis in (0, 1):
    x = some(*(300, 2)[:: 1 - 2 * axis])
    total("sum", lambda x, a=axis: x.sum(a), lambda x, a=axis: x.sum(a), x, bounds=(4, 0), sums="f")
    total("mean", lambda x, a=axis: x.mean(a), lambda x, a=axis: x.mean(a), x + 1e4, bounds=(4, 1), sums="f")
    total("cumsum", lambda x, a=axis: x.cumsum(a), lambda x, a=axis: x.cumsum(a), x, bounds=(4, 4), sums="fb")
wide = functools.partial(linear_row, "products, convolution")
wide("matmul", lambda x, y: x @ y, lambda x, y: x @ y, some(3, 40, offset=1e4), some(40, 2), bounds=(8, 8), sums="fb")
wide("linear", tl.linear, lambda x, w, b: x @ w.T + b, some(3, 40), some(2, 40), some(2), bounds=(8, 8), sums="fb")
wide(
    "linear_weight_grad",
    products._linear_weight_grad,
    lambda g, x: g.T @ x,
    some(40, 2),
    some(40, 3),
    bounds=(8, 8),
    sums="fb",
)
IMAGES, KERNELS = some(2, 2, 5, 4, offset=1e4), some(3, 2, 3, 3)
padded = lambda x, w, b: tl.conv2d(x, w, b, padding=1)
PADDED = convolution.Geometry(convolution.windows((5, 4), (3, 3), 1, 1, 1), 1)
wide("conv2d", padded, convolve, IMAGES, KERNELS, some(3), bounds=(8, 8), sums="fb")
wide(
    "conv2d_input_grad",
    lambda g, w: convolution.conv2d_input_grad(g, w, PADDED),
    spread_out,
    some(2, 3, 5, 4),
    KERNELS,
    bounds=(8, 8),
    sums="fb",
)
wide(
    "conv2d_weight_grad",
    lambda x, g: convolution.conv2d_weight_grad(x, g, PADDED),
    met,
    IMAGES,
    some(2, 3, 5, 4),
    bounds=(8, 8),
    sums="fb",
)


def patches(x):
    seen = sliding_window_view(x, (3, 2), (2, 3)).transpose(0, 1, 4, 5, 2, 3)
    return seen.reshape(len(x), -1, seen.shape[4] * seen.shape[5])


def folded(columns):
    out = np.zeros((1, 1, 4, 3))
    for k, (i, j) in enumerate(np.ndindex(2, 2)):
        out[0, 0, i : i + 3, j : j + 2] += columns[0, :, k].reshape(3, 2)
    return out


wide("unfold", lambda x: tl.unfold(x, (3, 2)), patches, some(1, 1, 4, 3), bounds=(0, 2), sums="b")
wide("fold", lambda x: tl.fold(x, (4, 3), (3, 2)), folded, some(1, 6, 4), bounds=(2, 0), sums="f")
pool = functools.partial(linear_row, "pooling")
BLOCKS = some(1, 2, 4, 6, offset=1e4)
BLOCK_WINDOWS = windows((4, 6), (2, 3), (2, 3), 0, 1)
mean_pool = lambda x: x.reshape(1, 2, 2, 2, 2, 3).mean((3, 5))
pool("avg_pool2d", lambda x: tl.avg_pool2d(x, (2, 3)), mean_pool, BLOCKS, bounds=(4, 1), sums="fb")
pool(
    "avg_unpool",
    lambda g: pooling._avg_unpool(g, pooling.Averages(BLOCK_WINDOWS, True, None)),
    lambda g: np.repeat(np.repeat(g, 2, 2), 3, 3) / 6,
    some(1, 2, 2, 2),
    bounds=(1, 4),
    sums="b",
)
PEAK = BLOCKS.reshape(1, 2, 2, 2, 2, 3).max((3, 5))
won = (np.repeat(np.repeat(PEAK, 2, 2), 3, 3) == BLOCKS).astype(float)
pool("max_pool2d", lambda x: tl.max_pool2d(x, (2, 3)), lambda x: 6 * mean_pool(x * won), BLOCKS, bounds=(0, 0))
pool(
    "unpool",
    lambda g: pooling._unpool(g, BLOCKS, PEAK, BLOCK_WINDOWS),
    lambda g: np.repeat(np.repeat(g, 2, 2), 3, 3) * won,
    some(1, 2, 2, 2),
    bounds=(0, 0),
)
pool(
    "repool",
    lambda g: pooling._repool(g, BLOCKS, PEAK, BLOCK_WINDOWS),
    lambda x: 6 * mean_pool(x * won),
    BLOCKS,
    bounds=(0, 0),
)


million = RNG.uniform(0.5, 1.5, 1_000_000)
for lengths, axis in (((1_000_000,), 0), ((250_000, 4), 0), ((4, 250_000), 1), ((1000, 2, 500), (0, 2))):
    x = np.float32(million.reshape(lengths))
    large_row(
        "sum", lambda b, x, a=axis: (x.detach() * b).sum(a), lambda b, x, a=axis: (x * b).sum(a), np.float32([1]), x
    )
    large_row(
        "mean", lambda b, x, a=axis: (x.detach() * b).mean(a), lambda b, x, a=axis: (x * b).mean(a), np.float32([1]), x
    )


def standardized(x, weight, bias):
    d = x - x.sum(0) / len(x)
    return d / np.frompyfunc(mp.sqrt, 1, 1)((d * d).sum(0) / len(x) + EPS) * weight + bias


matrix_row(
    "normalisation",
    "normalize",
    lambda x, w, b: tl.batch_norm(x, weight=w, bias=b, training=True),
    standardized,
    some(6, 2, offset=1e4, scale=1e-2),
    some(2),
    some(2),
    bounds=(8, 8),
)
