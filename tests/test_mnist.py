"""MNIST and data sets like it: where their files are found, and what they hold."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from idx_files import FILES, IMAGES, LABELS, REPOSITORY, Tiny, encode, put

from tinygrad_lenet.data import MNIST, FashionMNIST
from tinygrad_lenet.errors import DataError, DownloadError, OutOfRangeError

REAL = REPOSITORY / "examples" / "data" / "mnist"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("TINYGRAD_LENET_DATA", raising=False)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))


# Finding the files


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("place", ["root", "root/tiny", "named", "named/tiny", "cache", "cache/tiny"])
def test_files_are_found(tmp_path, monkeypatch, place, ending):
    monkeypatch.setenv("TINYGRAD_LENET_DATA", str(tmp_path / "named"))
    put(tmp_path / place.replace("cache", "cache/tinygrad_lenet"), ending)
    np.testing.assert_array_equal(Tiny(tmp_path / "root", train=False, download=False).images, IMAGES)


def test_the_first_place_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_LENET_DATA", str(put(tmp_path / "named")))
    put(tmp_path / "root", images=encode(IMAGES[::-1]))
    with pytest.raises(DataError, match=r"root.t10k-images-idx3-ubyte\.gz is damaged.* found content with the SHA-256"):
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


@pytest.mark.parametrize("place", ["Tiny/raw", "raw", "", "tiny"])
def test_the_folders_and_names_of_torchvision_and_others_are_found(tmp_path, place):
    for i, ending in enumerate(("", ".gz")):
        for j, change in enumerate((str, lambda name: name.replace("-idx", ".idx"))):
            root = tmp_path / f"{i}{j}"
            for path in list(put(root / place, ending).iterdir()):
                path.rename(path.with_name(change(path.name)))
            np.testing.assert_array_equal(Tiny(root, train=False, download=False).images, IMAGES)


def test_the_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "here" / "Tiny" / "raw")
    for root in ("~/here", Path("~/here")):
        assert len(Tiny(root, train=False, download=False)) == 7


def test_an_unpacked_file_comes_before_a_packed_one(tmp_path):
    folder = put(tmp_path / "tiny")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
        (folder / f"{name}.gz").write_bytes(b"damaged")
        (folder / name.replace("-idx", ".idx")).write_bytes(b"damaged")
    assert len(Tiny(tmp_path, train=False, download=False)) == 7
    (folder / "t10k-images-idx3-ubyte").unlink()
    (folder / "t10k-images-idx3-ubyte").mkdir()  # as some archives have it
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz is damaged"):
        Tiny(tmp_path, train=False, download=False)


def test_the_error_says_which_file_is_missing_and_where_mnist_is(tmp_path):
    folder = put(tmp_path / "tiny")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"neither t10k-labels-idx1-ubyte .*(?s:.*)examples/data/mnist"):
        Tiny(tmp_path, train=False, download=False)
    with pytest.raises(DownloadError, match=r"Put the file into .*tiny, or .*examples/data/mnist"):
        Tiny(tmp_path, train=False)


class Unchecked(Tiny):
    checksums: ClassVar = {}


def test_a_subclass_needs_no_checksums(tmp_path):
    put(tmp_path / "tiny", images=encode(IMAGES[::-1]))
    np.testing.assert_array_equal(Unchecked(tmp_path, train=False).images, IMAGES[::-1])
    with pytest.raises(DataError, match="found content with the SHA-256"):
        Tiny(tmp_path, train=False)


@pytest.mark.parametrize("images", [IMAGES[:3], IMAGES[0], IMAGES[None], IMAGES.astype("i2"), LABELS])
def test_images_and_labels_must_fit_together(tmp_path, images):
    put(tmp_path / "tiny", images=encode(images))
    with pytest.raises(DataError, match=r"^Unchecked: expected uint8 images \(N, H, W\) and labels \(N,\), found"):
        Unchecked(tmp_path, train=False)


# Samples


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
    assert repr(data) == f"MNIST({sum(counts)} {'training' if train else 'test'} images of 28x28 pixels)"


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
