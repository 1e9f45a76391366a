"""The names that each subject of ``ops/`` declares. Made by ``python tests/tools/methods.py --write``."""

# Functions of the package.
FUNCTIONS = {
    "activations": (
        "tanh sigmoid relu leaky_relu elu softplus celu selu silu mish softsign hardtanh relu6 hardsigmoid hardswish "
        "gelu logsigmoid prelu"
    ),
    "contractions": "einsum tensordot dot inner outer trace",
    "convolution": "conv2d conv_transpose2d conv1d conv_transpose1d",
    "creation": (
        "manual_seed full full_like zeros_like ones_like zeros empty ones arange linspace eye rand rand_like randn "
        "randn_like randint randperm"
    ),
    "dropout": "dropout dropout2d",
    "elementwise": (
        "add sub mul true_divide div reciprocal neg sign floor ceil round floor_divide mod where abs maximum minimum "
        "clip clamp masked_fill clone astype"
    ),
    "indexing": "getitem take_along_axis gather scatter scatter_add one_hot embedding",
    "logic": (
        "eq ne lt le gt ge isnan isinf isfinite allclose logical_and logical_or logical_not bitwise_and bitwise_or "
        "bitwise_xor bitwise_not"
    ),
    "losses": (
        "mse_loss l1_loss binary_cross_entropy_with_logits binary_cross_entropy huber_loss smooth_l1_loss kl_div "
        "nll_loss cross_entropy multi_margin_loss"
    ),
    "maths": (
        "pow square sqrt exp log sin cos tan arcsin arccos arctan sinh cosh expm1 log1p log2 log10 hypot arctan2 rsqrt "
        "erf"
    ),
    "normalization": "batch_norm layer_norm group_norm",
    "pooling": "max_pool2d avg_pool2d max_pool1d avg_pool1d",
    "products": "matmul mm bmm linear",
    "rearrange": "flip roll tile repeat split chunk unbind tril triu diagonal diag diff meshgrid pad",
    "reduction": "sum amax amin max min argmax argmin mean var std norm cumsum cumprod prod count_nonzero any all",
    "resize": "adaptive_avg_pool2d adaptive_max_pool2d interpolate",
    "shape": (
        "reshape permute transpose broadcast_to flatten squeeze unsqueeze expand_dims concatenate cat concat hstack "
        "vstack stack moveaxis swapaxes"
    ),
    "softmax": "logsumexp softmax logaddexp log_softmax",
    "sorting": "argsort sort topk median",
    "unfold": "unfold fold",
}
# Methods and operators of Tensor.
METHODS = {
    "activations": "tanh sigmoid relu",
    "contractions": "dot inner outer trace",
    "convolution": "conv2d",
    "elementwise": (
        "__add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ __imul__ __truediv__ __rtruediv__ "
        "__itruediv__ div reciprocal __neg__ sign floor ceil round floor_divide __floordiv__ __rfloordiv__ "
        "__ifloordiv__ mod __mod__ __rmod__ abs __abs__ maximum minimum clip clamp masked_fill clone __pos__ astype to "
        "contiguous cpu float double half int long bool"
    ),
    "indexing": "__getitem__ take_along_axis gather scatter scatter_add",
    "logic": (
        "__eq__ __ne__ __lt__ __le__ __gt__ __ge__ isnan isinf isfinite allclose __and__ __rand__ __iand__ __or__ "
        "__ror__ __ior__ __xor__ __rxor__ __ixor__ __invert__"
    ),
    "maths": (
        "pow __pow__ __rpow__ square sqrt exp log sin cos tan arcsin arccos arctan sinh cosh expm1 log1p log2 log10 "
        "hypot arctan2 rsqrt erf"
    ),
    "pooling": "max_pool2d avg_pool2d",
    "products": "matmul __matmul__ __rmatmul__ mm bmm",
    "rearrange": "flip roll tile repeat split chunk unbind tril triu diagonal diag diff",
    "reduction": "sum amax amin max min argmax argmin mean var std norm cumsum cumprod prod count_nonzero any all",
    "shape": (
        "reshape view permute transpose t broadcast_to expand flatten ravel squeeze unsqueeze expand_dims moveaxis "
        "swapaxes"
    ),
    "softmax": "logsumexp softmax logaddexp log_softmax",
    "sorting": "argsort sort topk median",
    "unfold": "unfold fold",
}
