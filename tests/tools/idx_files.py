"""A data set of seven images in IDX files: what the tests of reading, downloading and loading share."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np

from tinygrad_lenet.data import MNIST

REPOSITORY = Path(__file__).resolve().parents[2]
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def encode(array):
    header = struct.pack(">BBBB", 0, 0, CODES[array.dtype.str[1:]], array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def pack(content):
    return gzip.compress(content, 1, mtime=0)


IMAGES = np.random.default_rng(1).integers(0, 256, (7, 5, 3), np.uint8)
LABELS = np.arange(7, dtype=np.uint8)
FILES = {"t10k-images-idx3-ubyte": encode(IMAGES), "t10k-labels-idx1-ubyte": encode(LABELS)}
SUMS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


class Tiny(MNIST):
    folder, mirrors, checksums = "tiny", (), SUMS


def put(folder, ending=".gz", images=FILES["t10k-images-idx3-ubyte"]):
    folder.mkdir(parents=True)
    for name, content in (FILES | {"t10k-images-idx3-ubyte": images}).items():
        (folder / (name + ending)).write_bytes(pack(content) if ending else content)
    return folder
