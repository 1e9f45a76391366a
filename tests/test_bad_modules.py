"""Whatever one passes to layers, losses, modules and their methods: a right result, or an error of the package that
names what is at fault; and what refused is as it was before.

HYPOTHESIS_PROFILE=thorough pytest tests/test_bad_modules.py      the number of cases stands in the last lines
"""

import functools

import numpy as np
import pytest
from objects import call, collector, floats, limits, making, method, rng, run, signed, snapshot  # noqa: F401

import tinygrad_lenet as tl
from tinygrad_lenet import nn
from tinygrad_lenet.core.primitive import draw as t

CASES, case = collector()

# Layers


def used(*shape, ids=None, limit=100_000):
    """Call a module with an input whose shape may depend on it, and train it a little."""

    def use(module):
        if sum(p.size for p in module.parameters()) > limit:
            return None
        lengths = [n(module) if callable(n) else n for n in shape]
        if max(lengths) > limit:
            return None
        x = tl.tensor(np.zeros(lengths, np.int64)) if ids else floats(*lengths)
        repr(module)
        return module(x)

    return use


def attribute(name):
    return lambda module: getattr(module, name)


CONV = {"names": ("conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d")}
IN = attribute("in_channels")
case("Linear", making(nn.Linear, used(4, attribute("in_features"))), call(3, 2), call(3, 2, False, 0))
case("Conv2d", making(nn.Conv2d, used(2, IN, 7, 6)), call(2, 4, 3), call(4, 2, (3, 2), 2, 1, 1, 2, True, 0), **CONV)
case("Conv1d", making(nn.Conv1d, used(2, IN, 9)), call(2, 4, 3), call(4, 2, 3, 2, 1, 1, 2, True, 0), **CONV)
case("ConvTranspose2d", making(nn.ConvTranspose2d, used(2, IN, 4, 3)), call(2, 4, 3, 2, 1, 1, 2, True, 1, 0), **CONV)
case("ConvTranspose1d", making(nn.ConvTranspose1d, used(2, IN, 5)), call(2, 4, 3), call(2, 4, 3, 2, 1, 1), **CONV)
case(
    "Embedding",
    making(nn.Embedding, used(2, 3, ids=True)),
    call(5, 3),
    call(5, 3, 1, 0),
    names=("embedding",),
    words=("indices",),
)
case("Dropout", making(nn.Dropout, used(4, 3)), call(0.5, 0), names=("dropout",))
case("Dropout2d", making(nn.Dropout2d, used(4, 3, 2, 2)), call(0.5, 0), names=("dropout2d",))
case("Flatten", making(nn.Flatten, used(2, 3, 4)), call(1, -1), names=("flatten",), shares=True, words=("axis",))
case(
    "Unflatten",
    making(nn.Unflatten, used(2, 6, 4)),
    call(1, (2, 3)),
    call(1, (2, -1)),
    names=("reshape",),
    words=("axis",),
)
case(
    "BatchNorm1d",
    making(nn.BatchNorm1d, used(4, attribute("num_features"))),
    call(3, 1e-5, 0.1, True, True),
    names=("batch_norm",),
)
case(
    "BatchNorm2d",
    making(nn.BatchNorm2d, used(4, attribute("num_features"), 2, 2)),
    call(3),
    call(3, 1e-3, None),
    names=("batch_norm",),
)
case(
    "LayerNorm",
    making(nn.LayerNorm, lambda m: used(2, *m.normalized_shape)(m)),
    call(3),
    call((2, 3), 1e-5, True, False),
    names=("layer_norm",),
)
case("GroupNorm", making(nn.GroupNorm, used(2, attribute("num_channels"), 2)), call(2, 4), call(1, 4, 1e-5, False))
case("PReLU", making(nn.PReLU, used(2, lambda m: m.weight.size, 2)), call(), call(3, 0.2), names=("prelu",))
for cls in (nn.RNN, nn.LSTM, nn.GRU):
    use = making(cls, used(3, 2, attribute("input_size"), limit=5000))
    case(
        cls.__name__,
        use,
        call(3, 2),
        call(3, 2, 2, bias=False, batch_first=True, dropout=0.5, bidirectional=True),
        share=3,
    )
POOLS = {"names": ("max_pool1d", "avg_pool1d", "max_pool2d", "avg_pool2d", "pool")}
case("MaxPool2d", making(nn.MaxPool2d, used(2, 2, 6, 5)), call(2), call((2, 3), 2, 1, 1, True), **POOLS)
case("AvgPool2d", making(nn.AvgPool2d, used(2, 2, 6, 5)), call(2), call((2, 3), 2, 1, True, False, 3), **POOLS)
case("MaxPool1d", making(nn.MaxPool1d, used(2, 2, 6)), call(2), call(3, 2, 1, 1, True), **POOLS)
case("AvgPool1d", making(nn.AvgPool1d, used(2, 2, 6)), call(2), call(3, 2, 1, True, False), **POOLS)
case(
    "AdaptiveAvgPool2d",
    making(nn.AdaptiveAvgPool2d, used(2, 2, 6, 5)),
    call(2),
    call((2, None)),
    names=("adaptive_avg_pool2d",),
)
case(
    "AdaptiveMaxPool2d",
    making(nn.AdaptiveMaxPool2d, used(2, 2, 6, 5)),
    call(2),
    call((2, None)),
    names=("adaptive_max_pool2d",),
)
case(
    "Upsample",
    making(nn.Upsample, used(2, 2, 3, 2)),
    call(5),
    call(None, 2.0, "bilinear", True),
    names=("interpolate",),
)
case("ZeroPad2d", making(nn.ZeroPad2d, used(2, 2, 3, 3)), call(1), call((1, 0, 2, 1)), names=("pad",))
case(
    "ReflectionPad2d",
    making(nn.ReflectionPad2d, used(2, 2, 4, 4)),
    call(1),
    call((1, 0, 2, 1)),
    names=("pad",),
    words=("mode",),
)
case("ReplicationPad2d", making(nn.ReplicationPad2d, used(2, 2, 3, 3)), call(1), call((1, 0, 2, 1)), names=("pad",))
case("ConstantPad2d", making(nn.ConstantPad2d, used(2, 2, 3, 3)), call(1, 0.5), call((1, 0, 2, 1), 2), names=("pad",))
for cls, *options in [
    (nn.CELU, 1.0), (nn.ELU, 1.0), (nn.GELU, "tanh"), (nn.Hardtanh, -1.0, 2.0), (nn.LeakyReLU, 0.1),
    (nn.LogSoftmax, 1), (nn.Softmax, -1), (nn.Softplus, 1.0, 20.0),
]:  # fmt: skip
    name = type(cls()).function.__name__
    case(cls.__name__, making(cls, used(2, 3)), call(*options), names=(name, name.strip("_")))


def learned(cls, make):
    """Weights that require a gradient are refused, unless they are Parameters."""

    def parameter(value):
        leaf = isinstance(value, tl.Tensor) and value.requires_grad and value.is_leaf
        return nn.Parameter(value) if leaf else value

    def use(*args, **kwargs):
        return make(*map(parameter, args), **{name: parameter(value) for name, value in kwargs.items()})

    return signed(use, cls.__name__, cls)


LOSSES = [
    (nn.CrossEntropyLoss, call(t(3, low=0), -100, "mean", 0.1)), (nn.NLLLoss, call(t(3, low=0), -100, "sum")),
    (nn.MSELoss, call("mean")), (nn.L1Loss, call("sum")), (nn.BCEWithLogitsLoss, call(t(3), "mean", t(3))),
    (nn.BCELoss, call(t(3), "mean")),
    (nn.SmoothL1Loss, call("mean", 0.5)), (nn.HuberLoss, call("mean", 0.5)), (nn.KLDivLoss, call("batchmean", True)),
    (nn.MultiMarginLoss, call(2, 0.5, t(3, low=0), "mean")),
]  # fmt: skip
TARGETS = {}
for cls, options in LOSSES:
    classes = cls in (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)
    TARGETS[cls] = np.array([2, 0]) if classes else rng(1).uniform(0, 1, (2, 3)).astype(np.float32)
    use = learned(cls, making(cls, lambda loss: loss(abs(floats(2, 3)) % 1, TARGETS[type(loss)])))
    name = cls.function.__name__
    case(cls.__name__, use, options, names=(name,), words=("array", "classes"))
    case(
        f"{cls.__name__}.forward",
        method(cls, "forward"),
        call(t(2, 3, low=0), TARGETS[cls]) if cls is nn.BCELoss else call(t(2, 3), TARGETS[cls]),
        names=(name, "concatenate", "BCELoss"),
        words=("input", "scores", "number", "classes"),
    )
case("LeNet5", making(nn.LeNet5), call(), call(3, 2, "tanh", "avg", True, 0), names=("Linear", "Conv2d"), share=4)
case("LeNet5.reset", method(lambda: nn.LeNet5(generator=0), "reset"), call("relu", 0), share=4)
INPUTS = [
    (lambda: nn.Linear(3, 2, generator=0), call(t(4, 3))),
    (lambda: nn.Conv2d(2, 3, 3, generator=0), call(t(1, 2, 5, 5))),
    (lambda: nn.Conv1d(2, 3, 3, generator=0), call(t(1, 2, 5))),
    (lambda: nn.Embedding(5, 3, 1, 0), call(np.array([1, 4]))),
    (lambda: nn.ConvTranspose2d(2, 3, 3, generator=0), call(t(1, 2, 3, 3))),
    (lambda: nn.Dropout(0.5, 0), call(t(4, 3))),
    (lambda: nn.Dropout2d(0.5, 0), call(t(4, 3, 2, 2))),
    (lambda: nn.Unflatten(1, (2, -1)), call(t(3, 4))),
    (nn.Flatten, call(t(3, 2, 2))),
    (lambda: nn.BatchNorm1d(3), call(t(4, 3))),
    (lambda: nn.BatchNorm2d(3), call(t(4, 3, 2, 2))),
    (lambda: nn.BatchNorm1d(3).eval(), call(t(4, 3))),
    (lambda: nn.LayerNorm(3), call(t(4, 3))),
    (lambda: nn.GroupNorm(1, 3), call(t(4, 3))),
    (nn.PReLU, call(t(4, 3))),
    (lambda: nn.RNN(3, 2, generator=0), call(t(4, 2, 3), t(1, 2, 2))),
    (lambda: nn.GRU(3, 2, generator=0), call(t(4, 2, 3))),
    (lambda: nn.LSTM(3, 2, generator=0), call(t(4, 2, 3), (t(1, 2, 2), t(1, 2, 2)))),
    (lambda: nn.LeNet5(generator=0), call(t(1, 1, 28, 28))),
    (lambda: nn.MaxPool2d(2), call(t(1, 2, 4, 4))),
    (lambda: nn.AvgPool1d(2), call(t(1, 2, 4))),
    (lambda: nn.AdaptiveAvgPool2d(2), call(t(1, 2, 4, 4))),
    (lambda: nn.AdaptiveMaxPool2d(2), call(t(1, 2, 4, 4))),
    (lambda: nn.Upsample(5), call(t(1, 2, 3, 3))),
    (lambda: nn.ReflectionPad2d(1), call(t(1, 2, 3, 3))),
]
WITHIN = ("linear", "conv2d", "conv1d", "conv_transpose2d", "dropout", "reshape", "flatten", "batch_norm", "layer_norm")
WITHIN += ("group_norm", "prelu", "embedding", "max_pool2d", "avg_pool1d", "avg_pool2d", "pad", "interpolate", "mul")
WITHIN += ("adaptive_avg_pool2d", "dropout2d", "concatenate", "tanh", "normalize", "unsqueeze", "transpose", "add")
for make, valid in INPUTS:
    name = type(make()).__name__
    case(
        f"{name}.forward",
        method(make, "forward"),
        valid,
        names=WITHIN,
        shares=True,
        words=("input", "indices", "array"),
        share=4 if "LeNet" in name else 1,
    )

# Modules


def chain():
    return nn.Sequential(nn.Linear(2, 3, generator=0), nn.BatchNorm1d(3), nn.Linear(3, 2, generator=1))


case("Sequential", making(nn.Sequential), call(nn.Tanh(), nn.ReLU()), call({"a": nn.Tanh()}))
case("ModuleList", making(nn.ModuleList), call([nn.Tanh(), nn.ReLU()]))
case("Parameter", making(nn.Parameter), call(t(2, 3)), call(t(2), False), names=("dtype", "tensor", "list", "array"))
case("Sequential.append", method(chain, "append", lambda m: None), call(nn.Tanh()))
case("Sequential[]", method(chain, "__getitem__", lambda m: None), call(1), call(slice(0, 2)), words=("number",))
modules = functools.partial(nn.ModuleList, [nn.Tanh(), nn.ReLU()])
case("ModuleList.append", method(modules, "append", lambda m: None), call(nn.Tanh()))
case("ModuleList.extend", method(modules, "extend", lambda m: None), call([nn.Tanh(), nn.ReLU()]))
case("ModuleList[]", method(modules, "__getitem__", lambda m: None), call(1), call(slice(0, 2)), words=("number",))
case("ModuleList[] =", method(modules, "__setitem__", lambda m: None), call(1, nn.ELU()), words=("number",))
case("Module.train", method(chain, "train", lambda m: None), call(True))
case("ModuleDict", making(nn.ModuleDict, lambda m: [*m.modules()]), call({"a": nn.Tanh(), "b": nn.ReLU()}))
case("Module.requires_grad_", method(chain, "requires_grad_", lambda m: None), call(True))
case("Module.zero_grad", method(chain, "zero_grad", lambda m: None), call(False))
case("Module.to", method(chain, "to", lambda m: None), call("float64"), words=("dtype",))


def replaced(value):
    """Put something in the place of a layer, a parameter and a buffer."""
    model = chain()
    for owner, name in ((model, "1"), (model[0], "weight"), (model[1], "running_mean")):
        before = snapshot(model)
        try:
            setattr(owner, name, value)
        except tl.TinygradLenetError:
            assert snapshot(model) == before
            raise
    repr(model)


case(
    "replaced",
    replaced,
    call(None),
    names=("Sequential", "Linear", "BatchNorm1d"),
    words=("1 is", "weight is", "mean is"),
)
case("summary", nn.summary, call(nn.Sequential(nn.Linear(3, 2)), (2, 3)), names=("Linear", "linear"), words=("x of",))


def recorded(model):
    with nn.record_calls(model) as calls:
        return [type(c.module) for c in calls]


case("record_calls", signed(recorded, "record_calls", nn.record_calls), call(nn.Tanh()))
for name in ("uniform_", "normal_", "constant_", "zeros_", "ones_"):
    extra = {"uniform_": (-1.0, 1.0, 0), "normal_": (0.0, 1.0, 0), "constant_": (0.5,)}.get(
        name, (0,) if "lecun" in name else ()
    )
    case(
        name,
        getattr(nn.init, name),
        call(tl.ones(3, 2), *extra),
        names=("fans", "constant_"),
        changes=(0,),
        shares=True,
    )
for name in ("xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"):
    extra = (1.0, 0) if "xavier" in name else (0.1, "fan_out", "relu", 0)
    case(
        name,
        getattr(nn.init, name),
        call(tl.ones(3, 2), *extra),
        names=("fans", "calculate_gain"),
        changes=(0,),
        shares=True,
    )
case("calculate_gain", nn.init.calculate_gain, call("relu"), call("leaky_relu", 0.1))
case("fans", nn.init.fans, call(tl.ones(3, 2)))


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_bad_arguments(case):
    run(*case)
