"""Check your answers to the exercises of a lesson.

    python check.py 4              checks the two answers of lesson 4 in this folder
    python check.py 4 --hint       shows a hint for each answer that is not right yet; --hint --hint shows two

Run it in your copy of the lessons, which `start.py` makes. It draws examples with hypothesis, compares your result with
the definition, and says where they differ first. It knows the usual mistakes. It also runs `gradcheck`, which compares
gradients with differences, as lesson 1 does. Needs pip install 'tinygrad_lenet[check]'.
"""

import argparse
import ast
import copy
import inspect
import sys
import traceback
from pathlib import Path

import numpy as np

try:
    from exercises import LESSONS, TooSlow, Wrong, show
    from hypothesis import HealthCheck, Phase, given, settings
except ModuleNotFoundError as missing:
    sys.exit(f"check.py needs {missing.name}. Install it with:  pip install 'tinygrad_lenet[check]' matplotlib")

DRAWS = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)


def definitions(path):
    """The imports, functions, classes and constants of a lesson, without running the rest of it."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    kept = [
        node
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))
        or (isinstance(node, ast.Assign) and isinstance(node.value, (ast.Constant, ast.Lambda)))
    ]
    names = {"__name__": "lesson", "__file__": str(path)}
    exec(compile(ast.Module(kept, []), str(path), "exec"), names)
    return names


def compare(got, right, name="the result"):
    """Raise Wrong at the first place where two results differ; results are arrays, numbers, lists or tuples of them."""
    if isinstance(right, (tuple, list)):
        if not isinstance(got, type(right)) or len(got) != len(right):
            raise Wrong(f"{name} must be a {type(right).__name__} of {len(right)}, got {type(got).__name__}")
        for number, (one, other) in enumerate(zip(got, right, strict=True)):
            compare(one, other, f"{name}[{number}]")
        return
    try:
        found = np.asarray(got, float)
    except (TypeError, ValueError):
        raise Wrong(f"{name} must be numbers, got {type(got).__name__}") from None
    right = np.asarray(right, float)
    if found.shape != right.shape:
        raise Wrong(f"{name} has the shape {found.shape}, expected {right.shape}")
    wrong = ~np.isclose(found, right, rtol=1e-5, atol=1e-7, equal_nan=True)
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = f"{name}[{', '.join(map(str, index))}]" if index else name
        more = f"; {wrong.sum()} of {wrong.size} differ" if wrong.size > 1 else ""
        raise Wrong(f"{place} is {found[index]:.6g}, expected {right[index]:.6g}{more}")


def same(got, other):
    try:
        compare(got, other)
    except Wrong:
        return False
    return True


def judge(exercise, names):
    """Raise Wrong unless the answer among the names of a lesson is right for all that is drawn."""
    answer, seen = names[exercise.function], []

    @DRAWS
    @given(exercise.draw)
    def attempt(arguments):
        before = copy.deepcopy(arguments)
        try:
            result = exercise.call(names, answer, *arguments)
            if not same(*([value for value in each if isinstance(value, np.ndarray)] for each in (arguments, before))):
                raise Wrong("it changes its arguments; make a copy first")
            seen.append((before, result))
            compare(result, exercise.right(*before))
        except Wrong as error:
            drawn = exercise.show(before) if exercise.show else show(before, inspect.signature(answer).parameters)
            raise Wrong(f"{error}\n      for {drawn}") from None

    try:
        attempt()
        if exercise.rule:
            exercise.rule(answer)
    except Wrong as error:
        for mistake, spoiled in exercise.mistakes.items():
            if seen and all(same(result, spoiled(*arguments)) for arguments, result in seen):
                raise Wrong(f"{error}\n      It looks like a usual mistake: {mistake}.") from None
        raise


def report(exercise, names, hints):
    """Print the verdict on one answer; return whether it is right."""
    title = exercise.function
    try:
        judge(exercise, names)
    except NotImplementedError:
        verdict = "not filled in yet"
    except Wrong as error:
        verdict = f"not right yet: {error}"
    except TooSlow as error:
        verdict = f"too slow: {error}"
    except Exception as error:
        lines = [at for at in traceback.extract_tb(error.__traceback__) if at.filename == names["__file__"]]
        place = f", line {lines[-1].lineno}: {lines[-1].line}" if lines else ""
        verdict = f"it raises {type(error).__name__}: {error}{place}"
    else:
        print(f"{title}: right")
        return True
    print(f"{title}: {verdict}")
    for number, hint in enumerate(exercise.hints[:hints], 1):
        print(f"      Hint {number}: {hint}")
    if hints < len(exercise.hints):
        print(f"      ({len(exercise.hints) - hints} more hints: add --hint)")
    return False


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("lesson", type=int, choices=sorted(LESSONS), help="the number of the lesson")
    parser.add_argument("--hint", action="count", default=0, help="show one hint more; up to three times")
    options = parser.parse_args(argv)
    found = sorted(Path.cwd().glob(f"{options.lesson:02}_*.py"))
    if not found:
        sys.exit(f"lesson {options.lesson} is not in this folder; make a copy with start.py, and go there")
    sys.path.insert(0, str(Path.cwd()))
    try:
        names = definitions(found[0])
    except SyntaxError as error:
        sys.exit(f"{found[0].name}, line {error.lineno}: {error.msg}")
    right = [report(exercise, names, options.hint) for exercise in LESSONS[options.lesson]]
    sys.exit(not all(right))


if __name__ == "__main__":
    main()
