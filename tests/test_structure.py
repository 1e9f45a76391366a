"""The shape of the tree: who may import whom, what is public, what importing costs."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import data, functional, nn, optim, testing
from tinygrad_lenet._methods import Methods
from tinygrad_lenet.operators import METHODS, OPERATORS

ROOT = Path(tl.__file__).parents[1]
PACKAGE = ROOT / "tinygrad_lenet"

# Each row may import only rows above it; the modules of one package may import each other, without cycles.
ROWS = [
    {"errors", "_methods"},
    {"arguments"},
    {"graph", "memory", "parameters", "threads"},
    {"tensor"},
    {"primitive"},
    {"ops"},
    {"operators", "protocols"},
    {"functional", "calculus", "recomputation"},
    {"nn", "optim", "data"},
    {"training"},
    {"drawing"},
    {"serialization", "onnx", "visualize", "testing", "distributed"},
    {"__init__"},
]
# All that these may import.
LEAVES = {
    "_methods": set(),
    "errors": set(),
    **{name: {"errors"} for name in ("arguments", "memory")},
    "threads": {"arguments", "errors"},
}
ROW_OF = {unit: i for i, row in enumerate(ROWS) for unit in row}
MODULES = {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in sorted(PACKAGE.rglob("*.py"))}


def unit_of(module):
    """The row's word for a module: its package, or itself."""
    return module.split(".")[0]


def existing(module):
    """A module as a key of MODULES, or None for what is no module."""
    return next((m for m in (module, f"{module}.__init__".lstrip(".")) if m in MODULES), None)


def only_for_types(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(tree, inside_functions):
    """All import statements that run: not those for type checkers."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        if only_for_types(node):
            stack.extend(node.orelse)
        elif inside_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            stack.extend(ast.iter_child_nodes(node))


def imports(module, source, inside_functions=True):
    """(modules of the package, names of others) that a module imports."""
    package = module.split(".")[:-1]
    own, foreign = set(), set()
    for node in statements(ast.parse(source), inside_functions):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif node.level:
            base = package[: len(package) - node.level + 1]
            assert node.level <= len(package) + 1, f"{module} imports from outside of the package"
            path = ".".join(["tinygrad_lenet", *base, *([node.module] if node.module else [])])
            names = [f"{path}.{alias.name}" for alias in node.names]
        else:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            head, *rest = name.split(".")
            if head != "tinygrad_lenet":
                foreign.add(head)
                continue
            found = existing(".".join(rest)) or existing(".".join(rest[:-1]))
            assert found, f"{module} imports {name}, which is no module of the package"
            own.add(found)
    return own, foreign


def complaints(module, source):
    """What a module imports that it may not."""
    unit = unit_of(module)
    if unit not in ROW_OF:
        return [f"{module}: which row of ROWS in {__file__} does it belong to? Add it there and in the design's table"]
    found = []
    for other in imports(module, source)[0]:
        target = unit_of(other)
        if target == unit != "__init__":
            continue
        allowed = LEAVES.get(unit)
        if (target not in allowed) if allowed is not None else (ROW_OF.get(target, 99) >= ROW_OF[unit]):
            found.append(f"{module} may not import {other}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_rows_above_it(module):
    assert not complaints(module, MODULES[module].read_text())


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("tensor", "from .primitive import Op", "tensor may not import primitive"),
        ("tensor", "from .ops import elementwise", "tensor may not import ops.elementwise"),
        ("ops.shape", "def f():\n    from ..functional import relu", "ops.shape may not import functional"),
        ("ops.shape", "from .. import nn", "ops.shape may not import nn.__init__"),
        ("nn.layers", "from ..optim import SGD", "nn.layers may not import optim.__init__"),
        ("nn.layers", "import tinygrad_lenet.testing", "nn.layers may not import testing.__init__"),
        ("memory", "from . import graph", "memory may not import graph"),
        ("data.mnist", "from .. import relu", "data.mnist may not import __init__"),
        ("novelty", "import numpy", "novelty: which row"),
    ],
)
def test_a_planted_import_is_found(module, source, complaint):
    assert [c for c in complaints(module, source) if c.startswith(complaint)]


def test_there_are_no_cycles_of_imports():
    edges = {m: imports(m, p.read_text(), inside_functions=False)[0] - {m} for m, p in MODULES.items()}
    while edges:
        free = {m for m, others in edges.items() if not others & edges.keys()}
        assert free, f"these import each other: {sorted(edges)}"
        edges = {m: others for m, others in edges.items() if m not in free}


@pytest.mark.parametrize("module", MODULES)
def test_numpy_is_the_only_dependency_at_import_time(module):
    _, foreign = imports(module, MODULES[module].read_text(), inside_functions=False)
    optional = {"testing.strategies": {"hypothesis"}}  # nobody imports it but who wants hypothesis
    optional |= {name: {"onnx"} for name in MODULES if name.startswith("onnx.") and name != "onnx.__init__"}
    assert foreign <= {"numpy", *sys.stdlib_module_names, *optional.get(module, ())}
    at_import = imports(module, MODULES[module].read_text(), inside_functions=False)[0]
    assert module in optional or not any(other in optional for other in at_import)


def test_no_file_is_longer_than_500_lines():
    folders = [PACKAGE, ROOT / "tests", ROOT / "examples", ROOT / "benchmarks"]
    lengths = {p: len(p.read_text().splitlines()) for folder in folders for p in folder.rglob("*.py")}
    assert len(lengths) > len(MODULES)
    assert not {str(p): n for p, n in lengths.items() if n > 500}


# Names

PUBLIC = [tl, tl.linalg, tl.onnx, functional, nn, nn.init, optim, data, testing, testing.strategies]


def as_ruff_sorts(name):
    """RUF022: constants, then classes, then the rest."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2, name)


@pytest.mark.parametrize("module", [m for m in PUBLIC if hasattr(m, "__all__")], ids=lambda m: m.__name__)
def test_all_is_sorted_complete_and_without_repeats(module):
    assert module.__all__ == sorted(set(module.__all__), key=as_ruff_sorts)
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing


@pytest.mark.parametrize("module", [tl, nn, optim, data, testing], ids=lambda m: m.__name__)
def test_what_a_package_imports_is_public_or_private_by_name(module):
    tree = ast.parse(Path(module.__file__).read_text())
    removed = {t.id for node in tree.body if isinstance(node, ast.Delete) for t in node.targets}
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    unlisted = {name for name in imported - removed - {*module.__all__, "*"} if not name.startswith("_")}
    assert not unlisted


@pytest.mark.parametrize("module", PUBLIC, ids=lambda m: m.__name__)
def test_every_public_function_and_class_has_a_docstring(module):
    assert module.__doc__
    names = getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])
    things = {n: getattr(module, n) for n in names if n not in ("Array", "Seed", "__version__")}
    own = {n: thing for n, thing in things.items() if callable(thing)}
    assert own
    assert not [n for n, thing in own.items() if not (thing.__doc__ or "").strip()]
    for n, thing in own.items():
        if inspect.isclass(thing):
            assert "__doc__" in vars(thing), f"{n} only inherits its docstring"
            assert vars(thing)["__doc__"], f"{n} has no docstring"


# The table of methods, and what is spelled for type checkers


def stubs():
    tree = ast.parse((PACKAGE / "_methods.py").read_text())
    (body,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Methods"]
    (block,) = [node for node in body.body if only_for_types(node)]
    return {node.name: node for node in block.body}


def spelled(node):
    """(name, default, whether it is a star) of each parameter after self."""
    positional = [*node.args.posonlyargs, *node.args.args]
    defaults = [inspect.Parameter.empty] * (len(positional) - len(node.args.defaults))
    defaults += [ast.literal_eval(d) for d in node.args.defaults]
    found = [(a.arg, d, False) for a, d in zip(positional, defaults, strict=True)]
    if node.args.vararg:
        found.append((node.args.vararg.arg, inspect.Parameter.empty, True))
    return found[1:]


def inspected(function):
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return [(p.name, p.default, p.kind is p.VAR_POSITIONAL) for p in parameters]


def test_the_stubs_name_what_is_hung_on_tensor():
    assert sorted(stubs()) == sorted({**OPERATORS, **METHODS})
    assert not vars(Methods).keys() & (OPERATORS.keys() | METHODS.keys())  # no code of their own


@pytest.mark.parametrize("name", METHODS)
def test_the_stub_of_a_method_has_its_parameters_and_defaults(name):
    assert spelled(stubs()[name]) == inspected(METHODS[name])
    several = inspect.signature(METHODS[name]).return_annotation
    assert ast.unparse(stubs()[name].returns) == (several if "tuple" in str(several) else "Tensor")


@pytest.mark.parametrize("name", [n for n in OPERATORS if n != "T"])
def test_the_stub_of_an_operator_takes_as_many_operands(name):
    assert len(spelled(stubs()[name])) == len(inspected(OPERATORS[name]))
    assert ast.unparse(stubs()[name].returns) == "Tensor"


def test_everything_in_the_table_is_what_tensor_has():
    for name, function in {**OPERATORS, **METHODS}.items():
        assert vars(tl.Tensor)[name] is function


def test_every_arithmetic_and_logical_operator_has_its_reflection():
    for name in ("add", "sub", "mul", "truediv", "pow", "mod", "matmul", "and", "or"):
        assert hasattr(tl.Tensor, f"__{name}__")
        assert hasattr(tl.Tensor, f"__r{name}__"), f"number {name} Tensor does not work"


# What importing does

PROBE = """
import json, os, sys, threading, warnings
import numpy as np
def state():
    return [dict(os.environ), np.geterr(), threading.active_count(), sys.getrecursionlimit(), repr(warnings.filters)]
modules, before = set(sys.modules), state()
import tinygrad_lenet
print(json.dumps({"new": sorted(set(sys.modules) - modules), "unchanged": [a == b for a, b in zip(before, state())]}))
"""
HEAVY = ["hypothesis", "pytest", "matplotlib", "tqdm", "torch", "urllib.request", "numpy.random", "asyncio"]
HEAVY += ["threadpoolctl", "http.client", "ssl", "gzip", "pickle", "concurrent.futures", "multiprocessing", "scipy"]


def test_importing_is_light_and_changes_nothing():
    run = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    found = json.loads(run.stdout)
    assert not set(found["new"]) & set(HEAVY)
    assert found["unchanged"] == [True] * 5  # environment, error state, threads, recursion limit, warning filters
    assert run.stderr == ""


def test_every_module_can_be_imported_by_itself():
    names = [f"tinygrad_lenet.{m}".removesuffix(".__init__") for m in MODULES]
    for name in names:
        assert importlib.import_module(name)
