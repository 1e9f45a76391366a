"""Checkpoints: what is written is read, whole or not at all, and nothing else is."""

import io
import json
import os
import pickle
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_lenet as tl
from tinygrad_lenet import serialization
from tinygrad_lenet.errors import DataError, DTypeError

ARRAYS = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64, np.uint32, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
KEYS = st.integers() | st.text(max_size=5)
LEAVES = ARRAYS | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
STATES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner),
    max_leaves=8,
)
STATE = {
    "epoch": 3,
    "model": {"w": np.arange(6.0).reshape(2, 3)},
    "random": np.random.default_rng(0).bit_generator.state,
}


def same(a, b):
    if isinstance(a, np.ndarray):
        return type(b) is np.ndarray and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@given(STATES)
def test_what_is_written_is_read(tmp_path_factory, state):
    path = tmp_path_factory.getbasetemp() / "state.ckpt"
    tl.save_checkpoint(path, state)
    assert same(tl.load_checkpoint(path), state)


def test_tensors_become_arrays_and_numpys_numbers_pythons(tmp_path):
    path = tmp_path / "a"
    tl.save_checkpoint(path, {"t": tl.ones(2, requires_grad=True), "n": np.float32(0.5), "inf": np.inf, "nan": np.nan})
    found = tl.load_checkpoint(path)
    np.testing.assert_array_equal(found["t"], np.ones(2, np.float32))
    assert (found["n"], found["inf"]) == (0.5, np.inf)
    assert np.isnan(found["nan"])


def test_equal_states_give_equal_bytes(tmp_path, monkeypatch):
    tl.save_checkpoint(tmp_path / "a", STATE)
    monkeypatch.setattr("time.time", lambda: 2e9)
    tl.save_checkpoint(tmp_path / "b", STATE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1, 2}, r"state is a set"),
        ({"a": [0, np.array([None])]}, r"state\['a'\]\[1\] is a ndarray"),
        ({"a": {(1, 2): 3}}, r"state\['a'\] is a dict"),
        ({"f": print}, r"state\['f'\] is a builtin"),
    ],
)
def test_what_cannot_be_kept_is_named_and_nothing_is_written(tmp_path, value, words):
    with pytest.raises(DTypeError, match=words):
        tl.save_checkpoint(tmp_path / "a", value)
    assert not list(tmp_path.iterdir())


# Damage


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    path = tmp_path / "a"
    tl.save_checkpoint(path, STATE)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"damaged, cut off, or not a checkpoint.*use an older"):
            tl.load_checkpoint(path)


def test_a_changed_byte_is_refused_or_changes_nothing(tmp_path):
    path = tmp_path / "a"
    tl.save_checkpoint(path, STATE)
    whole, refused = path.read_bytes(), 0
    for place, byte in enumerate(whole):
        path.write_bytes(whole[:place] + bytes([byte ^ (1 << place % 8)]) + whole[place + 1 :])
        try:
            assert same(tl.load_checkpoint(path), STATE)
        except DataError:
            refused += 1
    assert refused > len(whole) / 2  # what is left are times and the like


def arrays_only(path):
    np.savez(path.with_suffix(".npz"), w=np.ones(2))
    path.with_suffix(".npz").rename(path)


def foreign_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("state.json", json.dumps({"some": "thing"}))


def newer(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("state.json", json.dumps({"format": serialization.FORMAT, "version": 99, "state": 0}))


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def with_pickle(path):
    np.save(path.with_suffix(".npy"), np.array([Bomb()], object), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as archive:
        head = {"format": serialization.FORMAT, "version": 1, "state": {"array": 0}}
        archive.writestr("state.json", json.dumps(head))
        archive.writestr("0.npy", path.with_suffix(".npy").read_bytes())


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "there is no file"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(os.urandom(1000)), "damaged"),
        (lambda path: path.write_bytes(pickle.dumps(Bomb())), "damaged"),
        (arrays_only, "damaged.*state.json"),
        (foreign_zip, "not a checkpoint of tinygrad_lenet"),
        (newer, "version 99.*upgrade"),
        (with_pickle, "damaged.*an array of object, expected numbers"),
        (lambda path: path.mkdir(), "cannot be read"),
    ],
)
def test_foreign_files_are_refused_and_nothing_is_executed(tmp_path, monkeypatch, write, words):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a")
    with pytest.raises(DataError, match=words):
        tl.load_checkpoint(tmp_path / "a")
    assert not (tmp_path / "executed").exists()


def zipped(path, *members):
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name twice
        for name, content in members:
            archive.writestr(name, content)


def npy(header, body=b"", version=1):
    header = header.encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2 if version == 1 else 4, "little") + header + body


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize(
    ("header", "shape"),
    [
        (HEADER, (2,)),
        ("{'shape':(2,1,),'fortran_order':True,'descr':'<f4'}  \n", (2, 1)),
        ("{ 'fortran_order' : False , 'descr' : '<f4', 'shape' : ( 1 , 2 ) , }\n", (1, 2)),
    ],
)
def test_headers_that_others_may_write(tmp_path, header, shape, version):
    content = npy(header, np.float32([1, 2]).tobytes(), version)
    zipped(tmp_path / "a.npz", ("x.npy", content))
    found = tl.load(tmp_path / "a.npz")["x"]
    np.testing.assert_array_equal(found, np.float32([1, 2]).reshape(shape))
    np.testing.assert_array_equal(found, np.load(io.BytesIO(content)))
    assert found.flags.aligned
    assert found.flags.writeable


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("x.npy", npy(HEADER, bytes(8))), ("x.npy", npy(HEADER, bytes(8)))], "one name twice"),
        ([("x.npy", npy(HEADER, bytes(8))), ("x", npy(HEADER, bytes(8)))], "one name twice"),
        ([("x.npy", npy(HEADER, bytes(7)))], r"found 7 bytes for an array of shape \(2,\) and dtype float32"),
        ([("x.npy", npy(HEADER, bytes(9)))], "found 9 bytes"),
        ([("x.npy", npy(HEADER, bytes(8), 4))], r"version \(4, 0\) of NumPy's format, expected 1\.0 to 3\.0"),
        ([("x.npy", b"")], "EOF: reading magic string"),
        ([("x.npy", npy(HEADER + " " * 10_000, bytes(8)))], "EOF: reading array header"),
        ([("x.npy", npy("-" * 9000 + "1"))], "damaged"),  # Python's parser raises MemoryError
        ([("x.npy", npy("(" * 9000))], "damaged"),
        ([("x.npy", npy(HEADER.replace("2,", "-2,"), bytes(8)))], r"found 8 bytes for an array of shape \(-2,\)"),
        ([("x.npy", npy(HEADER.replace("(2,)", "(2)"), bytes(8)))], "shape is not valid: 2"),
        ([("x.npy", npy(HEADER.replace("2,", "2 ** 40,")))], "malformed node"),
        ([("x.npy", npy(HEADER.replace("'<f4'", "[('a', '<f4')]"), bytes(8)))], "expected numbers"),
        ([("x.npy", npy(HEADER.replace("'<f4'", "'|O'"), bytes(16)))], "an array of object, expected numbers"),
        ([("x.npy", npy(HEADER.replace("'<f4'", "'<c8'"), bytes(16)))], "an array of complex64, expected numbers"),
        ([("x.npy", npy(HEADER.replace("'<f4'", "'<q9'"), bytes(16)))], "damaged"),
        ([("x.npy", npy(HEADER.replace("'shape'", "'descr'"), bytes(8)))], "does not contain the correct keys"),
    ],
)
def test_arrays_that_are_not_what_their_header_says(tmp_path, members, words):
    zipped(tmp_path / "a.npz", *members)
    with pytest.raises(DataError, match=words):
        tl.load(tmp_path / "a.npz")


def test_a_compressed_file_unpacks_to_as_much_as_is_allowed(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(100_000))
    assert tl.load(tmp_path / "a.npz")["x"].shape == (100_000,)
    assert tl.load(tmp_path / "a.npz", max_bytes=800_128)["x"].shape == (100_000,)
    with pytest.raises(DataError, match=r"a\.npz unpacks to more than 800127 bytes; pass a larger max_bytes"):
        tl.load(tmp_path / "a.npz", max_bytes=800_127)
    np.savez(tmp_path / "b.npz", x=np.zeros(100_000))  # what it takes it has
    assert tl.load(tmp_path / "b.npz", max_bytes=1)["x"].shape == (100_000,)


@pytest.mark.parametrize(
    "state",
    ['[{"array": 0}, {"array": 0}]', '{"array": 0.5}', '{"dict": [["a", 1], ["a", 2]]}', '{"a": 1}'],
)
def test_a_state_that_was_not_written_so_is_refused(tmp_path, state):
    head = f'{{"format": "{serialization.FORMAT}", "version": 1, "state": {state}}}'
    zipped(tmp_path / "a", ("state.json", head), ("0.npy", npy(HEADER, bytes(8))))
    with pytest.raises(DataError, match="damaged"):
        tl.load_checkpoint(tmp_path / "a")


def test_numbers_that_numpy_does_not_have(tmp_path, torch):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=r"a\.safetensors is .*bfloat16"):
        tl.load(tmp_path / "a.safetensors")
    save_file({"w": torch.ones(2, dtype=torch.complex64)}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match="an array of complex64, expected numbers"):
        tl.load(tmp_path / "a.safetensors")


# A crash, a full disk


@pytest.mark.parametrize("step", ["open", "writestr", "fsync", "replace"])
def test_a_failure_at_any_step_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, step):
    path = tmp_path / "a"
    tl.save_checkpoint(path, STATE)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    owner = {"open": "builtins", "writestr": "zipfile.ZipFile"}.get(step, "os")
    with monkeypatch.context() as patch:
        patch.setattr(f"{owner}.{step}", full)
        with pytest.raises(DataError, match=r"cannot be written: No space left.*the old file is unchanged.*Make room"):
            tl.save_checkpoint(path, {"epoch": 4})
    assert same(tl.load_checkpoint(path), STATE)
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_that_is_not_there_or_not_writable_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no/such.*there was none before"):
        tl.save_checkpoint(tmp_path / "no" / "such", STATE)
    if os.geteuid():
        tmp_path.chmod(0o500)
        with pytest.raises(DataError, match="Permission denied"):
            tl.save_checkpoint(tmp_path / "a", STATE)
        tmp_path.chmod(0o700)
