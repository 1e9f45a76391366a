"""Mutation testing: change one sign, constant or comparison in a rule or a kernel, and see a test fail.

    python tests/tools/mutate.py [MODULE ...] [--match PATTERN] [--tests NAME ...] [--jobs N] [--list]

The mutants are made of every rule of ``tinygrad_lenet/ops/`` (the functions given to ``vjp`` and ``ufunc``, and all
functions of the folder that these call) and of every function of the ``KERNELS``. First all tests run without a mutant,
and record which functions they call. Then each mutant meets the tests that call its function, in a process of its own,
until one fails. Prints the mutants that no test caught. Changes nothing on the disk.
"""

import argparse
import ast
import builtins
import copy
import functools
import gc
import json
import os
import re
import resource
import signal
import sys
import time
import traceback
import types

import pytest
from mutants import PACKAGE, ROOT, first_line, mutants, place, read_files

MEMORY = 12 << 30  # bytes of address space for a process that runs tests: some mutants would allocate all there is

# The package stays imported; its functions get other code. So a mutant costs a fork and the tests until one fails.

LIVE = {}  # by file: the functions of the package


def find_functions():
    """Fill ``LIVE``; return the caches of the package."""
    caches = []
    for found in gc.get_objects():
        if type(found) is types.FunctionType and found.__code__.co_filename.startswith(str(PACKAGE)):
            LIVE.setdefault(found.__code__.co_filename, []).append(found)
        elif type(found) is functools._lru_cache_wrapper and found.__module__.startswith(PACKAGE.name):
            caches.append(found)
    return caches


def codes(code):
    """The code of a module and of all functions inside, in order."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def key(code):
    """A key that differs for all code objects of a file, even for two lambdas in one line."""
    return code.co_qualname, code.co_firstlineno, tuple(code.co_positions())


def install(path, original, changed):
    """Give the functions of a file the code of a changed tree."""
    before, after = (compile(tree, str(path), "exec", dont_inherit=True) for tree in (original, changed))
    replaced = {key(old): new for old, new in zip(codes(before), codes(after), strict=True)}
    for function in LIVE.get(str(path), []):
        function.__code__ = replaced[key(function.__code__)]


def apply(mutant):
    """Change the functions of the imported package."""
    install(mutant.path, mutant.original, mutant.tree)
    defaults = mutant.function.args.defaults
    if mutant.node in defaults:  # which belong to the function, not to its code
        at = defaults.index(mutant.node)
        for function in LIVE[str(mutant.path)]:
            if function.__code__.co_firstlineno == first_line(mutant.function):
                before = function.__defaults__
                function.__defaults__ = (*before[:at], mutant.twin.value, *before[at + 1 :])


class _Counted(ast.NodeTransformer):
    """Make the functions of a tree call ``__called__`` with the number of the file and their place."""

    def __init__(self, number):
        self.number = number

    def _call(self, node):
        return ast.parse(f"__called__(({self.number}, {place(node)}))", mode="eval").body

    def visit_FunctionDef(self, node):
        call = ast.Expr(self._call(node))
        self.generic_visit(node)
        node.body.insert(ast.get_docstring(node) is not None, call)
        return node

    def visit_Lambda(self, node):
        call = self._call(node)
        self.generic_visit(node)
        node.body = ast.BoolOp(ast.Or(), [call, node.body])  # the call returns None
        return node


class Runner:
    """A plugin of pytest that runs the collected tests on each mutant, in a process of its own."""

    def __init__(self, files, every, jobs):
        self.files, self.every, self.jobs = files, every, jobs
        self.failed = False  # whether the current test fails
        self.alive = []
        self.seconds = {}  # how long each test takes, by its number
        self.users = {}  # the tests that call a function
        self.kills = {}  # by function, and by file: how many mutants each test has caught

    def pytest_collection(self):
        from hypothesis import Phase, settings  # pytest wants to load it first

        phases = [phase for phase in Phase if phase not in (Phase.shrink, Phase.explain)]  # that it fails is enough
        settings.register_profile("mutants", settings.get_profile("ci"), phases=phases, database=None)
        settings.load_profile("mutants")

    def pytest_runtest_logreport(self, report):
        self.failed |= report.failed

    def pytest_runtestloop(self, session):
        self.items, self.caches = session.items, find_functions()
        gc.freeze()  # so that the children do not copy what the collector would visit
        self.measure()
        self.judge()
        return True

    def run(self, number, limit):
        """Run a test, and return whether it passes. After ``limit`` seconds the process is ended."""
        self.failed = False
        signal.setitimer(signal.ITIMER_REAL, limit)
        self.items[number].ihook.pytest_runtest_protocol(item=self.items[number], nextitem=None)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return not self.failed

    def fork(self, work):
        """Call ``work(write)`` in a new process; return its id and the file from which to read what it writes."""
        read, write = os.pipe()
        pid = os.fork()
        if pid:
            os.close(write)
            return pid, os.fdopen(read)
        errors, nothing = os.fdopen(os.dup(2), "w"), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        try:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            with os.fdopen(write, "w", buffering=1) as pipe:
                work(lambda line: pipe.write(f"{line}\n"))
        except BaseException:
            traceback.print_exc(file=errors)
            errors.flush()
        finally:
            os._exit(0)

    def measure(self):
        """Run the tests without a mutant: which functions they call, and how long they take."""
        began, failing = time.monotonic(), []

        def work(write):
            called = set()
            builtins.__called__ = called.add
            for number, (path, (tree, _)) in enumerate(self.files.items()):
                counted = _Counted(number).visit(copy.deepcopy(tree))
                install(path, tree, ast.fix_missing_locations(counted))
            for number in range(len(self.items)):
                for cache in self.caches:
                    cache.cache_clear()
                called.clear()
                start = time.monotonic()
                passed = self.run(number, 600)
                write(json.dumps([passed, time.monotonic() - start, [*called]]))

        pid, pipe = self.fork(work)
        with pipe:
            lines = [*pipe]
        os.waitpid(pid, 0)
        if len(lines) < len(self.items):
            sys.exit(f"without a mutant, {self.items[len(lines)].nodeid} ends the process")
        for number, line in enumerate(lines):
            passed, self.seconds[number], called = json.loads(line)
            if not passed:
                failing.append(self.items[number].nodeid)
            for file, (first, column) in called if passed else []:
                self.users.setdefault((file, first, column), []).append(number)
        if not self.users:
            sys.exit("no test calls any of the functions: see that the tests pass")
        print(len(lines), f"tests without a mutant: {time.monotonic() - began:.0f} s", flush=True)
        if failing:
            print("left out, since they fail if calls are counted:", *failing, flush=True)

    def start(self, mutant):
        """Run the tests on a mutant: those first that caught others of its function and its file, and short ones."""
        file = [*self.files].index(mutant.path)
        scopes = [(file, *place(mutant.function)), file]
        caught = [self.kills.setdefault(scope, {}) for scope in scopes]
        tests = self.users.get(scopes[0], [])
        tests = sorted(tests, key=lambda number: (*(-kills.get(number, 0) for kills in caught), self.seconds[number]))

        def work(write):
            apply(mutant)
            for cache in self.caches:
                cache.cache_clear()
            for number in tests:
                if not self.run(number, 30 + 20 * self.seconds[number]):
                    write(number)
                    return
            write("alive")

        pid, pipe = self.fork(work)
        return pid, (mutant, caught, pipe)

    def judge(self):
        """Run the tests on all mutants, and note those with which all tests pass."""
        waiting, running, done, began = self.every[::-1], {}, 0, time.monotonic()
        while waiting or running:
            while waiting and len(running) < self.jobs:
                pid, state = self.start(waiting.pop())
                running[pid] = state
            pid, status = os.wait()
            mutant, caught, pipe = running.pop(pid)
            with pipe:
                found = pipe.read().strip()
            if found.isdecimal():
                for kills in caught:
                    kills[int(found)] = kills.get(int(found), 0) + 1
            elif found or not os.WIFSIGNALED(status):  # a signal: it takes too long, or crashes
                self.alive.append(mutant)
                print("no test fails:" if found else "cannot be made:", mutant, flush=True)
            done += 1
            if done % 50 == 0:
                took = time.monotonic() - began
                print(f"{done} of {len(self.every)}, {len(self.alive)} alive, {took:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="files, as maths or kernels/sums; all if none is named")
    parser.add_argument("--match", default="", metavar="PATTERN", help="only mutants in whose line this is found")
    parser.add_argument("--tests", nargs="+", default=[], metavar="NAME", help="only these files, as convolution")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--list", action="store_true", help="only list the mutants")
    options = parser.parse_args()
    files = read_files()
    every = [m for m in mutants(files, options.modules) if re.search(options.match, str(m))]
    if options.list:
        print(*every, len(every), sep="\n")
        return
    os.chdir(ROOT)
    os.environ["HYPOTHESIS_PROFILE"] = "ci"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    runner = Runner(files, every, options.jobs)
    paths = [f"tests/test_{name}.py" for name in options.tests] or ["tests"]
    arguments = ["-q", "--capture=no", "-p", "no:cacheprovider", *paths]
    code = pytest.main(arguments, plugins=[runner])
    if code not in (0, 5):
        sys.exit(f"the tests cannot be run: {code}")
    print(f"{len(every)} mutants, {len(every) - len(runner.alive)} caught, {len(runner.alive)} alive")
    sys.exit(bool(runner.alive))


if __name__ == "__main__":
    main()
