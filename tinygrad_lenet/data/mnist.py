"""MNIST, and data sets that come as the same four files."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import arguments
from ..arguments import flag, said
from ..errors import DataError, OutOfRangeError
from ..tensor import Tensor
from .download import download as fetch
from .idx import read_idx


class MNIST:
    """60,000 training and 10,000 test images of handwritten digits, 28×28 pixels.

    ::

        train, test = MNIST(), MNIST(train=False)
        for images, labels in DataLoader(train, batch_size=64, shuffle=True, seed=0):
            ...

    The files, plain or ``.gz``, are looked for in ``root``, in the folder that the environment variable
    ``TINYGRAD_LENET_DATA`` names and in the user's cache folder, in each first in its sub-folder ``mnist``. What is
    found nowhere is downloaded to ``root/mnist`` (to ``root`` if that is called ``mnist`` itself), or to the cache
    folder if no root is given. Every file is checked against its known SHA-256 whenever it is read.

    ``dataset[index]`` is a new pair ``(image, label)``. An integer gives a float32 image of shape (1, 28, 28) and an
    int64 number; a slice or an array of B integers gives (B, 1, 28, 28) and (B,), with no loop over the images.

    Args:
        root: a folder to look in first.
        train: the training set, or else the test set.
        download: whether to fetch what is missing.
        normalize: shift and scale the images to ``(pixel / 255 - mean) / std``, with the mean and standard deviation of
            the *training* set for both sets. If False, they lie between 0 and 1.

    Attributes:
        images: the pixels as they are in the file: uint8, (N, 28, 28), read-only.
        labels: the classes 0 to 9: int64, (N,), read-only.
        classes: the name of each class.

    Raises:
        DataError: a file is damaged, or missing with ``download=False``.
        DownloadError: a file is missing and no mirror gave it.

    Another data set that comes as such files is a subclass with a table of its own:

    >>> import hashlib, pathlib, tempfile
    >>> from tinygrad_lenet.data import MNIST
    >>> files = {
    ...     "t10k-images-idx3-ubyte": bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 51, 102, 255]),
    ...     "t10k-labels-idx1-ubyte": bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 3]),
    ... }
    >>> class Tiny(MNIST):
    ...     folder, mirrors = "tiny", ()
    ...     checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, content in files.items():
    ...         _ = pathlib.Path(folder, name).write_bytes(content)
    ...     data = Tiny(folder, train=False, normalize=False)
    >>> data
    Tiny(2 test images of 1×2 pixels)
    >>> images, labels = data[:]
    >>> images.shape, images.ravel().round(1).tolist(), labels.tolist()
    ((2, 1, 1, 2), [0.0, 0.2..., 0.4..., 1.0], [7, 3])
    """

    folder: ClassVar[str] = "mnist"
    mirrors: ClassVar[tuple[str, ...]] = (
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    )
    checksums: ClassVar[Mapping[str, str]] = {  # SHA-256 of the uncompressed content
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }
    system_folders: ClassVar[tuple[str, ...]] = ()  # where packages of an operating system put them
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")
    mean: ClassVar[float] = 0.13066048  # of the training set's pixels / 255
    std: ClassVar[float] = 0.30810780
    batched: ClassVar[bool] = True  # an array of indices gives a whole batch

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        train: bool = True,
        download: bool = True,
        normalize: bool = True,
    ) -> None:
        name = type(self).__name__
        self.train, self.normalize = flag(name, "train", train), flag(name, "normalize", normalize)
        download, root = flag(name, "download", download), None if root is None else arguments.path(name, "root", root)
        prefix = "train" if self.train else "t10k"
        self.images = self._load(f"{prefix}-images-idx3-ubyte", root, download)
        self.labels = self._load(f"{prefix}-labels-idx1-ubyte", root, download).astype(np.int64)
        if self.images.ndim != 3 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"{type(self).__name__}: found images of shape {self.images.shape} and labels of {self.labels.shape}, "
                "expected (N, height, width) and (N,); correct the table of checksums in the class"
            )
        self.images.flags.writeable = self.labels.flags.writeable = False

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> tuple[NDArray[np.float32], Any]:
        if isinstance(index, Tensor):
            index = index.numpy()
        try:
            pixels, labels = self.images[index], self.labels[index].copy()
        except Exception as error:
            raise OutOfRangeError(
                f"{self!r}: {error}, got {said(index)}; expected an integer, a slice or an array of integers below "
                f"{len(self)}"
            ) from None
        mean, std = (self.mean, self.std) if self.normalize else (0.0, 1.0)
        images = pixels[..., None, :, :].astype(np.float32)
        images -= 255 * mean
        images /= 255 * std
        return images, labels

    def __repr__(self) -> str:
        kind = "training" if self.train else "test"
        return f"{type(self).__name__}({len(self)} {kind} images of {'×'.join(map(str, self.images.shape[1:]))} pixels)"

    @classmethod
    def _load(cls, name: str, root: str | os.PathLike[str] | None, download: bool) -> NDArray[Any]:
        own = os.fspath(root or "")
        places = [own, os.environ.get("TINYGRAD_LENET_DATA", ""), _cache(), *cls.system_folders]
        bases = [os.path.expanduser(place) for place in places if place]
        folders = [folder for base in bases for folder in (os.path.join(base, cls.folder), base)]
        for path in (os.path.join(folder, name + ending) for folder in folders for ending in ("", ".gz")):
            if os.path.isfile(path):
                return read_idx(path, cls.checksums[name])
        if not download:
            raise DataError(
                f"{cls.__name__}: found neither {name} nor {name}.gz in any of\n  " + "\n  ".join(folders) + "\n"
                "Put the file into one of these folders, pass the folder that has it as root=, or pass download=True"
            )
        base = os.path.abspath(os.path.expanduser(own or _cache()))
        target = base if os.path.basename(base) == cls.folder else os.path.join(base, cls.folder)
        return read_idx(fetch(f"{name}.gz", cls.checksums[name], cls.mirrors, target), cls.checksums[name])


class FashionMNIST(MNIST):
    """60,000 training and 10,000 test images of clothes, 28×28 pixels: as :class:`MNIST`, but harder to tell apart.

    Its sub-folder is ``fashion-mnist``. Also found where Debian's package ``dataset-fashion-mnist`` puts it.

    >>> from tinygrad_lenet.data import FashionMNIST
    >>> FashionMNIST.classes[7]
    'Sneaker'
    """

    folder = "fashion-mnist"
    mirrors = (
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    )
    checksums: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    }
    system_folders = ("/usr/share/datasets/fashion-mnist",)
    classes = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    mean = 0.28604060
    std = 0.35302424


def _cache() -> str:
    """The folder that the operating system means for files that can be fetched again."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return os.path.join(base, "tinygrad_lenet")
