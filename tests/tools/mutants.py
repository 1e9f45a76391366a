"""The mutants of ``mutate.py``: each rule and kernel with one sign, constant or comparison changed."""

import ast
import copy
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tinygrad_lenet"
# The kernels that compute; the others are about memory, threads and the order of steps.
KERNELS = ["channels", "convolution", "elementwise", "masks", "matmul", "pooling", "softmax", "sums", "windows"]
# Mutants that compute the same: the file's name, a part of the call or statement that holds them, the mutation (a
# pattern), and why no test can tell them from the original.
BLOCKS = "only chooses the blocks, and the tests with other _BYTES, _RUN, _TILE, _DEEP show that these do not matter"
HARMLESS = [
    ("activations", "np.minimum(np.abs(x), 40)", "40  ->  41", "beyond, the result is 0"),
    ("activations", "np.where(x < 0, upper, 1 - upper)", ".*<=.*", "at 0 both are a half"),
    ("activations", "minimum(x, 0)", "0  ->  1", "masked where x is above 0"),
    (
        "activations",
        "where(x <= 0, g * exp(",
        "(x <= 0  ->  x < 0|0  ->  1)",
        "masked, or the slope is 1 on both sides",
    ),
    ("contractions", "len(xs) < len(names)", ".*<=.*", "gives a tensor the shape that it has"),
    ("convolution", "single(columns[:0])", ".*", "only the dtype matters"),
    ("convolution", "max(1, min(8, work // ", ".*", BLOCKS),
    ("convolution", "min(8, work // ", ".*", BLOCKS),
    ("convolution", "min(_BYTES // max(1, pixel_bytes * rows)", ".*", BLOCKS),
    ("convolution", "max(1, fitting, min(width, _RUN // max(1, batch)))", ".*", BLOCKS),
    ("convolution", "-(-shares // max(1, len(across)))", ".*", BLOCKS),
    ("convolution", "max(2 * reach, _BYTES * len(across) // max(1, pixel_bytes * width))", ".*", BLOCKS),
    ("convolution", "max(1, min(fitting, max(reach, -(-rows // shares))))", ".*", BLOCKS),
    ("convolution", "1 in turned.shape[1:]", ".*", "only chooses between a view and a copy"),
    ("convolution", "max(0, (high - 1) * sh - first + 1)", "0  ->  1", "no block begins just beyond the last window"),
    ("convolution", "sh > 1", ".*>=.*", "clears what is written anyway"),
    ("elementwise", "y.size < _LARGE", "y.size < _LARGE  ->  .*", "chooses between ways that agree"),
    ("elementwise", "np.maximum(x, 0) if _small(x, x)", ".* if .*", "chooses between ways that agree"),
    ("elementwise", "_winner(g, ", "[xy] [<>] [xy]  ->  [xy] [<>]= [xy]", "ties take the other branch"),
    ("indexing", "x.ndim > 30", ".*", "chooses between two ways that agree"),
    ("maths", "math.log(x) if x > 0", "x > 0  ->  x >= 0", "x is not 0 there"),
    ("maths", "where(flat, 1, x)", "1  ->  2", "masked"),
    ("normalization", "rough = x - mean(x", ".* [+] .*", "the mean of the sum is subtracted again"),
    ("maths", "where(y == 0, 1, x)", "(1  ->  2|0  ->  1)", "masked there, and 1 where the exponent is 0"),
    ("maths", "where(y == 0, 1, y - 1)", "1  ->  2", "masked"),
    ("maths", "where(out == 0, 1, out)", "1  ->  2", "0 divided by anything"),
    ("products", "x.shape[-1] if x.ndim else 'in_features'", ".*", "the text of a message"),
    ("maths", "np.minimum(", ".*", "erfc(6) is less than a unit in the last place of 1; `near` is used below 1 only"),
    ("channels", "strides[axis]", ".*", "an array that lies otherwise is copied"),
    ("channels", "shape[axis] > 1 and", ".*", "an array that lies otherwise is copied"),
    ("channels", "x[:-(-64 // x.shape[2])", ".*", "only chooses the elements that approximate the mean"),
    ("channels", "range(3)", ".*", "it has converged by then"),
    ("channels", "(off * off <= var).all()", ".* ->  .* < .*", "the same once more, for a constant channel"),
    ("channels", "np.where(np.isfinite(factor), factor, 0)", "0  ->  1", "added to an infinity"),
    ("channels", "max(1, _BLOCK //", ".*", BLOCKS),
    ("channels", "max(1, itemsize *", ".*", BLOCKS),
    ("matmul", "m * k * n <= _TILE", ".*", "chooses between ways that agree"),
    ("matmul", "k > _DEEP", ".*", BLOCKS),
    ("matmul", "Blocked(lambda at: product(", "m [*] .*", BLOCKS),
    ("matmul", "min(m, k, n) >= _FLAT", ".*", "chooses between ways that agree"),
    ("matmul", "arrays[0].dtype", ".*", "where all have one dtype, any is it"),
    ("products", "-2 if y.ndim > 1 else 0", "1  ->  2", "the last but one axis of a matrix is its first"),
    ("products", "not x.flags.c_contiguous", ".*", "only chooses where in memory"),
    ("pooling", "work = 25 * images.size", ".*", BLOCKS),
    ("pooling", "-(-images.nbytes // _ROOM)", ".*", BLOCKS),
    ("pooling", "_padded(g, at, room, steps, 0)", "0  ->  1", "padding is never picked"),
    (
        "rearrange",
        "_diagonal(shared(g_), offset, g_shape[-1])",
        "1  ->  2",
        "the count is for ONNX, to which no gradient goes",
    ),
    ("resize", "reshape((-1,) + ", "1  ->  2", "NumPy computes any negative length from the others"),
    ("shape", "getattr(value, 'ndim', 0)", "0  ->  1", "an array of NumPy has axes"),
    ("shape", "{*map(type, axis)} <= {int}", ".* < .*", "the slower way gives the same"),
    ("softmax", "np.where(np.isnan(total), 1, total)", "1  ->  2", "there the numerator is 0 or NaN"),
    ("softmax", "v = v - v[np.arange", ".* [+] .*", "only differences within a row count; this choice rounds less"),
    ("shape", "bool(x.shape[0] > 1 and x.strides[0] == x.itemsize)", ".*", "only chooses where in memory"),
    ("shape", "_batch_innermost(x)", r"(x\.ndim|len\(target\)|[12]  ->) .*", "only chooses where in memory"),
    ("sums", "x.size > _RUN * _RUN", ".*>=.*|.* or .*|_RUN [*] .*", "chooses between ways that agree"),
    ("sums", "> 4 * _RUN", ".*>=.*|4  ->  5|4 [*] .*", "chooses between ways that agree"),
    ("sums", "> x.itemsize", ".*>=.*", "chooses between ways that agree"),
    ("windows", "isinstance(padding[0], tuple)", "0  ->  1", "both are pairs, or both are numbers"),
    ("windows", "0 < n + before", "0  ->  1", "an image of one row has one window"),
    ("windows", "-(-length // ", ".*", BLOCKS),
    ("windows", "x.flags.c_contiguous and x.dtype == dtype", ".*!=.*", "a product of two dtypes has the larger anyway"),
    ("windows", "self.grid[0] * self.kernel[0]", ".*", "the slower way gives the same"),
    ("windows", "self.kernel[0] * self.kernel[1] > 9", ".*", "chooses between two ways that agree"),
]
# Functions whose arguments, from this one on, only choose blocks.
PLANS = {"_cuts": 0, "_even": 0, "_parts": 0, "_blocks": 2, "_in_blocks": 3, "parallel": 2}


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
    """The expressions that may take the place of one."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield copy.copy(node.operand)
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


def name_of(function):
    """The name under which a function is called, without the object that it belongs to."""
    return getattr(function, "attr", getattr(function, "id", ""))


def rules(trees):
    """For each file of ``ops/``, the lambdas and functions that are rules or are called by rules."""
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
        if isinstance(call, ast.Call) and name_of(call.func) in ("vjp", "ufunc")
        for keyword in call.keywords
        if keyword.arg not in ("operator", "onnx") and not isinstance(keyword.value, ast.Constant)
    ]
    reached, stack = [], list(given)
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.Lambda, ast.FunctionDef, ast.ClassDef)):
            if node in reached:
                continue
            reached.append(node)
        stack.extend(functions[name] for name in names(node) & functions.keys())
    inside = set()
    for rule in reached:  # a decorator's functions are rules only if they are given as such
        apart = {id(n) for decorator in getattr(rule, "decorator_list", []) for n in ast.walk(decorator)}
        inside |= {id(n) for n in ast.walk(rule)} - apart
    return {
        file: [n for n in ast.walk(tree) if isinstance(n, (ast.Lambda, ast.FunctionDef)) and id(n) in inside]
        for file, tree in trees.items()
    }


def skipped(function):
    """The nodes of a function that are not changed: docstrings, annotations, messages, decorators; and default values,
    which a signature has read before a mutant could change them.
    """
    out = set()
    for node in ast.walk(function):
        parts = []
        planned = isinstance(node, ast.FunctionDef) and PLANS.get(node.name) == 0
        if planned or isinstance(node, (ast.Raise, ast.JoinedStr)):
            parts = [node]
        elif isinstance(node, ast.FunctionDef):
            parts = [
                *node.decorator_list,
                *node.args.defaults,
                *node.args.kw_defaults,
                node.returns,
                *(a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg)),
            ]
        elif isinstance(node, ast.AnnAssign):
            parts = [node.annotation]
        elif isinstance(node, ast.Call) and name_of(node.func) in ("spread", "_on_all_cores"):
            parts = [node.args[1]]  # how much there is to do: only chooses the number of threads
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PLANS:
            parts = node.args[PLANS[node.func.id] :]
        elif isinstance(node, ast.keyword) and node.arg in ("strict", "copy"):
            parts = [node.value]  # a guard; a copy is the same
        elif isinstance(node, ast.Call) and name_of(node.func) == "reshape":
            parts = [a for a in node.args if isinstance(a, ast.UnaryOp)]  # any negative length is what is left
        out |= {id(n) for part in parts if part is not None for n in ast.walk(part)}
    return out


def surroundings(function):
    """For each node the text of the next call, test of an if, or simple statement around it."""
    found = {}

    def visit(node, text):
        found[id(node)] = text
        if isinstance(node, (ast.Call, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.IfExp, ast.Lambda)):
            text = ast.unparse(node)
        elif isinstance(node, (ast.If, ast.While)):
            text = ast.unparse(node.test)
        elif isinstance(node, ast.For):
            text = ast.unparse(node.iter)
        for child in ast.iter_child_nodes(node):
            visit(child, text)

    visit(function, "")
    return found


class Mutant:
    """One change to one file."""

    def __init__(self, path, tree, node, twin, within, function):
        self.path, self.line = path, node.lineno
        self.within, self.function = within, function  # the text around the change, and the innermost function
        self.text = f"{ast.unparse(node)}  ->  {ast.unparse(twin)}"
        self.original, self.node, self.twin = tree, node, ast.copy_location(twin, node)

    @property
    def tree(self):
        """The tree of the mutated file. It is not stored, since a thousand trees would fill the memory."""
        return ast.fix_missing_locations(_Replace(self.node, self.twin).visit_copy(self.original))

    def __str__(self):
        return f"{self.path.relative_to(PACKAGE)}:{self.line}: {self.text}    in {self.within!r}"


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


def first_line(function):
    """The line of a function's first decorator, where Python's code objects begin."""
    return min(node.lineno for node in (function, *getattr(function, "decorator_list", [])))


def place(function):
    """A key that differs for all functions of a file."""
    return first_line(function), function.col_offset


def read_files():
    """The files to mutate: for each path its tree, and the functions to change."""
    ops = {path: ast.parse(path.read_text()) for path in sorted((PACKAGE / "ops").glob("*.py"))}
    kernels = {path: ast.parse(path.read_text()) for path in (PACKAGE / "kernels" / f"{name}.py" for name in KERNELS)}
    functions = rules(ops) | {path: functions_of(tree) for path, tree in kernels.items()}
    return {path: (tree, functions[path]) for path, tree in (ops | kernels).items()}


def mutants(files, only):
    """The mutants of the named files, or of all, without the harmless ones."""
    found = []
    for path, (tree, functions) in files.items():
        if only and not {path.stem, f"{path.parent.name}/{path.stem}"} & {*only}:
            continue
        nodes = {}  # by identity: a node, the text around it, and the innermost function that holds it
        for function in functions:
            skip = skipped(function)
            if isinstance(function, ast.Lambda) and not isinstance(function.body, ast.UnaryOp):
                found.append(Mutant(path, tree, function.body, ast.UnaryOp(ast.USub(), function.body), "", function))
            around = surroundings(function)
            nodes |= {id(n): (n, around[id(n)], function) for n in ast.walk(function) if id(n) not in skip}
        found.extend(Mutant(path, tree, n, twin, text, f) for n, text, f in nodes.values() for twin in mutations(n))
    return [m for m in found if not harmless(m)]
