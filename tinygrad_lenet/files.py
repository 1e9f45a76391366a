"""Atomic writing of files, and reading of regular files only.

Everything that the package and its examples write goes through :func:`write`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedReader
from typing import IO

from . import checks
from .errors import DataError, TinygradLenetError, as_cause

_TEMPORARY = re.compile(r"\.tinygrad_lenet-[0-9a-f]{32}\.tmp")
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def write(path: str | os.PathLike[str], content: bytes | Callable[[IO[bytes]], object]) -> None:
    """Write a file, completely or not at all.

    The content is written to a temporary file in the same folder, forced to the disk, and renamed in one step. A crash,
    a full disk, an interrupt or a power cut at any moment leaves the old file or the new one. If several writers write
    the same file, the last one wins. The next call for the same folder removes the temporary file of a killed writer.

    A symbolic link is followed, and the file that it points to is replaced. The new file keeps the mode of the old one,
    and its owner and group if the system permits. Other hard links to the old file keep the old content.

    Args:
        path: the file; an existing one is replaced.
        content: the bytes, or a function that receives a binary file and writes to it.

    Raises:
        DataError: the file cannot be written, or ``path`` is a folder, a pipe, a socket or a device; the old file is
            unchanged. Exceptions of ``content`` pass through, except an OSError, which becomes a DataError.

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "a.txt")
    ...     write(path, b"old")
    ...     write(path, lambda file: file.write(b"new"))
    ...     with opened(path) as file:
    ...         file.read(), os.listdir(folder)
    (b'new', ['a.txt'])
    """
    path = checks.path("path", path)
    try:
        old = None
        with contextlib.suppress(FileNotFoundError):  # a new file
            old = os.stat(path)
            _check_regular(path, old, "written")
        if not os.path.basename(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _replace(os.path.realpath(path), old, content)
    except TinygradLenetError:
        raise
    except OSError as error:
        state = "the old file is unchanged" if os.path.exists(path) else "there was none before"
        advice = "Make room, or choose a folder that can be written to"
        text = f"{path} cannot be written: {error.strerror or error}; {state}. {advice}"
        raise DataError(text) from as_cause(error)


def opened(path: str | os.PathLike[str]) -> BufferedReader:
    """A regular file, opened for reading bytes; symbolic links are followed.

    Raises:
        DataError: the path is a folder, a pipe, a socket or a device: reading these may never end.
        OSError: the file cannot be opened.

    >>> import tempfile
    >>> opened(tempfile.gettempdir())
    Traceback (most recent call last):
    tinygrad_lenet.errors.DataError: ... it is a folder, expected a regular file; give another path
    """
    _check_regular(path, os.stat(path), "read")
    return open(path, "rb")


def read_up_to(stream: IO[bytes], count: int) -> bytearray:
    """The next ``count`` bytes, or fewer at the end of the stream. A large ``count`` alone takes no memory.

    >>> import io
    >>> read_up_to(io.BytesIO(b"12"), 2**60)
    bytearray(b'12')
    """
    content = bytearray()
    while len(content) < count and (piece := stream.read(min(count - len(content), 1 << 20))):
        content += piece
    return content


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], what: str, remedy: str = "") -> Iterator[None]:
    """A context for reading a file, which turns any exception into a DataError.

    Args:
        path: the file.
        what: a description of the file for the message: "PATH is ...".
        remedy: the end of the message: how to put it right.

    Raises:
        DataError: the block raised an exception; those of the package pass through.

    >>> with reading("a.txt", "not a list of numbers"):
    ...     int("one")
    Traceback (most recent call last):
    tinygrad_lenet.errors.DataError: a.txt is not a list of numbers (ValueError: invalid literal for int() ...)
    """
    try:
        yield
    except TinygradLenetError:
        raise
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from as_cause(error)
    except MemoryError as error:
        raise DataError(f"{path} cannot be read: it takes more memory than there is") from error
    except Exception as error:  # a damaged file may lead to any exception
        raise DataError(f"{path} is {what} ({type(error).__name__}: {error}){remedy}") from as_cause(error)


def _check_regular(path: str | os.PathLike[str], found: os.stat_result, verb: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a device")
        raise DataError(f"{path} cannot be {verb}: it is {kind}, expected a regular file; give another path")


def _replace(target: str, old: os.stat_result | None, content: bytes | Callable[[IO[bytes]], object]) -> None:
    folder = os.path.dirname(target)
    _remove_leftovers(folder)
    with _new_file(folder, 0o666 if old is None else 0o600) as file:  # never more open than the old file
        if callable(content):
            content(file)
        else:
            file.write(content)
        file.flush()
        if old is not None and hasattr(os, "fchmod"):
            _keep_mode(file.fileno(), old)
        os.fsync(file.fileno())
        if os.name == "nt":  # Windows does not rename open files
            file.close()
        os.replace(file.name, target)
    _sync_folder(folder)


@contextlib.contextmanager
def _new_file(folder: str, mode: int) -> Iterator[IO[bytes]]:
    """A new file, locked so that no other writer takes it for a leftover. It is removed at the end, unless renamed."""
    while True:
        # Each attempt has a name of its own: another writer may still be about to remove the last one.
        name = os.path.join(folder, f".tinygrad_lenet-{os.urandom(16).hex()}.tmp")
        try:
            with open(name, "xb", opener=partial(os.open, mode=mode)) as file:
                _lock(file)
                if os.path.lexists(name):  # it was not removed before it was locked
                    yield file
                    return
        finally:
            with contextlib.suppress(OSError):  # it has been renamed or removed, or was never created
                os.unlink(name)


def _lock(file: IO[bytes], wait: bool = True) -> bool:
    """Lock a file until it is closed or the process ends; return whether it is locked now."""
    try:
        import fcntl  # Windows lacks it

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


def _remove_leftovers(folder: str) -> None:
    """Remove the temporary files of killed writers: those that nobody has locked."""
    with contextlib.suppress(OSError):  # a folder that cannot be listed
        for name in filter(_TEMPORARY.fullmatch, os.listdir(folder)):
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError), open(path, "rb") as file:  # another writer may be faster
                if _lock(file, wait=False):
                    os.unlink(path)


def _keep_mode(handle: int, old: os.stat_result) -> None:
    """Give a file the mode of the old one, and its owner and group if the system permits."""
    mode = old.st_mode & 0o777
    with contextlib.suppress(OSError):
        os.fchown(handle, old.st_uid, -1)
    try:
        os.fchown(handle, -1, old.st_gid)
    except OSError:
        mode = mode & 0o707 | (mode & 0o007) << 3  # our group gets the rights that all others had
    os.fchmod(handle, mode)


def _sync_folder(folder: str) -> None:
    """Force the new name of a file to the disk, on systems that can open folders."""
    with contextlib.suppress(OSError):  # the file has its final name already
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
