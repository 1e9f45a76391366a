"""Random programs: made from a seed, run here and in PyTorch, compared, and shrunk to a few lines if they differ.

python tests/tools/random_programs.py --runs 10000 --seed 1

A program is Python text: leaves, and lines such as ``v7 = tl.roll(v3, 1, 0)`` that each make new names, write in place,
add a hook, or call ``tl.checkpoint``. What is written is what runs; PyTorch runs the same text (see
:mod:`program_ops`). So a failure is shown as it is.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from program_ops import KINDS
from program_places import Dropped, Places

import tinygrad_lenet as tl

NAME = re.compile(r"\bv\d+\b")
LARGEST, MOST = 50.0, 150  # values and elements, beyond which a line is not taken
# NaN and infinities come out of these otherwise than in PyTorch, on purpose: a sign and a rounding to decimals are
# NumPy's; infinite statistics, and products of three, are NaN in one order of computing or another; a pixel of weight 0
# does not matter; a margin keeps NaN; of an infinite target, or logit of another class, there is no inf - inf.
TAME = (
    "cross_entropy",
    "multi_margin",
    "binary_cross_entropy_with_logits",
    "sign(",
    "round({x}, 1)",
    "group_norm",
    "batch_norm",
)
TAME += ("einsum",)


@dataclass(frozen=True)
class Leaf:
    """An input: its values, and as what they are given."""

    name: str
    values: np.ndarray
    layout: str = ""
    grad: bool = False

    def array(self):
        """In the memory layout."""
        a = self.values
        if self.layout == "fortran":
            return np.array(a, order="F")
        if self.layout == "strided":
            return np.repeat(a, 2, 0)[::2]
        if self.layout == "backwards":
            return a[::-1].copy()[::-1]
        return np.broadcast_to(a[:1], a.shape) if self.layout == "broadcast" else a.copy()

    def tensor(self):
        a = self.array()
        t = tl.Tensor._wrap(a) if self.layout else tl.tensor(a)
        t.requires_grad = self.grad
        return t

    def __str__(self):
        text = f"np.array({self.values.tolist()}, {str(self.values.dtype)!r})"
        if not self.values.size:
            text += f".reshape({self.values.shape})"
        layout = {
            "fortran": "np.asfortranarray({})",
            "strided": "np.repeat({}, 2, 0)[::2]",
            "backwards": "{}[::-1].copy()[::-1]",
            "broadcast": f"np.broadcast_to({{}}[:1], {self.values.shape})",
        }
        if self.layout:
            text = f"{self.name} = tl.Tensor._wrap({layout[self.layout].format(text)})"
            return text + (f"\n{self.name}.requires_grad = True" if self.grad else "")
        return f"{self.name} = tl.tensor({text}{', requires_grad=True' if self.grad else ''})"


@dataclass(frozen=True)
class Line:
    """One instruction. ``kind`` is op, view, write, hook or checkpoint."""

    outs: tuple
    text: str
    kind: str = "op"
    theirs: str = ""
    quiet: bool = False  # under no_grad
    body: tuple = ()  # of a checkpoint: lines, of which the last makes the result

    @property
    def uses(self):
        inner = {name for line in self.body for name in line.outs}
        found = NAME.findall(self.text) + [n for line in self.body for n in NAME.findall(line.text)]
        return set(found) - inner - set(self.outs)

    def source(self, there=False):
        """As Python; or as the text for the judge, where ops copy what they read and make (so that no value that a
        gradient needs can change), and writes are not recorded.
        """
        outs = ", ".join(self.outs)
        if self.kind == "checkpoint":
            function, args = f"f{outs}", self.text
            lines = [f"def {function}({args}):"]
            lines += [f"    {part}" for line in self.body for part in line.source(there).splitlines()]
            lines += [f"    return {', '.join(self.body[-1].outs)}"]
            lines += [f"{outs} = {function}({args})" if there else f"{outs} = tl.checkpoint({function}, {args})"]
            return "\n".join(lines)
        text = (self.theirs or self.text) if there else self.text
        if there and self.kind == "op":
            text = "OUT(" + NAME.sub(r"C(\g<0>)", text) + ")"
        if there and self.kind == "hook":
            text = text.replace("hook(", "hook(H(") + ")"
        if there and self.kind == "write":
            text = NAME.sub(r"W(\g<0>)", text)
        if self.outs:
            text = f"{outs} = {text}"
        return f"with tl.no_grad():\n    {text}" if self.quiet else text


@dataclass(frozen=True)
class Program:
    leaves: tuple
    lines: tuple
    outputs: tuple
    wild: str = ""  # NaN and infinities among the inputs: "values", or "gradients" as well are compared
    refused: tuple = ()  # lines that were refused here, and so should be by the judge

    def source(self, there=False):
        """A function of the leaves that gives all names."""
        lines = [f"def program({', '.join(leaf.name for leaf in self.leaves)}):"]
        lines += [f"    {part}" for line in self.lines for part in line.source(there).splitlines()]
        return "\n".join([*lines, "    return locals()"])

    def __str__(self):
        head = ["import numpy as np", "import tinygrad_lenet as tl", *map(str, self.leaves)]
        return "\n".join([*head, *[line.source() for line in self.lines]])

    @property
    def replaced(self):
        """True if a hook replaces a gradient other than a leaf's: then second gradients depend on whether a rule names
        the output, through which the hook would be met again.
        """
        hooks = [line for line in self.lines if line.kind == "hook" and "lambda g: None" not in line.text]
        return bool(
            {n for line in hooks if "append" not in line.text for n in line.uses} - {n.name for n in self.leaves}
        )

    @property
    def eps(self):
        """Of the least precise dtype that takes part."""
        return max(
            [np.finfo(leaf.values.dtype).eps for leaf in self.leaves if leaf.values.dtype.kind == "f"], default=2e-16
        )


def weights(shape, k=0):
    """What outputs are multiplied with, and directions: a fixed function of the shape."""
    return np.round(np.cos(1.0 + 2 * k + np.arange(np.prod(shape, dtype=int))), 2).reshape(shape)


@dataclass
class Maker:
    """Makes a program line by line, and runs each line to know its shapes and values."""

    seed: int
    features: tuple = ("write", "hook", "checkpoint", "quiet", "detach")
    leaves: list = field(default_factory=list)
    lines: list = field(default_factory=list)
    refused: list = field(default_factory=list)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.env = {"tl": tl, "np": np, "seen": {}}
        self.group, self.frozen, self.count = {}, set(), 0
        self.wild = self.pick([""] * 7 + ["values", "gradients"])
        self.zeros = self.chance(0.1)
        self.dtypes = [["float64"], ["float64"], ["float32"], ["float64", "float32"]][self.rng.integers(4)]

    def chance(self, p):
        return self.rng.random() < p

    def pick(self, options, p=None):
        options = list(options)
        if not options:
            raise Dropped
        return options[self.rng.choice(len(options), p=p)]

    def side(self):
        return 0 if self.zeros and self.chance(0.2) else int(self.rng.integers(1, 5))

    def name(self):
        self.count += 1
        return f"v{self.count - 1}"

    # Inputs

    def leaf(self, values, grad=None, plain=False):
        values = np.asarray(values)
        layout = ""
        if values.ndim and len(values) and not plain and self.chance(0.25):
            layout = self.pick(["fortran", "strided", "backwards", "broadcast"])
        if layout == "broadcast":
            values = np.broadcast_to(values[:1], values.shape).copy()
        grad = values.dtype.kind == "f" and (self.chance(0.8) if grad is None else grad)
        leaf = Leaf(self.name(), values, layout, bool(grad))
        self.leaves.append(leaf)
        self.env[leaf.name] = leaf.tensor()
        self.group[leaf.name] = leaf.name
        return leaf.name

    def floats(self, shape, low=-2.5, high=2.5):
        n = int(np.prod(shape))
        a = (low + (high - low) * (self.rng.permutation(n) + self.rng.random(n) * 0.6) / max(n, 1)).round(3)
        if low == -2.5 and self.chance(0.15):
            a = self.rng.permutation(np.resize(a[: n // 2 + 1], n))  # with ties
        a = a.reshape(shape).astype(self.pick(self.dtypes))
        if self.wild and self.chance(0.7) and n:
            for i in self.rng.integers(0, n, 1 + n // 8):
                a.flat[i] = self.pick([np.nan, np.inf, -np.inf])
        return a

    def fresh(self, *shape, low=-2.5, high=2.5):
        """A tensor of that shape: one that is there, or a new leaf."""
        there = [n for n in self.values() if self.env[n].shape == shape]
        if low == -2.5 and there and self.chance(0.6):
            return self.pick(there)
        return self.leaf(self.floats(shape, low, high))

    def integers(self, high, shape):
        return self.leaf(self.rng.integers(0, max(high, 1), shape))

    def values(self, kind="f"):
        return [n for n, v in self.env.items() if isinstance(v, tl.Tensor) and v.dtype.kind in kind]

    def draw_x(self, form, matrix=False):
        """An argument in the domain of the op."""
        least = max(form.rank, matrix and 2, 1 if {"axis", "odd"} & {*form.places} else 0)
        names = [n for n in self.values() if least <= self.env[n].ndim <= form.most]
        if "odd" in form.places:
            names = [n for n in names if any(s % 2 for s in self.env[n].shape)]
        if names and not self.chance(0.15):
            near = np.arange(1, len(names) + 1) ** 1.5
            name = self.pick(names, near / near.sum())
        else:
            rank = int(self.rng.integers(least, 5 if form.most > 3 else form.most + 1))
            name = self.leaf(self.floats([self.side() for _ in range(rank)]))
        x = self.env[name].numpy()
        if not ((x > form.low) & (x < form.high)).all() and not (self.wild and self.chance(0.5)):
            low = max(form.low, min(-2, form.high - 1)) + 0.05
            width = min(form.high, low + 3) - low - 0.1
            name = self.emit(f"{low:.2f} + {width:.2f} * tl.sigmoid({name})")[0]
            x = self.env[name].numpy()
        self.fit(x, form)
        return name

    def fit(self, x, form):
        if form.kinks and not self.wild:
            for kink in form.kinks:
                away = x - kink
                if form.period:
                    away = away - np.round(away / form.period) * form.period
                if x.size and np.abs(away).min() < 2e-3:
                    raise Dropped
        if form.distinct and x.size > 1 and (self.wild or np.diff(np.sort(x, None)).min() < 2e-3):
            raise Dropped

    # Lines

    def run(self, line):
        before = {**self.env}
        try:
            exec(line.source(), self.env)
        except Exception as error:
            self.env = before
            if isinstance(error, tl.TinygradLenetError | TypeError | ValueError | IndexError):
                raise Dropped from error
            raise
        for name in line.outs:
            value = self.env[name]
            data = value.numpy()
            if data.size > MOST or (not self.wild and data.size and not np.abs(data).max() < LARGEST):
                self.env = before
                raise Dropped
        for name in line.outs:
            self.group.setdefault(name, name)

    def emit(self, text, kind="op", theirs="", quiet=False, nonzero=False):
        try:
            result = eval(text, {**self.env})
        except Exception as error:
            self.refused.append(Line((), text, kind, theirs, quiet))
            raise Dropped from error
        found = tuple(self.name() for _ in result) if isinstance(result, tuple) else (self.name(),)
        if len(found) == 1 and isinstance(result, tuple):
            text, theirs = text + "[0]", (theirs or text) + "[0]"
        if not found or (nonzero and result.size and np.abs(result.numpy()).min() < 1e-2):
            raise Dropped
        line = Line(found, text, kind, theirs, quiet)
        self.run(line)
        self.lines.append(line)
        return found

    def form(self, kind=None, quiet=False):
        odds = {"unary": 3, "binary": 4, "plain": 1, "reductions": 3, "views": 4, "shapes": 3, "products": 2}
        odds["networks"] = 1.5
        kind = kind or self.pick(odds, np.array([*odds.values()]) / sum(odds.values()))
        form = self.pick([f for f in KINDS[kind] if f.wild or self.wild != "gradients" or kind == "plain"])
        if self.wild and any(name in form.text for name in TAME):
            raise Dropped
        if "detach" in form.text and "detach" not in self.features:
            raise Dropped
        place = Places(self, form)
        text, theirs = place.filled()
        outs = self.emit(text, "view" if form.view else "op", theirs, quiet=quiet, nonzero=form.nonzero)
        source = place.found.get("x")
        for name in outs:
            if form.view:
                self.group[name] = self.group[source]
                x = self.env[source]._data
                if "flip" in text or ":-" in text or not x.flags.c_contiguous or not x.flags.writeable:
                    self.frozen.add(self.group[name])  # PyTorch has no negative strides; the two may copy or share
                if "broadcast" in text:
                    self.frozen.add(self.group[name])
        return outs

    def write(self):
        """Change a tensor in place: under no_grad, or where nothing is recorded."""
        names = [n for n in self.values() if self.group[n] not in self.frozen and self.env[n].size]
        many = Counter(self.group.values())
        odds = np.array([1.0 if many[self.group[n]] == 1 else 8.0 for n in names])  # rather what has views
        name = self.pick(names, odds / odds.sum() if names else None)
        target = self.env[name]
        if not target._data.flags.writeable:
            raise Dropped
        quiet = target.requires_grad or self.chance(0.3)
        place = Places(self, KINDS["views"][0])
        place.found["x"] = name
        index = place.index(forward=True) if target.ndim and self.chance(0.7) else "..."
        shape = target.numpy()[eval(f"np.s_[{index}]")].shape
        others = [n for n in self.values() if self.env[n].shape == shape and self.group[n] != self.group[name]]
        others = [n for n in others if quiet or not self.env[n].requires_grad]
        others = [
            n for n in others if self.env[n].dtype == target.dtype
        ]  # PyTorch's side has float64 alone: no rounding
        value = self.pick(others) if others and self.chance(0.5) else repr(self.number())
        way = self.rng.integers(3)
        if way == 0 and index == "..." and quiet and value[0] == "v":
            text, theirs = f"{name}.data = {value}", f"{name}[...] = {value}"
        elif way == 1 and index == "...":
            sign = self.pick("+-*")
            text, theirs = f"{name} {sign}= {value}", f"{name}[...] = {name} {sign} {value}"
        else:
            text = theirs = f"{name}[{index}] = {value}"
        line = Line((), text, "write", theirs if theirs != text else "", quiet)
        self.run(line)
        self.lines.append(line)

    def hook(self):
        names = [n for n in self.values() if self.env[n].requires_grad]
        name = self.pick(names)
        what = self.pick(
            [f"seen.setdefault({len(self.lines)}, []).append", "lambda g: g * 2.0", "lambda g: -g", "lambda g: None"]
        )
        self.lines.append(Line((), f"{name}.register_hook({what})", "hook"))

    def checkpoint(self):
        """A few lines as a function, of some of what they use; the rest comes from its closure."""
        outer, start, known = self.lines, len(self.leaves), {*self.values("fbi")}
        self.lines = []
        try:
            for _ in range(self.rng.integers(1, 4)):
                self.form()
            body, self.lines = self.lines, outer
        except Dropped:
            for line in self.lines:
                for name in line.outs:
                    self.env.pop(name, None)
            self.lines = outer
            raise
        made = {name for line in body for name in line.outs}
        results = [n for n in body[-1].outs if self.env[n].requires_grad]
        used = {n for line in body for n in line.uses} - made
        for name in made:
            self.env.pop(name, None)
        if not results or len(body[-1].outs) > 1 or not used:
            raise Dropped
        args = [n for n in sorted(used) if self.chance(0.8)] or [min(used)]
        del start, known
        out = self.name()
        line = Line((out,), ", ".join(args), "checkpoint", body=tuple(body))
        self.run(line)
        self.group[out] = self.group[results[0]]
        self.frozen.add(self.group[out])
        self.lines.append(line)

    def number(self):
        return round(float(self.rng.uniform(-2, 2)), 2) + 0.0005  # no element of a leaf: those have three decimals

    def program(self):
        """3 to 25 lines, and what of it is differentiated."""
        for _ in range(self.rng.integers(1, 4)):
            self.leaf(self.floats([self.side() for _ in range(self.rng.integers(0, 5))]))
        length = int(self.rng.integers(3, 26))
        for _ in range(4 * length):
            if len(self.lines) >= length:
                break
            special = self.pick(["form"] * 12 + ["write"] * 4 + ["hook", "checkpoint", "quiet"])
            try:
                if special in ("form", "quiet") or special not in self.features:
                    self.form(quiet=special == "quiet" and special in self.features)
                else:
                    getattr(self, special)()
            except Dropped:
                pass
        used = {name for line in self.lines for name in line.uses}
        made = [n for line in self.lines for n in line.outs if self.env[n].requires_grad]
        outputs = [n for n in made if n not in used or self.chance(0.1)]  # whatever leads nowhere else
        outputs = outputs or [leaf.name for leaf in self.leaves if leaf.grad][:1]
        return Program(tuple(self.leaves), tuple(self.lines), tuple(outputs), self.wild, tuple(self.refused))
