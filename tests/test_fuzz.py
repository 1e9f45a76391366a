"""A share of the fuzzing, faults that it must find, and files whose claims are far beyond what they hold."""

import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from file_kinds import READERS, WRITERS, every_reader
from idx_files import REPOSITORY

import tinygrad_lenet as tl

pytest.importorskip("onnx", reason="ONNX, whose files are read, is not installed")
pytest.importorskip("safetensors", reason="safetensors, whose files are read, is not installed")
TOOLS = Path(__file__).parent / "tools"


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False
    )


def test_two_thousand_files_of_each_kind(tmp_path):
    done = run(str(TOOLS / "fuzz.py"), "all", "--runs", "2000", "--seed", "5", "--keep", str(tmp_path / "faults"))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["idx", "npz", "safetensors", "checkpoint", "onnx"]
    for line in lines:
        assert "2,000 inputs" in line
        assert "data " in line  # some are right,
        assert "DataError " in line  # and most are not
    assert not (tmp_path / "faults").exists()


PLANTED = f"""if True:
    import os, pickle, sys, tempfile, time
    sys.path[:0] = [{str(TOOLS)!r}]
    import fuzz, fuzz_files
    import numpy as np

    right, kept = fuzz_files.Npz.read, []
    def named(self, path, error):
        raise error
    def long(path, text):
        error = fuzz_files.tl.DataError("")
        error.args = (path + text,)
        return error
    def caused(path):
        raise fuzz_files.tl.DataError(path + " is of no use") from ValueError("x" * 10_000)
    def changed(self, path):
        arrays, metadata = right(self, path)
        return [{{name: array + 1 for name, array in arrays.items()}}, metadata]
    plants = [
        ("KeyError", lambda self, path: {{}}["x"]),
        ("does not say", lambda self, path: named(self, path, fuzz_files.tl.DataError("broken"))),
        ("shows what it must not: DataError of", lambda self, path: named(self, path, long(path, "x" * 10_000))),
        ("shows what it must not: DataError:", lambda self, path: named(self, path, long(path, "is \\x1b[31m red"))),
        ("shows what it must not: ValueError of", lambda self, path: caused(path)),
        ("expected", changed),
        ("another reader", lambda self, path: right(self, path) if path.startswith("no") else {{}}),
        ("seconds", lambda self, path: time.sleep(9)),
        ("memory for a file", lambda self, path: kept.append(bytearray(b"1") * 200_000_000)),
        ("beyond its file: open", lambda self, path: open(os.devnull).close()),
        ("beyond its file: exec", lambda self, path: exec("1")),
        ("beyond its file: pickle", lambda self, path: pickle.loads(pickle.dumps(print))),
        ("left files", lambda self, path: open(3, "w") if False else kept.append(os.mkdir(path + ".part"))),
    ]
    with tempfile.TemporaryDirectory() as folder:
        runner = fuzz.Runner(fuzz_files.Npz(), folder)
        for words, plant in plants:
            fuzz_files.Npz.read = plant
            fuzz.SECONDS = 0.05 if words == "seconds" else 5
            content = b"none" if words == "another reader" else runner.target.seeds[0]
            try:
                runner(content)
            except fuzz.Fault as why:
                print(words, "|", str(why).replace(chr(10), " "))
            runner.watch.seen.clear()
"""


def test_planted_faults_are_found():
    done = run("-c", PLANTED)
    found = [line.split(" | ") for line in done.stdout.splitlines()]
    assert len(found) == 13, done.stdout + done.stderr
    for words, why in found:
        assert words in why or "left files" in words, (words, why)  # making a folder is heard, too


def test_one_input_can_be_made_again():
    sys.path.insert(0, str(TOOLS))
    from fuzz import Led, case
    from fuzz_files import TARGETS

    for kind in TARGETS.values():
        target = kind()
        assert [case(target, 1, i) for i in range(20)] == [case(target, 1, i) for i in range(20)]
        assert case(target, 1, 0) != case(target, 2, 0)
        data = random.Random(0).randbytes(300)
        assert target.make(Led(data)) == target.make(Led(data))


# Small files that claim much. Each is read with 300 MB of address space to spare.

BLOCK = zlib.compressobj(9, zlib.DEFLATED, -15)
BLOCK = BLOCK.compress(bytes(1 << 20)) + BLOCK.flush(zlib.Z_FULL_FLUSH)  # 1 MiB of zeros, to be repeated
GIGABYTES = BLOCK * 10_240  # 10 GiB in 10 MB, which ends nowhere


def zip_of(name, method, packed, size, times=1):
    """An archive of one member, in its index so many times, that claims to unpack to ``size``."""
    common = struct.pack("<HHHIIIIHH", 20, 0, method, 0, 0, len(packed), size, len(name), 0)
    index = (b"PK\1\2\x14\3" + common + bytes(14) + name) * times
    body = b"PK\3\4" + common + name + packed
    return body + index + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, times, times, len(index), len(body), 0)


def npy(shape, body=b"", descr="<f8"):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + body


def stored(**members):
    """A right archive."""
    import io
    import zipfile

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("_", "."), content)
    return stream.getvalue()


def state(text, version=1):
    return f'{{"format": "tinygrad_lenet checkpoint", "version": {version}, "state": {text}}}'


def gz(content):
    return b"\x1f\x8b\x08" + bytes(7) + content


def onnx_model(location=None, **fields):
    """The sum of x and w, with w as it is said."""
    from onnx import TensorProto, helper

    tensor = TensorProto(name="w", data_type=1, **fields)
    if location is not None:
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in location.items():
            tensor.external_data.add(key=key, value=str(value))
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [4])],
        [helper.make_tensor_value_info("y", 1, [4])],
        [tensor],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


IDX = struct.pack(">BBBB", 0, 0, 8, 3)
MUCH = f"({2**50},)"
CLAIMS = {
    "idx of 2^40 images": (".idx", IDX + struct.pack(">III", 2**31, 2**9, 1), "found shape"),
    "gzip of 10 GB, as said": (".idx", gz(BLOCK + GIGABYTES), "a start of"),
    "npz: 2^50 elements": (".npz", stored(a_npy=npy(MUCH)), "0 bytes for an array"),
    "npz: 2^50 elements of nothing": (".npz", stored(a_npy=npy(f"({2**50}, 0)")), None),
    "npz: a header of 2^32 bytes": (
        ".npz",
        stored(a_npy=b"\x93NUMPY\2\0\xff\xff\xff\xff{"),
        "EOF: reading array header",
    ),
    "npz: unpacks to 4 GB, as said": (".npz", zip_of(b"a.npy", 8, GIGABYTES, 2**32 - 1), "pass a larger max_bytes"),
    "npz: unpacks to 10 GB, 100 bytes said": (".npz", zip_of(b"a.npy", 8, GIGABYTES, 100), "damaged"),
    "npz: 10,000 members that are one": (".npz", zip_of(b"a.npy", 0, bytes(10), 10, 10_000), "damaged"),
    "npz: packed with a method without limit": (".npz", zip_of(b"a.npy", 12, b"BZh9", 100), "method 12"),
    "checkpoint: one array, often": (
        ".ckpt",
        stored(
            state_json=state("[" + ",".join(['{"array": 0}'] * 50_000) + "]"), **{"0_npy": npy("(8192,)", bytes(65536))}
        ),
        "0.npy",
    ),
    "checkpoint: unpacks to more": (".ckpt", zip_of(b"state.json", 8, BLOCK, 2**20), "bytes, which"),
    "checkpoint: deep": (".ckpt", stored(state_json=state("[" * 100_000)), "damaged"),
    "checkpoint: a number of 10^6 digits": (".ckpt", stored(state_json=state("9" * 10**6)), "damaged"),
    "safetensors: a header of 2^60 bytes": (".safetensors", struct.pack("<Q", 2**60) + b"{}", "damaged"),
    "safetensors: 2^60 bytes": (
        ".safetensors",
        struct.pack("<Q", 64) + b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}'.ljust(64) % (2**58, 2**60),
        "damaged",
    ),
    "onnx: 2^50 elements": (".onnx", onnx_model(dims=[2**50], raw_data=bytes(16)), "not a valid model"),
    "onnx: 2^60 bytes of another file": (
        ".onnx",
        onnx_model({"location": "case.onnx", "length": 2**60}, dims=[4]),
        "length",
    ),
}
READ = """if True:
    import resource, sys, time, tracemalloc
    import numpy as np
    import tinygrad_lenet as tl
    from tinygrad_lenet.data import read_idx
    import onnx.checker, safetensors.numpy, tinygrad_lenet.onnx.model, zipfile, json, gzip
    readers = {"idx": read_idx, "ckpt": tl.load_checkpoint, "onnx": tl.onnx.load}
    tl.zeros(3) + 1
    now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 300_000_000, -1))
    for path in sys.argv[1:]:
        tracemalloc.start()
        start = time.process_time()
        try:
            found = str({name: a.shape for name, a in readers.get(path.rpartition(".")[2], tl.load)(path).items()})
        except tl.errors.TinygradLenetError as error:
            found = f"{type(error).__name__} {error}"
        took, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"{took:.3f} {peak} {found!r}")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_small_files_that_claim_much_take_little(tmp_path):
    paths = []
    for i, (ending, content, _) in enumerate(CLAIMS.values()):
        (tmp_path / f"{i}").mkdir()
        paths.append(tmp_path / f"{i}" / f"case{ending}")
        paths[-1].write_bytes(content)
    done = run("-c", READ, *map(str, paths))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for (name, (_, content, words)), path, line in zip(CLAIMS.items(), paths, lines, strict=True):
        took, peak, found = line.split(" ", 2)
        assert float(took) < 2, name
        factor = 20 if path.suffix == ".ckpt" else 3  # a list takes more as an object than as text
        assert int(peak) < 4_000_000 + factor * len(content), name
        if words is not None:
            assert "DataError" in found, (name, found)
            assert str(path) in found, (name, found)
            assert words in found, (name, found)
            assert "MemoryError" not in found, (name, found)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="not every system has files with holes")
@every_reader
def test_a_file_that_is_mostly_a_hole_takes_no_memory(tmp_path, ending, load):
    path = tmp_path / f"a{ending}"
    if ending in WRITERS:
        WRITERS[ending](path, 1)
    with open(path, "ab") as file:
        file.truncate(2**40)
    with pytest.raises(tl.DataError) as caught:
        load(path)
    assert "emory" not in str(caught.value)  # none was asked for that is not there


@pytest.mark.parametrize("ending", sorted(WRITERS.keys() & READERS.keys()))
def test_what_does_not_fit_into_memory_is_not_called_damaged(tmp_path, monkeypatch, ending):
    def fail(*_):
        raise MemoryError

    WRITERS[ending](tmp_path / f"a{ending}", 1)
    monkeypatch.setattr("tinygrad_lenet.files.opened", fail)
    with pytest.raises(tl.DataError, match="cannot be read: it takes more memory than there is"):
        READERS[ending](tmp_path / f"a{ending}")


@pytest.mark.parametrize("name", ["../../x", "/x", "C:\\x", "a\\b", "..", ".", "x/y", "__class__", "ü", "a" * 3000])
def test_names_in_archives_are_only_names(tmp_path, monkeypatch, name):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    array = np.arange(3.0)
    np.savez("x.npz", **{name: array})
    tl.save("y.npz", {name: array})
    tl.save("z.safetensors", {name: array})
    for path in ("x.npz", "y.npz", "z.safetensors"):
        assert {key: value.tolist() for key, value in tl.load(path).items()} == {name: [0, 1, 2]}
    assert sorted(os.path.relpath(p, tmp_path) for p in tmp_path.rglob("*") if p.is_file()) == [
        f"a/b/{p}" for p in ("x.npz", "y.npz", "z.safetensors")
    ]
