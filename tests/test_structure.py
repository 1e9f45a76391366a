"""The shape of the tree: who may import whom, what is public, what importing costs."""

import ast
import doctest
import importlib
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import methods
import pytest
import size
import vocabulary

import tinygrad_lenet as tl
from tinygrad_lenet import data, functional, nn, optim, testing
from tinygrad_lenet._methods import Methods
from tinygrad_lenet.core.names import METHODS
from tinygrad_lenet.errors import ShapeError

ROOT = Path(__file__).parents[1]
PACKAGE = Path(tl.__file__).parent  # the one in the tree, or the one that is installed

# Each row may import only rows above it; the modules of one package may import each other, without cycles.
ROWS = [
    {"errors", "_methods", "hints"},
    {"checks"},
    {"files", "kernels"},
    {"core"},
    {"ops"},
    {"numpy_api", "functional"},
    {"calculus", "checkpointing", "anomaly", "reference"},
    {"nn", "optim", "data"},
    {"training", "replay"},
    {"serialization", "onnx", "visualize", "testing", "distributed"},
    {"__init__"},
]
# All that these may import.
LEAVES = {
    "_methods": set(),
    "errors": set(),
    "hints": set(),
    "files": {"checks", "errors"},
    "checks": {"errors"},
    "kernels": {"errors"},
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
        ("core.tensor", "from ..ops import shape", "core.tensor may not import ops.shape"),
        ("kernels.windows", "from ..core.tensor import Tensor", "kernels.windows may not import core.tensor"),
        ("ops.shape", "def f():\n    from ..functional import relu", "ops.shape may not import functional"),
        ("ops.shape", "from .. import nn", "ops.shape may not import nn.__init__"),
        ("nn.layers", "from ..optim import SGD", "nn.layers may not import optim.__init__"),
        ("nn.layers", "import tinygrad_lenet.testing", "nn.layers may not import testing.__init__"),
        ("kernels.memory", "from .. import checks", "kernels.memory may not import checks"),
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


def test_the_core_the_afternoon_path_and_the_package_keep_their_budgets():
    lines = size.sizes(PACKAGE)
    replay = sum(n for module, n in lines.items() if module.startswith("replay/"))
    assert replay <= 608
    assert sum(lines.values()) - replay <= 11_442
    assert sum(lines[module] for module in size.CORE) <= 330
    assert sum(lines[module] for module in size.AFTERNOON) <= 1700


# Names

PUBLIC = [tl, tl.linalg, tl.onnx, tl.training, tl.visualize, functional, nn, nn.init, optim, data, testing]
PUBLIC += [testing.strategies]


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


@pytest.mark.parametrize(
    "module", [m for m in PUBLIC if m is not tl.onnx and m is not testing], ids=lambda m: m.__name__
)
def test_all_names_everything_that_a_module_defines(module):
    own = {n for n, t in vars(module).items() if getattr(t, "__module__", None) == module.__name__ and n[0] != "_"}
    assert own <= {*module.__all__} | {"Seed", "Shape"}


# What help() says


def is_exception(thing):
    return inspect.isclass(thing) and issubclass(thing, BaseException)


def words():
    """Every public function and class, once, under its first name."""
    found = {}
    for module in PUBLIC:
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing):
                found.setdefault(id(thing), (f"{module.__name__.removeprefix('tinygrad_lenet.')}.{name}", thing))
    return dict(found.values())


WORDS = words()
ERRORS = {name for name, thing in WORDS.items() if is_exception(thing)}


def raised(function, inner=frozenset()):
    """The names of the public exceptions that a function raises, or a private one of its module that it calls."""
    function = inspect.unwrap(function)
    if function in inner:
        return set()
    try:
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(function)))
    except OSError:  # made by a dataclass or a decorator: there is no source
        return set()
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    thrown = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc]
    names = {ast.unparse(exc.func if isinstance(exc, ast.Call) else exc) for exc in thrown}
    found = names & {name.split(".")[-1] for name in ERRORS}
    for call in calls:
        helper = function.__globals__.get(call.func.id)
        if inspect.isfunction(helper) and call.func.id[0] == "_" and helper.__module__ == function.__module__:
            found |= raised(helper, inner | {function})
    return found


def help_lacks(thing):
    """What help on a function or class should have, and has not."""
    text = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__  # its own, not an inherited one
    if not (text or "").strip():
        return ["a docstring"]
    if is_exception(thing):
        return []
    tests = doctest.DocTestFinder(recurse=False).find(thing, module=sys.modules[thing.__module__])
    lacks = [] if any(test.examples for test in tests) else ["an example that doctest runs"]
    function = thing.__init__ if inspect.isclass(thing) else thing
    documented = text.partition("Raises:\n")[2]
    if inspect.isfunction(function):
        lacks += [f"{name} under Raises" for name in sorted(raised(function)) if f"{name}:" not in documented]
    return lacks


@pytest.mark.parametrize("module", PUBLIC, ids=lambda m: m.__name__)
def test_every_module_has_a_docstring(module):
    assert module.__doc__


def cut_formulas(text):
    """Lines of a docstring in which ``a formula`` ends or begins but not both, or that Markdown takes for a list."""
    prose = (line for part in text.split("\n\n") if not part.lstrip().startswith(">>>") for line in part.splitlines())
    return [line for line in prose if line.count("``") % 2 or line.lstrip().startswith(("+ ", "* "))]


@pytest.mark.parametrize("module", MODULES)
def test_no_formula_is_cut_by_the_end_of_a_line(module):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = [
        ast.get_docstring(n) or "" for n in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(n, kinds)
    ]
    assert not [line for text in texts for line in cut_formulas(text)]
    assert cut_formulas("The sum ``a\n+ b``.") == ["The sum ``a", "+ b``."]


@pytest.mark.parametrize("name", WORDS)
def test_help_has_an_example_and_what_is_raised(name):
    assert not help_lacks(WORDS[name])


def test_what_help_lacks_is_found():
    assert help_lacks(lambda: 0) == ["a docstring"]
    assert help_lacks(type("Layer", (nn.ReLU,), {})) == ["a docstring"]  # not that of ReLU
    assert help_lacks(raiser) == ["an example that doctest runs", "ShapeError under Raises"]


def _raiser():
    raise ShapeError


def raiser():
    """Do something."""
    return _raiser()


def test_a_signature_says_what_is_given_and_that_a_tensor_comes_back():
    assert str(inspect.signature(tl.tanh)) == "(x: 'Array') -> tinygrad_lenet.core.tensor.Tensor"
    assert "The annotation of a tensor argument" in tl.Array.__doc__


# What is derived from the names


READMES = [ROOT / folder / "README.md" for folder in (".", "tests", "benchmarks", "examples", "examples/tour")]


def test_the_front_page_is_short_and_its_lengths_are_right():
    assert len((ROOT / "README.md").read_text().split()) <= 900
    assert vocabulary.block("files")[0] == size.table(), "run: python tests/tools/size.py --write"


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_links_and_pictures_exist(readme):
    for path in [readme, *readme.parent.glob("README.*.md")]:
        if not path.exists():
            continue
        for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
            found = (path.parent / target).exists() or (
                PACKAGE.parent / target
            ).exists()  # the package may be installed
            assert found or target.startswith("http"), f"{path}: {target}"


def test_the_types_of_the_methods_and_the_names_of_the_subjects_are_current():
    for path, text in methods.FILES.items():
        assert path.read_text() == text(), "run: python tests/tools/methods.py --write"
    assert not vars(Methods).keys() & METHODS.keys()  # no code of their own


def test_every_declared_method_is_what_tensor_has():
    for name, function in METHODS.items():
        assert getattr(tl.Tensor, name) is function


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
new, same = sorted(set(sys.modules) - modules), [a == b for a, b in zip(before, state())]
hidden = sorted(set(tinygrad_lenet.__all__) - set(dir(tinygrad_lenet)))
from tinygrad_lenet.core.names import import_all
from tinygrad_lenet.core.primitive import REGISTRY
declared = len(REGISTRY)
import_all()
read = [key for key, op in REGISTRY.items() if "options" in vars(op.signature)]
print(json.dumps({"new": new, "unchanged": same, "hidden": hidden, "read": read, "declared": declared}))
"""
# The modules beside the package's own that NumPy has not imported already.
LIGHT = {"__future__", "numpy.typing", "numpy._typing._add_docstring"}
LIGHT |= {"importlib", "importlib._bootstrap", "importlib._bootstrap_external"}  # which NumPy 2.0 has not


def test_importing_is_light_and_changes_nothing():
    run = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60, check=True
    )
    found = json.loads(run.stdout)
    own = [name for name in found["new"] if name.split(".")[0] == "tinygrad_lenet"]
    assert not {*found["new"]} - {*own} - LIGHT
    assert found["declared"] == 0  # each subject of ops/ is imported when one of its names is first used
    assert len(own) <= 30  # each takes about a tenth of a millisecond
    assert found["read"] == []  # annotations are read at the first call
    assert found["hidden"] == []  # completion knows what is imported only when it is first used
    assert found["unchanged"] == [True] * 5  # environment, error state, threads, recursion limit, warning filters
    assert run.stderr == ""


def test_every_module_can_be_imported_by_itself():
    names = [f"tinygrad_lenet.{m}".removesuffix(".__init__") for m in MODULES]
    optional = importlib.util.find_spec("onnx") is None
    for name in names:
        assert (optional and name.startswith("tinygrad_lenet.onnx.")) or importlib.import_module(name)
