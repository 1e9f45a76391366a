import contextlib
import gzip
import hashlib
import http.server
import itertools
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_lenet as tl
from tinygrad_lenet.data import MNIST, DataLoader, FashionMNIST, Subset, random_split, read_idx
from tinygrad_lenet.data.download import download
from tinygrad_lenet.errors import ArgumentError, DataError, DownloadError, DTypeError, OutOfRangeError, ShapeError

REPOSITORY = Path(__file__).resolve().parent.parent
REAL = REPOSITORY / "examples" / "data" / "mnist"
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
few = settings(max_examples=50, deadline=None)


def encode(array):
    header = struct.pack(">BBBB", 0, 0, CODES[array.dtype.str[1:]], array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def pack(content):
    return gzip.compress(content, 1, mtime=0)


@pytest.fixture(scope="module")
def idx(tmp_path_factory):
    """Reads bytes as a file, for tests that read many."""
    path = tmp_path_factory.mktemp("idx") / "some-file"

    def read(content, **options):
        path.write_bytes(content)
        return read_idx(path, **options)

    return read


def refused(idx, content, *words, **options):
    with pytest.raises(DataError) as caught:
        idx(content, **options)
    for word in ("some-file", "expected", *words):
        assert word in str(caught.value)


# Reading IDX


@few
@given(st.data(), st.booleans())
def test_idx_round_trip(idx, data, packed):
    dtype = data.draw(st.sampled_from(sorted(CODES)))
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=4)))
    content = encode(array)
    found = idx(pack(content) if packed else content, sha256=hashlib.sha256(content).hexdigest())
    assert found.dtype == array.dtype
    assert found.dtype.isnative
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()
    found[...] = 0  # it is the caller's own


def test_idx_needs_no_name_and_takes_several_gzip_members(idx):
    content = encode(np.arange(6, dtype="i4").reshape(2, 3))
    np.testing.assert_array_equal(idx(pack(content[:7]) + pack(content[7:])), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("packed", [False, True])
def test_every_truncation_and_every_extension_is_refused(idx, packed):
    content = encode(np.arange(12, dtype="i2").reshape(3, 2, 2))
    for end in range(len(content)):
        refused(idx, pack(content[:end]) if packed else content[:end])
    for extra in (b"\0", b"more", b"\0" * 5000):
        refused(idx, pack(content + extra) if packed else content + extra, "more")


def test_every_truncation_of_a_gzip_stream_is_refused(idx):
    stream = pack(encode(np.arange(12, dtype="f4")))
    for end in range(len(stream)):
        refused(idx, stream[:end])
    refused(idx, stream + b"junk", "gzip")


@few
@given(st.binary(max_size=40), st.booleans())
def test_arbitrary_bytes_are_data_or_a_data_error(idx, content, packed):
    for start in (b"", b"\0\0\x08\x02", b"\0\0\x0b\x03", b"\x1f\x8b\x08"):
        whole = start + content
        with contextlib.suppress(DataError):
            assert idx(pack(whole) if packed else whole).nbytes <= len(whole)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 15), st.integers(0, 255))
def test_a_changed_header_is_refused_or_means_the_same_bytes(idx, position, byte):
    content = bytearray(encode(np.arange(24, dtype="u1").reshape(2, 3, 4)))
    content[position] = byte
    try:
        found = idx(bytes(content))
    except DataError:
        return
    assert found.astype(found.dtype.newbyteorder(">")).tobytes() == bytes(content[4 + 4 * found.ndim :])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_changed_gzip_stream_is_refused_or_gives_the_right_data(idx, data):
    array = np.arange(40, dtype="i2").reshape(4, 10)
    stream = bytearray(pack(encode(array)))
    stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = idx(bytes(stream))
    except DataError:
        return
    np.testing.assert_array_equal(found, array)


NOISE = np.random.default_rng(0).bytes(200_000)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        struct.pack(">BBBBIII", 0, 0, 8, 3, 2**20, 2**10, 2**10),  # 16 bytes that claim 2^40
        struct.pack(">BBBBIIII", 0, 0, 14, 4, *[2**32 - 1] * 4),  # beyond 64 bits
        struct.pack(">BBBBI", 0, 0, 8, 1, 100_000_000) + NOISE,  # few enough for gzip's best ratio
        struct.pack(">BBBBI", 0, 0, 8, 1, 10) + bytes(50_000_000),  # far more than claimed
    ],
)
def test_memory_grows_with_the_file_not_with_its_claims(idx, content, packed):
    content = pack(content) if packed else content
    tracemalloc.start()
    try:
        refused(idx, content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


def test_a_claim_beyond_the_file_is_called_that(idx):
    header = struct.pack(">BBBBI", 0, 0, 8, 1, 1000)
    refused(idx, header + bytes(999), "claims 1000 bytes", "the 1007 that the file has room for")
    refused(idx, struct.pack(">BBBBI", 0, 0, 8, 1, 2**32 - 1), "room for")  # and not: pass a larger max_bytes


def test_an_honest_gzip_bomb_meets_the_limit(idx):
    content = encode(np.zeros(1_000_000, "u1"))
    refused(idx, pack(content), "max_bytes=1000000", max_bytes=999_999)
    assert idx(pack(content), max_bytes=1_000_000).size == 1_000_000


@pytest.mark.parametrize(
    "content",
    [
        b"<html>not found</html>",
        struct.pack(">BBBB", 0, 0, 8, 0) + b"\0",
        struct.pack(">BBBB", 0, 0, 8, 65) + struct.pack(">65I", *[1] * 65) + b"\0",  # NumPy has 64 axes
        struct.pack(">BBBBIIII", 0, 0, 8, 4, 0, *[2**32 - 1] * 3),  # no elements, but sides that NumPy cannot hold
    ],
)
def test_what_numpy_or_idx_does_not_know_is_refused(idx, content):
    refused(idx, content)


def test_a_wrong_checksum_names_both(idx):
    content = encode(np.zeros(3, "u1"))
    right, wrong = hashlib.sha256(content).hexdigest(), "0" * 64
    refused(idx, content, right, wrong, "delete", sha256=wrong)


def test_a_missing_file_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nothing")


# Finding and downloading

IMAGES = np.random.default_rng(1).integers(0, 256, (7, 5, 3), np.uint8)
LABELS = np.arange(7, dtype=np.uint8)
FILES = {"t10k-images-idx3-ubyte": encode(IMAGES), "t10k-labels-idx1-ubyte": encode(LABELS)}
NAMES = {name + ".gz" for name in FILES}
SUMS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
IMAGES_GZ = "t10k-images-idx3-ubyte.gz"
GOOD = {name + ".gz": pack(content) for name, content in FILES.items()}


class Tiny(MNIST):
    folder, mirrors, checksums = "tiny", (), SUMS


class Mirror(http.server.ThreadingHTTPServer):
    """Serves ``files``; breaks off each of the first ``cuts`` answers half-way."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cuts, self.ranges = files, 0, "honoured"
        self.asked = []
        self.half_way = self.begin = lambda: None
        self.url = f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, name, wanted = self.server, self.path[1:], self.headers["Range"]
        server.asked.append((name, wanted))
        if name not in server.files:
            return self.send_error(404)
        server.begin()
        content = server.files[name]
        if wanted and server.ranges != "ignored":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            content = content[start:] if server.ranges == "honoured" else content[: len(content) - start]
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        self.wfile.write(content[:half])
        self.wfile.flush()
        server.half_way()
        if server.cuts:
            server.cuts -= 1
        else:
            self.wfile.write(content[half:])
        return None

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("TINYGRAD_LENET_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))


@pytest.fixture
def mirror():
    with Mirror(dict(GOOD)) as server:
        yield server


def fetch(*mirrors, root=None):
    return type("Tiny", (Tiny,), {"mirrors": tuple(m.url for m in mirrors)})(root, train=False)


def assert_tiny(data, folder):
    np.testing.assert_array_equal(data.images, IMAGES)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert {path.name for path in folder.iterdir()} == NAMES  # the final names, whole, and nothing else
    assert {gzip.decompress(path.read_bytes()) for path in folder.iterdir()} == set(FILES.values())


def test_download_once(mirror, tmp_path):
    assert_tiny(fetch(mirror, root=tmp_path / "data"), tmp_path / "data" / "tiny")
    assert_tiny(fetch(mirror, root=tmp_path / "data"), tmp_path / "data" / "tiny")
    assert sorted(mirror.asked) == [(name, None) for name in sorted(NAMES)]


def test_a_root_of_the_right_name_is_taken_as_it_is(mirror, tmp_path):
    assert_tiny(fetch(mirror, root=tmp_path / "tiny"), tmp_path / "tiny")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="these have their own place for caches")
def test_download_to_the_cache(mirror, tmp_path):
    assert_tiny(fetch(mirror), tmp_path / "cache" / "tinygrad_lenet" / "tiny")


@pytest.mark.parametrize("wrong", [b"", b"<html>", pack(b"<html>"), pack(encode(IMAGES[::-1])), GOOD[IMAGES_GZ][:-9]])
def test_the_next_mirror_helps_where_one_is_wrong(mirror, tmp_path, wrong):
    with Mirror(GOOD | {IMAGES_GZ: wrong}) as first:
        assert_tiny(fetch(first, mirror, root=tmp_path / "tiny"), tmp_path / "tiny")
        assert mirror.asked == [(IMAGES_GZ, None)]


@pytest.mark.parametrize("ranges", ["honoured", "ignored", "mistaken"])
def test_a_broken_download_goes_on_where_it_broke(mirror, tmp_path, ranges):
    mirror.cuts, mirror.ranges = 1, ranges
    seen = []
    mirror.half_way = lambda: seen.append(os.listdir(tmp_path / "tiny"))
    assert_tiny(fetch(mirror, root=tmp_path / "tiny"), tmp_path / "tiny")
    half = len(GOOD[IMAGES_GZ]) // 2
    asked = [wanted for name, wanted in mirror.asked if name == IMAGES_GZ]
    assert asked == [None, f"bytes={half}-"] + [None] * (ranges == "mistaken")
    assert [len(names) for names in seen[:2]] == [1, 1]
    assert all(names[0].endswith(".part") for names in seen[:2])  # nothing half under the final name


def test_a_file_that_became_shorter_meanwhile(mirror, tmp_path):
    mirror.files[IMAGES_GZ] += pack(b"") * 30
    mirror.cuts, mirror.ranges = 1, "ignored"
    mirror.half_way = lambda: mirror.files.update(GOOD)
    assert_tiny(fetch(mirror, root=tmp_path / "tiny"), tmp_path / "tiny")
    assert [name for name, _ in mirror.asked].count(IMAGES_GZ) == 2


def test_a_mirror_that_always_breaks_is_given_up(mirror, tmp_path):
    with Mirror(GOOD) as first:
        first.cuts = 100
        assert_tiny(fetch(first, mirror, root=tmp_path / "tiny"), tmp_path / "tiny")
        assert len(first.asked) == 10
        assert mirror.asked[0] == (IMAGES_GZ, None)  # from the start: mirrors need not have the same bytes


def test_when_all_mirrors_fail_the_error_says_why_and_how_to_go_on(mirror, tmp_path):
    mirror.files = {}
    with Mirror({IMAGES_GZ: pack(b"what?")}) as other, pytest.raises(DownloadError) as caught:
        fetch(mirror, other, root=tmp_path / "tiny")
    message = str(caught.value)
    assert f"{mirror.url}{IMAGES_GZ}: HTTP Error 404" in message
    assert f"{other.url}{IMAGES_GZ}: found a start of b'what'" in message
    assert f"Put the file into {tmp_path / 'tiny'}" in message
    assert "root=" in message
    assert not list((tmp_path / "tiny").iterdir())


def test_a_mirror_that_is_not_there_or_no_address(tmp_path):
    with Mirror({}) as gone:
        pass
    with pytest.raises(DownloadError, match=r"refused[^\n]*\n[^\n]*unknown url type"):
        download(IMAGES_GZ, "", [gone.url, "nonsense:"], str(tmp_path))
    with pytest.raises(DownloadError, match="none is known"):
        download(IMAGES_GZ, "", [], str(tmp_path))


def test_a_silent_mirror_is_given_up(mirror, tmp_path):
    wake = threading.Event()
    mirror.half_way = lambda: wake.wait(10)
    try:
        with pytest.raises(DownloadError, match="timed out"):
            download(IMAGES_GZ, "", [mirror.url], str(tmp_path), timeout=0.05)
    finally:
        wake.set()


def test_an_endless_download_meets_the_limit(mirror, tmp_path):
    with pytest.raises(DownloadError, match="more than the 20 bytes"):
        download(IMAGES_GZ, "", [mirror.url], str(tmp_path), max_bytes=20)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(mirror, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DownloadError, match=r"cannot write to .*pass a folder"):
        fetch(mirror, root=tmp_path / "file")
    assert not mirror.asked


def test_two_processes_may_fill_one_cache(mirror, tmp_path):
    both = threading.Barrier(2, timeout=30)
    mirror.begin = lambda: both.wait()  # each file is asked for twice, and served only then
    code = f"""if True:
        from tinygrad_lenet.data import MNIST
        class Tiny(MNIST):
            folder, mirrors, checksums = "tiny", ({mirror.url!r},), {SUMS!r}
        print(Tiny({str(tmp_path)!r}, train=False))"""
    command = [sys.executable, "-W", "error", "-c", code]
    runs = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate(timeout=60)[0] for run in runs] == ["Tiny(7 test images of 5×3 pixels)\n"] * 2
    assert len(mirror.asked) == 4
    assert_tiny(Tiny(tmp_path, train=False, download=False), tmp_path / "tiny")


def put(folder, ending=".gz", images=FILES["t10k-images-idx3-ubyte"]):
    folder.mkdir(parents=True)
    for name, content in (FILES | {"t10k-images-idx3-ubyte": images}).items():
        (folder / (name + ending)).write_bytes(pack(content) if ending else content)
    return folder


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("place", ["root", "root/tiny", "named", "named/tiny", "cache", "cache/tiny", "system"])
def test_files_are_found(tmp_path, monkeypatch, place, ending):
    monkeypatch.setenv("TINYGRAD_LENET_DATA", str(tmp_path / "named"))
    monkeypatch.setattr(Tiny, "system_folders", (str(tmp_path / "system"),))
    monkeypatch.setattr("tinygrad_lenet.data.mnist._cache", lambda: str(tmp_path / "cache"))
    put(tmp_path / place, ending)
    np.testing.assert_array_equal(Tiny(tmp_path / "root", train=False, download=False).images, IMAGES)


def test_the_first_place_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_LENET_DATA", str(put(tmp_path / "named")))
    put(tmp_path / "root", images=encode(IMAGES[::-1]))
    with pytest.raises(DataError, match=r"root.t10k-images-idx3-ubyte\.gz: found content with the SHA-256"):
        Tiny(tmp_path / "root", train=False)
    assert len(Tiny(train=False)) == 7


def test_without_download_the_error_lists_the_places(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_LENET_DATA", str(tmp_path / "named"))
    with pytest.raises(DataError) as caught:
        Tiny(tmp_path / "root", train=False, download=False)
    for word in (
        "t10k-images-idx3-ubyte.gz",
        str(tmp_path / "root"),
        str(tmp_path / "named" / "tiny"),
        "download=True",
    ):
        assert word in str(caught.value)


def test_images_and_labels_must_fit(tmp_path):
    contents = encode(IMAGES), encode(LABELS[:-1])
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in zip(FILES, contents, strict=True)}
    for name, content in zip(FILES, contents, strict=True):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"\(7, 5, 3\) and labels of \(6,\)"):
        type("Odd", (Tiny,), {"checksums": sums})(tmp_path, train=False)


@pytest.fixture
def tiny(tmp_path):
    return Tiny(put(tmp_path / "tiny"), train=False, normalize=False)


def test_an_index_gives_one_or_many(tiny):
    image, label = tiny[2]
    assert (image.shape, image.dtype, label, label.dtype) == ((1, 5, 3), np.float32, 2, np.int64)
    np.testing.assert_array_equal(image[0], IMAGES[2].astype(np.float32) / np.float32(255))
    for index in (slice(1, 6, 2), np.array([1, 3, 5]), [1, 3, 5], [-6, 3, -2]):
        images, labels = tiny[index]
        assert (images.shape, images.dtype, labels.dtype) == ((3, 1, 5, 3), np.float32, np.int64)
        np.testing.assert_array_equal(images, np.stack([tiny[i][0] for i in (1, 3, 5)]))
        np.testing.assert_array_equal(labels, [1, 3, 5])
        images[...] = labels[...] = 0  # new arrays: the data set keeps its own
    np.testing.assert_array_equal(tiny.labels, LABELS)
    assert len(list(tiny)) == 7  # a loop over samples ends
    for index in (7, -8, [0, 7], 1.5, (0, 0)):
        with pytest.raises(OutOfRangeError, match="Tiny"):
            tiny[index]


def test_the_data_set_is_read_only(tiny):
    for array in (tiny.images, tiny.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_fashion_has_a_table_of_its_own():
    assert FashionMNIST.folder != MNIST.folder
    assert set(FashionMNIST.checksums) == set(MNIST.checksums)
    assert not set(FashionMNIST.checksums.values()) & set(MNIST.checksums.values())
    assert len(FashionMNIST.classes) == len(MNIST.classes) == 10


# The real MNIST, as it lies in the repository


@pytest.fixture(scope="module")
def real():
    if not REAL.is_dir():
        pytest.skip("the repository's copy of MNIST is not part of the release")
    return {train: MNIST(REAL, train, download=False) for train in (True, False)}


@pytest.mark.parametrize(
    ("train", "counts"),
    [
        (True, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        (False, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    ],
)
def test_mnist_is_mnist(real, train, counts):
    data = real[train]
    assert np.bincount(data.labels).tolist() == counts
    assert data.images.shape == (sum(counts), 28, 28)
    assert data.images.dtype == np.uint8
    assert len(data) == sum(counts)
    assert repr(data) == f"MNIST({sum(counts)} {'training' if train else 'test'} images of 28×28 pixels)"


def test_mnist_is_normalized_with_the_training_set(real):
    pixels = np.arange(256) / 255
    share = np.bincount(real[True].images.ravel(), minlength=256) / real[True].images.size
    mean = share @ pixels
    std = np.sqrt(share @ (pixels - mean) ** 2)
    assert (MNIST.mean, MNIST.std) == (pytest.approx(mean, abs=1e-8), pytest.approx(std, abs=1e-8))
    assert (round(mean, 5), round(std, 5)) == (0.13066, 0.30811)

    images, _ = real[False][:1000]
    assert images.dtype == np.float32
    np.testing.assert_allclose(images[:, 0], (real[False].images[:1000] / 255 - mean) / std, rtol=1e-5, atol=1e-6)
    assert abs(images.mean()) > 0.001  # not the images' own mean


# Loading


def orders(loader, epochs=1):
    return [np.concatenate([batch[-1].numpy() for batch in loader]).tolist() for _ in range(epochs)]


class Pairs:
    """A data set that knows samples only."""

    def __init__(self, *columns):
        self.columns = columns

    def __len__(self):
        return len(self.columns[0])

    def __getitem__(self, index):
        assert type(index) is int
        return tuple(column[index] for column in self.columns)


class Views:
    """A data set that gives whole batches, but breaks the rule that they are new."""

    batched = True

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index[0] : index[-1] + 1]


@few
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**70), st.booleans())
def test_each_epoch_is_a_permutation(n, size, seed, drop_last):
    if drop_last and n < size:
        with pytest.raises(ArgumentError, match="smaller batch_size"):
            DataLoader(np.arange(n), size, drop_last=True)
        return
    loader = DataLoader(np.arange(n), size, shuffle=True, seed=seed, drop_last=drop_last)
    first, second = (list(loader) for _ in range(2))
    for batches in (first, second):
        lengths = [len(x) for (x,) in batches]
        assert len(lengths) == len(loader) == (n // size if drop_last else -(-n // size))
        assert set(lengths[:-1]) <= {size}
        assert lengths[-1] == (size if drop_last else n - size * (len(loader) - 1))
        values = np.concatenate([x.numpy() for (x,) in batches])
        assert len(set(values.tolist())) == len(values) == sum(lengths)
    again = DataLoader(np.arange(n), size, shuffle=True, seed=seed, drop_last=drop_last)
    again.epoch = 1  # as a run that goes on after one epoch
    assert orders(again) == [np.concatenate([x.numpy() for (x,) in second]).tolist()]


def test_orders_depend_on_seed_and_epoch_alone():
    data = np.arange(50)
    one, two = (orders(DataLoader(data, 7, shuffle=True, seed=3), 4) for _ in range(2))
    assert one == two
    assert one[2] == np.random.default_rng([3, 2]).permutation(50).tolist()  # as documented
    others = orders(DataLoader(data, 7, shuffle=True, seed=4), 4)
    assert len({tuple(order) for order in one + others}) == 8
    loader = DataLoader(data, 7, shuffle=True, seed=3)
    next(iter(loader))  # an epoch that is broken off counts
    assert orders(loader, 3) == one[1:]


def test_loops_over_one_loader_may_be_nested():
    loader = DataLoader(np.arange(6), 2, shuffle=True, seed=0)
    outer, inner = iter(loader), iter(loader)
    pairs = [(x.tolist(), y.tolist()) for (x,), (y,) in zip(outer, inner, strict=True)]
    expected = orders(DataLoader(np.arange(6), 2, shuffle=True, seed=0), 2)
    assert [list(itertools.chain(*parts)) for parts in zip(*pairs, strict=True)] == expected


def test_seeds_may_be_generators_or_fresh():
    data = np.arange(50)
    drawn = [DataLoader(data, shuffle=True, seed=np.random.default_rng(5)) for _ in range(2)]
    assert orders(drawn[0]) == orders(drawn[1])
    shared = np.random.default_rng(5)
    assert DataLoader(data, seed=shared).seed != DataLoader(data, seed=shared).seed
    fresh = DataLoader(data, shuffle=True)
    assert fresh.seed != DataLoader(data, shuffle=True).seed
    assert orders(fresh) == orders(DataLoader(data, shuffle=True, seed=fresh.seed))


def test_without_shuffle_the_order_is_the_data_sets():
    assert orders(DataLoader(np.arange(10), 3), 2) == [list(range(10))] * 2


def test_all_kinds_of_data_sets_agree(tiny):
    images, labels = tiny[:]
    kinds = [
        tiny,
        (images, labels),
        (tl.tensor(images), tl.tensor(labels)),
        Pairs(images, labels),
        Pairs(list(map(tl.tensor, images)), labels.tolist()),
        list(zip(images, labels, strict=True)),
        Subset(tiny, slice(None)),
        Subset(Pairs(images, labels), range(7)),
    ]
    for kind in kinds:
        batches = list(DataLoader(kind, 3, shuffle=True, seed=9))
        assert [len(x) for x, _ in batches] == [3, 3, 1]
        for x, y in batches:
            assert isinstance(x, tl.Tensor)
            assert (x.dtype, y.dtype, x.shape[1:]) == (np.float32, np.int64, (1, 5, 3))
            np.testing.assert_array_equal(x.numpy(), images[y.numpy()])
        order = np.random.default_rng([9, 0]).permutation(7)
        np.testing.assert_array_equal(np.concatenate([y.numpy() for _, y in batches]), order)


def test_dtypes_stay_and_numbers_get_the_usual_ones():
    for dtype in ("u1", "i2", "f4", "f8", "?", ">f4"):
        ((x,),) = DataLoader(np.ones((3, 2), dtype))
        assert x.dtype == np.dtype(dtype).newbyteorder("=")
    foreign = type("Foreign", (Views,), {"__getitem__": lambda self, index: self.data[index]})(np.ones(3, ">f4"))
    ((x,),) = DataLoader(foreign)
    assert x.dtype.isnative
    ((x, y, z, w),) = DataLoader([(1.5, 1, True, [1.0, 2.0]), (2.5, 2, False, [3.0, 4.0])])
    assert [t.dtype for t in (x, y, z, w)] == [np.float32, np.int64, np.bool_, np.float32]
    ((x,),) = DataLoader([np.float64(1), np.float64(2)])
    assert x.dtype == np.float64


def test_changing_a_batch_leaves_the_data_alone():
    for wrap in (lambda a: a, lambda a: (a,), Pairs, list, Views):
        data = np.zeros((4, 2), np.float32)
        for (x,) in DataLoader(wrap(data), 4):
            x += 1
            assert x.tolist() == [[1, 1]] * 4
        assert not data.any()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"dataset": (np.zeros(3), np.zeros(4))}, ShapeError, r"\[\(3,\), \(4,\)\].*equally long"),
        ({"dataset": ()}, ShapeError, "one or more"),
        ({"dataset": np.array(1.0)}, ShapeError, "first axis"),
        ({"dataset": ([1, 2], np.zeros(2))}, DTypeError, "element 0 .* list.*np.asarray"),
        ({"dataset": np.array(["a"])}, DTypeError, "U1"),
        ({"dataset": iter([1, 2])}, DTypeError, "list_iterator.*list"),
        ({"dataset": []}, ArgumentError, "no samples"),
        ({"dataset": np.zeros((0, 3))}, ArgumentError, "no samples"),
        ({"dataset": np.zeros(3), "batch_size": 0}, ArgumentError, "batch_size must be at least 1, got 0"),
        ({"dataset": np.zeros(3), "batch_size": 2.5}, DTypeError, "batch_size must be an integer, got 2.5"),
        ({"dataset": np.zeros(3), "seed": -1}, ArgumentError, "seed must be at least 0, got -1"),
        ({"dataset": np.zeros(3), "seed": "one"}, DTypeError, "seed must be an integer"),
    ],
)
def test_arguments_that_cannot_be(arguments, error, words):
    with pytest.raises(error, match=words):
        DataLoader(**arguments)


@pytest.mark.parametrize(
    ("samples", "error", "words"),
    [
        ([np.zeros(2), np.zeros(3)], ShapeError, r"\[\(2,\), \(3,\)\].*tuple"),
        ([(1, 2), (1, 2, 3)], ShapeError, r"\[2, 3\] parts"),
        (["a", "b"], DTypeError, "U1"),
        ([None], DTypeError, "object"),
    ],
)
def test_samples_that_make_no_batch(samples, error, words):
    with pytest.raises(error, match=words):
        list(DataLoader(samples))


# Parts of a data set


@few
@given(st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(sum), st.integers(0, 2**32))
def test_a_split_deals_out_every_sample_once(lengths, seed):
    data = np.arange(sum(lengths))
    parts = random_split(data, lengths, seed)
    assert [len(part) for part in parts] == lengths
    dealt = [part[:][0].tolist() for part in parts]
    assert sorted(itertools.chain(*dealt)) == data.tolist()
    assert dealt == [part[:][0].tolist() for part in random_split(data, lengths, seed)]


def test_splits_differ_by_seed():
    splits = [random_split(np.arange(50), [25, 25], seed)[0][:][0].tolist() for seed in (0, 1, None, None)]
    assert len(set(map(tuple, splits))) == 4


def test_a_split_needs_fitting_lengths():
    for lengths in ([3, 3], [], [11]):
        with pytest.raises(ArgumentError, match="the 10 samples"):
            random_split(np.zeros(10), lengths)
    with pytest.raises(ArgumentError, match="at least 0, got -1"):
        random_split(np.zeros(10), [11, -1])
    with pytest.raises(DTypeError, match=r"integer, got 0\.5"):
        random_split(np.zeros(10), [0.5, 0.5])


def test_subsets(tiny):
    part = Subset(tiny, tiny.labels > 3)
    assert repr(part) == "Subset(3 of 7 samples)"
    assert [label for _, label in part] == [4, 5, 6]
    assert Subset(part, (2, 0))[:][1].tolist() == [6, 4]
    assert Subset(tiny, [-1])[0][1] == 6
    assert len(Subset(tiny, [])) == 0
    for indices in ([7], [0.5], 3, np.ones(6, bool)):
        with pytest.raises(OutOfRangeError, match=r"Subset: .*expected integers below 7"):
            Subset(tiny, indices)
    with pytest.raises(OutOfRangeError, match="3 samples"):
        part[3]
    with pytest.raises(ShapeError, match="one axis"):
        Subset(tiny, [[0, 1]])


def test_importing_data_imports_no_network():
    heavy = {"gzip", "http.client", "tempfile", "urllib.request"}
    code = f"import sys, tinygrad_lenet.data; print(*{heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("\n", "")
