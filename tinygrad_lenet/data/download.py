"""Fetching a file from the first mirror that serves the right content.

Bytes go to a file of a name of its own, which takes the final name in one step once its SHA-256 is right: processes
that download into one folder at the same time do not meet, and nobody ever sees half a file. What a process that was
killed left there goes a day later.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import time
from collections.abc import Sequence
from typing import Any

from ..errors import DataError, DownloadError
from .idx import read_idx

_TRIES = 5  # how often one mirror may break the connection
_SLOWEST = 4096  # bytes a second: with less, on the average, a mirror is given up
_STALE = 86400  # seconds after which a part belongs to nobody


def download(
    name: str, sha256: str, mirrors: Sequence[str], folder: str, timeout: float = 30.0, max_bytes: int = 1 << 26
) -> str:
    """Fetch the IDX file ``name`` into ``folder``.

    Args:
        name: the name of the file, the last part of its address.
        sha256: the SHA-256 of its uncompressed content, in hexadecimal.
        mirrors: addresses that ``name`` is put behind, tried in this order.
        folder: where it shall lie; made if it does not exist.
        timeout: how many seconds a mirror may stay silent, or answer more slowly than with 4 KiB a second.
        max_bytes: the size at which a download is given up; 64 MiB unless given.

    Returns:
        The path ``folder/name``.

    Raises:
        DownloadError: the folder cannot be written, or no mirror gave the right content.
    """
    from http.client import HTTPException

    path = os.path.join(folder, name)
    part = f"{path}.{os.getpid()}-{os.urandom(8).hex()}.part"
    try:
        os.makedirs(folder, exist_ok=True)
        open(part, "xb").close()
    except OSError as error:
        raise DownloadError(
            f"cannot write to {folder} ({error}); pass a folder that can be written as root="
        ) from error
    _remove_stale(path)
    try:
        failures = []
        for mirror in mirrors:
            try:
                _fetch(mirror + name, part, sha256, timeout, max_bytes)
            except (OSError, HTTPException, ValueError) as error:
                why = str(error).removeprefix(part + ": ") or type(error).__name__
                why = "".join(c if c.isprintable() else "?" for c in why[:300])  # a mirror may say anything
                failures.append(f"\n  {mirror + name}: {why}")
            else:
                _publish(part, path)
                return path
    finally:
        if os.path.exists(part):
            os.remove(part)
    raise DownloadError(
        f"{name}: no mirror gave the right file:{''.join(failures) or ' none is known'}\n"
        f"Put the file into {folder}, or pass the folder that has it as root="
    )


def _fetch(url: str, part: str, sha256: str, timeout: float, max_bytes: int) -> None:
    """Fill ``part`` from one mirror, going on where a broken connection left it."""
    from http.client import HTTPException

    os.truncate(part, 0)  # mirrors may have compressed the same content differently
    for _ in range(_TRIES):
        have, broken = os.path.getsize(part), None
        try:
            _transfer(url, part, have, timeout, max_bytes)
        except (OSError, HTTPException) as error:
            broken = error
        try:
            read_idx(part, sha256)  # the content counts, not what was announced
            return
        except DataError:
            if broken is None:
                os.truncate(part, 0)
                if not have:
                    raise  # not a matter of two halves that do not fit: the mirror has something else
            elif os.path.getsize(part) <= have:
                raise broken from None
    raise DownloadError(f"broke the connection {_TRIES} times")


def _transfer(url: str, part: str, have: int, timeout: float, max_bytes: int) -> None:
    """Write the answer behind the ``have`` bytes of ``part``, or over them if the mirror sends the whole file."""
    from urllib.error import HTTPError
    from urllib.request import Request

    headers = {"User-Agent": "tinygrad_lenet"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        answer = _opener(timeout).open(Request(url, headers=headers), timeout=timeout)
    except HTTPError as error:
        error.close()
        raise
    with answer, open(part, "r+b") as file:
        start, length = (have if answer.status == 206 else 0), answer.length
        file.seek(start)
        file.truncate()
        while chunk := answer.read(1 << 16):
            if file.tell() + len(chunk) > max_bytes:
                raise DataError(f"more than the {max_bytes} bytes that this file may have")
            file.write(chunk)
        announced = start + (length or 0)
        if file.tell() < announced:
            raise ConnectionError(f"cut off after {file.tell()} of {announced} bytes")
        file.flush()
        os.fsync(file.fileno())


def _opener(timeout: float) -> Any:
    """What ``urlopen`` uses, but that a mirror which sends too slowly, be it the headers, is given up."""
    from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
    from urllib.request import HTTPHandler, HTTPSHandler, build_opener

    class Response(HTTPResponse):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.fp = io.BufferedReader(_Paced(self.fp.detach(), timeout))

    class Connection(HTTPConnection):
        response_class = Response

    class SecureConnection(HTTPSConnection):
        response_class = Response

    class Handler(HTTPHandler):
        def http_open(self, request: Any) -> Any:
            return self.do_open(Connection, request)

    class SecureHandler(HTTPSHandler):
        def https_open(self, request: Any) -> Any:
            return self.do_open(SecureConnection, request)

    return build_opener(Handler, SecureHandler)


class _Paced(io.RawIOBase):
    """The bytes of a socket, as long as they come fast enough."""

    def __init__(self, raw: Any, timeout: float) -> None:
        self.raw, self.timeout, self.count, self.start = raw, timeout, 0, time.monotonic()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if time.monotonic() - self.start > self.timeout + self.count / _SLOWEST:
            raise TimeoutError(f"timed out: {self.count} bytes in {time.monotonic() - self.start:.1f} seconds")
        count: int = self.raw.readinto(buffer)
        self.count += count
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()


def _remove_stale(path: str) -> None:
    for part in glob.glob(f"{glob.escape(path)}.*.part"):
        with contextlib.suppress(OSError):  # another process was quicker, or has it open
            if time.time() - os.path.getmtime(part) > _STALE:
                os.remove(part)


def _publish(part: str, path: str) -> None:
    try:
        os.replace(part, path)
    except OSError as error:
        # Windows refuses if another process was quicker and has the file open.
        if not os.path.exists(path):
            raise DownloadError(f"cannot write {path} ({error}); pass a folder that can be written as root=") from error
