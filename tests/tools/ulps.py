"""How far float32 is from what is true: the measure, and the kinds of reference, for tests/tools/accuracy.py."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath
import numpy as np

import tinygrad_lenet as tl

mp = mpmath.mp.clone()
mp.dps = 80
TINY = mp.mpf(2) ** -126  # the smallest number that has all digits
HUGE = mp.mpf(2) ** 128
exact = np.frompyfunc(lambda v: v if isinstance(v, mp.mpf) else mp.mpf(float(v)), 1, 1)


class Error(NamedTuple):
    """Of the results of one op: in ulps those that have all digits, the others in units of the smallest that has."""

    ulps: Any
    tiny: float

    @staticmethod
    def of(got: Any, true: Any, scale: Any = None) -> "Error":
        """Compare float32 with what is true, in units of that, or of ``scale`` where it is larger."""
        true = np.asarray(true, object)
        scales = np.broadcast_to(0 if scale is None else scale, true.shape)
        found, tiny = [], 0.0
        for g, t, s in zip(np.broadcast_to(got, true.shape).flat, true.flat, scales.flat, strict=True):
            g = float(g)
            if mp.isnan(t) or math.isnan(g):
                found.append(0.0 if mp.isnan(t) and math.isnan(g) else math.inf)
                continue
            t = min(max(t, -HUGE), HUGE)
            off = abs((HUGE * int(math.copysign(1, g)) if math.isinf(g) else mp.mpf(g)) - t)
            size = max(abs(t), s)
            if size < TINY:
                tiny = max(tiny, float(off / TINY))
            else:
                found.append(float(off * mp.mpf(2) ** (24 - min(128, mp.frexp(size)[1]))))
        return Error(np.array(found), tiny)


class Row(NamedTuple):
    """One way to call one op: where, what is true, and how far off it may be, forward and backward."""

    kind: str
    name: str
    call: Callable[..., Any]
    arrays: list[Any]
    truth: Callable[..., Any]  # of the arrays and the upstream gradient: (out, scale), and the same for each gradient
    bounds: tuple[float, float]
    sums: str = ""  # "f" and "b": forward or backward in units of a sum of magnitudes

    def errors(self) -> tuple[Error, Error]:
        """Forward, and of all gradients together."""
        with np.errstate(all="ignore"):
            tensors = [tl.tensor(a) for a in self.arrays]
            inputs = [t for t in tensors if t.dtype == np.float32]
            for t in inputs:
                t.requires_grad = True
            out = self.call(*tensors)
            rng = np.random.default_rng(out.size)
            g = (rng.uniform(1, 2, out.shape) * rng.choice([-1, 1], out.shape)).astype(np.float32)
            grads = tl.grad(out, inputs, tl.tensor(g), allow_unused=True)
            assert {out.dtype, *(d.dtype for d in grads if d is not None)} == {np.dtype(np.float32)}
            forward, slopes = self.truth(*self.arrays, g)
            back = [
                Error.of(0 if d is None else d.numpy(), *s) for d, s in zip(grads, slopes, strict=True) if s is not None
            ]
            return Error.of(out.numpy(), *forward), Error(
                np.concatenate([e.ulps for e in back]), max(e.tiny for e in back)
            )


ROWS: list[Row] = []


# Where they are tried

_decades = 10.0 ** np.arange(-45, 38.6, 0.7)
HARD = np.unique(np.float32([*_decades, *-_decades, 0.0]))
RNG = np.random.default_rng(0)
MILD = np.unique(np.float32([*np.linspace(-20, 20, 81), *RNG.uniform(-30, 30, 60), *RNG.uniform(-110, 110, 60)]))


def around(*centres: float) -> Any:
    """Numbers, their neighbours, and what is a little further off."""
    found = []
    for c in np.float32(centres):
        found += [c, np.nextafter(c, np.float32(9e9)), np.nextafter(c, np.float32(-9e9))]
        found += [c * (1 + s * 10.0**-k) for k in range(1, 7) for s in (-1, 1)]
    return np.float32(found)


def points(*special: float, low: float = -math.inf, high: float = math.inf) -> Any:
    """Where an op of one argument is tried."""
    some = np.unique(np.concatenate([HARD, MILD, around(*special)]))
    return some[(some >= low) & (some <= high)]


def pairs(xs: Any, ys: Any) -> list[Any]:
    """Every one with every one."""
    return [a.ravel() for a in np.float32(np.meshgrid(xs, ys))]


def some(*lengths, offset=0.0, scale=1.0):
    return np.float32(RNG.standard_normal(lengths) * scale + offset)


# Formulas of the textbook


def sigma(x):
    return 1 / (1 + mp.exp(-x))


def plus(x):
    """Softplus."""
    return mp.log(1 + mp.exp(x)) if x > -100 else mp.exp(x)


def log(v):
    return mp.log(v) if v else -mp.inf


def elementwise_row(
    kind, name, f, *slopes, call=None, arrays=None, at=(), low=-math.inf, high=math.inf, unit=None, bounds, **kw
):
    """An op of one element each: ``f`` and its partial derivatives, of numbers of 80 digits; ``unit`` is the size of
    slope in whose units in the last place those of the gradient count.
    """

    def truth(*args):
        *given, g = args
        xs = [exact(a) for a in given]
        return (np.frompyfunc(f, len(xs), 1)(*xs), None), [
            (exact(g) * np.frompyfunc(d, len(xs), 1)(*xs), unit and abs(exact(g)) * unit) for d in slopes
        ]

    ROWS.append(
        Row(kind, name, call or getattr(tl, name), arrays or [points(*at, low=low, high=high)], truth, bounds, **kw)
    )


# Along an axis: rows of eight


def vector_row(kind, name, truth, *arrays, call=None, bounds, **kw):
    """An op of rows: ``truth`` gives for one row of each array, and ``g``, what :class:`Row` wants."""

    def whole(*args):
        *given, g = args
        found = [truth(*[exact(a) for a in row]) for row in zip(*given, g, strict=True)]

        def column(part):
            if part[0] is None:
                return None
            value, scale = zip(*part, strict=True)
            return np.array(value, object), None if scale[0] is None else np.array(scale, object)

        return column([f for f, _ in found]), [column(part) for part in zip(*[b for _, b in found], strict=True)]

    ROWS.append(Row(kind, name, call or (lambda x: getattr(tl, name)(x, -1)), list(arrays), whole, bounds, **kw))


# Linear in each argument: NumPy in float64, and unit vectors


def linear_row(kind, name, call, f, *arrays, bounds, **kw):
    """An op that is linear in each of its arguments apart from a constant."""

    def truth(*args):
        *given, g = [np.asarray(a, np.float64 if np.asarray(a).dtype.kind == "f" else None) for a in args]
        sizes = [abs(a) for a in given]
        slopes = []
        for k, a in enumerate(given):
            value, scale = np.zeros(a.shape), np.zeros(a.shape)
            for at in np.ndindex(a.shape):
                tries = []
                for there in (given, sizes):  # at one element 1, and then 0
                    for number in (1, 0):
                        changed = there[k].copy()
                        changed[at] = number
                        tries.append(f(*there[:k], changed, *there[k + 1 :]))
                value[at] = (g * (tries[0] - tries[1])).sum()
                scale[at] = (abs(g) * abs(tries[2] - tries[3])).sum()
            slopes.append((exact(value), exact(scale)))
        return (exact(f(*given)), exact(abs(f(*sizes)))), slopes

    ROWS.append(Row(kind, name, call, list(arrays), truth, bounds, **kw))


def large_row(name, call, f, *arrays):
    """Sums of a million."""

    def truth(*args):
        *given, g = [a.astype(np.float64) for a in args]
        found = f(*given)
        terms = np.ravel(found * g)
        return (exact(found), None), [
            (exact(np.sum(terms, keepdims=True)), exact(np.sum(abs(terms), keepdims=True))),
            None,
        ]

    ROWS.append(Row("sums", name, call, list(arrays), truth, (8, 8), "fb"))


# What has no such formula for a gradient: differences of numbers of 80 digits; in units of the largest element


def matrix_row(kind, name, call, f, *arrays, bounds, **kw):
    """An op of few numbers."""

    def truth(*args):
        *given, g = map(exact, args)
        h, slopes = mp.mpf(10) ** -26, []
        for k, a in enumerate(given):
            slope = a * 0
            for at in np.ndindex(a.shape):
                ends = []
                for sign in (1, -1):
                    moved = a.copy()
                    moved[at] += sign * h
                    ends.append(np.asarray(f(*given[:k], moved, *given[k + 1 :])))
                slope[at] = np.sum(g * (ends[0] - ends[1])) / (2 * h)
            slopes.append((slope, slope * 0 + abs(slope).max()))
        out = np.asarray(f(*given))
        return (out, out * 0 + np.max(abs(out))), slopes

    ROWS.append(Row(kind, name, call, list(arrays), truth, bounds, "fb", **kw))
