"""The file format of MNIST: what the elements are, how many, then the elements.

    2 bytes            zero
    1 byte             the type of the elements
    1 byte             the number of axes
    4 bytes an axis    its length, big-endian
    the rest           the elements, big-endian, in row-major order

A header is a claim, and a file from the network may claim anything: memory grows with the bytes that are really there.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import arguments
from ..errors import ArgumentError, DataError

if TYPE_CHECKING:
    from io import BufferedIOBase

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"
_DEFLATE_AT_BEST = 1032  # bytes that one byte of a gzip file can unpack to: 258 from two bits


def read_idx(path: str | os.PathLike[str], sha256: str | None = None, max_bytes: int = 1 << 30) -> NDArray[Any]:
    """Read an IDX file, plain or compressed with gzip (told by its first bytes, not by its name).

    Args:
        path: the file.
        sha256: the SHA-256 of the uncompressed content, in hexadecimal; nothing is compared if None.
        max_bytes: the most memory that the elements may take; 1 GiB unless given.

    Returns:
        A new array of the shape that the file says: uint8, int8, int16, int32, float32 or float64, native byte order.

    Raises:
        DataError: the file is not IDX, is cut off, goes on after its end, is too large, or has another SHA-256; or its
            gzip stream is damaged.
        OSError: the file cannot be opened.

    >>> import pathlib, tempfile
    >>> from tinygrad_lenet.data import read_idx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "numbers")
    ...     _ = path.write_bytes(bytes([0, 0, 0x08, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6]))
    ...     read_idx(path)
    array([[1, 2, 3],
           [4, 5, 6]], dtype=uint8)
    """
    import gzip
    import zlib

    path, max_bytes = arguments.path("read_idx", "path", path), arguments.integer("read_idx", "max_bytes", max_bytes, 0)
    if sha256 is not None and not (isinstance(sha256, str) and len(sha256) == 64):
        raise ArgumentError(f"read_idx: sha256 must be 64 hexadecimal digits, or None, got {sha256!r:.100}")
    with open(path, "rb") as file:
        packed = file.peek(2)[:2] == _GZIP
        room = os.fstat(file.fileno()).st_size * (_DEFLATE_AT_BEST if packed else 1)
        try:
            return _read(gzip.GzipFile(fileobj=file) if packed else file, os.fspath(path), room, max_bytes, sha256)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise _error(path, f"a damaged gzip stream ({error})", "a whole one") from error


def _read(stream: BufferedIOBase, path: str, room: int, max_bytes: int, sha256: str | None) -> NDArray[Any]:
    header = _take(stream, 4)
    if len(header) < 4 or header[:2] != b"\0\0" or header[2] not in _DTYPES or header[3] == 0:
        kinds = ", ".join(f"{code:02x}" for code in _DTYPES)
        raise _error(
            path, f"a start of {bytes(header)!r}", f"that of IDX: 00 00, a type of {kinds}, and the number of axes"
        )
    ndim, dtype = header[3], np.dtype(_DTYPES[header[2]])
    header += _take(stream, 4 * ndim)
    if len(header) < 4 + 4 * ndim:
        raise _error(path, f"a header of {len(header)} bytes", f"{4 + 4 * ndim} bytes for {ndim} axes")

    shape = tuple(np.frombuffer(header, ">u4", offset=4).tolist())
    size = math.prod(shape) * dtype.itemsize
    if len(header) + size > room:
        raise _error(
            path,
            f"a header that claims {size} bytes for shape {shape}",
            f"no more than the {room} that the file has room for",
        )
    if size > max_bytes:
        raise DataError(
            f"{path}: found shape {shape}, which takes {size} bytes, expected at most {max_bytes}; "
            f"pass max_bytes={size} if you trust the file"
        )
    content = _take(stream, size + 1)
    if len(content) != size:
        found = "more" if len(content) > size else f"{len(content)} bytes"
        raise _error(path, f"{found} after the header", f"{size} bytes for shape {shape} of {dtype.name}")
    if sha256 is not None:
        _compare(path, header, content, sha256)
    try:
        return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
    except ValueError as error:  # more axes than NumPy has, or a length of 0 beside lengths beyond its limit
        raise _error(path, f"shape {shape}", f"one that NumPy can hold ({error})") from None


def _take(stream: BufferedIOBase, count: int) -> bytearray:
    """The next ``count`` bytes, fewer at the end."""
    taken = bytearray()
    while len(taken) < count and (chunk := stream.read(min(count - len(taken), 1 << 20))):
        taken += chunk
    return taken


def _compare(path: str, header: bytearray, content: bytearray, sha256: str) -> None:
    import hashlib

    found = hashlib.sha256(header)
    found.update(content)
    if found.hexdigest() != sha256.lower():
        raise DataError(
            f"{path}: found content with the SHA-256 {found.hexdigest()}, expected {sha256}; "
            "the file is damaged or belongs to another data set: delete it or move it away, and get the right one"
        )


def _error(path: str | os.PathLike[str], found: str, expected: str) -> DataError:
    return DataError(f"{os.fspath(path)}: found {found}, expected {expected}; check the path, or get an intact file")
