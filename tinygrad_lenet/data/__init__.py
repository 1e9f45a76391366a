"""Data sets, and the loader that makes batches of Tensors from them."""

from .dataset import Subset, random_split
from .idx import read_idx
from .loader import DataLoader
from .mnist import MNIST, FashionMNIST

__all__ = ["MNIST", "DataLoader", "FashionMNIST", "Subset", "random_split", "read_idx"]
