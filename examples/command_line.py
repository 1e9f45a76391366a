"""Shared by the examples: printing on any terminal, and checks of files before the work begins."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import tinygrad_lenet as tl


@contextlib.contextmanager
def program(name: str) -> Iterator[None]:
    """A context for a program: an error ends it with one sentence and status 1, and any terminal shows its text.

    Characters that the output cannot encode, such as those of a file's name, are written as escapes.
    """
    for stream in ("stdout", "stderr"):
        if (output := getattr(sys, stream)) is None:  # closed, as by `2>&-`, or a program without a console on Windows
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8", errors="backslashreplace"))  # noqa: SIM115
        elif hasattr(output, "reconfigure"):
            output.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except (tl.TinygradLenetError, OSError) as error:
        reason = _discard_unwritten() or (error.strerror if isinstance(error, BrokenPipeError) else None)
        sys.exit(f"{name}: {f'stopped, since its output cannot be written: {reason}' if reason else error}")


def _discard_unwritten() -> str | None:
    """Drop text that stdout does not take, and return why: Python would write it once more when it ends, and fail."""
    try:
        sys.stdout.flush()
    except OSError as error:  # such as a closed pipe, or a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error.strerror
    return None


def path(text: str) -> Path:
    """The type of an option that names a file or a folder."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return Path(text)


def given(parser: argparse.ArgumentParser, argv: list[str] | None) -> set[str]:
    """The names of the options that are on the command line, and not merely at their defaults."""
    unset = object()
    blank = argparse.Namespace(**dict.fromkeys(vars(parser.parse_args(argv)), unset))
    return {name for name, value in vars(parser.parse_args(argv, blank)).items() if value is not unset}


def option(name: str) -> str:
    """The option of an attribute."""
    return f"--{name.replace('_', '-')}"


def check_weights(parser: argparse.ArgumentParser, file: Path) -> None:
    """Refuse a file for weights whose format is unknown, or needs a library that is not installed."""
    if file.suffix not in (".npz", ".safetensors"):
        parser.error(f"--save must end in .npz, .safetensors, got {file}")
    if file.suffix == ".safetensors":
        try:
            import safetensors.numpy  # noqa: F401
        except ImportError:
            parser.error(
                f"--save {file} needs the safetensors library; pip install 'tinygrad_lenet[safetensors]', or use .npz"
            )


def check_picture(parser: argparse.ArgumentParser, name: str, file: Path) -> None:
    """Refuse a file for a picture of a format that matplotlib does not know, or cannot write here."""
    from matplotlib.figure import Figure

    trial = Figure()
    trial.text(0, 0, "some formats need another program or library")
    endings = sorted(f".{kind}" for kind in trial.canvas.get_supported_filetypes())
    if file.suffix and file.suffix.lower() not in endings:
        parser.error(f"{name} must end in {', '.join(endings)}, got {file}")
    try:
        trial.savefig(io.BytesIO(), format=picture_format(file))
    except Exception as error:  # of any of matplotlib's writers
        parser.error(f"{name} {file} cannot be drawn ({error}); choose another ending, such as .png")


def picture_format(file: Path) -> str:
    """The format of a picture, by the ending of its name."""
    return file.suffix[1:].lower() or "png"


def check_outputs(parser: argparse.ArgumentParser, outputs: Iterable[tuple[str, Path]]) -> None:
    """Refuse files that could not be written after the work, and one file for two options.

    Args:
        parser: reports the error.
        outputs: pairs of an option and the file that it names.
    """
    outputs = list(outputs)
    known: dict[tuple[int, int, str], tuple[str, str]] = {}
    for name, file in outputs:
        target = os.path.realpath(file)
        folder = os.path.dirname(target)
        if not os.path.isdir(folder):
            parser.error(f"the folder of {file} does not exist; make it first")
        if (os.path.exists(file) or os.path.islink(target)) and not os.path.isfile(file):
            parser.error(f"{file} is not a regular file, and is not written over; choose another name")
        place = os.stat(folder)  # the folder itself: links and mounts give it several names
        same = unicodedata.normalize("NFC", os.path.basename(target)).casefold()
        other, first = known.setdefault((place.st_dev, place.st_ino, same), (name, target))
        if other != name:
            why = "" if os.path.basename(first) == os.path.basename(target) else " where case is ignored"
            parser.error(f"{other} and {name} are one file{why}, {file}; choose two")
    for name, file in outputs:
        try:
            _try_to_write(os.path.realpath(file))
        except OSError as error:
            parser.error(f"{name}: {file} cannot be written: {error.strerror or error}; choose another name or folder")


def _try_to_write(target: str) -> None:
    """Raise OSError if a file cannot be written. A new one is not made: another run may be about to write it."""
    with tempfile.TemporaryFile(dir=os.path.dirname(target)), contextlib.suppress(FileNotFoundError):
        open(target, "r+b").close()
