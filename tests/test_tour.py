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
from tour_wrong_answers import WRONG

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
