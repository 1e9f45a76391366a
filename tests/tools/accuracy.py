"""How exact float32 is: the error of every differentiable op, forward and gradient, in units in the last place.

python tests/tools/accuracy.py            prints a row for each op
python tests/tools/accuracy.py --kinds    a row for each kind, and what is further off
python tests/tools/accuracy.py --write    puts that into the README

The reference is the textbook's formula in 80 digits (mpmath), in which no cancellation shows and nothing overflows; for
what is linear in each argument, NumPy in float64, and for its gradients one element after the other. The error of a
number is its distance from the exact one in units in the last place of that one; an infinity counts as ``2^128``. Where
a result is a sum whose terms may cancel, the unit is that of the sum of the terms' magnitudes: marked with a Σ. Of
results below ``2^-126``, which have fewer digits, the largest error is given in units of that number.
"""

import functools
import math
import sys

import accuracy_arrays  # noqa: F401  # its rows come first
import accuracy_gradients  # noqa: F401  # and then these
import numpy as np
import vocabulary
from ulps import MILD, ROWS, Error, elementwise_row, mp, pairs, plus, points, sigma

import tinygrad_lenet as tl
from tinygrad_lenet.ops import activations, elementwise, losses, maths

one = functools.partial(elementwise_row, "elementwise")
act = functools.partial(elementwise_row, "activations")
step = lambda low, high: lambda x: mp.mpf(low < x < high)

PI = math.pi
PAIRS = pairs(
    [*10.0 ** np.arange(-38, 39, 9.5), -1, 1, 0.3, -7, 3e-39, -2e38],
    [*10.0 ** np.arange(-38, 39, 9.5), -1, 3, 1.5, -2e-38],
)
CLOSE = [np.float32([1, 1, 1e4, 1e-30, 3]), np.float32([1 + 2**-23, 1 - 2**-24, 1e4 + 2**-10, 1.0000001e-30, -3])]
BOTH = [np.concatenate(p) for p in zip(PAIRS, CLOSE, strict=True)]
one("add", lambda x, y: x + y, lambda x, y: 1, lambda x, y: 1, arrays=BOTH, bounds=(0.5, 0))
one("sub", lambda x, y: x - y, lambda x, y: 1, lambda x, y: -1, arrays=BOTH, bounds=(0.5, 0))
one("mul", lambda x, y: x * y, lambda x, y: y, lambda x, y: x, arrays=BOTH, bounds=(0.5, 0.5))
one("div", lambda x, y: x / y, lambda x, y: 1 / y, lambda x, y: -x / y**2, arrays=BOTH, bounds=(0.5, 3))
one("reciprocal", lambda x: 1 / x, lambda x: -1 / x**2, low=1e-45, bounds=(0.5, 3))
one("neg", lambda x: -x, lambda x: -1, bounds=(0, 0))
one("abs", abs, mp.sign, bounds=(0, 0))
one("square", lambda x: x * x, lambda x: 2 * x, bounds=(0.5, 0.5))
one("clone", lambda x: x, lambda x: 1, bounds=(0, 0))
one("cast", lambda x: x, lambda x: 1, call=lambda x: x.astype(np.float64).astype(np.float32), bounds=(0, 0))
one(
    "clip",
    lambda x: min(max(x, -2), 5),
    lambda x: mp.mpf(-2 <= x <= 5),
    call=lambda x: tl.clip(x, -2, 5),
    at=(-2, 5),
    bounds=(0, 0),
)
one(
    "maximum",
    max,
    lambda x, y: (1 + mp.sign(x - y)) / 2,
    lambda x, y: (1 + mp.sign(y - x)) / 2,
    arrays=BOTH,
    bounds=(0, 0),
)
one(
    "minimum",
    min,
    lambda x, y: (1 + mp.sign(y - x)) / 2,
    lambda x, y: (1 + mp.sign(x - y)) / 2,
    arrays=BOTH,
    bounds=(0, 0),
)
one(
    "where",
    lambda x, y: x,
    lambda x, y: 1,
    lambda x, y: 0,
    arrays=BOTH,
    bounds=(0, 0),
    call=lambda x, y: tl.where(np.True_, x, y),
)
one("select", lambda x: x, lambda x: 1, call=lambda x: elementwise.select(x, np.ones(x.shape, bool)), bounds=(0, 0))
MOD = [
    np.float32([*10.0 ** np.arange(-30, 31, 5), 1e9, 7.5, -7.5, 5, 6, -6, 1e-20, 123456.7, 16777216]),
    np.float32([3, 0.1, -7, 1e-3, 1, 2.5]),
]
one(
    "mod",
    lambda x, y: x - mp.floor(x / y) * y,
    lambda x, y: 1,
    lambda x, y: -mp.floor(x / y),
    arrays=pairs(*MOD),
    bounds=(0.5, 1),
)
one(
    "hypot",
    lambda x, y: mp.sqrt(x * x + y * y),
    lambda x, y: x / mp.sqrt(x * x + y * y),
    lambda x, y: y / mp.sqrt(x * x + y * y),
    arrays=BOTH,
    bounds=(1, 2),
)
one(
    "arctan2",
    mp.atan2,
    lambda x, y: y / (x * x + y * y),
    lambda x, y: -x / (x * x + y * y),
    arrays=BOTH,
    bounds=(1, 3),
)
one(
    "logaddexp",
    lambda x, y: y + plus(x - y),
    lambda x, y: sigma(x - y),
    lambda x, y: sigma(y - x),
    arrays=pairs(np.float32([0, 1, -3, 88, -88, 1e4, -1e4, 1e-3]), np.float32([0.5, -2, 60, -100, 1e-4])),
    bounds=(2, 6),
)
one("sqrt", mp.sqrt, lambda x: 1 / (2 * mp.sqrt(x)), low=1e-45, bounds=(0.5, 2))
one("exp", mp.exp, mp.exp, at=(88.72284, 1e-6), bounds=(4, 4))
one("expm1", mp.expm1, mp.exp, at=(88.72284, 1e-6), bounds=(4, 4))
one("log", mp.log, lambda x: 1 / x, at=(1,), low=1e-45, bounds=(4, 1))
one("log1p", mp.log1p, lambda x: 1 / (1 + x), at=(-1, 1e-7, 1e-4), low=-0.99999994, bounds=(4, 2))
one(
    "binary_cross_entropy",
    lambda x: mp.log(1 - x) if x < 1 else mp.mpf(-100),
    lambda x: -1 / max(1 - x, mp.mpf(np.float32(1e-12).item())),
    call=lambda x: losses._log_share(x, True),
    at=(1e-7, 0.5, 0.99999994),
    low=0,
    high=1,
    bounds=(4, 2),
)
one("log2", lambda x: mp.log(x) / mp.log(2), lambda x: 1 / (x * mp.log(2)), at=(1,), low=1e-45, bounds=(4, 2))
one("log10", lambda x: mp.log(x) / mp.log(10), lambda x: 1 / (x * mp.log(10)), at=(1,), low=1e-45, bounds=(4, 2))
ANGLES = [PI * k / 2 for k in range(-6, 7) if k] + [710 * PI / 2, 1e5 * PI]
one("sin", mp.sin, mp.cos, at=ANGLES, bounds=(4, 4))
one("cos", mp.cos, lambda x: -mp.sin(x), at=ANGLES, bounds=(4, 4))
one("tan", mp.tan, lambda x: 1 + mp.tan(x) ** 2, at=ANGLES, bounds=(4, 8))
one(
    "arcsin",
    mp.asin,
    lambda x: 1 / mp.sqrt(1 - x * x),
    at=(1, -1, 0.5),
    low=-0.99999994,
    high=0.99999994,
    bounds=(4, 4),
)
one(
    "arccos",
    mp.acos,
    lambda x: -1 / mp.sqrt(1 - x * x),
    at=(1, -1, 0.5),
    low=-0.99999994,
    high=0.99999994,
    bounds=(4, 4),
)
one("arctan", mp.atan, lambda x: 1 / (1 + x * x), at=(1, -1), bounds=(4, 4))
one("sinh", mp.sinh, mp.cosh, at=(89.41598, 1e-4), bounds=(4, 4))
one("cosh", mp.cosh, mp.sinh, at=(89.41598, 1e-4), bounds=(4, 4))
one("erf", mp.erf, lambda x: 2 / mp.sqrt(mp.pi) * mp.exp(-x * x), at=(1, 3, 3.9), bounds=(4, 8))
POSITIVE = np.float32([*10.0 ** np.arange(-38, 39, 6.3), 0.5, 2, 1 + 2**-23, 1 - 2**-24, 1.001, 10])
POWERS = np.float32([0, 1, 2, -1, 0.5, -2.5, 1e-8, 3.3, 100, -30])
one(
    "pow",
    lambda x, y: x**y,
    lambda x, y: y * x ** (y - 1),
    lambda x, y: x**y * mp.log(x),
    arrays=pairs(POSITIVE, POWERS),
    bounds=(4, 16),
)
for power in (2, 3, 0.5, -1.5):
    one(
        "pow",
        lambda x, p=power: x ** mp.mpf(p),
        lambda x, p=power: p * x ** mp.mpf(p - 1),
        call=lambda x, p=power: x**p,
        arrays=[points(low=1e-30)],
        bounds=(4, 8),
    )
one("pow", lambda x: 2**x, lambda x: 2**x * mp.log(2), call=lambda x: 2.0**x, bounds=(4, 8))

cdf = lambda x: mp.erfc(-x / mp.sqrt(2)) / 2
bell = lambda x: mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)
elu_truth = lambda a, c: (
    lambda x: x if x > 0 else a * mp.expm1(x / c),
    lambda x: mp.mpf(1) if x > 0 else a / c * mp.exp(x / c),
)
act("tanh", mp.tanh, lambda x: mp.sech(x) ** 2, at=(1e-3, 9), unit=1, bounds=(4, 4), sums="b")
act("sigmoid", sigma, lambda x: sigma(x) * sigma(-x), at=(1e-3, 17), bounds=(4, 6))
act("relu", lambda x: max(x, 0), lambda x: mp.mpf(x > 0), bounds=(0, 0))
ONES = [np.ones_like(MILD), MILD]
act(
    "tanh_grad",
    lambda g, y: g * (1 - y * y),
    lambda g, y: 1 - y * y,
    lambda g, y: -2 * g * y,
    call=activations._tanh_grad,
    arrays=[ONES[0], np.linspace(-0.9, 0.9, MILD.size, dtype=np.float32)],
    bounds=(4, 4),
)
act(
    "sigmoid_grad",
    lambda g, x: g * sigma(x) * sigma(-x),
    lambda g, x: sigma(x) * sigma(-x),
    lambda g, x: g * sigma(x) * sigma(-x) * (1 - 2 * sigma(x)),
    call=activations._sigmoid_grad,
    arrays=ONES,
    bounds=(6, 8),
)
act(
    "where_positive",
    lambda g, y: g * (y > 0),
    lambda g, y: mp.mpf(y > 0),
    lambda g, y: 0,
    call=lambda g, y: activations._where_positive(g, y.detach()),
    arrays=ONES,
    bounds=(0, 0),
)
act(
    "bell",
    lambda x: mp.exp(-x * x),
    lambda x: -2 * x * mp.exp(-x * x),
    call=lambda x: maths.bell(x, 1.0),
    bounds=(6, 8),
)
act("normal_cdf", cdf, bell, call=activations._normal_cdf, bounds=(6, 8))
act("leaky_relu", lambda x: x if x > 0 else x * mp.mpf(0.01), lambda x: mp.mpf(1 if x > 0 else 0.01), bounds=(1.5, 1.5))
act("elu", *elu_truth(1, 1), at=(1e-4,), bounds=(4, 4))
act("elu", *elu_truth(mp.mpf(1.7), 1), call=lambda x: tl.elu(x, 1.7), bounds=(4, 4))
act("celu", *elu_truth(mp.mpf(1.7), mp.mpf(1.7)), call=lambda x: tl.celu(x, 1.7), bounds=(4, 64))
A, S = mp.mpf(activations._SELU_ALPHA), mp.mpf(activations._SELU_SCALE)
act(
    "selu",
    lambda x: S * (x if x > 0 else A * mp.expm1(x)),
    lambda x: S * (1 if x > 0 else A * mp.exp(x)),
    bounds=(4, 4),
)
act("softplus", lambda x: plus(x) if x <= 20 else x, lambda x: sigma(x) if x <= 20 else 1, at=(20, -17), bounds=(4, 4))
act("softplus", plus, sigma, call=lambda x: tl.softplus(x, threshold=math.inf), at=(20, -17), bounds=(4, 4))
act("logsigmoid", lambda x: -plus(-x), lambda x: sigma(-x), at=(20, -17), bounds=(4, 4))
act("silu", lambda x: x * sigma(x), lambda x: sigma(x) * (1 + x * sigma(-x)), bounds=(16, 16))
act(
    "mish",
    lambda x: x * mp.tanh(plus(x)),
    lambda x: mp.tanh(plus(x)) + x * mp.sech(plus(x)) ** 2 * sigma(x),
    at=(-20,),
    bounds=(16, 24),
)
act("softsign", lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2, bounds=(2, 4))
act("hardtanh", lambda x: min(max(x, -1), 1), step(-1, 1), at=(-1, 1), bounds=(0, 0))
act("relu6", lambda x: min(max(x, 0), 6), step(0, 6), at=(6,), bounds=(0, 0))
act("hardsigmoid", lambda x: min(max(x + 3, 0), 6) / 6, lambda x: mp.mpf(-3 < x < 3) / 6, at=(3, -3), bounds=(2, 1))
act(
    "hardswish",
    lambda x: x * min(max(x + 3, 0), 6) / 6,
    lambda x: 0 if x <= -3 else 1 if x >= 3 else (2 * x + 3) / 6,
    at=(3, -3, -1.5),
    bounds=(2, 4),
)
act("gelu", lambda x: x * cdf(x), lambda x: cdf(x) + x * bell(x), at=(-5, 5), bounds=(8, 12))
C = mp.sqrt(2 / mp.pi)
inner = lambda x: C * (x + mp.mpf(0.044715) * x**3)
act(
    "gelu_tanh",
    lambda x: x * sigma(2 * inner(x)),
    lambda x: (
        sigma(2 * inner(x))
        + x * 2 * sigma(2 * inner(x)) * sigma(-2 * inner(x)) * C * (1 + 3 * mp.mpf(0.044715) * x * x)
    ),
    call=lambda x: tl.gelu(x, "tanh"),
    at=(-5, 5),
    bounds=(128, 192),
)


# Why some are further off than four units, or count in others.
DENORMAL = "only where an exponential in it is below 2^-126 and has fewer digits"
REASONS = {
    "tanh": "the gradient is 1 - out^2, as PyTorch's, exact to a unit of 1, its largest value, but far out not of its "
    "own; taken from x it would be, and a training step of LeNet-5 take 5 % longer",
    "pow": "the gradient takes x^(y - 1), and y - 1 is rounded",
    "celu": "e^(x / alpha) with x / alpha rounded; with alpha = 1 it is as `elu`",
    "silu": DENORMAL,
    "mish": DENORMAL,
    "bell": DENORMAL,
    "gelu": "two exponentials of two units each",
    "gelu_tanh": "far out on the left, where the rounding of the cubic polynomial shows in an exponential",
}
KINDS = [
    "elementwise",
    "activations",
    "softmax, losses",
    "reductions",
    "sums",
    "normalisation",
    "products, convolution",
]
KINDS += ["pooling", "shape, picking"]


def together(errors):
    """Those of several rows as one."""
    ulps, tiny = zip(*errors, strict=True)
    return Error(np.concatenate(ulps), max(tiny))


def cell(error, sums):
    """Largest and median."""
    return f"{error.ulps.max(initial=0):.2g} ({np.median(error.ulps) if error.ulps.size else 0:.1f})" + " Σ" * sums


def table(by_kind=False):
    """A line for each op; for the README one for each kind, and a sentence for those that are further off."""
    ops = {}
    for row in sorted(ROWS, key=lambda row: KINDS.index(row.kind)):
        ops.setdefault((row.kind, row.name), []).append((*row.errors(), row.sums))
    groups, apart = {}, {}
    for (kind, name), found in ops.items():
        if by_kind and name in REASONS:
            forward, back, sums = (*(together(f[i] for f in found) for i in (0, 1)), "".join(f[2] for f in found))
            apart.setdefault(REASONS[name], []).append(f"`{name}` {cell(forward, 0)} and {cell(back, 'b' in sums)}")
        else:
            groups.setdefault(kind if by_kind else (kind, name), []).append((name, found))
    head = ["errors in units in the last place", "forward: largest (median)", "gradient"]
    lines = [head, ["---"] + ["---:"] * 2] if by_kind else [[*head, "below 2^-126"], ["---"] + ["---:"] * 3]
    for members in groups.values():
        names, every = [f"`{name}`" for name, _ in members], [f for _, found in members for f in found]
        forward, back, sums = (*(together(f[i] for f in every) for i in (0, 1)), "".join(f[2] for f in every))
        line = [" ".join(names), cell(forward, "f" in sums), cell(back, "b" in sums)]
        lines.append(line if by_kind else [*line, f"{max(forward.tiny, back.tiny):.1g}"])
    text = (
        "Apart from these (largest forward and gradient): "
        + "; ".join(f"{', '.join(names)}: {reason}" for reason, names in apart.items())
        + "."
    )
    return ["| " + " | ".join(line) + " |" for line in lines] + ["", text] * by_kind


if __name__ == "__main__":
    if "--write" in sys.argv:
        vocabulary.write("accuracy", table(True))
    else:
        print(*table("--kinds" in sys.argv), sep="\n")
    print(
        f"{len(ROWS)} rows, {sum(e.ulps.size for row in ROWS for e in row.errors())} numbers compared", file=sys.stderr
    )
