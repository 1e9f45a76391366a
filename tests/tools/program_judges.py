"""The judges of a random program: PyTorch in float64, NumPy line by line, and numerical gradients.

How far rounding may lead away is measured, not guessed: PyTorch runs the program again with every value, and every
gradient on its way back, off by a known relative error, and what that does to a result is scaled to the precision of
the dtype. This is first-order error analysis by random perturbation (Vignes, *A stochastic arithmetic for reliable
scientific computation*, 1993). A result that has no digits by this measure is not compared; that is counted.
"""

import functools
import itertools
import warnings

import numpy as np
from program_languages import Missing, Numpy, Torch
from programs import weights

import tinygrad_lenet as tl

# An op makes a few errors where the model has one, and two samples are no maximum; rounding within an op is relative to
# the largest values that take part.
FACTOR, WITHIN = 64, 64
NO_DIGITS = 1e-2  # relative to the result


class Failure(Exception):
    """A check and its result."""

    def __init__(self, check, name, expected, got):
        super().__init__(f"{check} of {name}: expected {expected}, got {got}")
        self.check, self.name, self.expected, self.got = check, name, expected, got


class Unjudged(Exception):
    """The judge does not know."""


def function_of(source, env):
    exec(compile(source, "<random program>", "exec"), env)
    return env["program"]


# The judge


def hook(function):
    """PyTorch says None for zero."""
    return lambda g: None if g is None else function(g)


def array(t):
    """PyTorch's zeros that have no memory cannot be read."""
    return np.zeros(tuple(t.shape)) if t._is_zerotensor() else t.detach().numpy(force=True)


class Reference:
    """Results of a program in PyTorch: by kind of check, and there by name; ``error`` is what is added to each value,
    relative to it.
    """

    def __init__(self, torch, program, error=0.0, seed=0):
        self.torch, self.error, self.rng = torch, error, np.random.default_rng(seed)
        self.seen, self.replaced = {}, program.replaced
        env = {
            "tl": Torch(torch),
            "np": np,
            "seen": self.seen,
            "OUT": self.out,
            "C": self.copy,
            "W": lambda t: t.data,
            "H": hook,
        }
        leaves = {leaf.name: self.leaf(leaf) for leaf in program.leaves}
        found = function_of(program.source(there=True), env)(*leaves.values())
        self.accepted = [line for line in program.refused if self.runs(line, {**env, **found})]
        self.values = {n: v.detach().clone() for n, v in found.items() if n[0] == "v"}
        self.results = {"value": self.arrays(self.values)}
        outs = [found[name] for name in program.outputs]
        inputs = {n: t for n, t in leaves.items() if t.requires_grad}
        if outs and inputs:
            self.derive(outs, inputs)

    def runs(self, line, env):
        try:
            exec(line.source(there=True), env)
        except Exception:
            return False
        return True

    def leaf(self, leaf):
        t = self.torch.tensor(leaf.values.astype(np.float64) if leaf.values.dtype.kind == "f" else leaf.values)
        return self.off(t).requires_grad_(leaf.grad) if leaf.grad else self.off(t)

    def off(self, t):
        if not self.error or not t.is_floating_point():
            return t
        sides = self.torch.tensor(
            self.rng.choice([-1.0, 1.0], tuple(t.shape)) * self.rng.uniform(0.5, 1, tuple(t.shape))
        )
        return t * (1 + self.error * sides)

    def copy(self, t):
        """Of an argument; each gradient that comes back to it has an error of its own."""
        found = t.clone(memory_format=self.torch.contiguous_format)
        if self.error and found.requires_grad:
            found.register_hook(hook(self.off))
        return found

    def out(self, found):
        if isinstance(found, (tuple, list)):
            return tuple(self.out(t) for t in found)
        return (
            self.off(found)
            if self.error and found.is_floating_point()
            else found.clone(memory_format=self.torch.contiguous_format)
        )

    def arrays(self, tensors):
        return {n: array(t) for n, t in tensors.items()}

    def derive(self, outs, inputs):
        torch, names = self.torch, [*inputs]
        seeds = [torch.tensor(weights(tuple(y.shape), i)).requires_grad_() for i, y in enumerate(outs)]
        pairs = [(y, s) for y, s in zip(outs, seeds, strict=True) if y.requires_grad]
        if not pairs:
            return
        ys, ss = zip(*pairs, strict=True)
        xs = [*inputs.values()]
        first = torch.autograd.grad(ys, xs, ss, create_graph=True, allow_unused=True)
        zeros = [torch.zeros_like(x) for x in xs]
        full = [z if g is None else g for g, z in zip(first, zeros, strict=True)]
        self.results["gradient"] = self.arrays(dict(zip(names, full, strict=True)))
        self.results["hook"] = {n: np.stack([array(g) for g in gs]) for n, gs in self.seen.items() if gs}
        directions = [torch.tensor(weights(tuple(x.shape), i + 3)) for i, x in enumerate(xs)]
        pairs = [(g, d) for g, d in zip(full, directions, strict=True) if g.requires_grad]
        second = [None] * (len(xs) + len(seeds))
        if pairs:
            gs, ds = zip(*pairs, strict=True)
            try:
                second = torch.autograd.grad(gs, [*xs, *seeds], ds, allow_unused=True)
            except RuntimeError as error:
                if "not implemented" in str(error):
                    return
                raise
        second = [torch.zeros_like(t) if g is None else g for g, t in zip(second, [*xs, *seeds], strict=True)]
        if not self.replaced:
            self.results["second gradient"] = self.arrays(dict(zip(names, second, strict=False)))
        self.results["jvp"] = dict(enumerate(array(g) for g in second[len(xs) :]))


class Judge:
    """Results by kind and name, and how far from them is still right: measured by results with errors in them."""

    def __init__(self, program, right, again=None, error=1.0):
        self.program, self.eps, self.error = program, program.eps, error
        self.right, self.again = right, again
        self.skipped = 0
        self.scales = {}
        for kind, found in self.right.items():
            finite = [np.abs(a[np.isfinite(a)]) for a in found.values() if a.dtype.kind == "f"]
            self.scales[kind] = max([1.0, *(float(a.max()) for a in finite if a.size)])
        self.scale = self.scales["value"]

    @functools.cached_property
    def off(self):
        """Results with errors in them: computed if something is not equal to the last digits."""
        return [self.again(i) for i in (1, 2)] if self.again else []

    def compare(self, kind, name, got, times=1):
        """One result with the right one; ``got`` is a Tensor."""
        if kind not in self.right or name not in self.right[kind]:
            return
        expected = self.right[kind][name] * times if times > 1 else self.right[kind][name]
        got = got.numpy()
        if got.shape != expected.shape:
            raise Failure(kind, name, f"shape {expected.shape}", f"shape {got.shape}")
        if expected.dtype.kind != "f" or got.dtype.kind != "f":
            if got.dtype.kind != expected.dtype.kind:
                raise Failure(kind, name, expected.dtype, got.dtype)
            if not (got == expected).all() and not self.moves(kind, name):
                raise Failure(kind, name, expected, got)
            return
        if not got.size:
            return
        finite = np.isfinite(expected)
        if not np.array_equal(np.isfinite(got), finite) or not np.array_equal(got[~finite], expected[~finite], True):
            if not self.moves(kind, name):
                raise Failure(kind, name, expected, got)
            return
        if not finite.any():
            return
        distance = np.abs(got - expected)[finite].max()
        scale = self.eps * self.scale * self.scales[kind] * times
        if distance <= WITHIN * scale:
            return
        steps = [float(np.abs(off[kind][name] - self.right[kind][name])[finite].max()) for off in self.off]
        reaction = times * max(steps, default=0.0) / self.error
        if reaction * self.error > NO_DIGITS * np.abs(expected[finite]).max() + 1e3 * self.error * scale / self.eps:
            self.skipped += 1
        elif not distance <= FACTOR * self.eps * reaction + WITHIN * scale:
            raise Failure(kind, name, expected, got)

    def moves(self, kind, name):
        """Return True if whole numbers, or what is finite, are at the mercy of rounding."""
        at = self.right[kind][name]
        moved = any(
            not np.array_equal(off[kind][name], at, at.dtype.kind == "f")
            and (at.dtype.kind != "f" or not np.array_equal(np.isfinite(off[kind][name]), np.isfinite(at)))
            for off in self.off
        )
        self.skipped += moved
        return moved


def of_pytorch(torch, program):
    """PyTorch's results; with errors, when it is asked for them."""
    error = max(1e-9, program.eps)

    def reference(seed=0):
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return Reference(torch, program, error * bool(seed), seed)
        except Exception as why:
            raise Unjudged(f"{type(why).__name__}: {why}") from why
        finally:
            torch.set_default_dtype(before)

    right = reference()
    if right.accepted:
        raise Failure("a line that is refused here", "", "a result", right.accepted[0].source())
    return Judge(program, right.results, None if program.wild else lambda i: reference(i).results, error)


def check_numpy(program):
    """Each line beside NumPy, on arrays that share memory where tensors do; dtypes are NumPy's."""
    leaves = {leaf.name: leaf.tensor() for leaf in program.leaves}
    ours = {"tl": tl, "np": np, "seen": {}, **leaves}
    theirs = {"tl": Numpy(), "np": np, "OUT": made, "C": np.array, "W": lambda a: a}
    theirs |= {leaf.name: leaf.values.copy() for leaf in program.leaves}
    for line in program.lines:
        try:
            exec(line.source(), ours)
        except Exception as why:
            raise Unjudged(f"{type(why).__name__}: {why}") from why
        owns = line.kind == "op"
        for name, other in itertools.product(line.outs, line.uses):
            if np.shares_memory(ours[name]._data, ours[other]._data):
                if owns:
                    raise Failure("memory", name, "its own", f"that of {other}")
                if ours[name]._version is not ours[other]._version:
                    raise Failure("version counter", name, f"that of {other}, whose memory it shares", "its own")
        known = line.kind != "checkpoint"
        try:
            if line.kind != "hook":
                exec(line.source(there=True).replace("with tl.no_grad():\n    ", ""), theirs)
        except (Missing, AttributeError, TypeError):
            known = False
            theirs.update({name: ours[name].numpy().copy() for name in line.outs})
        read = {ours[n].dtype for n in line.uses if ours[n].dtype.kind == "f"}
        exempt = line.kind == "checkpoint" or "tl.scatter" in line.text  # a scatter has the dtype of x
        for name in line.outs if not (known or exempt) and read else ():
            if ours[name].dtype.kind == "f" and ours[name].dtype != np.result_type(*read):
                raise Failure("dtype", name, np.result_type(*read), ours[name].dtype)
        for name in line.outs if known else ():
            a, b = ours[name].numpy(), theirs[name]
            if a.shape != b.shape or (a.dtype != b.dtype and not {a.dtype.kind, b.dtype.kind} <= {*"iu"}):
                raise Failure("NumPy's shape and dtype", name, f"{b.dtype} {b.shape}", f"{a.dtype} {a.shape}")
        for name in line.outs if known else line.uses if line.kind == "write" else ():
            a, b = ours[name].numpy(), theirs[name]
            scale = max([1.0, *(np.abs(v[np.isfinite(v)]).max(initial=0) for v in (a, b) if v.dtype.kind == "f")])
            scale = max(scale, *(largest(theirs[n]) for n in line.uses | {name}))
            if not np.allclose(a, b, 0, WITHIN * program.eps * scale**2, equal_nan=True):
                raise Failure("NumPy's value", name, b, a)


def made(found):
    """A copy, as an op makes it."""
    return tuple(np.array(a) for a in found) if isinstance(found, (tuple, list)) else np.array(found)


def largest(a):
    finite = a[np.isfinite(a)] if a.dtype.kind == "f" else np.zeros(0)
    return float(np.abs(finite).max(initial=0.0))
