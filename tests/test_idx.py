"""Reading IDX files: round trips, and everything that can be wrong with a file."""

import contextlib
import hashlib
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from idx_files import CODES, encode, pack

from tinygrad_lenet.data import read_idx
from tinygrad_lenet.errors import DataError

few = settings(max_examples=50, deadline=None)


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
    for word in ("some-file", *words):
        assert word in str(caught.value)


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
    refused(idx, stream + b"junk", "Not a gzipped file")


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
    refused(idx, header + bytes(999), "found 999 bytes after the header", "1000 bytes for shape (1000,)")
    refused(idx, struct.pack(">BBBBI", 0, 0, 8, 1, 2**32 - 1), "found shape (4294967295,)", "get an intact file")


def test_an_honest_gzip_bomb_meets_the_limit(idx):
    content = encode(np.zeros(1_000_000, "u1"))
    refused(idx, pack(content), "1000000 bytes", "max_bytes=999999", max_bytes=999_999)
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
    refused(idx, content, right, wrong, "get an intact file", sha256=wrong)


def test_a_missing_file_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nothing")
