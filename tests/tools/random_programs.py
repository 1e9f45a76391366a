"""Runs random programs here and in PyTorch, compares all that can be derived, and shrinks what differs to a few lines.

python tests/tools/random_programs.py --runs 10000 --seed 1
"""

import argparse
import sys
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
from program_judges import Failure, Judge, Unjudged, check_numpy, function_of, of_pytorch
from programs import NAME, Maker, weights

import tinygrad_lenet as tl

# What is judged


def may_refuse(program):
    """Return True if data is changed in place that an op has read or made before: then a gradient may be refused."""
    root, touched = {}, set()

    def memory(name):
        while name in root:
            name = root[name]
        return name

    for line in program.lines:
        if line.kind == "write":
            if memory(NAME.findall(line.text)[0]) in touched:
                return True
        elif line.kind == "view":
            root.update({name: memory(min(line.uses)) for name in line.outs})
        else:
            touched |= {memory(name) for name in line.uses | {*line.outs}}
    return False


class Ours:
    """A program here, from fresh leaves."""

    def __init__(self, program, leaves=None):
        self.seen = {}
        env = {"tl": tl, "np": np, "seen": self.seen}
        leaves = leaves or {leaf.name: leaf.tensor() for leaf in program.leaves}
        found = function_of(program.source(), env)(*leaves.values())
        self.values = {n: v for n, v in found.items() if n[0] == "v"}
        self.leaves = leaves
        self.inputs = {n: t for n, t in leaves.items() if t.requires_grad}
        self.outs = [self.values[name] for name in program.outputs]

    def pairs(self):
        seeds = [tl.tensor(weights(y.shape, i)).astype(y.dtype) for i, y in enumerate(self.outs)]
        return [(y, s) for y, s in zip(self.outs, seeds, strict=True) if y.requires_grad]


def check_values(program, judge):
    for name, value in Ours(program).values.items():
        judge.compare("value", name, value)


def full(found, inputs, kind="gradient"):
    """Zeros for None."""
    for g, (name, x) in zip(found, inputs.items(), strict=True):
        if g is not None and (g.dtype != x.dtype or g.shape != x.shape):
            raise Failure(kind, name, f"{x.dtype} {x.shape}", f"{g.dtype} {g.shape}")
    return [tl.zeros(*x.shape, dtype=x.dtype) if g is None else g for g, x in zip(found, inputs.values(), strict=True)]


def check_gradients(program, judge):
    ours = Ours(program)
    if not ours.pairs():
        return
    ys, ss = zip(*ours.pairs(), strict=True)
    xs = [*ours.inputs.values()]
    first = full(tl.grad(ys, xs, ss, create_graph=True, allow_unused=True), ours.inputs)
    for name, g in zip(ours.inputs, first, strict=True):
        judge.compare("gradient", name, g)
    for name, gs in ours.seen.items():
        if gs:
            judge.compare("hook", name, tl.stack([g.detach() for g in gs]))
    if program.wild or "second gradient" not in judge.right:
        return
    directions = [tl.tensor(weights(x.shape, i + 3)).astype(x.dtype) for i, x in enumerate(xs)]
    pairs = [(g, d) for g, d in zip(first, directions, strict=True) if g.requires_grad]
    second = [None] * len(xs)
    if pairs:
        gs, ds = zip(*pairs, strict=True)
        second = tl.grad(gs, xs, ds, allow_unused=True)
    for name, g in zip(ours.inputs, full(second, ours.inputs, "second gradient"), strict=True):
        judge.compare("second gradient", name, g)


def check_backward(program, judge):
    """Twice, through a graph that is kept, into the same ``.grad``; not recorded."""
    ours = Ours(program)
    if not ours.pairs():
        return
    total = sum(((y * s).sum() for y, s in ours.pairs()), 0.0)
    leaves = ours.inputs.items()
    total.backward(retain_graph=True)
    once = {n: x.grad for n, x in leaves if x.grad is not None}
    copies = {n: g.numpy().copy() for n, g in once.items()}
    for n, x in leaves:
        judge.compare("gradient", n, once.get(n, tl.zeros(*x.shape, dtype=x.dtype)))
    total.backward()
    for n, g in once.items():
        judge.compare("gradient", n, ours.inputs[n].grad, 2)
        if not np.array_equal(g.numpy(), copies[n], True):
            raise Failure("the first .grad, after the second backward", n, copies[n], g.numpy())


def split_leaves(program):
    leaves = {leaf.name: leaf.tensor() for leaf in program.leaves}
    inputs = [n for n, t in leaves.items() if t.requires_grad]

    def function(*tensors):
        ours = Ours(program, {**leaves, **dict(zip(inputs, tensors, strict=True))})
        return tuple(ours.outs)

    return function, inputs, tuple(leaves[n].detach() for n in inputs)


def check_vjp(program, judge):
    function, names, primals = split_leaves(program)
    if not names:
        return
    outs, pull = tl.vjp(function, *primals)
    for out, name in zip(outs, program.outputs, strict=True):
        judge.compare("value", name, out)
    for _ in range(2):
        found = pull(*[tl.tensor(weights(y.shape, i)).astype(y.dtype) for i, y in enumerate(outs)])
        for name, g in zip(names, (found,) if len(names) == 1 else found, strict=True):
            judge.compare("gradient", name, g)


def check_jvp(program, judge):
    function, names, primals = split_leaves(program)
    if not names or "jvp" not in judge.right:
        return
    directions = tuple(tl.tensor(weights(x.shape, i + 3)).astype(x.dtype) for i, x in enumerate(primals))
    outs, pushed = tl.jvp(function, primals, directions)
    for i, (out, name) in enumerate(zip(outs, program.outputs, strict=True)):
        judge.compare("value", name, out)
        judge.compare("jvp", i, pushed[i])


def check_hvp(program, judge):
    _, names, primals = split_leaves(program)
    if not names or "second gradient" not in judge.right:
        return
    directions = tuple(tl.tensor(weights(x.shape, i + 3)).astype(x.dtype) for i, x in enumerate(primals))
    for name, g in zip(names, hessian_along(program, primals, directions), strict=True):
        judge.compare("second gradient", name, g)


def hessian_along(program, primals, directions):
    """The second derivatives of the weighted sum of the outputs, times a vector."""
    function = split_leaves(program)[0]

    def number(*tensors):
        outs = function(*tensors)
        return sum(((y * tl.tensor(weights(y.shape, i)).astype(y.dtype)).sum() for i, y in enumerate(outs)), 0.0)

    return tl.hvp(number, primals, directions)


def along(function, h=1e-4):
    """The derivatives at 0 of a function that gives arrays, and how wrong each is at most."""
    ends = [function(t) for t in (h, -h, h / 2, -h / 2)]
    for a, b, c, d in zip(*ends, strict=True):
        wide, narrow = (a - b) / (2 * h), (c - d) / h
        scale = max(np.abs(a).max(initial=1.0), np.abs(narrow).max(initial=1.0))
        yield narrow, 2 * np.abs(wide - narrow).max(initial=0.0) + 1e-8 * scale


def check_numerically(program, _):
    """First and second derivatives in one direction, by differences."""
    function, names, primals = split_leaves(program)
    if not names:
        return
    directions = [weights(x.shape, i + 3) for i, x in enumerate(primals)]

    def values(t):
        return [y.numpy() for y in function(*moved(t))]

    def moved(t):
        return [tl.tensor(x.numpy() + t * d) for x, d in zip(primals, directions, strict=True)]

    def slopes(t):
        outs, pull = tl.vjp(function, *moved(t))
        found = pull(*[weights(y.shape, i) for i, y in enumerate(outs)])
        return [g.numpy() for g in ((found,) if len(names) == 1 else found)]

    def near(kind, name, expected, got, slack):
        if not np.abs(got - expected).max(initial=0.0) <= slack:
            raise Failure(kind, name, expected, got)

    tangents = tuple(tl.tensor(d) for d in directions)
    total, most = 0.0, 0.0
    for i, (found, (d, slack)) in enumerate(zip(tl.jvp(function, primals, tangents)[1], along(values), strict=True)):
        near("jvp", program.outputs[i], d, found.numpy(), slack)
        total, most = total + (d * weights(d.shape, i)).sum(), most + slack * d.size
    slope = sum((g * d).sum() for g, d in zip(slopes(0.0), directions, strict=True))
    near("gradient along a direction", "all", total, slope, most + 1e-9 * abs(slope))
    for name, found, (d, slack) in zip(names, hessian_along(program, primals, tangents), along(slopes), strict=True):
        near("second gradient", name, d, found.numpy(), slack)


CHECKS = [check_values, check_gradients, check_backward, check_vjp]
SMOOTH = [check_jvp, check_hvp]


def plain(program):
    """Return True if differences are derivatives: nothing is cut off, replaced or changed, and there are digits."""
    kinds = {line.kind for line in program.lines}
    cut = any(line.quiet or "detach" in line.text for line in program.lines)
    return not (cut or kinds & {"write", "hook"} or program.wild or program.eps > 1e-15)


def own(program):
    """Without PyTorch: the same program without checkpoints says what the others should give."""
    lines = [part for line in program.lines for part in (inlined(line) if line.kind == "checkpoint" else [line])]
    ours = Ours(replace(program, lines=tuple(lines)))
    right = {"value": {n: v.numpy() for n, v in ours.values.items()}}
    if ours.pairs():
        try:
            ys, ss = zip(*ours.pairs(), strict=True)
            found = full(tl.grad(ys, [*ours.inputs.values()], ss, allow_unused=True), ours.inputs)
            right["gradient"] = {n: g.numpy() for n, g in zip(ours.inputs, found, strict=True)}
        except tl.GradientError:
            pass  # something was changed in place
    return Judge(program, right)


def verdict(torch, program):
    """None, or the first Failure; how many results were not compared. Without PyTorch if ``torch`` is None."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            check_numpy(program)
            judge = own(program) if torch is None else of_pytorch(torch, program)
        except Failure as failure:
            return failure, 0
        checks = {"values": CHECKS[:1], "gradients": CHECKS}.get(program.wild, CHECKS + SMOOTH)
        if torch is None and not program.wild:
            checks = CHECKS + [check_numerically] * plain(program)
        for check in checks if program.outputs else ():
            try:
                check(program, judge)
            except Unjudged:
                raise
            except Failure as failure:
                failure.check = f"{check.__name__}: {failure.check}"
                return failure, judge.skipped
            except tl.GradientError as error:
                changed = "in place" in str(error) or "do not change what it uses" in str(error)  # a checkpoint
                if not (changed and may_refuse(program)):
                    return Failure(f"{check.__name__}: GradientError", "", "a result", error), judge.skipped
            except Exception as error:
                return Failure(f"{check.__name__}: {type(error).__name__}", "", "a result", error), judge.skipped
    return None, judge.skipped


# Shrinking


def smaller(program):
    """Programs with one thing less."""
    for name in program.outputs:
        if len(program.outputs) > 1:
            yield replace(program, outputs=(name,))
    for i in range(len(program.lines))[::-1]:
        yield without(program, i)
    for i, line in enumerate(program.lines):
        head, tail = program.lines[:i], program.lines[i + 1 :]
        if line.kind == "checkpoint":
            yield replace(program, lines=(*head, *inlined(line), *tail))
            for j in range(len(line.body) - 1):
                body = line.body[:j] + line.body[j + 1 :]
                yield replace(program, lines=(*head, replace(line, body=body), *tail))
        if line.quiet and line.kind != "write":
            yield replace(program, lines=(*head, replace(line, quiet=False), *tail))
        if line.kind != "checkpoint":
            for used in sorted(line.uses):  # what was made is what it was made of
                if len(line.outs) == 1:
                    rest = tuple(renamed_line(part, {line.outs[0]: used}) for part in tail)
                    outputs = tuple(used if n == line.outs[0] else n for n in program.outputs)
                    yield replace(program, lines=(*head, *rest), outputs=outputs)
    for i, leaf in enumerate(program.leaves):
        around = program.leaves[:i], program.leaves[i + 1 :]
        if not any(leaf.name in line.uses for line in program.lines) and leaf.name not in program.outputs:
            yield replace(program, leaves=(*around[0], *around[1]))
        if leaf.grad:
            yield replace(program, leaves=(*around[0], replace(leaf, grad=False), *around[1]))
        if leaf.layout:
            yield replace(program, leaves=(*around[0], replace(leaf, layout=""), *around[1]))
        if leaf.values.dtype == np.float32:
            yield replace(program, leaves=(*around[0], replace(leaf, values=leaf.values.astype(float)), *around[1]))
        if leaf.values.dtype.kind == "f" and not np.array_equal(leaf.values, leaf.values.round(1), True):
            yield replace(program, leaves=(*around[0], replace(leaf, values=leaf.values.round(1)), *around[1]))


def inlined(line):
    """The lines of a checkpoint, without it."""
    return [renamed_line(part, {line.body[-1].outs[0]: line.outs[0]}) for part in line.body]


def renamed_line(line, names):
    def new(text):
        return NAME.sub(lambda m: names.get(m[0], m[0]), text)

    return replace(
        line,
        outs=tuple(names.get(n, n) for n in line.outs),
        text=new(line.text),
        theirs=new(line.theirs),
        body=tuple(renamed_line(part, names) for part in line.body),
    )


def without(program, i):
    """Without a line, and all that hangs on it."""
    gone, kept = {*program.lines[i].outs}, [*program.lines[:i]]
    for line in program.lines[i + 1 :]:
        if line.uses & gone:
            gone |= {*line.outs}
        else:
            kept.append(line)
    outputs = tuple(n for n in program.outputs if n not in gone)
    if not outputs:
        made = [n for line in kept for n in line.outs]
        outputs = tuple(made[-1:])
    return replace(program, lines=tuple(kept), outputs=outputs)


def shrunk(torch, program, failure):
    """The smallest program that fails the same check."""
    seen = set()
    while True:
        for candidate in smaller(program):
            key = f"{candidate}{candidate.outputs}"
            if key in seen:
                continue
            seen.add(key)
            try:
                found, _ = verdict(torch, candidate)
            except Unjudged:
                continue
            if found is not None and found.check == failure.check:
                program, failure = candidate, found
                break
        else:
            return program, failure


def report(program, failure):
    """A program that can be run, with what should have come out."""
    inputs = [leaf.name for leaf in program.leaves if leaf.grad]
    lines = [str(program)]
    if "values" not in failure.check and program.outputs:
        ours = Ours(program) if "Error" not in failure.check else None
        shapes = [ours.values[n].shape for n in program.outputs] if ours else []
        seeds = [f"np.array({weights(s, i).tolist()})" for i, s in enumerate(shapes)]
        lines.append(
            f"tl.grad([{', '.join(program.outputs)}], [{', '.join(inputs)}], [{', '.join(seeds)}], allow_unused=True)"
        )
    lines.append(f"# {failure}".replace("\n", "\n# "))
    return "\n".join(lines)


def run(torch, seeds, show=print, most=5):
    """Judge the programs of these seeds; the reports of what failed."""
    failures, counts = [], Counter()
    for seed in seeds:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            program = Maker(seed).program()
        counts["programs"] += 1
        try:
            failure, skipped = verdict(torch, program)
        except Unjudged as why:
            counts["unjudged"] += 1
            show(f"seed {seed}: unjudged, {str(why)[:300]}")
            continue
        counts["skipped"] += skipped
        if failure is not None:
            counts["failures"] += 1
            text = report(*shrunk(torch, program, failure))
            failures.append(f"seed {seed}\n{text}\n")
            show(failures[-1])
            if len(failures) >= most:
                break
    return failures, counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=20, help="failures, after which it ends")
    args = parser.parse_args()
    try:
        import torch
    except ImportError:
        torch = None

    failures, counts = run(torch, range(args.seed, args.seed + args.runs), most=args.most)
    print(dict(counts))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
