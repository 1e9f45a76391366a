"""Check your answers to the exercises of a lesson.

    python check.py 4              checks the two answers of lesson 4 in this folder
    python check.py 4 --hint       shows a hint for each answer that is not right yet; --hint --hint shows two

Run it in your copy of the lessons, which `start.py` makes. It draws examples with hypothesis, compares your result with
the definition, and says where they differ first. It knows the usual mistakes. It also runs `gradcheck`, which compares
gradients with differences, as lesson 1 does. Needs pip install 'tinygrad_lenet[check]'.

It reads the lesson, or its notebook if that was saved later, and runs only the functions, classes and constants of it,
and the constants of your own below "Your turn".
"""

import _thread
import argparse
import ast
import contextlib
import copy
import inspect
import json
import linecache
import re
import sys
import threading
import traceback
from pathlib import Path

import numpy as np

try:
    from exercises import LESSONS, TooSlow, Wrong, show
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Flaky
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


SECONDS = 10  # for one call of an answer; right ones need a few milliseconds


def code(path):
    """The text of a lesson, or of its notebook if that was saved later."""
    book = path.with_suffix(".ipynb")
    if not book.exists() or book.stat().st_mtime < path.stat().st_mtime:
        return path, path.read_text(encoding="utf-8")
    parts = []
    for cell in json.loads(book.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "code" else "# %% " + text.split("\n")[0].lstrip("# "))
    text = re.sub(r"^[%!]", "#", "\n".join(parts), flags=re.MULTILINE)  # commands to the notebook
    linecache.cache[str(book)] = len(text), None, text.splitlines(keepends=True), str(book)
    return book, text


def definitions(path):
    """The imports, functions, classes and constants of a lesson, and the reader's own, without running the rest."""
    path, text = code(path)
    turn = text[: text.find("# %% Your turn")].count("\n")
    names = {"__name__": "lesson", "__file__": str(path), "__turn__": turn}
    for node in ast.parse(text, str(path)).body:
        assignment = isinstance(node, (ast.Assign, ast.AnnAssign))
        constant = assignment and isinstance(node.value, (ast.Constant, ast.Lambda))
        defines = isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))
        yours = assignment and node.lineno > turn  # it may use what is not run; the answer that needs it will say so
        if defines or constant or yours:
            with contextlib.suppress(NameError) if yours else contextlib.nullcontext():
                exec(compile(ast.Module([node], []), str(path), "exec"), names)
    return names


def compare(got, right, parts=(), name="the result"):
    """Raise Wrong at the first place where two results differ.

    Results are arrays or numbers, or tuples of them, whose ``parts`` have names.
    """
    if got is None:
        raise Wrong(f"{name} is None; is a `return` missing?")
    if isinstance(right, (tuple, list)):
        words = f": ({', '.join(parts)})" if parts else ""
        if not isinstance(got, type(right)):
            raise Wrong(f"{name} must be a {type(right).__name__} of {len(right)}{words}, got {type(got).__name__}")
        if len(got) != len(right):
            raise Wrong(f"{name} must be a {type(right).__name__} of {len(right)}{words}, got {len(got)}")
        for number, (one, other) in enumerate(zip(got, right, strict=True)):
            compare(one, other, name=parts[number] if parts else f"{name}[{number}]")
        return
    try:
        found = np.asarray(got, float)
    except (TypeError, ValueError):
        raise Wrong(f"{name} must be an array or a number, got {type(got).__name__}") from None
    right = np.asarray(right, float)
    if found.shape != right.shape:
        raise Wrong(f"{name} has the shape {found.shape}, expected {right.shape}")
    wrong = ~np.isclose(found, right, rtol=1e-5, atol=1e-7, equal_nan=True)
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = f"{name} at [{', '.join(map(str, index))}]" if index else name
        more = f"; {wrong.sum()} of {wrong.size} differ" if wrong.size > 1 else ""
        raise Wrong(f"{place} is {found[index]:.6g}, expected {right[index]:.6g}{more}")


def same(got, other):
    try:
        compare(got, other)
    except Wrong:
        return False
    return True


@contextlib.contextmanager
def limited():
    """Interrupt what takes too long, as Ctrl-C does."""
    timer = threading.Timer(SECONDS, _thread.interrupt_main)
    timer.daemon = True
    timer.start()
    try:
        yield
    except KeyboardInterrupt as error:
        error.late = timer.finished.is_set()
        raise
    finally:
        timer.cancel()


def call(exercise, names, arguments):
    """What the answer makes of a copy of the arguments. It must not change them."""
    given, answer = copy.deepcopy(arguments), names[exercise.function]
    with limited(), np.errstate(all="ignore"):  # the verdict shows what became infinite
        result = exercise.call(names, answer, *given)
    parameters = inspect.signature(answer).parameters if exercise.show is None else ["it"] * len(given)
    pairs = zip(parameters, given, arguments, strict=False)
    changed = [name for name, new, old in pairs if isinstance(old, np.ndarray) and not same(new, old)]
    if changed:
        which = f", here {' and '.join(changed)}" if exercise.show is None else ""
        raise Wrong(f"it changes its arguments{which}; work on a copy")
    return result


def judge(exercise, names):
    """Raise Wrong unless the answer among the names of a lesson is right for all that is drawn."""
    if exercise.function not in names:
        raise Wrong("the lesson has no function of this name")
    answer, failed = names[exercise.function], []

    @DRAWS
    @given(exercise.draw)
    def attempt(arguments):
        failed.clear()
        try:
            result = call(exercise, names, arguments)
            failed.append((arguments, result))
            compare(result, exercise.right(*arguments), exercise.parts)
        except Exception as error:
            drawn = exercise.show(arguments) if exercise.show else show(arguments, inspect.signature(answer).parameters)
            if isinstance(error, Wrong):
                raise Wrong(f"{error}\n      for {drawn}") from None
            error.drawn = drawn
            raise

    try:
        attempt()
        failed.clear()
        if exercise.rule:
            exercise.rule(answer)
    except Wrong as error:
        mistake = usual_mistake(exercise, names, failed)
        if mistake:
            raise Wrong(f"{error}\n      It looks like a usual mistake: {mistake}.") from None
        raise


def usual_mistake(exercise, names, failed):
    """The name of the mistake that explains a wrong result, and those for other arguments."""
    results = failed.copy()

    @settings(DRAWS, max_examples=30, phases=[Phase.generate])
    @given(exercise.draw)
    def gather(arguments):
        try:
            results.append((arguments, call(exercise, names, arguments)))
        except Exception as error:
            results.append((arguments, error))  # which is like no result

    if failed:
        gather()
        for mistake, spoiled in exercise.mistakes.items():
            if all(same(result, spoiled(*arguments)) for arguments, result in results):
                return mistake
    return None


def raised(error, names):
    """An exception in words: the line of the answer, and for which arguments."""
    lines = [at for at in traceback.extract_tb(error.__traceback__) if at.filename == names["__file__"]]
    lines = [at for at in lines if at.lineno > names["__turn__"]] or lines
    place = f"\n      in line {lines[-1].lineno}: {lines[-1].line}" if lines else ""
    if isinstance(error, KeyboardInterrupt):
        after = f" after {SECONDS} seconds" if getattr(error, "late", False) else ""
        return f"stopped{after}. Is there a loop that does not end?{place}"
    drawn = f"\n      for {error.drawn}" if hasattr(error, "drawn") else ""
    why = "\n      check.py runs only the functions and constants of a lesson. Is it one of your arguments?"
    text = "".join(linecache.getlines(names["__file__"]))
    known = isinstance(error, NameError) and re.search(rf"^{error.name}\b.*=", text, re.MULTILINE)
    return f"it raises {type(error).__name__}: {error}{place}{drawn}{why if known else ''}"


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
    except Flaky:
        verdict = "not right yet: it gives different results for the same arguments"
    except (Exception, KeyboardInterrupt) as error:
        verdict = raised(error, names)
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
        sys.exit(f"{Path(error.filename).name}, line {error.lineno}: {error.msg}")
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [at.lineno for at in frames if Path(at.filename).stem == found[0].stem]
        place = f"line {lines[-1]}: " if lines else ""
        sys.exit(f"{found[0].stem}: {place}{type(error).__name__}: {error}")
    right = [report(exercise, names, options.hint) for exercise in LESSONS[options.lesson]]
    sys.exit(not all(right))


if __name__ == "__main__":
    main()
