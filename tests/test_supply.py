"""What the package asks of the world: nothing at import, no code of others, few dependencies, each bound explained."""

import ast
import json
import socket
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest

import tinygrad_lenet as tl

ROOT = Path(tl.__file__).parents[1]
PACKAGE = ROOT / "tinygrad_lenet"
MODULES = sorted(PACKAGE.rglob("*.py"))

# What runs text or bytes as code, or another program.
CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}
METHODS = {"system", "popen", "fork", "forkpty", "startfile", "literal_eval", *CALLS}
METHODS |= {
    f"{verb}{kind}" for verb in ("exec", "spawn", "posix_spawn") for kind in ("", "l", "le", "lp", "v", "ve", "vp")
}
IMPORTS = {
    "pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "subprocess",
    "ctypes",
    "cffi",
    "code",
    "pty",
}
IMPORTS |= {"runpy", "multiprocessing", "yaml", "xml", "tarfile", "shutil", "webbrowser"}


def dangers(source):
    """What a module does that could run what others wrote."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in CALLS:
                found.append(function.id)
            module, _, name = ast.unparse(function).rpartition(".")
            if name in METHODS and module in ("os", "posix", "ast", "builtins"):
                found.append(f"{module}.{name}")
            found += [f"allow_pickle={ast.unparse(k.value)}" for k in node.keywords if k.arg == "allow_pickle"]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [name for name in names if name.split(".")[0] in IMPORTS and not getattr(node, "level", 0)]
    return [danger for danger in found if danger != "allow_pickle=False"]


# BLAS's number of threads is set by C functions of the library that NumPy has loaded.
EXCEPTIONS = {"kernels/blas.py": ["ctypes"]}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_runs_what_others_wrote(path):
    assert dangers(path.read_text()) == EXCEPTIONS.get(path.relative_to(PACKAGE).as_posix(), [])


@pytest.mark.parametrize(
    "source",
    [
        *("eval(x)", "exec(x)", "import pickle", "from subprocess import run", "os.system(x)", "os.execv(x, y)"),
        *("np.load(x, allow_pickle=True)", "ast.literal_eval(x)", "import multiprocessing.pool", "builtins.eval(x)"),
    ],
)
def test_a_planted_danger_is_found(source):
    assert dangers(f"def f(x, y):\n    {source}")


PROBE = """
import importlib, json, os, sys
import numpy as np, hashlib, numpy.random
heard = []
def hear(event, args):
    if event == "open":
        path, mode, flags = args
        if not isinstance(path, int) and (mode or "r")[0] != "r" or (flags or 0) & (os.O_WRONLY | os.O_RDWR):
            heard.append(f"writes {path}")
        elif not str(path).startswith(tuple(sys.argv[1:])):
            heard.append(f"reads {path}")
    elif event.split(".")[0] in ("socket", "subprocess", "shutil", "tempfile", "ctypes", "pickle", "urllib", "ftplib"):
        heard.append(event)
    elif event.startswith("os.") and event not in ("os.listdir", "os.scandir"):
        heard.append(event)
sys.addaudithook(hear)
import tinygrad_lenet
for name in tinygrad_lenet.__all__:
    getattr(tinygrad_lenet, name)
for name in ("data.download", "nn.inspection", "serialization", "testing.gradcheck", "training", "visualize"):
    importlib.import_module(f"tinygrad_lenet.{name}")
found, heard = heard, []
open(os.devnull, "w").close()
import socket
socket.socket().close()
print(json.dumps([found, heard]))
"""


def test_importing_asks_no_network_writes_nothing_and_reads_only_libraries():
    libraries = {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1]), str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-B", "-c", PROBE, *libraries],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found, planted = json.loads(run.stdout)
    assert found == []
    assert planted[0] == "writes /dev/null" or sys.platform == "win32"
    assert "socket.__new__" in planted


def test_no_test_can_ask_the_network():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        pytest.raises(AssertionError, match="asks the network"),
    ):
        one.connect(("192.0.2.1", 53))
    for ask in (
        lambda: socket.create_connection(("192.0.2.1", 80), 0.1),
        lambda: socket.create_connection(("example.com", 80), 0.1),
        lambda: urllib.request.urlopen("http://example.com/", timeout=0.1),
    ):
        with pytest.raises(AssertionError, match="asks the network"):
            ask()
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()  # this machine may be asked


@pytest.fixture(scope="module")
def project():
    return (Path(__file__).parents[1] / "pyproject.toml").read_text()


def test_numpy_is_all_that_is_needed_and_the_build_needs_one_backend(project):
    table = tomllib.loads(project)
    assert [entry.partition(">")[0] for entry in table["project"]["dependencies"]] == ["numpy"]
    assert len(table["build-system"]["requires"]) == 1
    assert "hooks" not in table["tool"]["hatch"]["build"]  # nothing of ours runs in a build
    assert not {"scripts", "gui-scripts", "entry-points"} & table["project"].keys()


def test_every_bound_has_its_reason_beside_it(project):
    """In the lines of comments right above, by the name of the distribution."""
    comments, lines = "", project.splitlines()
    explained = ("[build-system]", "[project]", "[project.optional-dependencies]")
    section = checked = None
    for line in lines:
        section = line if line.startswith("[") else section
        if line.startswith("#"):
            comments += line
            continue
        if section in explained and (">=" in line or "==" in line) and "requires-python" not in line:
            for entry in tomllib.loads(line).popitem()[1]:
                name = entry.replace(">", "=").partition("=")[0].partition("[")[0]
                assert name == "tinygrad_lenet" or name in comments, f"why {entry}?"
                checked = entry
        if not line.strip():
            comments = ""
    assert checked
