"""Make a copy of the tour in which to write your answers.

    python examples/tour/start.py DIR               lessons, digits, and a trained network
    python examples/tour/start.py DIR --notebook    the lessons as notebooks as well

Each lesson ends with two functions to write. `python check.py 1`, in DIR, checks those of lesson 1, in the
script or in the notebook, whichever was saved last. A file that is there already stays as it is.
"""

import argparse
import importlib.util
import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = [*sorted(HERE.glob("[01]*_*.py")), *(HERE / f"{name}.py" for name in ("tour", "engine", "check"))]
FILES.append(HERE.parent / "lenet5.npz")


def cells(text):
    """The cells of a lesson: whether each is text, and its source."""
    for part in text.split("# %%")[1:]:
        title, _, body = part.partition("\n")
        body = body.strip("\n")
        if title.strip() == "[markdown]":
            yield True, "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.split("\n"))
            continue
        if title.strip():
            yield True, f"## {title.strip()}"
        yield False, body


def notebook(text):
    """A lesson as a Jupyter notebook: JSON, format 4.5."""
    found = []
    for number, (is_text, source) in enumerate(cells(text)):
        cell = {"id": f"cell-{number}", "metadata": {}, "source": source.splitlines(keepends=True)}
        code = {"cell_type": "code", "execution_count": None, "outputs": []}
        found.append(cell | ({"cell_type": "markdown"} if is_text else code))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": found, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to; it is made if it is not there")
    parser.add_argument("--notebook", action="store_true", help="write the lessons as notebooks (.ipynb) as well")
    options = parser.parse_args(argv)
    folder = options.folder.resolve()
    if folder == HERE or HERE in folder.parents:
        parser.error("choose a folder outside of the tour itself")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = [file.name for file in FILES if (folder / file.name).exists()]
        for file in FILES:
            if file.name not in kept:
                shutil.copyfile(file, folder / file.name)
        for source in filter(Path.is_dir, (HERE / "exercises", HERE.parent / "data")):  # a release lacks the data
            shutil.copytree(
                source, folder / source.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        if options.notebook:
            for lesson in sorted(folder.glob("[01]*_*.py")):
                target = lesson.with_suffix(".ipynb")
                if not target.exists():
                    target.write_text(notebook(lesson.read_text(encoding="utf-8")), encoding="utf-8")
    except OSError as error:
        sys.exit(f"start.py: {error}")
    if kept:
        print(f"{len(kept)} files were there already, and stay as they are")
    ending = "ipynb" if options.notebook else "py"
    print(f"Read, run and complete the lessons in {folder}, the first being 01_derivatives.{ending}.")
    print(f"Check your answers:  cd {folder} && python check.py 1")
    missing = [name for name in ("matplotlib", "hypothesis") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"The tour needs {' and '.join(missing)}:  pip install {' '.join(missing)}")
    if not (folder / "data").exists():
        print("The digits are not here. Lessons 6, 7, 8, 10 and 12 download them, 11 MB.")


if __name__ == "__main__":
    main()
