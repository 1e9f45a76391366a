"""A subject of ``ops/`` is imported when one of its names is first used, in whatever way.

A process that has imported the package alone is forked for each case, so that each case is the first use.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinygrad_lenet.ops.subjects import FUNCTIONS, METHODS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

PROGRAM = """
import importlib.machinery, json, os, pickle, sys, threading, time, traceback
import numpy as np
import tinygrad_lenet as tl
from tinygrad_lenet.core import interface, names

def imported(subject):
    return f"tinygrad_lenet.ops.{subject}" in sys.modules

a, b, ones = np.array([[1.5, -2.0], [3.0, 0.5]]), np.array([[0.5, 4.0], [-1.0, 2.0]]), np.array([True, False])
x, y, bits = tl.tensor(a), tl.tensor(b), tl.tensor(ones)
assert [name for name in sys.modules if name.startswith("tinygrad_lenet.ops.")] == ["tinygrad_lenet.ops.subjects"]
errors = []
for code in json.load(sys.stdin):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            exec(code, globals())
        except BaseException:
            os.write(writer, traceback.format_exc()[-2000:].encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    errors.append(text or os.waitpid(child, 0)[1])
print(json.dumps(errors))
"""
NAMES = {subject: names.split() for subject, names in FUNCTIONS.items()}
OF_PACKAGE = {subject: names[0] for subject, names in NAMES.items()}
SOME = dict([*OF_PACKAGE.items()][:3])
OF_TENSOR = {subject: next(n for n in names.split() if n[0] != "_") for subject, names in METHODS.items()}
FEW = dict([*OF_TENSOR.items()][:3])
SUPER = """
Mine = type("Mine", (tl.Tensor,), dict({0}=lambda self: super(Mine, self).{0}))
found = Mine(a).{0}().__func__
"""
WAYS = {
    "tl": (OF_PACKAGE, "found = tl.{0}"),
    "from tl import": (SOME, "from tinygrad_lenet import {0} as found"),
    "Tensor": (OF_TENSOR, "found = tl.Tensor.{0}"),
    "x": (OF_TENSOR, "found = x.{0}.__func__"),
    "subclass": (FEW, "found = type('Mine', (tl.Tensor,), dict())(a).{0}.__func__"),
    "super": (FEW, SUPER),
}
JUDGE = """
assert imported("{1}")
assert not imported("linalg")  # that is, not all of them
assert found is names.NAMES["tinygrad_lenet.ops.{1}.{0}"].function
"""
EXPRESSIONS = """
x + y; 2 - x; x - y; x * y; 2 / x; x / y; -x; +x; abs(x); x // y; 7 // x; x % y; x**2; 2**x; x @ y; b @ x; x == y
x != y; x < y; x <= y; x > 1; 1 >= x; x[0]; x[:, 1:]; ~bits; bits & True; True | bits; bits ^ bits; a + x; a * x
np.exp(x); np.sum(x, axis=0); np.where(x > 0, x, y); np.zeros_like(x); np.concatenate([x, y]); np.sort(x)
np.einsum("ij,kj->ik", x, y); np.linalg.norm(x, axis=0)
"""
ORACLE = """
found = {0}
assert type(found) is tl.Tensor
np.testing.assert_allclose(found.numpy(), eval({0!r}, dict(np=np, x=a, y=b, a=a, b=b, bits=ones)))
"""
SITUATIONS = {
    "operators in place": """
for step, plain in (("+=", a + b), ("-=", a), ("*=", a * b), ("/=", a)):
    exec(f"x {step} y")
    np.testing.assert_allclose(x.numpy(), plain)
""",
    "a gradient": """
w = tl.tensor(a, requires_grad=True)
w.softmax(-1).relu().sum().backward()
np.testing.assert_allclose(w.grad, 0, atol=1e-6)
""",
    "a pickled function": r"""
assert pickle.loads(b"ctinygrad_lenet.ops.activations\nrelu\n.") is tl.relu
""",
    "functional": """
from tinygrad_lenet.functional import conv2d
assert tl.functional.relu is tl.relu and tl.functional.conv2d is tl.conv2d is conv2d
assert tl.nn.functional.relu is tl.relu
""",
    "linalg": """
assert tl.linalg.norm(x).item() == np.linalg.norm(a)
try:
    tl.linalg.eigh
except AttributeError as error:
    assert "eigh" in str(error)
""",
    "a declaration of the user's with a name that is taken": """
@tl.primitive
def mine(x: tl.Array) -> tl.Array:
    return x
for given in (dict(name="exp", method=True), dict(numpy=np.sort), dict(operator="add")):
    try:
        mine.known_as(**given)
    except tl.ArgumentError as error:
        assert "tinygrad_lenet.ops" in str(error)
    else:
        raise AssertionError(given)
""",
    "a method that the user replaced": """
mine = tl.Tensor.relu = lambda self: 5
assert tl.relu(x).shape == (2, 2) and x.relu() == 5 and tl.Tensor.relu is mine
""",
    "all names": """
space = {}
exec("from tinygrad_lenet import *", space)
assert {*tl.__all__} <= space.keys()
""",
    "a missing name": """
for owner in (tl, x):
    assert not hasattr(owner, "unheard_of") and not hasattr(owner, "__wrapped__")
assert not imported("elementwise")
""",
    # Each declaration takes a while, so that other threads come upon half a module.
    "several threads": """
def slowly(self, **rules):
    time.sleep(0.001)
    vjp(self, **rules)

def use():
    w = tl.tensor(a, requires_grad=True)
    quotient = w.div(y, rounding_mode="trunc")  # of ops that the module declares later
    w.abs().sum().backward()  # the rule of which follows the declaration
    results.append((quotient.numpy(), w.grad.numpy()))

slowly.__name__ = "vjp"
vjp, interface.Primitive.vjp = interface.Primitive.vjp, slowly
results, threads = [], [threading.Thread(target=use) for _ in range(20)]
for thread in threads:
    thread.start()
    time.sleep(0.002)
for thread in threads:
    thread.join()
assert len(results) == len(threads)
for quotient, gradient in results:
    np.testing.assert_array_equal(quotient, np.trunc(a / b))
    np.testing.assert_array_equal(gradient, np.sign(a))
""",
    # The other thread waits for tl.nn, and must not hold what that needs.
    "compile beside the import of nn": """
class Loader(importlib.machinery.SourceFileLoader):
    def create_module(self, spec):
        other.start()
        while other.is_alive() and sys._current_frames()[other.ident].f_code.co_name != "acquire":
            time.sleep(0.001)

class Finder:
    def find_spec(name, path, target=None):
        if name == "tinygrad_lenet.nn":
            sys.meta_path.remove(Finder)
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            spec.loader = Loader(name, spec.origin)
            return spec

failed = []
threading.excepthook = lambda error: failed.append(error.exc_value)
sys.meta_path.insert(0, Finder)
other = threading.Thread(target=lambda: tl.compile)
tl.nn.Linear
other.join()
assert not failed, failed
""",
    "after an import that was interrupted": """
def interrupted(self, **rules):
    interface.Primitive.vjp = vjp
    raise KeyboardInterrupt

interrupted.__name__ = "vjp"
vjp, interface.Primitive.vjp = interface.Primitive.vjp, interrupted
try:
    x.relu()
except KeyboardInterrupt:
    pass
else:
    raise AssertionError("not interrupted")
np.testing.assert_array_equal(x.relu().numpy(), np.maximum(a, 0))
np.testing.assert_array_equal((x + y).numpy(), a + b)
""",
}
CASES = {
    f"{way} {name}": (code + JUDGE).format(name, subject)
    for way, (names, code) in WAYS.items()
    for subject, name in names.items()
}
CASES |= {
    text.strip(): ORACLE.format(text.strip()) for text in EXPRESSIONS.replace("\n", ";").split(";") if text.strip()
}
CASES |= SITUATIONS


@pytest.fixture(scope="module")
def errors():
    """The errors of the cases, each "" or 0 if there was none. One process runs all cases."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=Path(__file__).parents[1],
        input=json.dumps([*CASES.values()]),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert not run.stderr
    return dict(zip(CASES, json.loads(run.stdout), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_the_first_use_is_like_every_other(errors, case):
    assert not errors[case], errors[case]
