"""What stands in the places of the forms of :mod:`program_ops`: arguments and options, drawn to fit the tensor x."""

import re

import numpy as np
from program_ops import PATTERNS


class Dropped(Exception):
    """The line does not fit here; another is tried."""


class Places:
    """Values for the places of a form: a method for each name."""

    def __init__(self, maker, form):
        self.m, self.form, self.rng = maker, form, maker.rng
        self.found = {}

    def filled(self):
        names = self.form.places
        for name in sorted(names, key=lambda n: n != "x"):
            if name not in ("vector", "matrix", "pair", "c"):
                self.get(name)
        again = {}

        def fill(match):
            name = match[1]
            if name not in self.found:
                again.setdefault(name, []).append(str(getattr(self, name)()))
                return again[name][-1]
            return self.found[name]

        text = re.sub(r"\{(\w+)\}", fill, self.form.text)
        listed = {name: iter(found) for name, found in again.items()}
        theirs = re.sub(r"\{(\w+)\}", lambda m: self.found.get(m[1]) or next(listed[m[1]]), self.form.theirs)
        for name in ("image", "signal", "matrix", "logits", "y"):
            if self.form.distinct and name in self.found:
                self.m.fit(self.m.env[self.found[name]].numpy(), self.form)
        return text, theirs

    def get(self, name):
        """The value drawn for that place; drawn now if there is none."""
        if name not in self.found:
            self.found[name] = str(getattr(self, name)())
        return self.found[name]

    @property
    def at(self):
        return self.m.env[self.found["x"]]

    def x(self):
        return self.m.draw_x(
            self.form, "shift" in self.form.places and "axis" not in self.form.places and "roll" not in self.form.text
        )

    def y(self):
        shape = self.at.shape
        fits = []
        for n in self.m.values():
            try:
                np.broadcast_shapes(self.m.env[n].shape, shape)
                fits.append(n)
            except ValueError:
                pass
        if fits and self.m.chance(0.7):
            return self.m.pick(fits)
        return self.m.leaf(self.m.floats(self.partner(shape)))

    def partner(self, shape):
        """A shape that broadcasts with it."""
        cut = shape[int(self.rng.integers(0, len(shape) + 1)) :]
        return tuple(1 if self.m.chance(0.3) else n for n in cut)

    def i(self):
        return self.m.integers(4, self.partner(self.at.shape))

    def mask(self):
        shape = self.at.shape if "x" in self.found else (2, 3)
        there = [n for n in self.m.values("b") if self.m.env[n].shape == shape]
        if there and self.m.chance(0.7):
            return self.m.pick(there)
        return self.m.leaf(self.rng.random(self.partner(shape)) < 0.5)

    def mask_of(self):
        there = [n for n in self.m.values("b") if self.m.env[n].shape == self.at.shape]
        return self.m.pick(there) if there else self.m.leaf(self.rng.random(self.at.shape) < 0.5)

    def maxis(self):
        if not self.m.env[self.get("mask")].ndim:
            raise Dropped
        return int(self.rng.integers(0, self.m.env[self.get("mask")].ndim))

    def like(self):
        return self.m.fresh(*self.at.shape)

    def unit(self):
        return self.m.leaf(self.m.floats(self.at.shape, 0.1, 0.9))

    def channels(self):
        return self.m.fresh(self.at.shape[1])

    def axis(self):
        return int(self.rng.integers(-self.at.ndim, self.at.ndim))

    def odd(self):
        return self.m.pick([a for a, n in enumerate(self.at.shape) if n % 2])

    def axes(self):
        n = self.at.ndim
        if not n or self.m.chance(0.2):
            return None
        some = self.rng.permutation(n)[: self.rng.integers(1, n + 1)]
        return tuple(int(a) - n * bool(self.m.chance(0.3)) for a in some) if self.m.chance(0.6) else int(some[0])

    def place(self):
        return int(self.rng.integers(-self.at.ndim - 1, self.at.ndim + 1)) if "x" in self.found else 0

    def keep(self):
        return bool(self.m.chance(0.5))

    def shift(self):
        return int(self.rng.integers(-3, 4))

    def n(self):
        return int(self.rng.integers(-3, 4))

    def k(self):
        return int(self.rng.integers(1, 3))

    def z(self):
        return int(self.rng.integers(0, 2))

    def c(self):
        return (
            abs(self.m.number()) + 0.1
            if "**" in self.form.text or "/" in self.form.text or "mod" in self.form.text
            else self.m.number()
        )

    def perm(self):
        return tuple(int(a) for a in self.rng.permutation(self.at.ndim))

    def shape(self):
        """Of as many elements: axes joined, cut apart, or one left open."""
        n = self.at.size
        if not n:
            return tuple(self.rng.permutation(self.at.shape).tolist()) or (0,)
        sides = []
        while n > 1 and len(sides) < 3:
            d = self.m.pick([d for d in range(1, n + 1) if n % d == 0])
            sides.append(d)
            n //= d
        sides.append(n)
        return tuple(-1 if i == 0 and self.m.chance(0.3) else s for i, s in enumerate(sides))

    def wider(self):
        shape = tuple(int(self.rng.integers(1, 4)) if n == 1 else n for n in self.at.shape)
        return (2, *shape) if self.at.ndim < 4 and self.m.chance(0.5) else shape

    def cuts(self):
        return sorted(self.rng.integers(0, 4, 2).tolist())

    def index(self, forward=False):
        """Of integers, slices, an ellipsis and new axes."""
        keys, cut = [], int(self.rng.integers(0, self.at.ndim + 1))
        for n in self.at.shape[:cut]:
            if n and self.m.chance(0.3):
                keys.append(str(int(self.rng.integers(-n, n))))
            else:
                step = int(self.m.pick([1, 1, 2] if forward else [1, 1, 2, -1, -2]))
                a, b = (int(self.rng.integers(-n - 1, n + 2)) for _ in range(2))
                keys.append(self.m.pick([f"::{step}", f"{a}:", f":{b}", f"{a}:{b}:{step}"]))
            if not forward and self.m.chance(0.08):
                keys.append("None")
        if self.m.chance(0.3) or not keys:
            keys.append("...")
        return ", ".join(keys)

    def fancy(self):
        if not self.at.ndim or not self.at.size:
            raise Dropped
        n, many = self.at.shape[0], int(self.rng.integers(1, 5))
        keys = [str([int(i) for i in self.rng.integers(-n, n, many)])]
        if self.at.ndim > 1 and self.m.chance(0.5):
            m = self.at.shape[1]
            keys.append(self.m.pick([str([int(i) for i in self.rng.integers(0, m, many)]), ":", "..., 0"]))
        return ", ".join(keys)

    def _index_array(self, unique=False):
        axis, shape = int(self.get("axis")), self.at.shape
        if not self.at.size or not self.at.ndim:
            raise Dropped
        small = tuple(int(self.rng.integers(1, n + 1)) for n in shape)
        if unique:
            values = np.argsort(self.rng.random(shape), axis)[tuple(slice(n) for n in small)]
        else:
            values = self.rng.integers(0, shape[axis], small)
        return self.m.leaf(values, plain=unique)

    def gathered(self):
        return self._index_array()

    def unique(self):
        return self._index_array(True)

    def along(self):
        axis, shape = int(self.get("axis")), [*self.at.shape]
        if not self.at.size:
            raise Dropped
        n = shape[axis]
        shape[axis] = int(self.rng.integers(1, 5))
        return self.m.integers(n, shape)

    def source(self):
        index = self.get("gathered" if "{gathered}" in self.form.text else "unique")
        return self.m.fresh(*self.m.env[index].shape)

    # Tensors of certain shapes

    def vector(self):
        return self.m.fresh(int(self.rng.integers(1, 5)))

    def matrix(self):
        return self.m.fresh(*(int(n) for n in self.rng.integers(1, 4, 2)))

    def right(self):
        """What x can be multiplied with as a matrix."""
        shape = self.at.shape
        if not shape:
            raise Dropped
        n, more = shape[-1], tuple(1 if self.m.chance(0.3) else n for n in shape[:-2])
        batch = more[int(self.rng.integers(0, len(more) + 1)) :]
        return self.m.fresh(n) if self.m.chance(0.2) else self.m.fresh(*batch, n, int(self.rng.integers(1, 4)))

    def weight(self):
        if not self.at.ndim:
            raise Dropped
        return self.m.fresh(int(self.rng.integers(1, 4)), self.at.shape[-1])

    def bias(self):
        return self.m.fresh(self.m.env[self.get("weight")].shape[0])

    def inner(self):
        if not self.at.ndim:
            raise Dropped
        return self.m.fresh(2, self.at.shape[-1])

    def einsum(self):
        pattern = self.m.pick(PATTERNS.split())
        length = {c: int(self.rng.integers(1, 4)) for c in "abcdijk"}
        operands = [self.m.fresh(*(length[c] for c in term)) for term in pattern.split("->")[0].split(",")]
        return f"{pattern!r}, {', '.join(operands)}"

    # Of networks: images have two channels

    def image(self):
        return self.m.fresh(int(self.rng.integers(1, 3)), 2, *(int(n) for n in self.rng.integers(3, 6, 2)))

    def signal(self):
        return self.m.fresh(int(self.rng.integers(1, 3)), 2, int(self.rng.integers(3, 7)))

    def _sides(self):
        return (int(n) for n in self.rng.integers(1, 4, 2))

    def kernel(self):
        return self.m.fresh(int(self.rng.integers(1, 4)), 2, *self._sides())

    def depthwise(self):
        return self.m.fresh(2 * int(self.rng.integers(1, 3)), 1, *self._sides())

    def kernel1(self):
        return self.m.fresh(int(self.rng.integers(1, 4)), 2, int(self.rng.integers(1, 4)))

    def turned(self):
        return self.m.fresh(2, int(self.rng.integers(1, 3)), *self._sides())

    def turned1(self):
        return self.m.fresh(2, int(self.rng.integers(1, 3)), int(self.rng.integers(2, 4)))

    def outs(self):
        return self.m.fresh(self.m.env[self.get("kernel")].shape[0])

    def columns(self):
        return self.m.fresh(int(self.rng.integers(1, 3)), 4, 4)

    def pair(self):
        return self.m.fresh(2)

    def last(self):
        self.found["matrix"] = self.m.fresh(int(self.rng.integers(1, 4)), int(self.rng.integers(2, 5)))
        return self.m.env[self.found["matrix"]].shape[-1]

    def lastweight(self):
        return self.m.fresh(int(self.get("last")))

    def logits(self):
        return self.m.fresh(int(self.rng.integers(1, 4)), 4)

    def classes(self):
        return self.m.integers(4, self.m.env[self.get("logits")].shape[:1])

    def table(self):
        return self.m.fresh(4, 2)

    def labels(self):
        return self.m.integers(4, (int(self.rng.integers(1, 5)),))
