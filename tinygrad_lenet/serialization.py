"""Checkpoints: everything a run needs to go on, in one file that is either whole or refused; and weights for others.

A checkpoint is a zip archive: ``state.json``, and a file in NumPy's format for each array in it. Reading it executes
nothing (there is no pickle in it), and checks every byte of content against its checksum. Equal states give equal
bytes.

Files may come from anywhere. What a header claims is compared with what is there before memory is taken for it; the
names of members are names, and no path; and what a compressed file unpacks to has a limit.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Callable, Mapping
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import arguments as given
from .errors import ArgumentError, DataError, DTypeError
from .tensor import Tensor

FORMAT = "tinygrad_lenet checkpoint"
VERSION = 1
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the time of every member: the same state gives the same bytes


def save_checkpoint(path: str | os.PathLike[str], state: Any) -> None:
    """Write a state to a file, whole or not at all.

    It is written beside the old file (to ``path + ".tmp"``), forced to the disk and put in its place in one step: a
    crash, a full disk or a power cut at any moment leaves the old or the new file, never a part of one.

    Args:
        path: the file; one that stands there is replaced.
        state: dicts, lists and tuples of arrays, Tensors (kept as arrays), numbers, strings, booleans and None, such as
            ``{"model": model.state_dict(), "loader": loader.state_dict(), "random": generator.bit_generator.state}``.

    Raises:
        DataError: the file cannot be written; the old one is as it was.
        DTypeError: the state holds something else.

    >>> import os, tempfile
    >>> import numpy as np
    >>> import tinygrad_lenet as tl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.ckpt")
    ...     tl.save_checkpoint(path, {"epoch": 3, "weights": [np.zeros(2)], "betas": (0.9, 0.999)})
    ...     tl.load_checkpoint(path)
    {'epoch': 3, 'weights': [array([0., 0.])], 'betas': (0.9, 0.999)}
    """
    import json  # here, since importing the package shall cost little

    name = given.path("save_checkpoint", "path", path)
    arrays: list[NDArray[Any]] = []
    try:
        head = {"format": FORMAT, "version": VERSION, "state": _packed(state, arrays, "state")}
        members = {"state.json": json.dumps(head).encode()}
    except RecursionError:
        raise DTypeError(
            "save_checkpoint: state is too deep: lists or dicts in each other, perhaps one that holds itself"
        ) from None
    except ValueError as error:  # an integer of thousands of digits
        raise DTypeError(f"save_checkpoint: state cannot be written: {error}") from None
    members.update((f"{i}.npy", _npy(array)) for i, array in enumerate(arrays))
    _replace("save_checkpoint", name, lambda file: _write_zip(file, members))


def load_checkpoint(path: str | os.PathLike[str]) -> Any:
    """The state that :func:`save_checkpoint` wrote: equal values of the same types, arrays of the same dtypes and bits.

    Raises:
        DataError: there is no such file, it is damaged or cut off, or it is not a checkpoint.

    >>> import os, tempfile
    >>> import tinygrad_lenet as tl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.ckpt")
    ...     tl.save_checkpoint(path, {"epoch": 3})
    ...     tl.load_checkpoint(path)
    {'epoch': 3}
    """
    import json

    path = given.path("load_checkpoint", "path", path)
    try:
        members = _read_zip("load_checkpoint", path)
        head = json.loads(members["state.json"], object_pairs_hook=_once)
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise DataError(f"load_checkpoint: {path} is a zip archive, but no checkpoint of tinygrad_lenet")
        if head["version"] > VERSION:
            raise DataError(
                f"load_checkpoint: {path} has version {head['version']} of the format, expected at most {VERSION}; "
                "it was written by a newer tinygrad_lenet: upgrade"
            )
        return _unpacked(head["state"], lambda i: _array(members.pop(f"{i}.npy")))  # each once: two would share memory
    except FileNotFoundError:
        raise DataError(f"load_checkpoint: there is no file {path}") from None
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"load_checkpoint: {path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever the damage leads to, it is one: a checkpoint that was written is read
        raise DataError(
            f"load_checkpoint: {path} is damaged, cut off, or no checkpoint ({type(error).__name__}: {error}); use an "
            "older one"
        ) from error


class HasState(Protocol):
    """A module."""

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Arrays by name."""


def save(path: str | os.PathLike[str], state: Mapping[str, Any] | HasState) -> None:
    """Write weights to a file for others to read: whole or not at all, as :func:`save_checkpoint` does.

    Args:
        path: a name that ends in ``.npz`` (NumPy's, for ``np.load``) or ``.safetensors`` (for PyTorch, JAX and others;
            needs ``pip install 'tinygrad_lenet[safetensors]'``). Both hold numbers only, no pickle.
        state: a module, or a dict of Tensors and arrays, as ``module.state_dict()`` gives.

    Raises:
        ArgumentError: another ending.
        DataError: the file cannot be written; one that stood there is as it was.
        DTypeError: the state holds something else than arrays of numbers.

    >>> import os, tempfile
    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> model = nn.Linear(3, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "linear.npz")
    ...     tl.save(path, model)
    ...     model.load_state_dict(tl.load(path))
    """
    path = given.path("save", "path", path)
    kind = _kind("save", path)
    if not isinstance(state, Mapping) and (isinstance(state, type) or not hasattr(state, "state_dict")):
        raise DTypeError(f"save: state must be a module, or a dict of arrays by name, got {given.said(state)}")
    arrays = {}
    for name, value in (state if isinstance(state, Mapping) else state.state_dict()).items():
        if not isinstance(name, str) or "\0" in name or len(name) > 10_000 or name == "__metadata__":
            raise ArgumentError(f"save: a name in the state must be a word that files can hold, got {given.said(name)}")
        try:
            array = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
        except ValueError as error:
            raise DTypeError(f"save: in the state {name} must be an array of numbers ({error})") from None
        if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            raise DTypeError(
                f"save: in the state {name} must hold numbers, got {array.dtype}; convert it, or leave it out"
            )
        arrays[name] = np.array(array, array.dtype.newbyteorder("="), order="C")
    if kind == ".npz":
        _replace("save", path, lambda file: _write_zip(file, {f"{n}.npy": _npy(a) for n, a in arrays.items()}))
    else:
        content = _safetensors().save(arrays)
        _replace("save", path, lambda file: file.write(content))


def load(path: str | os.PathLike[str], max_bytes: int = 1 << 30) -> dict[str, NDArray[Any]]:
    """The arrays of a ``.npz`` or ``.safetensors`` file by name, for ``module.load_state_dict``. Executes nothing.

    Args:
        path: the file; its ending says what it is.
        max_bytes: what a compressed ``.npz`` file may unpack to; 1 GiB unless given, or the size of the file if that is
            more.

    Raises:
        ArgumentError: another ending.
        DataError: there is no such file, it is damaged or cut off, unpacks to too much, or holds something else than
            numbers.

    >>> import os, tempfile
    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "linear.npz")
    ...     tl.save(path, nn.Linear(3, 2))
    ...     {name: array.shape for name, array in tl.load(path).items()}
    {'weight': (2, 3), 'bias': (2,)}
    """
    path = given.path("load", "path", path)
    kind = _kind("load", path)
    try:
        if kind == ".npz":
            members = _read_zip("load", path, max_bytes)
            return _once([(name.removesuffix(".npy"), _array(content)) for name, content in members.items()])
        safetensors = _safetensors()
        with open(path, "rb") as file:
            try:
                arrays: dict[str, NDArray[Any]] = dict(safetensors.load(file.read()))
            except KeyError as error:
                raise DataError(
                    f"load: {path} holds numbers of type {error}, which NumPy does not have; convert it to float32"
                ) from None
        for array in arrays.values():
            _numbers(array.dtype)
        return arrays
    except FileNotFoundError:
        raise DataError(f"load: there is no file {path}") from None
    except (ArgumentError, DataError):
        raise
    except OSError as error:
        raise DataError(f"load: {path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever the damage leads to, it is one
        raise DataError(
            f"load: {path} is damaged, cut off, or no {kind} file of numbers ({type(error).__name__}: {error})"
        ) from error


def _kind(who: str, path: str) -> str:
    kind = os.path.splitext(path)[1]
    if kind not in (".npz", ".safetensors"):
        raise ArgumentError(f"{who}: path, the name of the file, must end in .npz or .safetensors, got {path}")
    return kind


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ModuleNotFoundError:
        raise ArgumentError(
            "files of this kind need the safetensors library; pip install 'tinygrad_lenet[safetensors]', or use .npz"
        ) from None
    return safetensors.numpy


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


# An array of numbers in NumPy's format begins with the literal of a dict. NumPy gives it to Python's parser, which is
# not made for text that anyone may have written; this is all that such a dict can be.
_GAP = r"[ \n]*+"
_SHAPE = rf"\({_GAP}(?:(?:(?:0|[1-9][0-9]*+){_GAP},{_GAP})++(?:(?:0|[1-9][0-9]*+){_GAP})?+)?+\)"
_WORD = rf"'[<>=|]?+[a-zA-Z?][0-9]{{0,3}}+'|True|False|{_SHAPE}"
_ENTRY = rf"{_GAP}'(descr|fortran_order|shape)'{_GAP}:{_GAP}({_WORD}){_GAP}(?:,|(?=\}}))"
_HEADER = rf"\{{(?:{_ENTRY}){{3}}{_GAP}\}}{_GAP}"


def _array(content: bytearray) -> NDArray[Any]:
    """An array in NumPy's format, in the memory of its content."""
    import re

    if content[:6] != b"\x93NUMPY" or content[6] not in (1, 2, 3) or content[7] != 0:
        raise ValueError(f"found a start of {bytes(content[:8])!r}, expected NumPy's format, 1.0 to 3.0")
    width = 2 if content[6] == 1 else 4
    length = int.from_bytes(content[8 : 8 + width], "little")
    start = 8 + width + length
    header = content[8 + width : start].decode("latin-1") if length <= 10_000 else ""
    entries = dict(re.findall(_ENTRY, header)) if re.fullmatch(_HEADER, header) else {}
    order, shape = (entries.get(name, "") for name in ("fortran_order", "shape"))
    if order not in ("True", "False") or shape[:1] != "(" or entries["descr"][0] != "'":
        raise ValueError(f"found the header {header[:80]!r}, expected a dtype of numbers, an order and a shape")
    dtype = np.dtype(entries["descr"][1:-1])
    _numbers(dtype)
    sides = tuple(int(n) for n in re.findall(r"\d+", shape))
    if math.prod(sides) * dtype.itemsize != len(content) - start:
        raise ValueError(f"found {len(content) - start} bytes for an array of shape {sides} and dtype {dtype}")
    array = np.frombuffer(content, dtype, math.prod(sides), start)
    return np.require(array.reshape(sides, order="F" if order == "True" else "C"), requirements="A")


def _numbers(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "fiub":
        raise ValueError(f"found an array of {dtype}, expected numbers")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict, if no key is there twice: which of the two counts, other programs may see otherwise."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("found one name twice")
    return found


def _read_zip(who: str, path: str, max_bytes: int = 0) -> dict[str, bytearray]:
    """The members of an archive by name: no more bytes than the file has, or ``max_bytes``, and in pieces."""
    import zipfile

    members: dict[str, bytearray] = {}
    limit = max(os.path.getsize(path), max_bytes)
    with zipfile.ZipFile(path) as archive:
        room = limit
        for member in archive.infolist():
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others are unpacked as a whole
                raise ValueError(f"{member.filename!r} is compressed by method {member.compress_type}, expected 0 or 8")
            if member.filename in members:
                raise ValueError(f"found {member.filename!r} twice")
            room -= member.file_size
            if room < 0:
                hint = "; pass a larger max_bytes if you trust the file" if max_bytes else ", which is its size"
                raise DataError(f"{who}: {path} unpacks to more than {limit} bytes{hint}")
            content = bytearray()
            with archive.open(member) as stream:
                while chunk := stream.read(1 << 20):  # never more than file_size in all
                    content += chunk
            if len(content) != member.file_size:
                raise ValueError(f"found {len(content)} bytes of {member.filename!r}, expected {member.file_size}")
            members[member.filename] = content
    return members


def _write_zip(file: IO[bytes], members: dict[str, bytes]) -> None:
    import zipfile

    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), content)


def _replace(who: str, path: str, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside the old one, and put it in its place in one step."""
    beside = path + ".tmp"
    try:
        with open(beside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_folder(os.path.dirname(path) or ".")
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        old = "the one that stands there is as it was" if os.path.exists(path) else "there was none before"
        raise DataError(
            f"{who}: {path} cannot be written: {error.strerror or error}; {old}. Make room, or choose a folder that "
            "can be written to"
        ) from error


def _packed(value: Any, arrays: list[NDArray[Any]], where: str) -> Any:
    """What JSON can hold; arrays go to a list."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, (list, tuple)):
        items = [_packed(item, arrays, f"{where}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict) and all(isinstance(key, (int, str)) for key in value):
        return {"dict": [[key, _packed(item, arrays, f"{where}[{key!r}]")] for key, item in value.items()]}
    raise DTypeError(
        f"save_checkpoint: {where} is a {type(value).__name__}, expected arrays, numbers, strings, None, or dicts "
        "(with names or integers as keys), lists and tuples of these; convert it"
    )


def _unpacked(value: Any, array: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, array) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return array(content)
    if kind == "tuple":
        return tuple(_unpacked(item, array) for item in content)
    if kind != "dict":
        raise ValueError(f"found {kind!r}")
    return _once([(key, _unpacked(item, array)) for key, item in content])


def _sync_folder(folder: str) -> None:
    """Force the new name of a file to the disk, where folders can be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
