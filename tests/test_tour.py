"""The tour: each lesson runs alone, its references hold, and the checker knows right and wrong answers."""

import ast
import inspect
import json
import os
import re
import shutil
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


def verdict(checker, capsys, name, answer):
    """What the checker says of an answer, and the last hint to a learner in it."""
    number, exercise = next(pair for pair in exercises(checker) if pair[1].function == name)
    names = checker.definitions(LESSONS[number - 1])
    exec(compile(answer, names["__file__"], "exec"), names)
    assert not checker.report(exercise, names, 0)
    return capsys.readouterr().out


AGG = pytest.mark.usefixtures("agg")


@pytest.fixture
def agg(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")


@AGG
def test_a_usual_mistake_is_named_only_if_it_explains_every_result(checker, capsys):
    """The first wrong result is not enough: with the label 0, a class minus its label is the class."""
    said = verdict(checker, capsys, "cross_entropy_gradient", "def cross_entropy_gradient(z, y): return softmax(z) - y")
    assert "usual mistake" not in said
    said = verdict(
        checker,
        capsys,
        "avg_pool_gradient",
        "def avg_pool_gradient(g, k):\n g /= k**2\n return np.kron(g, np.ones((k, k)))",
    )
    assert "it changes its arguments, here g; work on a copy" in said
    assert "usual mistake" not in said


@AGG
def test_exceptions_come_with_line_and_arguments(checker, capsys):
    said = verdict(checker, capsys, "avg_pool_gradient", "def avg_pool_gradient(g, k):\n  return 1 / (k - 1)")
    assert "it raises ZeroDivisionError: division by zero\n      in line 2:" in said
    assert "for g = [[0.0]], k = 1" in said
    said = verdict(checker, capsys, "avg_pool_gradient", "def avg_pool_gradient(g): return g")
    assert "takes 1 positional argument but 2 were given" in said


@AGG
def test_an_answer_without_return(checker, capsys):
    assert "is a `return` missing?" in verdict(checker, capsys, "im2col_stride", "def im2col_stride(x, k, s, p): x")
    assert "is a `return` missing?" in verdict(checker, capsys, "dropout", "def dropout(x, p, rng): x")


@AGG
def test_large_logits_give_one_message_and_no_warnings(checker, capsys, recwarn):
    answer = "def cross_entropy(z, y): return np.mean([loss_in_loops(row, k) for row, k in zip(z, y)])"
    assert "the result is inf, expected 1000" in verdict(checker, capsys, "cross_entropy", answer)
    assert not recwarn


@AGG
def test_a_loop_without_end_is_stopped(checker, capsys, monkeypatch):
    monkeypatch.setattr(checker, "SECONDS", 0.5)
    said = verdict(checker, capsys, "avg_pool_gradient", "def avg_pool_gradient(g, k):\n  while True: g = g")
    assert "stopped after 0.5 seconds. Is there a loop that does not end?\n      in line 2" in said


@AGG
def test_an_answer_that_changes_its_mind(checker, capsys):
    answer = "calls = []\ndef avg_pool_gradient(g, k):\n  calls.append(1)\n"
    answer += "  return np.kron(g, np.ones((k, k))) / k**2 + (len(calls) == 40)"
    assert "different results for the same arguments" in verdict(checker, capsys, "avg_pool_gradient", answer)


def test_constants_and_notebooks_of_the_learner(tmp_path):
    """Names defined below "Your turn" are seen, and a notebook that was saved after its lesson is what counts."""
    run(tmp_path, TOUR / "start.py", "copy", "--notebook")
    folder = tmp_path / "copy"
    lesson = folder / "08_pooling.py"
    answer = "ONES = np.ones((2, 2))[0, 0]\nunknown = images\n" + source(RIGHT["avg_pool_gradient"]) + "\n"
    answer = answer.replace("/ k**2", "/ k**2 * ONES")
    text = lesson.read_text()
    lesson.write_text(text[: text.index("def max_pool_gradient")] + answer + source(RIGHT["max_pool_gradient"]))
    os.utime(folder / "08_pooling.ipynb", (0, 0))
    assert run(folder, "check.py", "8").stdout.count(": right") == 2
    book = folder / "09_cross_entropy.ipynb"
    cells = json.loads(book.read_text())
    cells["cells"][-1]["source"] = [
        "%matplotlib inline\n",
        *answer.splitlines(keepends=True),
        "def cross_entropy(z, y):\n",
        "    return z @ 1\n",
    ]
    book.write_text(json.dumps(cells))
    said = run(folder, "check.py", "9").stdout
    assert "in line" in said
    assert "return z @ 1" in said
    assert "the lesson has no function of this name" in said


def source(answer):
    text = inspect.getsource(answer)
    return text[text.index("def ") :]


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
