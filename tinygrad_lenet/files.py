"""Writing and reading files: each is written whole or not at all, and only regular files are read.

Everything that the package and its examples write goes through :func:`write`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from io import BufferedReader
from typing import IO

from . import checks
from .errors import DataError, TinygradLenetError

_LEFTOVER = re.compile(r"\.tinygrad_lenet-[0-9a-f]{32}\.tmp")
_STALE = 86400  # seconds after which a leftover is removed where files cannot be locked
_ACL = "system.posix_acl_access"
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def write(path: str | os.PathLike[str], content: bytes | Callable[[IO[bytes]], object]) -> None:
    """Write a file, whole or not at all.

    The content goes to a new file in the same folder, under a name that cannot be guessed. It is forced to the disk and
    takes the final name in one step. A crash, a full disk, an interrupt or a power cut at any moment leaves the old
    file or the new one. Of several writers, the last one counts.

    A symbolic link stays, and the file that it leads to is replaced. The mode of the old file is kept, with
    its access list, and its owner where the system permits. Other hard links to the old file keep the old content.

    Args:
        path: the file; an existing one is replaced.
        content: the bytes, or a function that writes them to the binary file that it receives.

    Raises:
        DataError: the file cannot be written, or ``path`` is a folder, a pipe, a socket or a device; the old file is as
            it was. What ``content`` raises passes through, except an OSError, which becomes a DataError.

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
        target, old = _target(path)
        _replace(target, old, content)
    except TinygradLenetError:
        raise
    except OSError as error:
        state = "the one that stands there is as it was" if os.path.exists(path) else "there was none before"
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}; {state}. Make room, or choose a folder that "
            "can be written to"
        ) from error


def opened(path: str) -> BufferedReader:
    """A regular file, opened to read bytes; links are followed.

    Raises:
        DataError: it is a folder, a pipe, a socket or a device: reading these may never end.
        OSError: it cannot be opened.

    >>> import tempfile
    >>> opened(tempfile.gettempdir())
    Traceback (most recent call last):
    tinygrad_lenet.errors.DataError: ... it is a folder, expected a regular file; give another path
    """
    _regular(path, os.stat(path), "read")  # before it is opened: that alone has an effect on some devices
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)  # were it a pipe by now, it would wait
    file = open(path, "rb", opener=_opener(flags))  # noqa: SIM115 - the caller closes it
    try:
        _regular(path, os.fstat(file.fileno()), "read")
    except BaseException:
        file.close()
        raise
    return file


@contextlib.contextmanager
def reading(path: str, what: str, remedy: str = "") -> Iterator[None]:
    """A block that reads a file: whatever goes wrong in it becomes a DataError.

    Args:
        path: the file.
        what: what a file is whose content cannot be read.
        remedy: what to do about that.

    Raises:
        DataError: an exception in the block that is none of the package's.

    >>> with reading("a.txt", "no list of numbers"):
    ...     int("one")
    Traceback (most recent call last):
    tinygrad_lenet.errors.DataError: a.txt is no list of numbers (ValueError: invalid literal for int() ...)
    """
    try:
        yield
    except TinygradLenetError:
        raise
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise DataError(f"{path} cannot be read: it takes more memory than there is") from error
    except Exception as error:  # whatever the damage leads to, it is one: a file that was written whole is read
        raise DataError(f"{path} is {what} ({type(error).__name__}: {error}){remedy}") from error


def _opener(flags: int, mode: int = 0o666) -> Callable[[str, int], int]:
    """How ``open`` opens a file with more flags and another mode."""
    return lambda path, usual: os.open(path, usual | flags, mode)


def _regular(path: str, found: os.stat_result, verb: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a device")
        raise DataError(f"{path} cannot be {verb}: it is {kind}, expected a regular file; give another path")


def _target(path: str) -> tuple[str, os.stat_result | None]:
    """The file that a path leads to over all links, and what it is; None if it does not exist yet."""
    target = os.path.realpath(path) if os.path.islink(path) else path
    try:
        found = os.stat(path)
    except FileNotFoundError:
        if not os.path.basename(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        return target, None
    _regular(path, found, "written")
    if target != path:
        if not found.st_nlink and not os.stat(path).st_nlink:  # opened and removed, not replaced by another writer
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        found = os.stat(target)
    return target, found


def _replace(
    target: str, old: os.stat_result | None, content: bytes | Callable[[IO[bytes]], object], unnamed: bool = True
) -> None:
    folder = os.path.dirname(target) or "."
    _remove_leftovers(folder)
    name = os.path.join(folder, f".tinygrad_lenet-{os.urandom(16).hex()}.tmp")
    mode = 0o666 if old is None else 0o600  # never more open than the file that it becomes; the umask applies
    try:
        nameless = _unnamed(folder, mode) if unnamed else None
        with nameless or _named(name, mode) as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            if old is not None:
                _keep_mode(file.fileno(), target, old)
            os.fsync(file.fileno())
            if nameless:
                try:
                    # With src_dir_fd, Python has the system follow the link; the path is absolute all the same.
                    os.link(f"/proc/self/fd/{file.fileno()}", name, src_dir_fd=file.fileno(), follow_symlinks=True)
                except OSError:  # a system that forbids hard links
                    _replace(target, old, lambda twin: _copy(nameless, twin), unnamed=False)
                    return
            if os.name == "nt":  # which renames no open file
                file.close()
            os.replace(name, target)
    finally:
        with contextlib.suppress(OSError):  # it has got the final name, or none at all
            os.unlink(name)
    _sync_folder(folder)


def _unnamed(folder: str, mode: int) -> IO[bytes] | None:
    """A new file without a name, of which a killed process leaves nothing; None where there are no such files."""
    flags = getattr(os, "O_TMPFILE", None)
    if flags is None or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        file = open(folder, "r+b", opener=_opener(flags, mode))  # noqa: SIM115 - the caller closes it
    except OSError:  # the file system has none; or something else is wrong, and then so it is with a name
        return None
    _lock(file.fileno())
    return file


def _named(name: str, mode: int) -> IO[bytes]:
    """A new file of a new name, locked so that no other writer takes it for a leftover."""
    while True:
        file = open(name, "xb", opener=_opener(getattr(os, "O_NOFOLLOW", 0), mode))  # noqa: SIM115 - the caller closes it
        _lock(file.fileno())
        if os.path.lexists(name):
            return file
        file.close()  # another writer came between the two lines


def _lock(handle: int, wait: bool = True) -> bool:
    """Lock a file until it is closed, be it by the end of the process; says whether it is locked now."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


def _remove_leftovers(folder: str) -> None:
    """Remove what killed writers left: files of our names that nobody has locked."""
    try:
        paths = [os.path.join(folder, name) for name in os.listdir(folder) if _LEFTOVER.fullmatch(name)]
    except OSError:
        return
    for path in paths:
        with contextlib.suppress(OSError):  # another writer was quicker, or it is another user's
            if os.name == "nt":  # without such locks, but no open file can be removed
                if time.time() - os.path.getmtime(path) > _STALE:
                    os.unlink(path)
                continue
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if _lock(handle, wait=False) and os.path.samestat(os.fstat(handle), os.lstat(path)):
                    os.unlink(path)
            finally:
                os.close(handle)


def _keep_mode(handle: int, target: str, old: os.stat_result) -> None:
    """Give a file the mode and the access list of the old one, and its owner and group where the system permits."""
    if not hasattr(os, "fchown"):
        return
    mode, now = stat.S_IMODE(old.st_mode), os.fstat(handle)
    if (now.st_uid, now.st_gid) != (old.st_uid, old.st_gid):
        try:
            os.fchown(handle, old.st_uid, old.st_gid)
        except OSError:
            mode &= 0o777
            try:
                os.fchown(handle, -1, old.st_gid)
            except OSError:
                mode = mode & 0o707 | (mode & 0o007) << 3  # our group was among the others
    if hasattr(os, "getxattr"):  # with a list, the group's bits of the mode are the most that anyone in it gets
        with contextlib.suppress(OSError):  # it has none
            os.setxattr(handle, _ACL, os.getxattr(target, _ACL))
    if stat.S_IMODE(os.fstat(handle).st_mode) != mode:
        os.fchmod(handle, mode)


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    source.seek(0)
    while chunk := source.read(1 << 20):
        target.write(chunk)


def _sync_folder(folder: str) -> None:
    """Force the new name of a file to the disk, where folders can be opened."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # the file is in its place by now
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
