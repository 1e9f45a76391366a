"""Mutation testing: change one sign, constant or comparison in a rule or a kernel, and see a test fail.

    python tests/tools/mutate.py [MODULE ...] [--match PATTERN] [--jobs N] [--quick] [--list]

goes through every rule of ``tinygrad_lenet/ops/`` (the functions given to ``vjp`` and ``ufunc``, and all functions of
the folder that these call) and every function of the ``KERNELS``, and for each mutant through the tests, in a process
of its own; prints the mutants that no test caught. Changes nothing on the disk. Takes about a second a mutant.
"""

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tinygrad_lenet"
# The kernels that compute; the others are about memory, threads and the order of steps.
KERNELS = ["channels", "convolution", "elementwise", "masks", "matmul", "pooling", "softmax", "sums", "windows"]
# The tests that a mutant meets: those of the ops of its file, then what is near, then all that compute something.
WINDOWS = ("definitions", "convolution", "pooling", "regressions", "functional", "layers")
NEAR = dict.fromkeys(["convolution", "pooling", "windows", "normalization", "channels"], WINDOWS)
ANY = ("definitions", "kinks", "ops", "dtypes", "numpy", "indexing", "torch")
FAST = ("definitions", "steps", "kinks", "convolution", "pooling", "ops", "functional", "spellings")
DISTANT = {"data", "download", "example", "idx", "structure", "threads", "cost", "loader"}
OTHERS = [p.stem.removeprefix("test_") for p in sorted((ROOT / "tests").glob("test_*.py"))]
LIMIT = 300  # seconds: a mutant that hangs is caught

# Mutants that compute the same: the file's name, a part of the call or statement that holds them, the mutation (a
# pattern), and why no test can tell them from the original.
BLOCKS = "only chooses the blocks, and the tests with other _BYTES, _IMAGES, _TILE, _DEEP show that these do not matter"
HARMLESS = [
    ("contractions", "len(xs) < len(names)", ".*<=.*", "gives a tensor the shape that it has"),
    ("convolution", "work < threads.WORTH", ".*", BLOCKS),
    ("convolution", "max(2 * reach, _BYTES // max(1,", ".*", BLOCKS),
    ("convolution", "max(1, row_bytes * min(batch, _IMAGES))", ".*", BLOCKS),
    ("convolution", "max(1, min(8, work // ", ".*", BLOCKS),
    ("convolution", "min(8, work // ", ".*", BLOCKS),
    ("convolution", "max(1, len(chunks))", ".*", BLOCKS),
    ("convolution", "min(fitting, -(-rows // shares))", ".*", BLOCKS),
    ("convolution", "sh > 1", ".*>=.*", "clears what is written anyway"),
    ("elementwise", "_winner(g, ", "[xy] [<>] [xy]  ->  [xy] [<>]= [xy]", "ties take the other branch"),
    ("linalg", "[-1] != b.shape[-2]", "1  ->  2", "the last two lengths of a square matrix are one"),
    ("linalg", "n, values = (x.shape[-1]", "1  ->  2", "the last two lengths of a square matrix are one"),
    ("linalg", "np.sum(values * values", "1  ->  2", "Hadamard's bound holds for columns as for rows"),
    ("linalg", "1000.0 * np.finfo", ".*", "chooses between two ways that agree where both are exact"),
    ("linalg", "det(minors) * ", r"det\(minors\) \* .* ->  det\(minors\) / .*", "a sign is its own reciprocal"),
    ("maths", "where(y == 0, 1, x)", "(1  ->  2|0  ->  1)", "masked there, and 1 where the exponent is 0"),
    ("maths", "where(y == 0, 1, y - 1)", "1  ->  2", "masked"),
    ("maths", "where(out == 0, 1, out)", "1  ->  2", "0 divided by anything"),
    ("maths", "np.minimum(", ".*", "erfc(6) is less than a unit in the last place of 1; `near` is used below 1 only"),
    ("maths", "np.where(a < 1, near, far)", "a < 1  ->  a <= 1", "at 1 both are exact"),
    ("maths", "if single else _ERF", "11  ->  12", "one more term than float32 needs"),
    ("channels", "strides[axis]", ".*", "an array that lies otherwise is copied"),
    ("channels", "shape[axis] > 1 and", ".*", "an array that lies otherwise is copied"),
    ("channels", "max(1, _BLOCK //", ".*", BLOCKS),
    ("channels", "max(1, itemsize *", ".*", BLOCKS),
    ("products", "m * k * n <= _TILE", ".*", BLOCKS),
    ("products", "k > _DEEP", ".*", BLOCKS),
    ("products", "_even(k, _DEEP, 4)", "4  ->  5", BLOCKS),
    ("products", "all((array.dtype == dtype", ".*!=.*", "the slower way gives the same"),
    ("products", "dtype: np.dtype[Any] = arrays[0]", ".*", "where all have one dtype, any is it"),
    ("products", "parallel(some, -(-m // rows)", r".*-m \* rows", "there is nothing beyond the end"),
    ("products", "-2 if y.ndim > 1 else 0", "1  ->  2", "the last but one axis of a matrix is its first"),
    ("products", "not x.flags.c_contiguous", ".*", "only chooses where in memory"),
    ("products", "rows = _tile(m, min(k, _DEEP), n)[0] * 8", ".*", BLOCKS),
    ("shape", "bool(x.shape[0] > 1 and x.strides[0] == x.itemsize)", ".*", "only chooses where in memory"),
    ("shape", "_batch_innermost(x)", r"(x\.ndim|len\(target\)|[12]  ->) .*", "only chooses where in memory"),
    ("shape", "if isinstance(g, Tensor) else np.broadcast_to", ".*", "both take both; this is the faster way"),
    ("softmax", "x.strides[0] >= x.strides[1]", "(?!1  ->).*", "only chooses where in memory"),
    ("windows", "-(-length // ", ".*", BLOCKS),
    ("windows", "x.flags.c_contiguous and x.dtype == dtype", ".*!=.*", "a product of two dtypes has the larger anyway"),
    ("windows", "n * k for n, k", ".*", "the slower way gives the same"),
    ("windows", "self.kernel[0] * self.kernel[1] > 9", ".*", "chooses between two ways that agree"),
    ("windows", "whole > r", ".*>=.*", "0 has no remainder"),
    ("windows", "type(value) is int and value >= least", ".*", "a shortcut; the general way gives the same"),
]
PLANS = {"_tile": 0, "_even": 0, "_in_blocks": 3, "parallel": 2}  # their arguments from that on only choose blocks


def harmless(mutant):
    """Why no test can tell a mutant from the original, if so."""
    for file, at, change, why in HARMLESS:
        if file == mutant.path.stem and at in mutant.within and re.fullmatch(change, mutant.text):
            return why
    return None


SWAPS = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.Pow: [ast.Mult],
    ast.FloorDiv: [ast.Mult],
    ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd],
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.And: [ast.Or],
    ast.Or: [ast.And],
}


def mutations(node):
    """What an expression can be turned into."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield node.operand
    elif isinstance(node, (ast.BinOp, ast.BoolOp)):
        for swap in SWAPS.get(type(node.op), []):
            twin = copy.copy(node)
            twin.op = swap()
            yield twin
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for swap in SWAPS.get(type(node.ops[0]), []):
            twin = copy.copy(node)
            twin.ops = [swap()]
            yield twin
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)


def names(node):
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def rules(trees):
    """Of each file of ``ops/`` the lambdas and functions that are rules, or that rules call."""
    functions = {}  # by name: the folder's functions have different names
    for tree in trees.values():
        functions.update({node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))})
        # f = lambda ...
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
                functions[node.targets[0].id] = node.value
    given = [
        keyword.value
        for tree in trees.values()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "attr", getattr(call.func, "id", "")) in ("vjp", "ufunc")
        for keyword in call.keywords
        if not isinstance(keyword.value, ast.Constant) and keyword.arg != "onnx"
    ]
    reached, stack = [], list(given)
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.Lambda, ast.FunctionDef, ast.ClassDef)):
            if node in reached:
                continue
            reached.append(node)
        stack.extend(functions[name] for name in names(node) & functions.keys())
    inside = {id(n) for rule in reached for n in ast.walk(rule)}
    return {
        file: [n for n in ast.walk(tree) if isinstance(n, (ast.Lambda, ast.FunctionDef)) and id(n) in inside]
        for file, tree in trees.items()
    }


def skipped(function):
    """Inside a function, what does not compute: docstring, annotations, messages, decorators."""
    out = set()
    for node in ast.walk(function):
        parts = []
        planned = isinstance(node, ast.FunctionDef) and PLANS.get(node.name) == 0
        if planned or isinstance(node, (ast.Raise, ast.JoinedStr)):
            parts = [node]
        elif isinstance(node, ast.FunctionDef):
            parts = [
                *node.decorator_list,
                node.returns,
                *(a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg)),
            ]
        elif isinstance(node, ast.AnnAssign):
            parts = [node.annotation]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "spread":
            parts = [node.args[1]]  # how much there is to do: only chooses the number of threads
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PLANS:
            parts = node.args[PLANS[node.func.id] :]
        elif isinstance(node, ast.keyword) and node.arg in ("strict", "copy"):
            parts = [node.value]  # a guard; a copy is the same
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "reshape":
            parts = [a for a in node.args if isinstance(a, ast.UnaryOp)]  # any negative length is what is left
        out |= {id(n) for part in parts if part is not None for n in ast.walk(part)}
    return out


def first_line(statement):
    """The line of a statement, or of its first decorator."""
    return min(node.lineno for node in [statement, *getattr(statement, "decorator_list", [])])


def owner(statement):
    """The op whose rule stands in a statement of a module, or the function that it defines."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return ast.unparse(statement.value.func).split(".")[0]
    return getattr(statement, "name", "none").removeprefix("_").split("_")[0]


def surroundings(function):
    """For each node the text of the next call, test of an if, or simple statement around it."""
    found = {}

    def visit(node, text):
        found[id(node)] = text
        if isinstance(node, (ast.Call, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.IfExp, ast.Lambda)):
            text = ast.unparse(node)
        elif isinstance(node, (ast.If, ast.For)):
            text = ast.unparse(node.test if isinstance(node, ast.If) else node.iter)
        for child in ast.iter_child_nodes(node):
            visit(child, text)

    visit(function, "")
    return found


class Mutant:
    """One change to one file; the tree is made when it is wanted, since a thousand of them fill the memory."""

    def __init__(self, path, tree, node, twin, within=""):
        self.path, self.line = path, node.lineno
        self.within = within
        self.owner = next(owner(s) for s in tree.body if first_line(s) <= node.lineno <= s.end_lineno)
        self.text = f"{ast.unparse(node)}  ->  {ast.unparse(twin)}"
        self.original, self.node, self.twin = tree, node, ast.copy_location(twin, node)
        self.module = f"tinygrad_lenet.{path.parent.name}.{path.stem}"

    @property
    def tree(self):
        """What can be compiled."""
        return ast.fix_missing_locations(_Replace(self.node, self.twin).visit_copy(self.original))

    def __str__(self):
        return f"{self.path.relative_to(PACKAGE)}:{self.line}: {self.text}"


class _Replace:
    """A copy of a tree in which one node, found by identity, is another."""

    def __init__(self, node, twin):
        self.node, self.twin = node, twin

    def visit_copy(self, node):
        if node is self.node:
            return self.twin
        if isinstance(node, list):
            return [self.visit_copy(n) for n in node]
        if not isinstance(node, ast.AST):
            return node
        made = type(node)(**{field: self.visit_copy(value) for field, value in ast.iter_fields(node)})
        return ast.copy_location(made, node) if hasattr(node, "lineno") else made


def functions_of(tree):
    """All functions of a file, the outer ones first."""
    return [n for n in ast.walk(tree) if isinstance(n, (ast.Lambda, ast.FunctionDef))]


def mutants(only):
    ops = {path: ast.parse(path.read_text()) for path in sorted((PACKAGE / "ops").glob("*.py"))}
    kernels = {path: ast.parse(path.read_text()) for path in (PACKAGE / "kernels" / f"{name}.py" for name in KERNELS)}
    trees, found = ops | kernels, []
    for path, functions in (rules(ops) | {path: functions_of(tree) for path, tree in kernels.items()}).items():
        if only and not {path.stem, f"{path.parent.name}/{path.stem}"} & {*only}:
            continue
        tree, seen = trees[path], set()
        for function in functions:
            skip = skipped(function)
            if isinstance(function, ast.Lambda) and not isinstance(function.body, ast.UnaryOp):
                found.append(Mutant(path, tree, function.body, ast.UnaryOp(ast.USub(), function.body)))
            around = surroundings(function)
            for node in ast.walk(function):
                if id(node) in seen or id(node) in skip:
                    continue
                seen.add(id(node))
                found.extend(Mutant(path, tree, node, twin, around[id(node)]) for twin in mutations(node))
    return [m for m in found if not harmless(m)]


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the mutated module in place of the file."""

    def __init__(self, mutant):
        self.mutant = mutant

    def find_spec(self, name, path, target=None):
        if name != self.mutant.module:
            return None
        return importlib.util.spec_from_file_location(name, self.mutant.path, loader=self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(self.mutant.tree, str(self.mutant.path), "exec"), module.__dict__)


def words_of(path):
    """Names of the primitives of a file, or of those that use a kernel; and with them all public names of the file."""
    users = [path]
    if path.parent.name == "kernels":
        imports = re.compile(rf"from \.\.kernels(\.{path.stem} import| import {path.stem}\b)")
        users = [user for user in sorted((PACKAGE / "ops").glob("*.py")) if imports.search(user.read_text())]
    primitives = [
        f.name.removeprefix("_")  # as users know it: _conv2d is the op conv2d
        for user in users
        for f in ast.parse(user.read_text()).body
        if isinstance(f, ast.FunctionDef) and any("primitive" in ast.unparse(d) for d in f.decorator_list)
    ]
    functions = [f.name for f in ast.parse(path.read_text()).body if isinstance(f, ast.FunctionDef)]
    return primitives, [*primitives, *(name for name in functions if not name.startswith("_"))]


def start(mutant, quick=False):
    """Run the tests on a mutant in a process of its own, which ends with 0 if all pass."""
    pid = os.fork()
    if pid:
        return pid
    nothing, failed = os.open(os.devnull, os.O_WRONLY), True
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    try:
        stages = []
        if mutant:
            sys.meta_path.insert(0, Finder(mutant))
            primitives, words = words_of(mutant.path)
            for some in ([mutant.owner], primitives or ["none"]):
                stages.append((["registry"], [f"{name}-" for name in some]))
            near = NEAR.get(mutant.path.stem, ANY)
            stages += [(near, {mutant.owner}), (FAST, []), (near, words)]
        if not quick:
            stages.append(([name for name in OTHERS if name not in DISTANT], []))
        for names, words in stages:
            files = [path for name in names if os.path.exists(path := f"tests/test_{name}.py")]
            # 5: there were none
            if pytest.main(["-x", "-q", "-p", "no:cacheprovider", *files, "-k", " or ".join(words)]) not in (0, 5):
                break
        else:
            failed = False
    finally:
        os._exit(failed)


def survivors(every, jobs, quick):
    """The mutants with which all tests pass."""
    waiting, running, done, alive, began = every[::-1], {}, 0, [], time.monotonic()
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            running[start(mutant, quick)] = mutant, time.monotonic() + LIMIT
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            for late in [pid for pid, (_, end) in running.items() if time.monotonic() > end]:
                os.kill(late, signal.SIGKILL)
            time.sleep(0.01)
            continue
        mutant, _ = running.pop(pid)
        done += 1
        if status == 0:
            alive.append(mutant)
            print(f"no test fails: {mutant}    in {mutant.within!r}", flush=True)
        if done % 50 == 0:
            print(f"{done} of {len(every)}, {len(alive)} alive, {time.monotonic() - began:.0f} s", flush=True)
    return alive


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="files, as maths or kernels/sums; all if none is named")
    parser.add_argument("--match", default="", metavar="PATTERN", help="only mutants in whose line this is found")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="only the tests that are near; more will live")
    parser.add_argument("--list", action="store_true", help="only list the mutants")
    options = parser.parse_args()
    every = [m for m in mutants(options.modules) if re.search(options.match, f"{m}    in {m.within!r}")]
    if options.list:
        print(*(f"{mutant}    in {mutant.within!r}" for mutant in every), sep="\n")
        print(len(every), "mutants")
        return
    os.chdir(ROOT)
    os.environ["HYPOTHESIS_PROFILE"] = "ci"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in ("numpy", "torch"):  # once for all children
        try:
            importlib.import_module(name)
        except ImportError:
            print(f"without {name}")
    if os.waitpid(start(None, options.quick), 0)[1]:
        sys.exit("the tests fail without any mutant; mend that first")
    alive = survivors(every, options.jobs, options.quick)
    print(f"{len(every)} mutants, {len(every) - len(alive)} caught, {len(alive)} alive")
    sys.exit(bool(alive))


if __name__ == "__main__":
    main()
