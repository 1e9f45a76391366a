"""Whatever one passes to a class, a method or a helper that is no op: a right result, or an error of the package that
names what is at fault; and what refused is as it was before.

HYPOTHESIS_PROFILE=thorough pytest tests/test_bad_objects.py      the number of cases stands in the last lines
"""

import contextlib
import functools
import hashlib
import inspect
import math
import os
import re

import hostile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import tinygrad_lenet as tl
from tinygrad_lenet import data, nn, onnx, optim, testing, training, visualize
from tinygrad_lenet.primitive import draw as t

THOROUGH = settings().max_examples >= 1000
EXAMPLES = settings().max_examples if THOROUGH else max(5, settings().max_examples // 5)
QUIET = [*HealthCheck]
COUNTS = {}  # of cases, by name


@pytest.fixture(scope="module", autouse=True)
def limits(request, tmp_path_factory):
    """Memory is bounded, files are written where they go with the test, and cases are counted."""
    here = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("hostile"))
    try:
        with hostile.memory_limit():
            yield
    finally:
        os.chdir(here)
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    reporter.write_line(f"\n{sum(COUNTS.values()):,} cases of bad input, for {len(COUNTS)} classes and methods")


def call(*args, **kwargs):
    return args, kwargs


def rng(seed=0):
    return np.random.default_rng(seed)


def floats(*shape, seed=0):
    return tl.tensor(rng(seed).uniform(-1, 1, shape).astype(np.float32))


# What objects are, to be compared with what they are later


def snapshot(value, seen=()):
    """All that an object holds, as far down as the package goes."""
    if isinstance(value, tl.Tensor):
        return ("tensor", hostile.frozen(value.numpy()), None if value.grad is None else value.grad.numpy().tobytes())
    if isinstance(value, np.ndarray):
        return hostile.frozen(value)
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if id(value) in seen:
        return "see above"
    seen = (*seen, id(value))
    if isinstance(value, (list, tuple)):
        return (type(value), [snapshot(v, seen) for v in value])
    if isinstance(value, dict):
        return (dict, [(k, snapshot(v, seen)) for k, v in value.items()])
    if hasattr(value, "__dict__") and type(value).__module__.startswith("tinygrad_lenet"):
        return (type(value), snapshot(vars(value), seen))
    return value if isinstance(value, (int, float, str, type(None))) and value == value else repr(value)


# Things to call: plain functions whose names and signatures are those of classes and methods


def signed(function, name, like, without=()):
    """The function under the name and with the parameters of another."""
    parameters = [p for p in inspect.signature(like).parameters.values() if p.name not in without]
    function.__name__ = function.__qualname__ = name
    function.__signature__ = inspect.Signature(parameters)
    return function


@contextlib.contextmanager
def renamed(name):
    """Python names the base class that has the method, in what it says of wrong names or numbers of arguments."""
    try:
        yield
    except TypeError as error:
        if error.__traceback__.tb_next.tb_next is None:
            raise TypeError(re.sub(r"^[\w.<>]+\(\)", f"{name}()", str(error))) from None
        raise


def making(cls, use=lambda made: None, without=(), first=None):
    """Make an object, and use it."""
    names = list(inspect.signature(cls).parameters)

    def make(*args, **kwargs):
        if "generator" in names[len(args) :]:
            kwargs.setdefault("generator", 0)  # the same values each time
        with renamed(cls.__name__):
            made = cls(*args, **kwargs) if first is None else cls(first(), *args, **kwargs)
        return use(made)

    return signed(make, cls.__name__, cls, without)


def method(make, name, look=lambda result: result):
    """A method of a fresh object, which is as it was if that refuses; or if it shall only look."""

    def run(*args, **kwargs):
        made = make()
        before = snapshot(made)
        try:
            with renamed(type(made).__name__):
                result = getattr(made, name)(*args, **kwargs)
            return look(result)
        except tl.TinygradLenetError:
            assert snapshot(made) == before, f"{name} refused, and changed {type(made).__name__}"
            raise

    return signed(run, type(make()).__name__, getattr(make(), name))


CASES = []  # (name, function, valid calls, options)


def case(name, function, *calls, names=(), keep=(), changes=(), shares=False, share=1, words=()):
    """One more thing to call. ``share``: a slow one gets so many times fewer examples."""
    CASES.append(
        (name, function, [*calls], {"names": names, "changes": changes, "shares": shares, "words": words}, keep, share)
    )


# Where numbers lie, by the name of the argument and, where it differs, of the function: what is outside is refused

ZERO_UP, ONE_UP, PART = (0, math.inf), (1, math.inf), (0, 1)
DOMAINS = {
    **dict.fromkeys(("p", "dropout", "pct_start", "alpha"), PART),
    **dict.fromkeys(("lr", "weight_decay", "momentum", "lr_decay", "initial_accumulator_value", "max_lr"), ZERO_UP),
    **dict.fromkeys(("gamma", "eta_min", "min_delta", "degrees", "translate", "std", "gain"), ZERO_UP),
    **dict.fromkeys(("patience", "cooldown", "max_norm", "atol", "rtol"), ZERO_UP),
    **dict.fromkeys(("in_features", "out_features", "in_channels", "out_channels", "embedding_dim"), ZERO_UP),
    **dict.fromkeys(("groups", "num_groups", "num_layers", "hidden_size", "input_size", "channels"), ONE_UP),
    **dict.fromkeys(("batch_size", "step_size", "T_max", "total_steps", "total_iters", "num_classes"), ONE_UP),
    "base_momentum": PART,
    "max_momentum": PART,
    "start_factor": PART,
    "end_factor": PART,
    "factor": PART,
    "decay": PART,
    "norm_type": (0, math.inf),
    "sigma": (0, 1e6),
    "eps": ZERO_UP,
    "ElasticDistortion.alpha": (0, 1e6),
    "ELU.alpha": (-math.inf, math.inf),
    "CELU.alpha": (-math.inf, math.inf),
    "MultiMarginLoss.p": (1, 2),
}
INFINITE = {"max_norm", "norm_type"}  # may be inf


def outside(name, function, args, kwargs):
    """Which number lies outside of its domain, if any."""
    try:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
    except TypeError:
        return ""
    for key, value in given.items():
        low, high = DOMAINS.get(f"{name}.{key}") or DOMAINS.get(key) or (-math.inf, math.inf)
        if isinstance(value, (int, float, np.integer, np.floating)) and (key in DOMAINS or f"{name}.{key}" in DOMAINS):
            fine = low <= value <= high and (abs(value) != math.inf or key in INFINITE)
            if not fine:
                return f"{key} lies outside of {low} … {high}"
    return ""


# Layers


def used(*shape, ids=None, limit=100_000):
    """Call a module with an input whose shape may depend on it, and train it a little."""

    def use(module):
        if sum(p.size for p in module.parameters()) > limit:
            return None
        lengths = [n(module) if callable(n) else n for n in shape]
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
case("Embedding", making(nn.Embedding, used(2, 3, ids=True)), call(5, 3), call(5, 3, 1, 0))
case("Dropout", making(nn.Dropout, used(4, 3)), call(0.5, 0), names=("dropout",))
case("Dropout2d", making(nn.Dropout2d, used(4, 3, 2, 2)), call(0.5, 0), names=("dropout2d",))
case("Flatten", making(nn.Flatten, used(2, 3, 4)), call(1, -1), names=("flatten",), shares=True)
case("Unflatten", making(nn.Unflatten, used(2, 6, 4)), call(1, (2, 3)), call(1, (2, -1)), names=("reshape",))
case("BatchNorm1d", making(nn.BatchNorm1d, used(4, attribute("num_features"))), call(3, 1e-5, 0.1, True, True))
case("BatchNorm2d", making(nn.BatchNorm2d, used(4, attribute("num_features"), 2, 2)), call(3), call(3, 1e-3, None))
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
    "Upsample",
    making(nn.Upsample, used(2, 2, 3, 2)),
    call(5),
    call(None, 2.0, "bilinear", True),
    names=("interpolate",),
)
case("ZeroPad2d", making(nn.ZeroPad2d, used(2, 2, 3, 3)), call(1), call((1, 0, 2, 1)), names=("pad",))
case("ReflectionPad2d", making(nn.ReflectionPad2d, used(2, 2, 4, 4)), call(1), call((1, 0, 2, 1)), names=("pad",))
for cls, *options in [
    (nn.CELU, 1.0), (nn.ELU, 1.0), (nn.GELU, "tanh"), (nn.Hardtanh, -1.0, 2.0), (nn.LeakyReLU, 0.1),
    (nn.LogSoftmax, 1), (nn.Softmax, -1), (nn.Softplus, 1.0, 20.0),
]:  # fmt: skip
    name = type(cls()).function.__name__
    case(cls.__name__, making(cls, used(2, 3)), call(*options), names=(name, name.strip("_")))
LOSSES = [
    (nn.CrossEntropyLoss, call(t(3, low=0), -100, "mean", 0.1)), (nn.NLLLoss, call(t(3, low=0), -100, "sum")),
    (nn.MSELoss, call("mean")), (nn.L1Loss, call("sum")), (nn.BCEWithLogitsLoss, call(t(3), "mean", t(3))),
    (nn.SmoothL1Loss, call("mean", 0.5)), (nn.HuberLoss, call("mean", 0.5)), (nn.KLDivLoss, call("batchmean", True)),
    (nn.MultiMarginLoss, call(2, 0.5, t(3, low=0), "mean")), (nn.MAPLoss, call(1.0, "mean")),
]  # fmt: skip
TARGETS = {}
for cls, options in LOSSES:
    classes = cls in (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss, nn.MAPLoss)
    TARGETS[cls] = np.array([2, 0]) if classes else rng(1).uniform(0, 1, (2, 3)).astype(np.float32)
    use = making(cls, lambda loss: loss(floats(2, 3), TARGETS[type(loss)]))
    name = "cross_entropy" if cls is nn.MAPLoss else cls.function.__name__
    case(cls.__name__, use, options, names=(name,))
    case(
        f"{cls.__name__}.forward",
        method(cls, "forward"),
        call(t(2, 3), TARGETS[cls]),
        names=(name, "concatenate"),
        words=("input", "scores", "number", "classes"),
    )
case("LeNet5", making(nn.LeNet5), call(), call(3, 2, "tanh", "avg", True, 0), share=4)
case("LeNet5.reset", method(lambda: nn.LeNet5(generator=0), "reset"), call("relu", 0), share=4)
case("LeNet5Classic", making(nn.LeNet5Classic), call(0), share=4)
case("prepare", nn.LeNet5Classic.prepare, call(t(2, 1, 28, 28)), names=("pad",))
case("Subsampling", making(nn.Subsampling, used(2, lambda m: len(m.bias), 4, 4)), call(3, 0))
case("PartialConv2d", making(nn.PartialConv2d, used(2, 3, 6, 6)), call(["01", "2"], 3, 0), names=("conv2d",))
case("second_derivative", method(nn.MAPLoss, "second_derivative"), call(t(2, 84)), names=("MAPLoss",))
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
    (lambda: nn.LeNet5Classic(0), call(t(1, 1, 32, 32))),
    (lambda: nn.Subsampling(3, 0), call(t(2, 3, 4, 4))),
    (lambda: nn.PartialConv2d(["01", "2"], 3, 0), call(t(1, 3, 4, 4))),
    (nn.ScaledTanh, call(t(2, 3))),
    (lambda: nn.MaxPool2d(2), call(t(1, 2, 4, 4))),
    (lambda: nn.AvgPool1d(2), call(t(1, 2, 4))),
    (lambda: nn.AdaptiveAvgPool2d(2), call(t(1, 2, 4, 4))),
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
case("Sequential[]", method(chain, "__getitem__", lambda m: None), call(1), call(slice(0, 2)))
modules = functools.partial(nn.ModuleList, [nn.Tanh(), nn.ReLU()])
case("ModuleList.append", method(modules, "append", lambda m: None), call(nn.Tanh()))
case("ModuleList.extend", method(modules, "extend", lambda m: None), call([nn.Tanh(), nn.ReLU()]))
case("ModuleList[]", method(modules, "__getitem__", lambda m: None), call(1), call(slice(0, 2)))
case("ModuleList[] =", method(modules, "__setitem__", lambda m: None), call(1, nn.ELU()))
case("Module.train", method(chain, "train", lambda m: None), call(True))


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
case(
    "first_nonfinite",
    nn.first_nonfinite,
    call(nn.Linear(3, 2), t(2, 3)),
    names=("Linear", "linear"),
    words=("x of", "x:"),
)


def recorded(model):
    with nn.record_calls(model) as calls:
        return [type(c.module) for c in calls]


case("record_calls", signed(recorded, "record_calls", nn.record_calls), call(nn.Tanh()))
for name in ("uniform_", "normal_", "constant_", "zeros_", "ones_", "lecun_uniform_", "lecun_normal_"):
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

# Optimisers and schedules


def leaves(seed=0, grads=True):
    found = [floats(2, 3, seed=seed), floats(3, seed=seed + 1)]
    for p in found:
        p.requires_grad = True
        if grads:
            p.grad = tl.tensor(rng(seed + 2).uniform(-1, 1, p.shape).astype(np.float32))
    return found


def stepped(optimizer):
    before = [p.dtype for group in optimizer.param_groups for p in group["params"]]
    for _ in range(2):
        optimizer.step()
    assert [p.dtype for group in optimizer.param_groups for p in group["params"]] == before
    assert all(a.dtype == np.float32 for s in optimizer.state.values() for a in s.values() if isinstance(a, np.ndarray))
    repr(optimizer)


OPTIMIZERS = {
    optim.SGD: call(0.1, 0.9, 0.0, 1e-3, True),
    optim.Adam: call(0.1, (0.9, 0.99), 1e-8, 1e-3, True),
    optim.AdamW: call(0.1, (0.9, 0.99), 1e-8, 1e-3, True),
    optim.RMSprop: call(0.1, 0.9, 1e-8, 1e-3, 0.5, True),
    optim.Adagrad: call(0.1, 0.1, 1e-3, 0.1, 1e-8),
    optim.StochasticDiagonalLM: call(0.1, 0.02),
}
for cls, valid in OPTIMIZERS.items():
    case(cls.__name__, making(cls, stepped, ("params",), leaves), valid)
    case(
        f"{cls.__name__}(params)",
        making(cls, lambda o: repr(o) and None),
        call(leaves(grads=False)),
        call([{"params": leaves(grads=False), "lr": 0.1}]),
    )
curvature = method(lambda: optim.StochasticDiagonalLM(leaves()), "set_curvature")
case("set_curvature", curvature, call([np.ones((2, 3)), np.ones(3)]))


def clipped(parameters, *args, **kwargs):
    """With gradients, which are gone afterwards."""
    found = [p for p in hostile.tensors_in(parameters) if p.requires_grad and p.is_leaf]
    for p in found:
        p.grad = tl.tensor(np.full(p.shape, 2.0, p.dtype))
    try:
        return optim.clip_grad_norm_(parameters, *args, **kwargs)
    finally:
        for p in found:
            p.grad = None


clip = signed(clipped, "clip_grad_norm_", optim.clip_grad_norm_)
case("clip_grad_norm_", clip, call(leaves(grads=False), 0.5, 2.0, True), call([floats(2)], 1.0))


def changed(name, value):
    """An option that was changed after an optimiser was made: a step is taken, or refused before anything changes."""
    optimizer = optim.SGD([{"params": [p]} for p in leaves()], lr=0.1, momentum=0.9)
    optimizer.step()
    optimizer.param_groups[1][name] = value
    before = snapshot(optimizer)
    try:
        optimizer.step()
    except tl.TinygradLenetError:
        assert snapshot(optimizer) == before
        raise


for name in ("lr", "momentum", "dampening", "weight_decay", "nesterov"):
    function = signed(functools.partial(changed, name), "SGD", lambda value: None)
    case(f"SGD's {name}", function, call(True if name == "nesterov" else 0.1), names=(name,))


def sgd():
    return optim.SGD([{"params": [p], "lr": 0.1 * (i + 1)} for i, p in enumerate(leaves())], momentum=0.9)


def scheduled(schedule):
    repr(schedule.optimizer)
    for i in range(6):
        schedule.step() if not isinstance(schedule, optim.ReduceLROnPlateau) else schedule.step(float(i))
        assert all(0 <= lr < math.inf for lr in schedule.get_last_lr()), schedule.get_last_lr()


SCHEDULES = {
    optim.StepLR: call(2, 0.5),
    optim.ExponentialLR: call(0.9),
    optim.MultiStepLR: call([1, 3], 0.5),
    optim.LinearLR: call(0.5, 1.0, 3),
    optim.CosineAnnealingLR: call(4, 0.01),
    optim.ReduceLROnPlateau: call("min", 0.1, 1, 1e-4, "rel", 0, 0.0, 1e-8),
    optim.OneCycleLR: call(0.5, 10, None, None, 0.3, "cos", True, 0.85, 0.95, 25.0, 1e4, False),
}
for cls, valid in SCHEDULES.items():
    case(cls.__name__, making(cls, scheduled, ("optimizer",), sgd), valid)
    rest = list(inspect.signature(cls).parameters)[1:]
    function = signed(lambda o, cls=cls, valid=valid: cls(o, *valid[0]) and None, cls.__name__, cls, rest)
    case(f"{cls.__name__}(optimizer)", function, call(sgd()))


def in_turn(schedulers, milestones):
    """Schedules of one optimiser; what stands for them otherwise is passed on."""
    optimizer = sgd()
    if isinstance(schedulers, str) and schedulers == "two":
        schedulers = [optim.ExponentialLR(optimizer, 0.9), optim.StepLR(optimizer, 2)]
    scheduled(optim.SequentialLR(optimizer, schedulers, milestones))


case("SequentialLR", signed(in_turn, "SequentialLR", optim.SequentialLR, ("optimizer",)), call("two", [3]))
case("Plateau.step", method(lambda: optim.ReduceLROnPlateau(sgd()), "step"), call(1.0))

# Data

IMAGES, LABELS = rng().random((5, 1, 4, 4), np.float32), np.arange(5)


def epoch(loader):
    seen = 0
    for batch in loader:
        assert {len(part) for part in batch} == {len(batch[0])}
        seen += len(batch[0])
    assert seen == (len(loader.dataset) if not loader.drop_last else len(loader) * loader.batch_size)
    repr(loader)


case(
    "DataLoader",
    making(data.DataLoader, epoch),
    call((IMAGES, LABELS), 2, True, 0, True, data.GaussianNoise()),
    names=("data set", "GaussianNoise"),
)
case(
    "DataLoader.epoch",
    signed(lambda number: setattr(data.DataLoader(LABELS), "epoch", number), "DataLoader", lambda number: 0),
    call(3),
    names=("epoch",),
)
case(
    "Subset",
    making(data.Subset, lambda s: [s[i] for i in range(len(s))] and None),
    call(LABELS, [1, 2]),
    call((IMAGES, LABELS), LABELS > 2),
    names=("data set",),
)
case("Subset[]", method(lambda: data.Subset((IMAGES, LABELS), [3, 1]), "__getitem__"), call(1), call([0, 1]))
case("random_split", data.random_split, call(LABELS, [3, 2], 0), names=("data set",))
TRANSFORMS = {
    data.RandomAffine: call(10.0, 0.1, (0.9, 1.1), 5.0, True),
    data.ElasticDistortion: call(3.0, 2.0),
    data.RandomErasing: call(0.5, (0.1, 0.2), (0.5, 2.0), 0.5),
    data.GaussianNoise: call(0.1),
    data.Compose: call([data.GaussianNoise(), data.RandomAffine(5.0), data.ElasticDistortion(1.0)]),
}


def transformed(transform):
    repr(transform)
    out = transform(IMAGES, rng(0))
    assert out.shape == IMAGES.shape
    assert out.dtype == IMAGES.dtype
    return


for cls, valid in TRANSFORMS.items():
    case(cls.__name__, making(cls, transformed), valid)
    make = functools.partial(cls, *valid[0])
    case(f"{cls.__name__}()", method(make, "__call__"), call(IMAGES, rng(0)), changes=(1,))
case("warp", data.warp, call(IMAGES, np.full((2, 5, 4, 4), 0.3, np.float32)))

FILES = {
    "t10k-images-idx3-ubyte": bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 51, 102, 255]),
    "t10k-labels-idx1-ubyte": bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 3]),
}
FILES |= {name.replace("t10k", "train"): content for name, content in FILES.items()}


class Tiny(data.MNIST):
    folder, mirrors = "tiny", ()
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}  # noqa: RUF012


@functools.cache
def tiny_folder():
    for name, content in FILES.items():
        with open(name, "wb") as file:
            file.write(content)
    return os.getcwd()


def tiny(root=None, train=True, download=False, normalize=True):
    folder = tiny_folder()
    Tiny(folder if root is None else root, train, download, normalize)[:]


def read(*args, **kwargs):
    """A file that cannot be opened is an OSError, as for ``open``."""
    tiny_folder()
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        return data.read_idx(*args, **kwargs)


images = call("t10k-images-idx3-ubyte", None, 100)
case("read_idx", signed(read, "read_idx", data.read_idx), images, names=("IDX", "t10k"), words=("bytes",))
case("MNIST", signed(tiny, "Tiny", data.MNIST), call(None, True, False, True), names=("t10k", "train"))
case(
    "MNIST[]",
    signed(lambda index: Tiny(tiny_folder(), False, False)[index], "Tiny", lambda index: 0),
    call(1),
    call([0, 1]),
    names=("index",),
)

# Training, files, pictures, checks, export

LOGITS = rng(3).uniform(-1, 1, (5, 3)).astype(np.float32)
CLASSES = np.array([0, 1, 2, 1, 0])
case("accuracy", training.accuracy, call(t(4, 3), [0, 1, 2, 0]))
case("confusion_matrix", training.confusion_matrix, call([0, 1, 1], [0, 1, 0], 2))
case(
    "evaluate",
    training.evaluate,
    call(nn.Linear(3, 4), [(t(2, 3), np.array([0, 1]))]),
    names=("accuracy", "cross_entropy", "linear", "matmul"),
)
case("check_finite", training.check_finite, call(nn.Linear(3, 4), tl.tensor(1.0), t(2, 3)), names=("item()", "linear"))
case(
    "ExponentialMovingAverage",
    making(training.ExponentialMovingAverage, lambda a: a.update()),
    call(nn.Linear(3, 4), 0.9),
)
case("EarlyStopping", making(training.EarlyStopping, lambda w: w.step(1.0) and None), call(2, 0.1, "min"))
case("EarlyStopping.step", method(training.EarlyStopping, "step"), call(1.0))
case("save_checkpoint", tl.save_checkpoint, call("a.ckpt", {"a": [1, 2.0, None, "x", (True, np.ones(2))]}))
case("load_checkpoint", tl.load_checkpoint, call("b.ckpt"), words=("file", "cannot be read"))
case(
    "save",
    tl.save,
    call("a.npz", {"a": np.ones((2, 3))}),
    call("a.safetensors", {"a": np.ones((2, 3))}),
    call("b.npz", nn.Linear(2, 3)),
)
case("load", tl.load, call("c.npz"), words=("file",))
ROWS = [{"epoch": 1, "train_loss": 1.0, "test_accuracy": 0.5}, {"epoch": 2, "train_loss": 0.5, "test_accuracy": 0.7}]
shown = {"share": 20}


def shows(function):
    return signed(lambda *a, **k: function(*a, **k) and None, function.__name__, function)


case("curves", shows(visualize.curves), call(ROWS, "title"), **shown)
case("confusion", shows(visualize.confusion), call(np.array([[3, 1], [0, 2]]), ["a", "b"]), **shown)
case("mistakes", shows(visualize.mistakes), call(IMAGES, CLASSES, LOGITS, ["a", "b", "c"], 2), **shown)
case("tiles", shows(visualize.tiles), call(IMAGES[:2, 0], "title", 2, ["a", "b"], True), **shown)
case("kernels", shows(visualize.kernels), call(t(2, 1, 3, 3), "title"), names=("tiles",), **shown)
case(
    "feature_maps",
    shows(visualize.feature_maps),
    call(nn.Conv2d(1, 2, 3), IMAGES[:1], 1),
    names=("conv2d", "Conv2d"),
    **shown,
)
case("html_report", shows(visualize.html_report), call("title", [("a", "text"), ("b", ["more"])]))


def drawn(tensor, model=None):
    return visualize.graph(tensor, model).dot() and None


case("graph", signed(drawn, "graph", visualize.graph), call(nn.Linear(2, 1)(floats(1, 2)).sum(), nn.Linear(2, 1)))
case(
    "GraphView.save",
    method(lambda: visualize.graph(nn.Linear(2, 1)(floats(1, 2))), "save"),
    call("a.dot"),
    names=("visualize.graph",),
)


def first(*inputs):
    return tl.tanh(inputs[0]) if inputs else tl.tensor(0.0)


case(
    "gradcheck",
    testing.gradcheck,
    call(first, [t(2, 2)], order=1, eps=1e-6, atol=1e-7, rtol=1e-5, seed=0, fast=True, raise_exception=False),
    names=("tanh", "the function", "the gradient", "argument", "two calls"),
)
case(
    "numerical_gradient",
    testing.numerical_gradient,
    call(first, [t(2, 2)], [np.ones((2, 2))], 1e-6),
    names=("tanh", "the function"),
)
case("numerical_jacobian", testing.numerical_jacobian, call(first, [t(2, 2)], 1e-6), names=("tanh", "the function"))
case(
    "export",
    signed(lambda *a, **k: onnx.export(*a, **k) and None, "onnx.export", onnx.export),
    call(nn.Tanh(), t(2, 3), "a.onnx", True),
    names=("tanh",),
    share=20,
)
case(
    "onnx.load",
    signed(lambda *a, **k: onnx.load(*a, **k), "onnx.load", onnx.load),
    call("none.onnx"),
    share=20,
    words=("file", "damaged"),
)


def hooked(hook):
    x = tl.ones(2, requires_grad=True)
    (x * 2).sum().register_hook(hook)


case("register_hook", signed(hooked, "register_hook", lambda hook: 0), call(lambda g: g))


@pytest.mark.parametrize(("name", "function", "calls", "options", "keep", "share"), CASES, ids=[c[0] for c in CASES])
def test_bad_arguments(name, function, calls, options, keep, share):
    @settings(max_examples=max(3, EXAMPLES // share), suppress_health_check=QUIET, deadline=None)
    @given(hostile.arguments(function, calls, keep))
    def property_(given_):
        forbidden = given_.forbidden or outside(name.partition("(")[0], function, given_.args, given_.kwargs)
        COUNTS[name] = COUNTS.get(name, 0) + 1
        hostile.judge(function, given_._replace(forbidden=forbidden), **options)

    property_()
