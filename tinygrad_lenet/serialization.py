"""Checkpoints: everything a run needs to go on, in one file that is either whole or refused; and weights for others.

A checkpoint is a zip archive: ``state.json``, and a file in NumPy's format for each array in it. Reading it executes
nothing (there is no pickle in it), and checks every byte of content against its checksum. Equal states give equal
bytes.
"""

from __future__ import annotations

import contextlib
import io
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
    import zipfile

    path = given.path("load_checkpoint", "path", path)
    try:
        with zipfile.ZipFile(path) as archive:
            head = json.loads(archive.read("state.json"))
            if not isinstance(head, dict) or head.get("format") != FORMAT:
                raise DataError(f"load_checkpoint: {path} is a zip archive, but no checkpoint of tinygrad_lenet")
            if head["version"] > VERSION:
                raise DataError(
                    f"load_checkpoint: {path} has version {head['version']} of the format, expected at most {VERSION}; "
                    "it was written by a newer tinygrad_lenet: upgrade"
                )
            return _unpacked(
                head["state"],
                lambda i: np.lib.format.read_array(io.BytesIO(archive.read(f"{int(i)}.npy")), allow_pickle=False),
            )
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
        except Exception as error:  # whatever an object of the user's own raises
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


def load(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """The arrays of a ``.npz`` or ``.safetensors`` file by name, for ``module.load_state_dict``. Executes nothing.

    Raises:
        ArgumentError: another ending.
        DataError: there is no such file, it is damaged or cut off, or holds something else than numbers.

    >>> import os, tempfile
    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "linear.npz")
    ...     tl.save(path, nn.Linear(3, 2))
    ...     {name: array.shape for name, array in tl.load(path).items()}
    {'weight': (2, 3), 'bias': (2,)}
    """
    import zipfile

    path = given.path("load", "path", path)
    kind = _kind("load", path)
    try:
        if kind == ".npz":
            with zipfile.ZipFile(path) as archive:
                return {
                    name.removesuffix(".npy"): np.lib.format.read_array(
                        io.BytesIO(archive.read(name)), allow_pickle=False
                    )
                    for name in archive.namelist()
                }
        safetensors = _safetensors()
        with open(path, "rb") as file:
            return dict(safetensors.load(file.read()))
    except FileNotFoundError:
        raise DataError(f"load: there is no file {path}") from None
    except ArgumentError:
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
    return {key: _unpacked(item, array) for key, item in content}


def _sync_folder(folder: str) -> None:
    """Force the new name of a file to the disk, where folders can be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
