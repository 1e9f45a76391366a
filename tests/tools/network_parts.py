"""The parts of random networks: layers, losses, optimisers and schedules, each a row with its random legal options.

A row draws from a ``random.Random`` and the shape of its input, batch first, and gives positional arguments and options
for the constructor. Options left out have their default, so a failure is shrunk by leaving out more. Everything that a
row draws must be legal: what the package then refuses is a fault.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

TOKENS = "tokens"  # the kind of an input of integers, (N, L); other kinds are numbers of axes


class Source(str):
    """A value that is shown as this text."""

    def __repr__(self):
        return str(self)


@dataclass(frozen=True)
class Layer:
    """A layer: the kinds of input it takes, what it draws, the block that holds it, whether its slope jumps."""

    kinds: tuple[Any, ...]
    draw: Any
    block: str = ""
    kinked: bool = False
    shape: tuple[int, ...] = ()  # the only one for a sample
    slack: float = 0.0  # in float64: where PyTorch has constants of float32


def some(r, **makers):
    """Each option with probability 0.4."""
    return {name: make() for name, make in makers.items() if r.random() < 0.4}


def plain(*kinds, **flags):
    return Layer(kinds or (2, 3, 4), lambda r, s: ((), {}), **flags)


def activation(kinked=False, slack=0.0, **choices):
    """An activation of any shape, with options from lists."""

    def draw(r, s):
        return (), some(r, **{name: (lambda values=values: r.choice(values)) for name, values in choices.items()})

    return Layer((2, 3, 4), draw, kinked=kinked, slack=slack)


def sized(r, sides, most=3):
    """Lengths of a kernel, at most those of the sides; equal ones often as one number."""
    kernel = tuple(r.randint(1, min(most, n)) for n in sides)
    return kernel[0] if len(set(kernel)) == 1 and r.random() < 0.7 else kernel


def pairs(value, dims):
    return value if isinstance(value, tuple) else (value,) * dims


def spread(r, dims, low, high):
    """One number, or one for each side."""
    if dims == 1 or r.random() < 0.4:
        return r.randint(low, high)
    return tuple(r.randint(low, high) for _ in range(dims))


def dilated(r, sides, kernel):
    """A dilation with which the kernel still fits the sides."""
    most = min([3] + [(n - 1) // (k - 1) for n, k in zip(sides, kernel, strict=True) if k > 1])
    return r.randint(1, max(1, most))


def divisor(r, *numbers):
    return r.choice([g for g in range(1, 5) if not any(n % g for n in numbers)])


def convolution(dims, transposed=False):
    def draw(r, s):
        channels, sides = s[1], s[2:]
        kernel = sized(r, sides)
        kernel = kernel if dims > 1 else pairs(kernel, 1)[0]
        lengths = pairs(kernel, dims)
        groups = divisor(r, channels)
        options = some(
            r, groups=lambda: groups, bias=lambda: False, dilation=lambda: dilated(r, sides, lengths)
        )  # groups divide the output, whose channels are a multiple
        if transposed:
            options |= some(r, stride=lambda: spread(r, dims, 1, 2))
            least = min(pairs(options.get("stride", 1), dims))
            options |= some(r, output_padding=lambda: r.randrange(max(least, options.get("dilation", 1))))
            if min(lengths) > 1:
                options |= some(r, padding=lambda: r.randint(0, (min(lengths) - 1) // 2))
        elif r.random() < 0.2:
            options["padding"] = r.choice(["same", "valid"])
        else:
            options |= some(r, stride=lambda: spread(r, dims, 1, 2), padding=lambda: spread(r, dims, 0, 2))
        return (channels, groups * r.randint(1, 2), kernel), options

    return Layer((dims + 2,), draw)


def pooling(dims, largest):
    def draw(r, s):
        sides = s[2:]
        kernel = sized(r, sides)
        kernel = kernel if dims > 1 else pairs(kernel, 1)[0]
        lengths = pairs(kernel, dims)
        options = some(r, stride=lambda: spread(r, dims, 1, 3), ceil_mode=lambda: True)
        if min(lengths) > 1:
            options |= some(r, padding=lambda: r.randint(0, min(lengths) // 2))
        if largest:
            options |= some(r, dilation=lambda: dilated(r, sides, lengths))
        else:
            options |= some(r, count_include_pad=lambda: False)
            if dims == 2:
                options |= some(r, divisor_override=lambda: r.randint(1, 5))
        return (kernel,), options

    return Layer((dims + 2,), draw, kinked=largest)


def adaptive(r, s):
    return (r.choice([1, 2, 3, (2, 3), (None, 2), (5, 1)]),), {}


def upsample(r, s):
    options = {"mode": "bilinear"} if r.random() < 0.5 else {}
    if options:
        options |= some(r, align_corners=lambda: r.random() < 0.5)
    if r.random() < 0.5:
        options["size"] = r.choice([3, 5, (4, 2)])
    else:
        options["scale_factor"] = r.choice([2, 1.5, (1, 2), (0.7, 1.4) if s[2] > 1 else 3])
    return (), options


def padded(reflected, **options):
    def draw(r, s):
        most = min(2, *(n - 1 for n in s[2:])) if reflected else 2
        return (r.randint(0, most) if r.random() < 0.2 else tuple(r.randint(0, most) for _ in range(4)),), options

    return Layer((4,), draw)


def batch_norm(*kinds):
    def draw(r, s):
        return (s[1],), some(
            r,
            eps=lambda: r.choice([1e-3, 0.1]),
            momentum=lambda: r.choice([0.3, None, 1.0]),
            affine=lambda: False,
            track_running_stats=lambda: False,
        )

    return Layer(kinds, draw)


def layer_norm(r, s):
    axes = r.randint(1, len(s) - 1)
    shape = s[-1] if axes == 1 and r.random() < 0.5 else s[-axes:]
    options = some(r, eps=lambda: r.choice([1e-3, 0.1]), elementwise_affine=lambda: False, bias=lambda: False)
    return (shape,), options | single(math.prod(s[-axes:]))


def group_norm(r, s):
    groups = divisor(r, s[1])
    options = some(r, eps=lambda: r.choice([1e-3, 0.1]), affine=lambda: False)
    return (groups, s[1]), options | single(math.prod(s[1:]) // groups)


def single(count):
    """A large eps for groups of one element, whose deviation is a rounding error."""
    return {"eps": 0.1} if count == 1 else {}


def linear(r, s):
    return (s[-1], r.randint(1, 5)), some(r, bias=lambda: False)


def embedding(r, s):
    return (7, r.randint(1, 4)), some(r, padding_idx=lambda: r.choice([0, 3, -2]))


def recurrent(**extra):
    def draw(r, s):
        return (s[-1], r.randint(1, 4)), some(
            r,
            num_layers=lambda: 2,
            bias=lambda: False,
            batch_first=lambda: True,
            bidirectional=lambda: True,
            **{name: (lambda value=value: value) for name, value in extra.items()},
        )

    return Layer((3,), draw, block="Recurrent", kinked=bool(extra))


def dropout(*kinds):
    return Layer(kinds, lambda r, s: ((r.choice([0.0, 0.2, 0.5]),), {"generator": r.randrange(100)}))


def unflatten(r, s):
    k = divisor(r, s[1])
    return (1, r.choice([(k, s[1] // k), (k, -1)])), {}


def lenet(r, s):
    options = {"activation": lambda: r.choice(["tanh", "sigmoid", "leaky_relu", "elu"]), "pool": lambda: "avg"}
    return (), some(r, **options, batch_norm=lambda: True, num_classes=lambda: 4)


LAYERS = {
    "AdaptiveAvgPool2d": Layer((4,), adaptive),
    "AdaptiveMaxPool2d": Layer((4,), adaptive, kinked=True),
    "AvgPool1d": pooling(1, largest=False),
    "AvgPool2d": pooling(2, largest=False),
    "BatchNorm1d": batch_norm(2, 3),
    "BatchNorm2d": batch_norm(4),
    "CELU": activation(alpha=[0.5, 1.7], slack=1e-7),
    "ConstantPad2d": padded(reflected=False, value=0.5),
    "Conv1d": convolution(1),
    "Conv2d": convolution(2),
    "ConvTranspose1d": convolution(1, transposed=True),
    "ConvTranspose2d": convolution(2, transposed=True),
    "Dropout": dropout(2, 3, 4),
    "Dropout2d": dropout(4),
    "ELU": activation(kinked=True, alpha=[0.5, 1.7]),
    "Embedding": Layer((TOKENS,), embedding),
    "Flatten": Layer((2, 3, 4), lambda r, s: ((), some(r, end_dim=lambda: r.randint(1, len(s) - 1)))),
    "GELU": activation(approximate=["tanh"]),
    "GRU": recurrent(),
    "GroupNorm": Layer((2, 3, 4), group_norm),
    "Hardsigmoid": activation(kinked=True, slack=1e-7),
    "Hardswish": activation(kinked=True, slack=1e-7),
    "Hardtanh": activation(kinked=True, min_val=[-0.3, -2.0], max_val=[0.4]),
    "Identity": plain(),
    "LSTM": recurrent(),
    "LayerNorm": Layer((2, 3, 4), layer_norm),
    "LeNet5": Layer((4,), lenet, shape=(1, 28, 28), kinked=True),
    "LeakyReLU": activation(kinked=True, negative_slope=[0.2]),
    "Linear": Layer((2, 3, 4), linear),
    "LogSigmoid": plain(),
    "LogSoftmax": Layer((2, 3, 4), lambda r, s: ((r.choice([1, -1]),), {})),
    "MaxPool1d": pooling(1, largest=True),
    "MaxPool2d": pooling(2, largest=True),
    "Mish": plain(),
    "PReLU": Layer((2, 3, 4), lambda r, s: ((r.choice([1, s[1]]),), some(r, init=lambda: 0.4)), kinked=True),
    "RNN": recurrent(nonlinearity="relu"),
    "ReLU": plain(kinked=True),
    "ReLU6": plain(kinked=True),
    "ReflectionPad2d": padded(reflected=True),
    "ReplicationPad2d": padded(reflected=False),
    "SELU": plain(kinked=True, slack=1e-7),
    "SiLU": plain(),
    "Sigmoid": plain(),
    "Softmax": Layer((2, 3, 4), lambda r, s: ((r.choice([1, -1]),), {})),
    "Softplus": activation(beta=[2.0], threshold=[3.0], kinked=True),
    "Softsign": plain(),
    "Tanh": plain(),
    "Unflatten": Layer((2, 3), unflatten),
    "Upsample": Layer((4,), upsample),
    "ZeroPad2d": padded(reflected=False),
}
# Blocks of several layers, defined for both libraries in network_judges.blocks.
BLOCKS = ("Sequential", "Residual", "Twice", "Chain", "Spare")
LAYERS["Tied"] = Layer((2, 3, 4), lambda r, s: ((s[-1],), {}))


class Loss(NamedTuple):
    """A loss: the numbers of axes it takes, what it draws, what its targets are, whether its slope jumps."""

    ranks: tuple[int, ...]
    draw: Any
    targets: tuple[str, ...]
    kinked: bool = False


def array(r, *shape):
    """The text of an array of factors."""
    if len(shape) == 1:
        return Source(f"lib.array({[round(r.uniform(0.5, 2), 2) for _ in range(shape[0])]})")
    return Source(f"lib.array({[[round(r.uniform(0.5, 2), 2) for _ in range(shape[1])] for _ in range(shape[0])]})")


def reduced(*more, **choices):
    """A loss with a reduction and options from lists."""

    def draw(r, s):
        lists = {"reduction": ["sum", "none", *more], **choices}
        return some(r, **{name: (lambda values=values: r.choice(values)) for name, values in lists.items()})

    return draw


def classified(smoothing=False):
    def draw(r, s):
        options = reduced()(r, s) | some(r, weight=lambda: array(r, s[1]), ignore_index=lambda: r.choice([-1, 0, 1]))
        return options | (some(r, label_smoothing=lambda: 0.2) if smoothing else {})

    return draw


def binary(r, s):
    return reduced()(r, s) | some(r, weight=lambda: array(r, s[-1]), pos_weight=lambda: array(r, s[-1]))


def margins(r, s):
    return reduced(p=[2], margin=[0.5, 1.3])(r, s) | some(r, weight=lambda: array(r, s[1]))


RANKS = (2, 3, 4)
LOSSES = {
    "BCEWithLogitsLoss": Loss(RANKS, binary, ("shares",)),
    "CrossEntropyLoss": Loss(RANKS, classified(smoothing=True), ("classes", "probabilities")),
    "HuberLoss": Loss(RANKS, reduced(delta=[0.3, 2.0]), ("values",)),
    "KLDivLoss": Loss(RANKS, reduced("batchmean"), ("probabilities",)),
    "L1Loss": Loss(RANKS, reduced(), ("values",), kinked=True),
    "MSELoss": Loss(RANKS, reduced(), ("values",)),
    "MultiMarginLoss": Loss((2,), margins, ("classes",), kinked=True),
    "NLLLoss": Loss(RANKS, classified(), ("classes",)),
    "SmoothL1Loss": Loss(RANKS, reduced(beta=[0.3, 2.0]), ("values",)),
}


def optimizer(lrs, **choices):
    """Options of an optimiser: a learning rate always, the others from lists."""

    def draw(r, dtype):
        options = {"lr": r.choice(lrs)}
        for name, values in {"weight_decay": [0.1, 0.01], "maximize": [True], **choices}.items():
            if name == "eps" or r.random() < 0.4:
                options[name] = r.choice(values)
        if "eps" in options:  # what is 0 but for rounding must not become a step
            # In float16 small gradients are 0, and with a small eps a step is missing; which is short but in RMSprop.
            small = dtype == "float16" and "alpha" not in choices
            options["eps"] = r.choice([1e-8, 1e-3] if small else [1e-3, 1e-2])
        if options.get("nesterov"):
            options.pop("dampening", None)
            options.setdefault("momentum", 0.9)
        return options

    return draw


BETAS = [(0.8, 0.9), (0.0, 0.5), (0.9, 0.99)]
OPTIMIZERS = {
    "Adagrad": optimizer([0.01, 0.003], lr_decay=[0.1], initial_accumulator_value=[0.1, 0.5], eps=[1e-5]),
    "Adam": optimizer([0.001, 0.003], betas=BETAS, eps=[1e-5], amsgrad=[True]),
    "AdamW": optimizer([0.001, 0.003], betas=BETAS, eps=[1e-5], amsgrad=[True]),
    "RMSprop": optimizer([0.001, 0.003], alpha=[0.9, 0.8], eps=[1e-5], momentum=[0.5, 0.9], centered=[True]),
    "SGD": optimizer([0.001, 0.003], momentum=[0.5, 0.9], dampening=[0.2], nesterov=[True]),
}


def one_cycle(r):
    return {"max_lr": 0.01, "total_steps": r.choice([12, 17])} | some(
        r,
        pct_start=lambda: r.choice([0.5, 0.25]),
        anneal_strategy=lambda: "linear",
        cycle_momentum=lambda: False,
        div_factor=lambda: 4.0,
        final_div_factor=lambda: 10.0,
        three_phase=lambda: True,
    )


def linear_rates(r):
    return some(
        r,
        start_factor=lambda: r.choice([0.5, 0.1]),
        end_factor=lambda: r.choice([0.2, 0.9]),
        total_iters=lambda: r.randint(1, 8),
    )


def plateau(r):
    return some(
        r,
        mode=lambda: "max",
        factor=lambda: 0.5,
        patience=lambda: r.randint(0, 2),
        threshold=lambda: 0.3,
        threshold_mode=lambda: "abs",
        cooldown=lambda: 1,
        min_lr=lambda: 5e-4,
        eps=lambda: 1e-4,
    )


SCHEDULES = {  # what each draws; of those that hold others, the text of its arguments
    "CosineAnnealingLR": lambda r: {"T_max": r.choice([2, 3, 5, 10])} | some(r, eta_min=lambda: 5e-4),
    "ExponentialLR": lambda r: {"gamma": r.choice([0.9, 0.5])},
    "LinearLR": linear_rates,
    "MultiStepLR": lambda r: {"milestones": sorted(r.choices(range(1, 9), k=3))} | some(r, gamma=lambda: 0.5),
    "OneCycleLR": one_cycle,
    "ReduceLROnPlateau": plateau,
    "SequentialLR": None,  # drawn from the others
    "StepLR": lambda r: {"step_size": r.randint(1, 4)} | some(r, gamma=lambda: 0.5),
}
INNER = ("CosineAnnealingLR", "ExponentialLR", "LinearLR", "MultiStepLR", "StepLR")  # of a sequence

# Public names that no row has, and why.
WITHOUT = {
    **dict.fromkeys(["Module", "Parameter", "Optimizer", "Schedule"], "bases; every row has them below it"),
    **dict.fromkeys(["Sequential", "ModuleList"], "blocks: every network is a Sequential, Chain has a ModuleList"),
    "ModuleDict": "in test_module_dicts",
    "BCELoss": "its input must be probabilities; in test_functional",
    "LambdaLR": "its argument is a function; in test_schedules",
    **dict.fromkeys(["Call", "record_calls", "summary"], "they look at a network"),
    "StateError": "an error",
    **dict.fromkeys(["utils", "functional", "lr_scheduler"], "modules of what is listed elsewhere"),
    "init": "a module: weights are given by the judge, the same for both libraries",
    "clip_grad_norm_": "every third network clips",
}
