"""The language of random programs: one line for each op, and what each line means in PyTorch and in NumPy.

A line is Python text with places in braces, which :mod:`program_places` fills in: ``{x}`` a tensor of floats, ``{y}``
one that broadcasts with it, ``{axis}`` an axis of x, and so on. The text runs as it is; PyTorch runs the same text with
a ``tl`` of its own (:mod:`program_languages`).
"""

import re
from typing import NamedTuple

import numpy as np


class Form(NamedTuple):
    """One way to write an op, and what it asks of its argument x."""

    text: str
    theirs: str = ""  # the same without operators, for PyTorch; the text itself if it has none
    low: float = -np.inf  # the domain
    high: float = np.inf
    kinks: tuple = ()  # points that x must keep away from
    period: float = 0  # ... and their multiples: kinks[0] + n * period
    distinct: bool = False  # whether the elements of x must differ
    rank: int = 0  # the least
    most: int = 4
    view: bool = False  # shares memory with x
    nonzero: bool = False  # whether the result must be away from zero, where it has a kink
    wild: bool = False  # NaN and infinities travel alike through its rule, too

    @property
    def places(self):
        return re.findall(r"\{(\w+)\}", self.text)


def forms(texts, **options):
    return [Form(text.strip(), **options) for text in texts.strip().splitlines()]


SMOOTH = "sin cos tanh sigmoid erf arctan gelu logsigmoid mish silu softplus"
KINKED = {"celu": (), "elu": (), "selu": (), "softsign": (), "leaky_relu": (), "hardsigmoid": (-3, 3)}
KINKED |= {"hardswish": (-3, 3), "hardtanh": (-1, 1), "relu6": (6,)}
UNARY = [
    *[Form(f"tl.{name}({{x}})") for name in SMOOTH.split()],
    *[Form(f"tl.{name}({{x}})", kinks=kinks) for name, kinks in KINKED.items()],
    *[Form(f"tl.{name}({{x}})", wild=True) for name in ("neg", "clone")],
    Form("tl.relu({x})"),
    *[Form(f"{{x}}.{name}()") for name in ("sin", "sigmoid", "square")],
    *[Form(f"tl.{name}({{x}})", low=-4, high=4) for name in ("exp", "expm1", "sinh", "cosh")],
    *[Form(f"tl.{name}({{x}})", low=0.1, high=9) for name in ("log", "log2", "log10", "log1p", "sqrt", "reciprocal")],
    Form("tl.rsqrt({x})", low=0.1, high=9),
    *[Form(f"tl.{name}({{x}})", low=-0.95, high=0.95) for name in ("arcsin", "arccos")],
    *[Form(f"tl.{name}({{x}})", kinks=(0,), period=1) for name in ("floor", "ceil")],
    Form("tl.round({x})", kinks=(0.5,), period=1),
    Form("tl.round({x}, 1)", kinks=(0.05,), period=0.1),
    Form("tl.sign({x})", kinks=(0,)),
    Form("tl.tan({x})", low=-1.2, high=1.2),
    Form("tl.square({x})"),
    Form("tl.gelu({x}, approximate='tanh')"),
    Form("tl.softplus({x}, 2.0, 3.0)", kinks=(1.5,)),
    Form("tl.elu({x}, 0.7)"),
    Form("tl.leaky_relu({x}, {c})", kinks=(0,)),
    Form("tl.hardtanh({x}, -0.3, 2.2)", kinks=(-0.3, 2.2)),
    Form("tl.clip({x}, -0.5, 1.2)", kinks=(-0.5, 1.2)),
    Form("tl.clamp({x}, -0.7, 1.1)", kinks=(-0.7, 1.1)),
    Form("{x}.clip(max=0.7)", "tl.clip({x}, None, 0.7)", kinks=(0.7,)),
    Form("-{x}", wild=True),
    Form("tl.abs({x})"),
    Form("abs({x})"),
    Form("{x} + {c}", wild=True),
    Form("{c} - {x}", wild=True),
    Form("{x} * {c}", wild=True),
    Form("{x} * {n}", wild=True),
    Form("{x} / {c}", wild=True),
    Form("{c} / {x}", low=0.1),
    Form("{x} ** 2"),
    Form("{x} ** 3", low=-4, high=4),
    Form("{x} ** {c}", low=0.1, high=4),
    Form("1.5 ** {x}", low=-4, high=4),
    Form("tl.astype({x}, 'float64')", wild=True),
]
BINARY = [
    *forms(
        "tl.add({x}, {y})\ntl.sub({x}, {y})\ntl.mul({x}, {y})\n{x} + {y}\n{x} - {y}\n{x} * {y}\n{x} + {x}", wild=True
    ),
    Form("{x} * {x}"),
    *forms("tl.div({y}, {x})\ntl.true_divide({y}, {x})", low=0.2, high=9),
    Form("{y} / {x}", low=0.2, high=9),
    Form("tl.pow({x}, {y})", low=0.2, high=4),
    *forms("tl.maximum({x}, {y})\ntl.minimum({x}, {y})\ntl.maximum({x}, {c})"),
    *forms("tl.hypot({x}, {y})\ntl.arctan2({x}, {y})\ntl.logaddexp({x}, {y})", low=0.1, high=9),
    Form("tl.mod({x}, {c})", kinks=(0,), period=0.75, low=0, high=0.74),
    Form("tl.mod({x}, 0.75)", kinks=(0,), period=0.75),
    *forms("tl.where({mask}, {x}, {y})\ntl.where({mask}, {x}, {c})\ntl.where({x} > {c}, {y}, {x})", wild=True),
    Form("tl.masked_fill({x}, {mask}, {c})", wild=True),
    Form("tl.add({x}, {i})", wild=True),
    Form("tl.mul({i}, {x})", wild=True),
    Form("{x} * {mask}", wild=True),
    Form("tl.prelu({x}, {channels})", kinks=(0,), rank=2),
]
# What gives integers and booleans.
PLAIN = [
    *forms("tl.gt({x}, {y})\ntl.ge({x}, {c})\ntl.lt({x}, {y})\ntl.le({x}, {c})\n{x} > {c}\ntl.eq({x}, {x})"),
    *forms("tl.ne({x}, {y})\ntl.logical_and({mask}, {x})\ntl.logical_or({mask}, {mask})\ntl.logical_not({mask})"),
    *forms("tl.bitwise_and({mask}, {mask})\ntl.bitwise_or({mask}, {mask})\ntl.bitwise_xor({mask}, {mask})"),
    Form("tl.bitwise_not({mask})"),
    *forms("tl.any({mask}, {maxis})\ntl.all({mask}, {maxis}, True)\ntl.count_nonzero({mask})"),
    *forms("tl.argmax({x}, {axis})\ntl.argmin({x}, {axis}, True)\ntl.argsort({x}, {axis})", distinct=True, rank=1),
    Form("tl.argsort({x}, {axis}, True)", distinct=True, rank=1),
    Form("tl.one_hot({labels}, 4)"),
    *forms("tl.isnan({x})\ntl.isinf({x})\ntl.isfinite({x})"),
]
REDUCTIONS = [
    *forms(
        """tl.sum({x})
        tl.sum({x}, {axes}, {keep})
        {x}.sum({axis})
        tl.mean({x}, {axes}, {keep})
        {x}.mean()
        tl.cumsum({x}, {axis})
        tl.trace({x}, {shift})""",
        wild=True,
    ),
    *forms(
        """tl.amax({x}, {axes}, {keep})
        tl.amin({x}, {axes}, {keep})
        tl.max({x}, {axis}, {keep})
        tl.min({x})
        tl.cumsum({x})
        tl.var({x}, {axes}, {keep})
        tl.var({x})
        tl.logsumexp({x}, {axes}, {keep})
        tl.softmax({x}, {axis})
        tl.log_softmax({x}, {axis})
        tl.norm({x}, 1, {axis})""",
    ),
    Form("tl.std({x}, {axes})", distinct=True, nonzero=True),
    *forms("tl.norm({x}, 2, {axes}, {keep})\ntl.norm({x}, 3, {axis})\ntl.norm({x})", distinct=True, nonzero=True),
    *forms("tl.norm({x}, np.inf, {axis})\ntl.median({x}, {odd})\ntl.sort({x}, {axis})", distinct=True),
    *forms("tl.sort({x}, {axis}, True)\ntl.topk({x}, 1, {axis})[0]\ntl.topk({x}, 1, {axis}, False)[0]", distinct=True),
    *forms("tl.prod({x}, {axis}, {keep})\ntl.prod({x})\ntl.cumprod({x}, {axis})", low=-3, high=3),
]
VIEWS = [
    *forms(
        """tl.reshape({x}, {shape})
    {x}.reshape({shape})
    tl.flatten({x})
    tl.squeeze({x})
    tl.unsqueeze({x}, {place})
    tl.expand_dims({x}, {place})
    tl.transpose({x}, {axis}, 0)
    tl.permute({x}, {perm})
    tl.swapaxes({x}, {axis}, -1)
    tl.moveaxis({x}, {axis}, 0)
    tl.flip({x}, {axis})
    tl.broadcast_to({x}, {wider})
    tl.diagonal({x}, {shift})
    tl.split({x}, {cuts}, {axis})
    tl.chunk({x}, 2, {axis})
    tl.unbind({x}, {axis})
    tl.getitem({x}, np.s_[{index}])
""",
        view=True,
        wild=True,
    ),
    Form("{x}.detach()", "tl.detach({x})", view=True, wild=True),
    Form("{x}.T", "tl.T({x})", view=True, wild=True),
    *[Form("{x}[{index}]", "tl.getitem({x}, np.s_[{index}])", view=True, wild=True)] * 3,
]
SHAPES = forms(
    """tl.roll({x}, {shift}, {axis})
    tl.roll({x}, {shift})
    tl.tile({x}, {k})
    tl.tile({x}, (2, 1))
    tl.repeat({x}, {k}, {axis})
    tl.tril({x}, {shift})
    tl.triu({x}, {shift})
    tl.stack([{x}, {like}], {place})
    tl.stack([{x}, {x}])
    tl.concatenate([{x}, {like}, {x}], {axis})
    tl.hstack([{x}, {x}])
    tl.vstack([{x}, {x}])
    tl.diff({x}, 1, {axis})
    tl.diff({x}, 2, {axis}, {like})
    tl.diag({vector})
    tl.diag({matrix}, {shift})
    {x}[{fancy}]
    {x}[{mask_of}]
    tl.gather({x}, {axis}, {gathered})
    tl.take_along_axis({x}, {along}, {axis})
    tl.meshgrid({vector}, {vector})
    tl.meshgrid({vector}, {vector}, indexing='ij')
    tl.scatter_add({x}, {axis}, {gathered}, {source})
    tl.scatter({x}, {axis}, {unique}, {source})
    tl.embedding({labels}, {table})""",
    wild=True,
) + forms("tl.pad({x}, ({k}, {z}))\ntl.pad({x}, ({z}, {k}), value={c})", wild=True, rank=1)
PRODUCTS = forms(
    """tl.matmul({x}, {right})
    {x} @ {right}
    tl.linear({x}, {weight})
    tl.linear({x}, {weight}, {bias})
    tl.dot({vector}, {vector})
    tl.inner({x}, {inner})
    tl.outer({vector}, {vector})
    tl.tensordot({x}, {inner}, ([-1], [-1]))
    tl.einsum({einsum})
    tl.einsum({einsum})
    tl.linalg.norm({matrix})
    tl.linalg.norm({matrix}, 'fro')"""
)
NETWORKS = [
    *forms(
        """tl.conv2d({image}, {kernel}, stride={k}, padding={z})
    tl.conv2d({image}, {kernel}, {outs}, dilation={k}, padding=2)
    tl.conv2d({image}, {depthwise}, groups=2, padding=1)
    tl.conv1d({signal}, {kernel1}, padding={z})
    tl.conv_transpose2d({image}, {turned}, stride={k})
    tl.conv_transpose1d({signal}, {turned1}, stride={k}, padding={z})
    tl.avg_pool2d({image}, 2, {k}, {z})
    tl.avg_pool2d({image}, 3, 2, ceil_mode=True)
    tl.avg_pool1d({signal}, 2)
    tl.adaptive_avg_pool2d({image}, 2)
    tl.unfold({image}, 2, stride={k}, padding={z})
    tl.fold({columns}, (3, 3), 2)
    tl.interpolate({image}, scale_factor=2)
    tl.interpolate({image}, size=(5, 3), mode='bilinear')
    tl.interpolate({image}, size=(5, 3), mode='bilinear', align_corners=True)
    tl.pad({image}, (1, 2, 0, 1), mode='reflect')
    tl.pad({image}, (1, 2, 0, 1), mode='replicate')
    tl.pad({image}, (1, 2, 0, 1), mode='circular')
    tl.cross_entropy({logits}, {classes})
    tl.cross_entropy({logits}, {classes}, label_smoothing=0.2, reduction='sum')
    tl.nll_loss({logits}, {classes}, reduction='none')
    tl.mse_loss({x}, {like})
    tl.huber_loss({x}, {like}, 'sum')
    tl.l1_loss({x}, {like}, 'none')
    tl.smooth_l1_loss({x}, {like}, beta=0.5)
    tl.kl_div({x}, {like}, 'sum', True)
    tl.binary_cross_entropy_with_logits({x}, {unit})"""
    ),
    Form("tl.adaptive_max_pool2d({image}, 2)", distinct=True),
    Form("tl.max_pool2d({image}, 2, {k}, {z})", distinct=True),
    Form("tl.max_pool2d({image}, 2, 2, ceil_mode=True)", distinct=True),
    Form("tl.max_pool1d({signal}, 2, {k})", distinct=True),
    *forms(
        """tl.batch_norm({image}, None, None, {pair}, {pair}, True)
        tl.group_norm({image}, 2, {pair}, {pair})
        tl.group_norm({image}, 1)
        tl.layer_norm({matrix}, {last})
        tl.layer_norm({matrix}, {last}, {lastweight})""",
        distinct=True,
    ),
    Form("tl.multi_margin_loss({logits}, {classes})"),
]
KINDS = {
    "unary": UNARY,
    "binary": BINARY,
    "plain": PLAIN,
    "reductions": REDUCTIONS,
    "views": VIEWS,
    "shapes": SHAPES,
    "products": PRODUCTS,
    "networks": NETWORKS,
}
EVERY = [form for kind in KINDS.values() for form in kind]
PATTERNS = "ij,jk->ik bij,bjk->bik ii->i ij->ji ij->j i,j->ij ij,ij-> ij,kj,k->i abc,cd,bd->a i->i ii-> ij->ij"
# Names of the package that are functions of tensors and take no part, and why.
ABSENT = {
    "dropout": "draws numbers of its own",
    "dropout2d": "draws numbers of its own",
    **dict.fromkeys(["rand_like", "randn_like"], "draws numbers of its own"),
    **dict.fromkeys(["full_like", "ones_like", "zeros_like"], "makes constants"),
    **dict.fromkeys(["bmm", "mm"], "matmul under other names"),
    **dict.fromkeys(["cat", "concat"], "concatenate under other names"),
    "allclose": "gives no tensor",
    "binary_cross_entropy": "PyTorch adds 1e-12 to the probabilities in its second gradient",
    "floor_divide": "has no gradient, and PyTorch's raises an error",
    "drawn": "draws numbers of its own",
    "load": "reads files",
    "primitive": "makes ops",
}
