"""The metadata of a weights file: read as written, also by other libraries, and refused when damaged."""

import json
import os
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet import nn

STATE = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array(7)}
ABOUT = {"model": "LeNet5", "activation": "tanh", "": "", "größe": '28×28\n\0"\\', "\U0001f600": "PK\5\6" + "\0" * 18}
OLD = Path(__file__).parent / "files"
KINDS = [
    "npz",
    pytest.param("safetensors", marks=pytest.mark.skipif(not find_spec("safetensors"), reason="it is not installed")),
]
each_kind = pytest.mark.parametrize("kind", KINDS)


def theirs(path):
    """The metadata, by the definition of the format."""
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.comment or "{}")
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return file.metadata() or {}


@each_kind
@given(st.dictionaries(st.text(max_size=9), st.text(max_size=99), max_size=9))
def test_metadata_is_read_as_it_was_written(tmp_path_factory, kind, metadata):
    path = tmp_path_factory.getbasetemp() / f"a.{kind}"
    tl.save(path, STATE, metadata)
    assert tl.load_metadata(path) == theirs(path) == metadata
    assert list(tl.load_metadata(path)) == sorted(metadata)
    assert {name: array.tolist() for name, array in tl.load(path).items()} == {
        name: array.tolist() for name, array in STATE.items()
    }


@each_kind
def test_equal_metadata_gives_equal_bytes_in_any_order(tmp_path, kind):
    many = {f"name {i}": str(i) for i in range(30)}
    contents = set()
    for i, metadata in enumerate([many, dict(reversed(many.items())), dict(sorted(many.items()))] * 3):
        tl.save(tmp_path / f"{i}.{kind}", STATE, metadata)
        contents.add((tmp_path / f"{i}.{kind}").read_bytes())
    assert len(contents) == 1


@each_kind
def test_without_metadata_a_file_is_as_it_was_before(tmp_path, kind):
    state = tl.load(OLD / "9d5ff89" / f"arrays.{kind}")
    contents = set()
    for i, rest in enumerate([(), (None,), ({},)]):
        tl.save(tmp_path / f"{i}.{kind}", state, *rest)
        contents.add((tmp_path / f"{i}.{kind}").read_bytes())
        assert tl.load_metadata(tmp_path / f"{i}.{kind}") == {}
    assert contents == {(OLD / "9d5ff89" / f"arrays.{kind}").read_bytes()}
    assert tl.load_metadata(OLD / "9d5ff89" / f"arrays.{kind}") == {}


def test_numpy_and_pytorch_read_the_arrays(tmp_path, torch):
    from safetensors.torch import load_file

    model = nn.LeNet5(generator=0)
    for kind in ("npz", "safetensors"):
        tl.save(tmp_path / f"a.{kind}", model, ABOUT)
    tensors = load_file(tmp_path / "a.safetensors")
    with np.load(tmp_path / "a.npz") as arrays:
        assert set(arrays) == set(tensors) == set(model.state_dict())
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(tensors[name].numpy(), array)
            np.testing.assert_array_equal(arrays[name], array)


@pytest.mark.parametrize("state", [{}, {"a": np.ones(3)}, {"a": np.ones(1, bool), "b": np.ones(3)}])
def test_the_metadata_of_other_libraries_is_read(tmp_path, state):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    save_file(state, tmp_path / "a.safetensors", {"format": "pt", "é": "ü" * 100_000})
    assert tl.load_metadata(tmp_path / "a.safetensors") == {"format": "pt", "é": "ü" * 100_000}
    tl.save(tmp_path / "b.safetensors", state, {"format": "pt"})
    save_file(state, tmp_path / "c.safetensors", {"format": "pt"})
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()


@each_kind
def test_there_is_room_for_65535_bytes(tmp_path, kind):
    room = 65_535 - len('{"name": ""}')
    tl.save(tmp_path / f"a.{kind}", STATE, {"name": "x" * room})
    assert tl.load_metadata(tmp_path / f"a.{kind}") == theirs(tmp_path / f"a.{kind}") == {"name": "x" * room}
    for more in ("x" * (room + 1), "é" * (room // 6 + 1)):
        with pytest.raises(tl.ArgumentError, match=r"save: metadata takes 655\d\d bytes.*at most 65535; shorten it"):
            tl.save(tmp_path / f"b.{kind}", STATE, {"name": more})
    assert os.listdir(tmp_path) == [f"a.{kind}"]


@each_kind
@pytest.mark.parametrize(
    "metadata",
    [
        *({"epochs": 3}, {3: "epochs"}, {"a": None}, {"a": b"b"}, {"a": {"b": "c"}}, {"a": "\ud800"}, {"\udcff": "a"}),
        *([], "ab", 7, False, [("a", "b")], {"a"}, np.ones(3)),
    ],
    ids=ascii,
)
def test_anything_but_strings_by_name_is_refused(tmp_path, kind, metadata):
    with pytest.raises(tl.ArgumentError, match=r"save: metadata must be a dict of strings, got "):
        tl.save(tmp_path / f"a.{kind}", STATE, metadata)
    assert os.listdir(tmp_path) == []


# Damage


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    tl.save(path, STATE, ABOUT)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(tl.DataError, match=r"a\.npz is damaged, cut off, or not a \.npz file with metadata"):
            tl.load_metadata(path)


COMMENTS = [b"by hand", b'{"a": 1}', b'{"a": null}', b'[["a", "b"]]', b'"a"', b"7", b'{"a": "b", "a": "c"}']
COMMENTS += [b'{"a": "\\ud800"}', b'{"a": "b"} ', b'{"a": "b"}}', b"\xff", b"[" * 60_000, b'{"a":' * 9000, b"9" * 5000]


@pytest.mark.parametrize("comment", COMMENTS, ids=range(len(COMMENTS)))
def test_a_comment_that_is_not_metadata_is_refused(tmp_path, comment):
    path = tmp_path / "a.npz"
    tl.save(path, STATE)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = comment
    if comment == b'{"a": "b"} ':  # JSON may end so
        assert tl.load_metadata(path) == {"a": "b"}
    else:
        with pytest.raises(tl.DataError, match=r"a\.npz is damaged") as caught:
            tl.load_metadata(path)
        assert len(str(caught.value)) < 500 + len(str(path))
    assert tl.load(path).keys() == STATE.keys()


@pytest.mark.parametrize("head", ['{"__metadata__": {"a": 1}}', '{"__metadata__": []}', '{"__metadata__": 7}', "[", ""])
def test_a_head_that_is_not_metadata_is_refused(tmp_path, head):
    pytest.importorskip("safetensors")
    (tmp_path / "a.safetensors").write_bytes(len(head).to_bytes(8, "little") + head.encode())
    with pytest.raises(tl.DataError, match=r"a\.safetensors is damaged, cut off, or not"):
        tl.load_metadata(tmp_path / "a.safetensors")


@each_kind
def test_what_is_not_a_regular_file_is_refused(tmp_path, kind):
    with pytest.raises(tl.DataError, match="there is no file"):
        tl.load_metadata(tmp_path / f"none.{kind}")
    (tmp_path / f"folder.{kind}").mkdir()
    with pytest.raises(tl.DataError, match="it is a folder"):
        tl.load_metadata(tmp_path / f"folder.{kind}")
    with pytest.raises(tl.ArgumentError, match=r"must end in \.npz or \.safetensors"):
        tl.load_metadata(tmp_path / "a.pt")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / f"pipe.{kind}")
        with pytest.raises(tl.DataError, match="it is a pipe"):
            tl.load_metadata(tmp_path / f"pipe.{kind}")
