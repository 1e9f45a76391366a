"""Whatever one passes to optimisers, data, training helpers, files, pictures, checks and the export: a right result,
or an error of the package that names what is at fault; and what refused is as it was before.

HYPOTHESIS_PROFILE=thorough pytest tests/test_bad_objects.py      the number of cases stands in the last lines
"""

import contextlib
import functools
import hashlib
import inspect
import math
import os

import hostile
import numpy as np
import odd
import pytest
from objects import call, collector, floats, limits, making, method, rng, run, signed, snapshot  # noqa: F401

import tinygrad_lenet as tl
from tinygrad_lenet import data, nn, onnx, optim, testing, training, visualize
from tinygrad_lenet.core.primitive import draw as t

CASES, case = collector()

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
}
for cls, valid in OPTIMIZERS.items():
    case(cls.__name__, making(cls, stepped, ("params",), leaves), valid)
    case(
        f"{cls.__name__}(params)",
        making(cls, lambda o: repr(o) and None),
        call(leaves(grads=False)),
        call([{"params": leaves(grads=False), "lr": 0.1}]),
    )


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


def with_optimizer(cls, rest):
    """The schedule of an optimiser."""
    others = list(inspect.signature(cls).parameters)[1:]
    return signed(lambda optimizer: cls(optimizer, *rest) and None, cls.__name__, cls, others)


def scheduled(schedule):
    repr(schedule.optimizer)
    for i in range(min(6, getattr(schedule, "total_steps", 6))):
        schedule.step() if not isinstance(schedule, optim.ReduceLROnPlateau) else schedule.step(float(i))
        assert all(0 <= lr < math.inf for lr in schedule.get_last_lr()), schedule.get_last_lr()


SCHEDULES = {
    optim.StepLR: call(2, 0.5),
    optim.ExponentialLR: call(0.9),
    optim.MultiStepLR: call([1, 3], 0.5),
    optim.LinearLR: call(0.5, 1.0, 3),
    optim.CosineAnnealingLR: call(4, 0.01),
    optim.ReduceLROnPlateau: call("min", 0.1, 1, 1e-4, "rel", 0, 0.0, 1e-8),
    optim.LambdaLR: call(lambda t: 1 / (1 + t)),
    optim.OneCycleLR: call(0.5, 10, None, None, 0.3, "cos", True, 0.85, 0.95, 25.0, 1e4, False),
}
for cls, valid in SCHEDULES.items():
    case(cls.__name__, making(cls, scheduled, ("optimizer",), sgd), valid)
    case(f"{cls.__name__}(optimizer)", with_optimizer(cls, valid[0]), call(sgd()))


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
    call((IMAGES, LABELS), 2, True, 0, True, data.ElasticDistortion()),
    names=("data set", "ElasticDistortion"),
    words=("data set",),
)
case(
    "DataLoader.epoch",
    signed(lambda number: setattr(data.DataLoader(LABELS), "epoch", number), "DataLoader", lambda epoch: 0),
    call(3),
    names=("epoch",),
)
case(
    "Subset",
    making(data.Subset, lambda s: [s[i] for i in range(len(s))] and None),
    call(LABELS, [1, 2]),
    call((IMAGES, LABELS), LABELS > 2),
    names=("data set",),
    words=("data set",),
)
case("Subset[]", method(lambda: data.Subset((IMAGES, LABELS), [3, 1]), "__getitem__"), call(1), call([0, 1]))
case("random_split", data.random_split, call(LABELS, [3, 2], 0), names=("data set",), words=("data set",))
TRANSFORMS = {
    data.RandomAffine: call(10.0, 0.1, (0.9, 1.1), 5.0, True),
    data.ElasticDistortion: call(3.0, 2.0),
    data.Compose: call([data.RandomAffine(5.0), data.ElasticDistortion(1.0)]),
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
    words=("indices",),
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
case(
    "check_finite",
    training.check_finite,
    call(nn.Linear(3, 4), tl.tensor(1.0), t(2, 3)),
    names=("item()", "linear", "the loss is"),
)
case(
    "ExponentialMovingAverage",
    making(training.ExponentialMovingAverage, lambda a: a.update()),
    call(nn.Linear(3, 4), 0.9),
)
case("EarlyStopping", making(training.EarlyStopping, lambda w: w.step(1.0) and None), call(2, 0.1, "min"))
case("EarlyStopping.step", method(training.EarlyStopping, "step"), call(1.0))
case("save_checkpoint", tl.save_checkpoint, call("a.ckpt", {"a": [1, 2.0, None, "x", (True, np.ones(2))]}))
case("load_checkpoint", tl.load_checkpoint, call("b.ckpt"), words=("file", "cannot be read"), strict=False)
case(
    "save",
    tl.save,
    call("a.npz", {"a": np.ones((2, 3))}),
    call("a.safetensors", {"a": np.ones((2, 3))}, {"a": "b"}),
    call("b.npz", nn.Linear(2, 3)),
)
case("load", tl.load, call("c.npz"), words=("file",), strict=False)
case("load_metadata", tl.load_metadata, call("c.npz"), words=("file",), strict=False)
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
case("html_report", shows(visualize.html_report), call("title", [("a", "text"), ("b", ["more"])], 3))
DENSE = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
case(
    "page",
    visualize.page,
    call(DENSE, "page.html", "title", ["a", "b"], (np.zeros((1, 2, 2)), [1]), [DENSE.state_dict()], 0.1, 0.3, (2, 2)),
    names=("linear", "Linear", "reshape", "flatten"),
    **shown,
)


def drawn(tensor, model=None):
    return visualize.graph(tensor, model).svg() and None


case("graph", signed(drawn, "graph", visualize.graph), call(nn.Linear(2, 1)(floats(1, 2)).sum(), nn.Linear(2, 1)))
case(
    "GraphView.save",
    method(lambda: visualize.graph(nn.Linear(2, 1)(floats(1, 2))), "save"),
    call("a.svg"),
)


def first(*inputs):
    return tl.tanh(inputs[0]) if inputs else tl.tensor(0.0)


case(
    "gradcheck",
    testing.gradcheck,
    call(first, [t(2, 2)], order=1, eps=1e-6, atol=1e-7, rtol=1e-5, seed=0, fast=True, raise_exception=False),
    names=("tanh", "the function", "the gradient", "argument", "two calls", "item()"),
    words=("item()",),
)
case(
    "numerical_gradient",
    testing.numerical_gradient,
    call(first, [t(2, 2)], 1e-6),
    names=("tanh", "the function", "item()"),
    words=("item()",),
)
case(
    "numerical_jacobian",
    testing.numerical_jacobian,
    call(first, [t(2, 2)], 1e-6),
    names=("tanh", "the function", "item()"),
    words=("item()",),
)
case(
    "export",
    signed(lambda *a, **k: onnx.export(*a, **k) and None, "export", onnx.export),
    call(nn.Tanh(), t(2, 3), "a.onnx", True),
    names=("tanh", "item()"),
    words=("item()",),
    share=20,
)
case(
    "onnx.load",
    signed(lambda *a, **k: onnx.load(*a, **k), "load", onnx.load),
    call("none.onnx"),
    share=20,
    words=("file", "damaged"),
    strict=False,
)


def hooked(hook):
    x = tl.ones(2, requires_grad=True)
    (x * 2).sum().register_hook(hook)


case("register_hook", signed(hooked, "register_hook", lambda hook: 0), call(lambda g: g))


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_bad_arguments(case):
    run(*case)


@pytest.mark.parametrize("name", odd.LAYOUTS)
def test_an_unusual_array_is_an_equal_one(name):
    for a in (np.array([[True, False]]), np.array([[1, 2]], np.int16), np.ones((1, 3), np.float32)):
        found = odd.LAYOUTS[name](a.copy())
        assert found.dtype.newbyteorder("=") == a.dtype
        assert np.array_equal(found, a)
