"""The tour: each lesson runs alone, its references hold, and the checker knows right and wrong answers."""

import ast
import functools
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tinygrad_lenet as tl

pytest.importorskip("matplotlib", reason="matplotlib, which draws the pictures of the tour, is not installed")

from tour_answers import RIGHT
from tour_wrong_answers_late import WRONG

TOUR = Path(__file__).parents[1] / "examples" / "tour"
LESSONS = sorted(TOUR.glob("[01]*_*.py"))
PACKAGE = Path(tl.__file__).parent


def run(folder, *command):
    environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def checker(monkeypatch):
    monkeypatch.syspath_prepend(TOUR)
    import check

    return check


def test_there_are_twelve_lessons_of_under_120_lines():
    assert [lesson.name[:2] for lesson in LESSONS] == [f"{number:02}" for number in range(1, 13)]
    for file in [*LESSONS, TOUR / "engine.py"]:
        assert len(file.read_text().splitlines()) < 120, file.name


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_a_lesson_runs_alone(lesson, tmp_path, mnist):
    """With the files that all share, and no other lesson."""
    for name in (lesson.name, "tour.py", "engine.py"):
        shutil.copy(TOUR / name, tmp_path)
    shutil.copy(TOUR.parent / "lenet5.npz", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mnist").symlink_to(mnist)
    found = run(tmp_path, lesson.name)
    assert found.returncode == 0, found.stderr
    assert found.stdout.isascii()
    picture = tmp_path / f"{lesson.stem}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_places_in_the_package_exist(lesson):
    """A reference, as `ops/convolution.py:conv2d`, names a file and what it defines or imports."""
    references = re.findall(r"`(\w[\w/]*\.py):([\w.]+)`", lesson.read_text())
    assert references or lesson.name == "10_lenet.py"
    for file, name in references:
        defined = set()
        for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                defined.add(node.name)
                defined |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                defined |= {alias.asname or alias.name for alias in node.names}
        assert name in defined, f"{lesson.name}: {file}:{name}"


def exercises(check):
    return [(number, exercise) for number, found in check.LESSONS.items() for exercise in found]


def test_each_lesson_has_two_holes_with_three_hints(checker):
    for lesson in LESSONS:
        number = int(lesson.name[:2])
        found = [exercise.function for exercise in checker.LESSONS[number]]
        last = lesson.read_text().split("# %% Your turn\n")[1]
        assert re.findall(r"^def (\w+)", last, re.MULTILINE) == found
        assert re.findall(r'^    """([\d.]+):', last, re.MULTILINE) == [f"{number}.1", f"{number}.2"]
        assert last.count("raise NotImplementedError") == len(found) == 2
        assert all(len(exercise.hints) == 3 for exercise in checker.LESSONS[number])


CASES = [(name, None, "not filled in yet") for name in RIGHT]
CASES += [(name, function, ": right") for name, function in RIGHT.items()]
CASES += [(name, function, words) for name, found in WRONG.items() for function, words in found]


@pytest.mark.parametrize(("name", "answer", "words"), CASES)
def test_verdicts(name, answer, words, checker, capsys, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    number, exercise = next(pair for pair in exercises(checker) if pair[1].function == name)
    lesson = LESSONS[number - 1]
    names = checker.definitions(lesson)
    if answer is not None:
        exec(compile(source(answer), str(lesson), "exec"), names)
    right = checker.report(exercise, names, 0)
    said = capsys.readouterr().out
    assert words in said
    assert right == (words == ": right")
    assert said.isascii()


def source(answer):
    text = inspect.getsource(answer)
    return text[text.index("def ") :]


def verdict(checker, capsys, number, text, hint=0):
    """The output of check.py for an answer, given as text, to an exercise of a lesson."""
    names = checker.definitions(LESSONS[number - 1])
    exec(compile(text, str(LESSONS[number - 1]), "exec"), names)
    name = re.search(r"def (\w+)", text)[1]
    checker.report(next(one for one in checker.LESSONS[number] if one.function == name), names, hint)
    return capsys.readouterr().out


OTHER_WAYS = {
    2: "def divide(a, b):\n    return a * Value(1 / b.data, (b,), (-1 / b.data**2,))",
    5: "def linear_gradients(x, w, g):\n    return [g @ w, g.T @ x, g.sum(axis=0)]",
}


@pytest.mark.parametrize("number", OTHER_WAYS)
def test_another_way_to_the_right_result_is_right(number, checker, capsys):
    """A quotient made of a product; a list in place of a tuple."""
    assert verdict(checker, capsys, number, OTHER_WAYS[number]).endswith(": right\n")


UNNAMED = {  # each looks like a usual mistake for the smallest example, and is another one
    "train_step": "w.grad = b.grad = 0.0\n    for x, y in zip(xs, ys):\n        squared_error(w, b, x, y).backward()"
    "\n    w.data -= rate * w.grad / len(xs)\n    b.data -= rate * w.grad / len(xs)",
    "mean_gradient": "x[:] = g / x.shape[1]\n    return x",
    "linear_gradients": "return g @ w, g.T @ x, g.sum(axis=0, keepdims=True)",
}


@pytest.mark.parametrize("name", UNNAMED)
def test_a_mistake_is_named_only_if_all_that_is_drawn_agrees(name, checker, capsys):
    number = next(number for number, exercise in exercises(checker) if exercise.function == name)
    parameters = inspect.signature(RIGHT[name])
    said = verdict(checker, capsys, number, f"def {name}{parameters}:\n    {UNNAMED[name]}\n")
    assert "not right yet" in said
    assert "usual mistake" not in said


def said_of(checker, capsys, name, answer):
    """The output of check.py for an answer to the exercise of this name."""
    number = next(number for number, exercise in exercises(checker) if exercise.function == name)
    return verdict(checker, capsys, number, answer)


def test_no_mistake_is_named_if_it_does_not_explain_every_result(checker, capsys):
    """The first wrong result is not enough: with the label 0, a class minus its label is the class."""
    said = said_of(checker, capsys, "cross_entropy_gradient", "def cross_entropy_gradient(z, y): return softmax(z) - y")
    assert "usual mistake" not in said
    said = said_of(
        checker,
        capsys,
        "avg_pool_gradient",
        "def avg_pool_gradient(g, k):\n g /= k**2\n return np.kron(g, np.ones((k, k)))",
    )
    assert "it changes its arguments, here g; work on a copy" in said
    assert "usual mistake" not in said


def test_exceptions_come_with_line_and_arguments(checker, capsys):
    said = said_of(checker, capsys, "avg_pool_gradient", "def avg_pool_gradient(g, k):\n  return 1 / (k - 1)")
    assert "it raises ZeroDivisionError: division by zero, line 2: " in said
    assert "for g = [[0.0]], k = 1" in said
    said = said_of(checker, capsys, "avg_pool_gradient", "def avg_pool_gradient(g): return g")
    assert "takes 1 positional argument but 2 were given" in said


def test_an_answer_without_return(checker, capsys):
    assert "is a return missing?" in said_of(checker, capsys, "im2col_stride", "def im2col_stride(x, k, s, p): x")
    assert "is a return missing?" in said_of(checker, capsys, "dropout", "def dropout(x, p, rng): x")


def test_large_logits_give_one_message_and_no_warnings(checker, capsys, recwarn):
    answer = "def cross_entropy(z, y): return np.mean([loss_in_loops(row, k) for row, k in zip(z, y)])"
    assert "the result is inf, expected 1000" in said_of(checker, capsys, "cross_entropy", answer)
    assert not recwarn


def test_an_answer_that_changes_its_mind(checker, capsys):
    answer = "calls = []\ndef avg_pool_gradient(g, k):\n  calls.append(1)\n"
    answer += "  return np.kron(g, np.ones((k, k))) / k**2 + (len(calls) == 40)"
    assert "different results for the same arguments" in said_of(checker, capsys, "avg_pool_gradient", answer)


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])  # jobs in the background ignore it
def test_an_endless_loop_is_stopped(checker, capsys, monkeypatch, request, handler):
    """And not tried again."""
    request.addfinalizer(functools.partial(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, handler)))
    monkeypatch.setattr(checker, "LIMIT", 1)
    answer = "calls = []\ndef second_derivative(f, x, h):\n    calls.append(x)\n    while len(calls) == 1: x += h\n"
    said = verdict(checker, capsys, 1, answer)
    assert "too slow: it was stopped after 1 seconds. Does a loop never end?\n      It was in line " in said
    looks = "def avg_pool_gradient(g, k):\n    while k > 2: pass\n    return g + 0 * k + 1\n"
    assert "not right yet" in said_of(checker, capsys, "avg_pool_gradient", looks)


def test_names_outside_of_functions(checker, capsys, tmp_path):
    """Tables of numbers are known. What would have to be computed is not, and the verdict says so."""
    lesson = tmp_path / LESSONS[0].name
    answer = "TABLE = [1, -2, 1]\nDRAWN = np.ones(3)\n\n\ndef second_derivative(f, x, h):\n    return {}[1] * f(x)\n"
    for name, words in (("TABLE", "not right yet"), ("DRAWN", "Move it into the function")):
        lesson.write_text(LESSONS[0].read_text() + answer.format(name))
        checker.report(checker.LESSONS[1][0], checker.definitions(lesson), 0)
        assert words in capsys.readouterr().out


def test_answers_in_a_notebook(tmp_path):
    """A notebook that was saved after the script is checked, whatever commands of its own it has."""
    assert run(tmp_path, TOUR / "start.py", "copy", "--notebook").returncode == 0
    folder = tmp_path / "copy"
    notebook, script = folder / "01_derivatives.ipynb", folder / "01_derivatives.py"
    book = json.loads(notebook.read_text())
    answers = [
        "%matplotlib inline\n",
        source(RIGHT["second_derivative"]),
        "\n\n",
        "def jacobian(f, x, h):\n",
        "    return f(x)[9]\n",
    ]
    book["cells"][-1]["source"] = answers
    notebook.write_text(json.dumps(book))
    os.utime(notebook, (2e9, 2e9))
    found = run(folder, "check.py", "1")
    assert found.stdout.startswith("checking 01_derivatives.ipynb")
    assert "second_derivative: right" in found.stdout
    assert "jacobian: it raises IndexError" in found.stdout
    assert ": return f(x)[9]" in found.stdout
    os.utime(script, (2.1e9, 2.1e9))
    assert run(folder, "check.py", "1").stdout.count("not filled in yet") == 2
    book["cells"][-1]["source"] = "def jacobian(f, x, h):\n    return f(x\n"
    notebook.write_text(json.dumps(book))
    os.utime(notebook, (2.2e9, 2.2e9))
    found = run(folder, "check.py", "1")
    assert found.returncode == 1
    assert found.stderr == "01_derivatives.ipynb: '(' was never closed: return f(x\n"


def test_every_exercise_has_a_wrong_answer():
    assert set(WRONG) == set(RIGHT)


def test_from_the_start_to_a_right_answer(tmp_path):
    """As a learner types it: a copy, a hole, a wrong answer, a right one."""
    made = run(tmp_path, TOUR / "start.py", "copy", "--notebook")
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "copy"
    hole = run(folder, "check.py", "4")
    assert hole.returncode == 1
    assert hole.stdout.count("not filled in yet") == 2
    lesson = folder / "04_adding.py"
    text = lesson.read_text()
    kept = text[: text.index("def backward(order)")]
    wrong = WRONG["backward"][0][0]
    lesson.write_text(kept + source(wrong) + "\n\n" + source(RIGHT["train_step"]))
    found = run(folder, "check.py", "4", "--hint")
    assert found.returncode == 1
    assert "`=` in place of `+=`" in found.stdout
    assert "Hint 1" in found.stdout
    lesson.write_text(kept + source(RIGHT["backward"]) + "\n\n" + source(RIGHT["train_step"]))
    found = run(folder, "check.py", "4")
    assert found.returncode == 0, found.stdout + found.stderr
    again = run(tmp_path, TOUR / "start.py", "copy")
    assert "were there already" in again.stdout
    assert lesson.read_text().endswith(source(RIGHT["train_step"]))


def test_a_start_without_digits_says_so(tmp_path):
    """As from a release, which lacks the data."""
    shutil.copytree(TOUR, tmp_path / "tour", ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    shutil.copy(TOUR.parent / "lenet5.npz", tmp_path)
    users = [int(lesson.name[:2]) for lesson in LESSONS if "digits(" in lesson.read_text()]
    words = f"Lessons {', '.join(map(str, users[:-1]))} and {users[-1]} download them"
    assert words in run(tmp_path, "tour/start.py", "copy").stdout
    assert words not in run(tmp_path, TOUR / "start.py", "whole").stdout or not (TOUR.parent / "data").exists()


def test_notebooks_hold_the_lessons(monkeypatch):
    monkeypatch.syspath_prepend(TOUR)
    import start

    for lesson in LESSONS:
        text = lesson.read_text()
        book = json.loads(start.notebook(text))
        assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
        code = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert [line for line in "\n".join(code).splitlines() if line and not line.startswith("#")] == lines
        assert "".join(book["cells"][0]["source"]).startswith(f"# {int(lesson.name[:2])}. ")
