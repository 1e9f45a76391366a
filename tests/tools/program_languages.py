"""What the text of random programs means elsewhere: a ``tl`` made of PyTorch's functions, and one of NumPy's."""

import numpy as np
from vocabulary import FUNCTIONS, find


class Torch:
    """What the text means in PyTorch, where all floats are float64: names of the vocabulary, and what differs."""

    def __init__(self, torch):
        self.torch, self.linalg = torch, self
        self.no_grad = torch.no_grad
        self._place = {ours: (place, theirs) for place, names in FUNCTIONS.values() for ours, theirs in names.items()}

    def __getattr__(self, name):
        place, theirs = self._place[name]
        found = find(self.torch, place, theirs)
        setattr(self, name, found)
        return found

    def _axes(self, x, axis):
        axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        return tuple(a % x.ndim for a in axes)

    def astype(self, x, dtype):
        return x.clone()

    def abs(self, x):
        return self.torch.abs(x)

    def hardsigmoid(self, x):  # PyTorch's own has constants of float32
        return self.torch.nn.functional.relu6(x + 3) / 6

    def celu(self, x):
        return self.torch.nn.functional.elu(x)

    def maximum(self, x, y):
        return self.torch.maximum(x, self.torch.as_tensor(y))

    def round(self, x, decimals=0):
        return self.torch.round(x, decimals=decimals)

    def where(self, mask, x, y):
        return self.torch.where(mask, x, y)

    def sum(self, x, axis=None, keepdims=False):
        return self.torch.sum(x, self._axes(x, axis), keepdims)

    def mean(self, x, axis=None, keepdims=False):
        return self.torch.mean(x, self._axes(x, axis), keepdims)

    def var(self, x, axis=None, keepdims=False):
        return self.torch.var(x, self._axes(x, axis), correction=0, keepdim=keepdims)

    def std(self, x, axis=None, keepdims=False):
        return self.torch.std(x, self._axes(x, axis), correction=0, keepdim=keepdims)

    def max(self, x, axis=None, keepdims=False):
        return self.torch.amax(x, self._axes(x, axis), keepdims)

    def min(self, x, axis=None, keepdims=False):
        return self.torch.amin(x, self._axes(x, axis), keepdims)

    amax, amin = max, min

    def cumsum(self, x, axis=None):
        return self.torch.cumsum(x.reshape(-1), 0) if axis is None else self.torch.cumsum(x, axis)

    def logsumexp(self, x, axis=None, keepdims=False):
        return self.torch.logsumexp(x, self._axes(x, axis), keepdims)

    def norm(self, x, p=2, axis=None, keepdims=False):
        p = 2 if p == "fro" else p
        return self.torch.linalg.vector_norm(x, p, self._axes(x, axis), keepdims)

    def prod(self, x, axis=None, keepdims=False):
        return self.torch.prod(x) if axis is None else self.torch.prod(x, axis, keepdims)

    def median(self, x, axis):
        return self.torch.median(x, axis)[0]

    def sort(self, x, axis=-1, descending=False):
        return self.torch.sort(x, axis, descending)[0]

    def count_nonzero(self, x, axis=None):
        return self.torch.count_nonzero(x, axis)

    def trace(self, x, offset=0):
        return self.torch.diagonal(x, offset).sum(-1)

    def detach(self, x):
        return x.detach()

    def T(self, x):
        return x.permute(tuple(range(x.ndim))[::-1])

    def transpose(self, x, *axes):
        return self.torch.transpose(x, *axes)

    def permute(self, x, axes):
        return self.torch.permute(x, axes)

    def reshape(self, x, shape):
        return self.torch.reshape(x, shape)

    def flatten(self, x):  # PyTorch's own returns its argument
        return x.reshape(-1)

    def flip(self, x, axis):
        return self.torch.flip(x, (axis,))

    def getitem(self, x, index):
        """NumPy's steps may be negative."""
        index = index if isinstance(index, tuple) else (index,)
        axis, flips, keys = 0, [], []
        at = x
        for key in index:
            if key is Ellipsis:
                axis = x.ndim - (len([k for k in index if k is not None]) - index.index(Ellipsis) - 1)
            if isinstance(key, slice) and (key.step or 1) < 0:
                flips.append(axis)
                n = x.shape[axis]
                picked = range(n)[key]
                key = self.torch.tensor(list(picked), dtype=self.torch.int64)
                at = at.index_select(axis, key)
                key = slice(None)
            keys.append(key)
            axis += key is not None and key is not Ellipsis
        return at[tuple(keys)]

    def tile(self, x, reps):
        return self.torch.tile(x, reps if isinstance(reps, tuple) else (reps,))

    def meshgrid(self, *xs, indexing="xy"):
        return self.torch.meshgrid(*xs, indexing=indexing)

    def gather(self, x, axis, index):
        return self.torch.gather(x, axis, index)

    def pad(self, x, widths, mode="constant", value=0.0):
        there = self.torch.nn.functional.pad
        return there(x, widths, mode, value) if mode == "constant" else there(x, widths, mode)

    def avg_pool2d(self, x, *args, **options):
        return self.torch.nn.functional.avg_pool2d(x, *args, **options)

    def cross_entropy(self, x, target, reduction="mean", label_smoothing=0.0):
        there = self.torch.nn.functional.cross_entropy
        return there(x, target, reduction=reduction, label_smoothing=label_smoothing)

    def nll_loss(self, x, target, reduction="mean"):
        return self.torch.nn.functional.nll_loss(x, target, reduction=reduction)

    def multi_margin_loss(self, x, target):
        return self.torch.nn.functional.multi_margin_loss(x, target)

    def layer_norm(self, x, n, weight=None):
        return self.torch.nn.functional.layer_norm(x, (n,), weight)

    def mse_loss(self, x, y, reduction="mean"):
        return self.torch.nn.functional.mse_loss(x, y, reduction=reduction)

    def l1_loss(self, x, y, reduction="mean"):
        return self.torch.nn.functional.l1_loss(x, y, reduction=reduction)

    def huber_loss(self, x, y, reduction="mean"):
        return self.torch.nn.functional.huber_loss(x, y, reduction=reduction)

    def smooth_l1_loss(self, x, y, beta):
        return self.torch.nn.functional.smooth_l1_loss(x, y, beta=beta)

    def kl_div(self, x, y, reduction, log_target):
        return self.torch.nn.functional.kl_div(x, y, reduction=reduction, log_target=log_target)


class Missing(Exception):
    """NumPy has no such function."""


# Names that NumPy has, too; and those that it spells in another way.
SAME = set(
    "sin cos tanh arctan exp expm1 sinh cosh log log2 log10 log1p sqrt reciprocal arcsin arccos floor ceil round "  # noqa: SIM905
    "sign tan square abs add maximum minimum hypot mod where logical_and logical_or logical_not any all count_nonzero "
    "argmax argmin cumsum cumprod sum mean var std prod amax amin max min median squeeze expand_dims swapaxes moveaxis "
    "broadcast_to reshape roll repeat tile tril triu stack concatenate meshgrid matmul dot inner outer tensordot "
    "einsum flip hstack vstack diff arctan2 logaddexp isnan isinf isfinite".split()
)
OTHER = {"neg": "negative", "sub": "subtract", "mul": "multiply", "div": "divide", "pow": "power", "clone": "copy"}
OTHER |= {"gt": "greater", "ge": "greater_equal", "lt": "less", "le": "less_equal", "eq": "equal", "ne": "not_equal"}
OTHER |= {"permute": "transpose"}


class Numpy:
    """What the text means in NumPy, of what NumPy has. Views share memory."""

    def __getattr__(self, name):
        if name not in SAME and name not in OTHER:
            raise Missing(name)
        function = getattr(np, OTHER.get(name, name))

        def call(*args, **kwargs):
            found = function(*args, **kwargs)
            owns = isinstance(found, np.ndarray) and found.base is None
            return found.copy() if owns and not found.flags.c_contiguous else found  # or flatten() is no view of it

        return call

    def astype(self, x, dtype):
        return x.astype(dtype)

    def relu(self, x):
        return np.maximum(x, 0)

    def masked_fill(self, x, mask, value):
        return np.where(mask, value, x)

    def detach(self, x):
        return x

    def T(self, x):
        return x.T

    def getitem(self, x, index):
        found, index = x[index], index if isinstance(index, tuple) else (index,)
        return x[(*index, ...)] if isinstance(found, np.generic) else found

    def flatten(self, x):
        return x.reshape(-1)

    def unsqueeze(self, x, axis):
        return np.expand_dims(x, axis)

    def transpose(self, x, *axes):
        return np.swapaxes(x, *axes)

    def diagonal(self, x, offset):
        view = np.diagonal(x, offset)
        view.flags.writeable = x.flags.writeable
        return view

    def unbind(self, x, axis):
        return tuple(np.moveaxis(x, axis, 0)[i, ...] for i in range(x.shape[axis]))

    def split(self, x, cuts, axis):
        return tuple(np.split(x, cuts, axis))

    def chunk(self, x, chunks, axis):
        n = x.shape[axis]
        cuts = range(-(-n // chunks), n, -(-n // chunks)) if n else [0] * (chunks - 1)
        return tuple(np.split(x, cuts, axis))

    def sort(self, x, axis, descending=False):
        return np.flip(np.sort(x, axis), axis) if descending else np.sort(x, axis)

    def argsort(self, x, axis, descending=False):
        return np.argsort(-x if descending else x, axis)

    def softmax(self, x, axis):
        e = np.exp(x - x.max(axis, keepdims=True, initial=-np.inf))
        return e / e.sum(axis, keepdims=True)

    def gather(self, x, axis, index):
        inner = tuple(slice(n) if a != axis % x.ndim else slice(None) for a, n in enumerate(index.shape))
        return np.take_along_axis(x[inner], index, axis)

    def take_along_axis(self, x, index, axis):
        return np.take_along_axis(x, index, axis)

    def linear(self, x, weight, bias=0):
        return x @ weight.T + bias
