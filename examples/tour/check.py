"""Check your answers to the exercises of a lesson.

    python check.py 4              checks the two answers of lesson 4 in this folder
    python check.py 4 --hint       shows a hint for each answer that is not right yet; --hint --hint shows two

If the lesson is there as a script and as a notebook, the one that was saved last is checked. Run it in your copy of the
lessons, which `start.py` makes. It draws examples with hypothesis, compares your result with the definition, and says
where they differ first. It knows the usual mistakes. It also runs `gradcheck`, which compares gradients with
differences, as lesson 1 does. Needs pip install 'tinygrad_lenet[check]'.
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
import signal
import sys
import threading
import traceback
from pathlib import Path

import numpy as np

try:
    from exercises import LESSONS, TooSlow, Wrong, kind, show
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
LIMIT = 10  # seconds for one call of an answer; a right one needs a few milliseconds


def source(path):
    """The code of a lesson, which may be a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        text = re.sub(r"^[%!]", "#", "\n".join(cells), flags=re.MULTILINE)  # commands of the notebook itself
        linecache.cache[str(path)] = (len(text), None, text.splitlines(keepends=True), str(path))
    return text


def definitions(path):
    """The imports, functions, classes and constants of a lesson, without running the rest of it."""
    tree = ast.parse(source(path), str(path))
    kept = [node for node in tree.body if is_definition(node)]
    names = {"__name__": "lesson", "__file__": str(path)}
    exec(compile(ast.Module(kept, []), str(path), "exec"), names)
    return names


def is_definition(node):
    if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Lambda):
        with contextlib.suppress(ValueError):
            ast.literal_eval(node.value)
            return True
        return False
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign))


def compare(got, right, name="the result"):
    """Raise Wrong at the first place where two results differ.

    Results are arrays, numbers, lists or tuples of them. If ``right`` is a dict, its keys name the parts of a tuple.
    """
    if isinstance(right, (tuple, list, dict)):
        parts = right if isinstance(right, dict) else {f"{name}[{i}]": part for i, part in enumerate(right)}
        if isinstance(got, dict):
            got = list(got.values())
        if not isinstance(got, (tuple, list)) or len(got) != len(parts):
            raise Wrong(f"{name} must be a tuple of {len(parts)}, got {kind(got)}")
        for one, (part, other) in zip(got, parts.items(), strict=True):
            compare(one, other, part)
        return
    try:
        found = np.asarray(got, float)
    except (TypeError, ValueError):
        found = None
    if got is None or found is None:
        raise Wrong(f"{name} must be {'numbers' if np.ndim(right) else 'a number'}, got {kind(got)}")
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


def call(exercise, names, arguments):
    """The result of the answer for a copy of the arguments. It must not change them."""
    given, answer = copy.deepcopy(arguments), names[exercise.function]
    with limited(LIMIT), np.errstate(all="ignore"):  # the verdict shows what became infinite
        result = exercise.call(names, answer, *given)
    parameters = [*inspect.signature(answer).parameters] if exercise.show is None else [""] * len(given)
    pairs = zip(parameters, given, arguments, strict=False)
    changed = [name for name, new, old in pairs if isinstance(old, np.ndarray) and not same(new, old)]
    if changed:
        raise Wrong(f"it changes its arguments{', here ' if changed[0] else ''}{' and '.join(changed)}; work on a copy")
    return result


def judge(exercise, names):
    """Raise Wrong unless the answer among the names of a lesson is right for all that is drawn."""
    answer, failed = names.get(exercise.function), []
    if not callable(answer):
        raise Wrong("the lesson has no function of this name")

    @DRAWS
    @given(exercise.draw)
    def attempt(arguments):
        failed.clear()
        try:
            result = call(exercise, names, arguments)
            failed.append((arguments, result))
            compare(result, exercise.right(*arguments))
        except (Exception, KeyboardInterrupt) as error:
            parameters = inspect.signature(answer).parameters
            error.drawn = exercise.show(arguments) if exercise.show else show(arguments, parameters)
            raise

    try:
        attempt()
        failed.clear()
        if exercise.rule:
            exercise.rule(answer)
    except KeyboardInterrupt as interrupt:
        if not hasattr(interrupt, "slow"):
            raise
        interrupt.slow.drawn = getattr(interrupt, "drawn", None)
        raise interrupt.slow.with_traceback(interrupt.__traceback__) from None
    except Flaky:
        raise Wrong("it gives different results for the same arguments") from None
    except Wrong as error:
        error.mistake = usual_mistake(exercise, names, failed)
        raise


def usual_mistake(exercise, names, failed):
    """The mistake that explains a wrong result, and what the answer gives for other arguments; None if none does."""
    seen = failed.copy()

    @settings(DRAWS, phases=[Phase.generate])
    @given(exercise.draw)
    def collect(arguments):
        try:
            seen.append((arguments, call(exercise, names, arguments)))
        except Exception as error:
            seen.append((arguments, error))  # which is like no result

    if failed:
        try:
            collect()
        except KeyboardInterrupt as interrupt:  # an endless loop for other arguments
            if not hasattr(interrupt, "slow"):
                raise
            return None
        for mistake, spoiled in exercise.mistakes.items():
            if all(same(result, spoiled(*arguments)) for arguments, result in seen):
                return mistake
    return None


@contextlib.contextmanager
def limited(seconds):
    """Interrupt what takes too long, as Ctrl-C does: hypothesis does not try an interrupted answer again."""
    late = threading.Event()

    def stop():
        late.set()
        _thread.interrupt_main()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore Ctrl-C
    timer.start()
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if late.is_set():
            interrupt.slow = TooSlow(f"it was stopped after {seconds} seconds. Does a loop never end?")
        raise
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, handler)


def explain(error, exercise, names):
    """The message to a learner about an error of an answer."""
    inside = [at for at in traceback.extract_tb(error.__traceback__) if at.filename == names["__file__"]]
    if isinstance(error, NotImplementedError):
        hole = inside[-1].name if inside else exercise.function
        return "not filled in yet" if hole == exercise.function else f"it calls {hole}, which is not filled in yet"
    place = ""
    last = source(Path(names["__file__"])).partition("\n# %% Your turn\n")[0].count("\n")
    inside = [at for at in inside if at.lineno > last] or inside  # rather the answer than what it calls
    if inside:
        number = "" if names["__file__"].endswith(".ipynb") else f", line {inside[-1].lineno}"
        place = f"{number}: {inside[-1].line}"
    if isinstance(error, Wrong):
        said = f"not right yet: {error}"
    elif isinstance(error, TooSlow):
        said = f"too slow: {error}\n      It was in{place.removeprefix(',')}" if place else f"too slow: {error}"
    else:
        said = f"it raises {type(error).__name__}: {error}{place}"
    if isinstance(error, NameError) and f"\n{error.name} =" in source(Path(names["__file__"])):
        said += "\n      check.py does not compute what is outside of functions. Move it into the function."
        said += "\n      Or is it one of the arguments?"
    if getattr(error, "drawn", None):
        said += f"\n      for {error.drawn}"
    if getattr(error, "mistake", None):
        said += f"\n      It looks like a usual mistake: {error.mistake}."
    return said


def report(exercise, names, hints):
    """Print the verdict on one answer; return whether it is right."""
    title = exercise.function
    try:
        judge(exercise, names)
    except Exception as error:
        print(f"{title}: {explain(error, exercise, names)}")
    else:
        print(f"{title}: right")
        return True
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
    found = [file for ending in ("py", "ipynb") for file in Path.cwd().glob(f"{options.lesson:02}_*.{ending}")]
    if not found:
        sys.exit(f"lesson {options.lesson} is not in this folder; make a copy with start.py, and go there")
    lesson = max(found, key=lambda file: file.stat().st_mtime)
    if len(found) > 1:
        print(f"checking {lesson.name}, which was saved last")
    sys.path.insert(0, str(Path.cwd()))
    try:
        names = definitions(lesson)
    except SyntaxError as error:
        number = "" if lesson.suffix == ".ipynb" else f", line {error.lineno}"
        sys.exit(f"{lesson.name}{number}: {error.msg}: {(error.text or '').strip()}")
    except Exception as error:
        sys.exit(f"{lesson.name}: {type(error).__name__}: {error}")
    right = [report(exercise, names, options.hint) for exercise in LESSONS[options.lesson]]
    sys.exit(not all(right))


if __name__ == "__main__":
    main()
