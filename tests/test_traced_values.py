"""No value is computed from tensors outside of an op: the ops of one call, run again on other values, give what the
function gives for them. ``tl.compile`` relies on this.
"""

import contextlib

import numpy as np
import pytest
from test_bad_input import CALLS
from test_registry import CASES, find

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F
from tinygrad_lenet import nn, optim
from tinygrad_lenet.core.graph import pullback
from tinygrad_lenet.core.interface import Draw
from tinygrad_lenet.core.modes import tracing
from tinygrad_lenet.core.python_object import root_of
from tinygrad_lenet.kernels.memory import storage

READING = ["__array__", "__bool__", "__dlpack__", "__float__", "__index__", "__int__", "item", "numpy", "tolist"]


def mapped(value, change):
    """The value with each part of lists, tuples and dicts changed. A Draw is a tuple, but not a list of values."""
    if isinstance(value, dict):
        return {key: mapped(v, change) for key, v in value.items()}
    if isinstance(value, (list, tuple)) and not isinstance(value, Draw):
        parts = [mapped(v, change) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return change(value)


def plain(value):
    return mapped(value, lambda v: v._data if isinstance(v, tl.Tensor) else v)


class Read(BaseException):
    """Python reads a value of a tensor; no function translates this error."""


class Program:
    """The ops, changes in place and effects of a call, and the constants among their arguments."""

    def __init__(self, *tensors):
        self.steps, self.constants, self.kept, self.modules = [], [], [*tensors], {}
        self.known = {id(x._data) for x in tensors}
        self.owners = {id(storage(x._data)) for x in tensors}

    def effect(self, function, args):
        self.steps.append((function, plain(args), None))

    def look(self, what, value):
        if isinstance(value, (list, tuple)):
            for part in value:
                self.look(what, part)
        elif not isinstance(value, np.ndarray):
            self.constants.append((what, str(value) if isinstance(value, np.random.Generator) else value))
        elif id(value) not in self.known:
            assert id(storage(value)) not in self.owners, f"{what} gets a view that no op made"
            self.constants.append((what, value.copy()))
            self.known.add(id(value))
            self.kept.append(value)

    def hear(self, op, args, out):
        self.kept.append((args, out))
        self.look(op.name, plain(args))
        self.steps.append((op, plain(args), out._data))
        self.known.add(id(out._data))
        self.owners.add(id(storage(out._data)))

    def copied(self, array, copy):
        """See ``recording``: arrays of the user are no ops' results."""

    def refuse(self, why):
        """See ``recording``: only what an op has made must not be read."""

    def read_grad(self, leaf):
        """The gradients of these calls are results."""

    set_grad = read_grad

    def write(self, tensor, index, value):
        self.look("write", (tensor._data, index, value))
        self.steps.append(("write", (tensor._data, index, value), None))

    @contextlib.contextmanager
    def recording(self):
        with pytest.MonkeyPatch.context() as patch, tracing(self):
            for name in READING:
                method = getattr(tl.Tensor, name)

                def read(x, *args, name=name, method=method, **options):
                    if id(storage(x._data)) in self.owners:
                        raise Read(name)
                    return method(x, *args, **options)

                patch.setattr(tl.Tensor, name, read)
            yield self

    def run(self, arrays):
        """Do it again; ``arrays`` are pairs of an array of the program and the one to take in its place."""
        now = {id(old): new for old, new in arrays}

        def current(value):
            return mapped(value, lambda v: now.get(id(v), v) if isinstance(v, np.ndarray) else v)

        for what, args, out in self.steps:
            args = current(args)
            if what == "write":
                args[0][args[1]] = args[2]
            elif out is None:
                what(*args)
            else:
                found = np.asarray(what.forward(*args))
                shares = any(np.may_share_memory(found, a) for a in args if isinstance(a, np.ndarray))
                now[id(out)] = found.copy() if shares and not what.view else found
        return current


def pulled(function, inputs):
    """The outputs of a function, and the gradient of each leaf, all by ops."""
    outputs = function(*inputs)
    outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    roots = [y for y in outputs if y.requires_grad]
    seeds = [np.random.default_rng(i).uniform(-1, 1, y.shape).astype(y.dtype) for i, y in enumerate(roots)]
    with tl.no_grad():
        return outputs, pullback([root_of(y) for y in roots], [*map(tl.Tensor._wrap, seeds)])


def call_and_pull(function, inputs):
    """The outputs and the gradients in one list."""
    outputs, gradients = pulled(function, inputs)
    return [*outputs, *gradients.values()]


def state(tensors, generators):
    return [x._data.copy() for x in tensors], [g.bit_generator.state for g in generators]


def put_back(tensors, generators, before):
    for x, array in zip(tensors, before[0], strict=True):
        x._data[...] = array
    for g, stream in zip(generators, before[1], strict=True):
        g.bit_generator.state = stream


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
        assert one.tobytes() == other.tobytes()


def judge(function, first, second, tensors=(), generators=(), run=call_and_pull):
    """Record a call with the first inputs and one with the second; run the first program on the second inputs."""
    programs, results = [], []
    for inputs in (first, second):
        before = state(tensors, generators)
        program = Program(*inputs, *tensors)
        with program.recording(), np.errstate(all="ignore"):
            found = run(function, inputs)
        results.append([x._data.copy() for x in found])
        programs.append((program, found))
    after = state(tensors, generators)
    (one, outputs), (two, _) = programs
    assert [step[0] for step in one.steps] == [step[0] for step in two.steps]
    for (name, a), (_, b) in zip(one.constants, two.constants, strict=True):
        same_constant = np.array_equal(a, b, equal_nan=a.dtype.kind == "f") if isinstance(a, np.ndarray) else a == b
        assert same_constant, f"{name} gets {a} in one call, {b} in the other"
    put_back(tensors, generators, before)
    with np.errstate(all="ignore"):
        current = one.run([(x._data, y._data) for x, y in zip(first, second, strict=True)])
    same([current(x._data) for x in outputs], results[1])
    again = state(tensors, generators)
    same(again[0], after[0])
    assert again[1] == after[1]


def values(given, seed, dtype=np.float32):
    """An argument as a Tensor. With another seed, what is drawn is other, and integers are in another order."""
    rng = np.random.default_rng(seed)
    drawn = isinstance(given, Draw)
    if drawn and given.values is None:
        array = rng.uniform(given.low, given.high, given.shape)
    else:
        array = np.array(given.values if drawn else given)
    if array.dtype.kind == "f":
        array = array.astype(dtype)
    elif not drawn:
        array = rng.permuted(array.reshape(-1)).reshape(array.shape)
    tensor = tl.Tensor._wrap(np.array(array))
    tensor.requires_grad = drawn
    return tensor


def of_call(function, args, kwargs, inside=True):
    """A function of the tensors among the arguments of a call, also of those in lists; and these tensors, twice."""
    found = ([], [])

    def collect(value):
        if not isinstance(value, (Draw, np.ndarray, tl.Tensor)):
            return value
        for seed, tensors in enumerate(found):
            tensors.append(values(value, seed))
        return Draw((len(found[0]) - 1,), 0, 0, "place")

    pattern = mapped((args, kwargs), collect) if inside else (tuple(map(collect, args)), kwargs)

    def call(*tensors):
        place = lambda v: tensors[v.shape[0]] if isinstance(v, Draw) else v  # noqa: E731
        given, options = mapped(pattern[0], place), mapped(pattern[1], place)
        return function(*given, **options)

    return call, *found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("op", "case"), CASES)
def test_ops_and_their_rules(op, case):
    judge(*of_call(find(op), *case, inside=False))


# By nature: the values say how large the result is; or they leave the graph.
READ = {
    ("one_hot", 0),
    ("allclose", 0),
    ("allclose", 1),
    ("getitem", 2),
    ("tensor", 0),
    ("tensor", 1),
    ("Tensor", 0),
    ("Tensor", 1),
    ("from_dlpack", 0),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "i"), [(name, i) for name in CALLS for i in range(len(CALLS[name]))])
def test_functions(name, i):
    place, _, word = name.rpartition(".")
    function = getattr(getattr(tl, place) if place else tl, word)
    if name == "from_dlpack":
        function = lambda x: tl.from_dlpack(x.detach())  # noqa: E731
    with pytest.raises(Read) if (name, i) in READ else contextlib.nullcontext():
        judge(*of_call(function, *CALLS[name][i]))


SCORES = np.random.default_rng(2).standard_normal((2, 5, 4)).astype(np.float32)
LABELS, OTHERS = np.array([3, 0, 1, 2, 2]), np.array([2, 1, -100, 0, 2])


def tensors(*arrays):
    return [tl.tensor(a, requires_grad=np.asarray(a).dtype.kind == "f") for a in arrays]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["cross_entropy", "smooth", "images", "nll_loss", "multi_margin_loss"])
def test_losses_of_labels_and_weights_that_change(name, weighted, reduction):
    """The second targets have one to ignore, the first have not."""
    function = F.cross_entropy if name in ("smooth", "images") else getattr(F, name)
    options = {"reduction": reduction} | ({"label_smoothing": 0.1} if name == "smooth" else {})
    labels, others = LABELS, np.abs(OTHERS) % 4 if name == "multi_margin_loss" else OTHERS
    shape = (1, 4, 5) if name == "images" else (5, 4)

    def loss(x, y, w):
        return function(x, y.reshape(1, 5) if name == "images" else y, weight=w * 2 if weighted else None, **options)

    rng = np.random.default_rng(1)
    first, second = (
        tensors(x.reshape(shape), y, rng.uniform(0.5, 2, 4)) for x, y in zip(SCORES, (labels, others), strict=True)
    )
    judge(loss, first, second)


def test_a_label_that_is_no_class_is_refused_again_when_the_ops_run_again():
    (first,), (labels, bad) = tensors(SCORES[0]), tensors(LABELS, np.full(5, 4))
    program = Program(first, labels)
    with program.recording():
        F.cross_entropy(first, labels)
    with pytest.raises(tl.ArgumentError, match=r"4 classes, 0 \.\.\. 3, but a target is 4"):
        program.run([(labels._data, bad._data)])


def layers():
    images, rows, steps = (2, 4, 6, 6), (5, 6), (2, 4, 6)
    relu = [
        "CELU",
        "ELU",
        "GELU",
        "Hardsigmoid",
        "Hardswish",
        "Hardtanh",
        "LeakyReLU",
        "LogSigmoid",
        "LogSoftmax",
        "Mish",
    ]
    relu += ["PReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Softsign", "Tanh", "Flatten"]
    yield from ((name, lambda name=name: getattr(nn, name)(), images) for name in [*relu, "Dropout", "Dropout2d"])
    for momentum in (0.1, None, 1.0):
        yield f"BatchNorm2d {momentum}", lambda m=momentum: nn.BatchNorm2d(4, momentum=m), images
    yield "BatchNorm1d", lambda: nn.BatchNorm1d(6, affine=False), rows
    yield "BatchNorm1d, no statistics", lambda: nn.BatchNorm1d(4, track_running_stats=False), steps
    yield "BatchNorm2d, evaluating", lambda: nn.BatchNorm2d(4).eval(), images
    yield "LayerNorm", lambda: nn.LayerNorm(6), images
    yield "GroupNorm", lambda: nn.GroupNorm(2, 4), images
    yield "Linear", lambda: nn.Linear(6, 3, generator=0), images
    yield "Conv1d", lambda: nn.Conv1d(4, 3, 3, padding=1, generator=0), steps
    yield "Conv2d", lambda: nn.Conv2d(4, 6, 3, stride=2, padding="same", groups=2, generator=0), images
    yield "ConvTranspose1d", lambda: nn.ConvTranspose1d(4, 3, 3, stride=2, output_padding=1, generator=0), steps
    yield "ConvTranspose2d", lambda: nn.ConvTranspose2d(4, 3, 3, stride=2, output_padding=1, generator=0), images
    yield "MaxPool1d", lambda: nn.MaxPool1d(2), steps
    yield "MaxPool2d", lambda: nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), images
    yield "AvgPool1d", lambda: nn.AvgPool1d(2), steps
    yield "AvgPool2d", lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), images
    yield "AdaptiveAvgPool2d", lambda: nn.AdaptiveAvgPool2d((4, 3)), images
    yield "AdaptiveMaxPool2d", lambda: nn.AdaptiveMaxPool2d((4, 3)), images
    yield "ReplicationPad2d", lambda: nn.ReplicationPad2d(2), images
    yield "ConstantPad2d", lambda: nn.ConstantPad2d(2, 0.5), images
    yield "Upsample", lambda: nn.Upsample(scale_factor=2), images
    yield "bilinear", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), images
    yield "ZeroPad2d", lambda: nn.ZeroPad2d((1, 2, 0, 1)), images
    yield "ReflectionPad2d", lambda: nn.ReflectionPad2d(2), images
    yield "Unflatten", lambda: nn.Unflatten(1, (2, 2)), images
    yield "RNN", lambda: nn.RNN(6, 5, num_layers=2, dropout=0.3, generator=0), steps
    yield "LSTM", lambda: nn.LSTM(6, 5, batch_first=True, generator=0), steps
    yield "GRU", lambda: nn.GRU(6, 5, bidirectional=True, generator=0), steps
    yield "LeNet5", lambda: nn.LeNet5(generator=0), (2, 1, 28, 28)


LAYERS = {name: (make, shape) for name, make, shape in layers()}


def captured(module):
    """The tensors and the generators of a module."""
    found = {id(g): g for _, g in module._search(np.random.Generator)}
    return [*module.parameters(), *module.buffers()], [*found.values()]


def drawn(shape, seed):
    return tensors(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def first_of(function):
    def call(*args):
        out = function(*args)
        return out[0] if isinstance(out, tuple) else out

    return call


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    make, shape = LAYERS[name]
    module = make()
    judge(first_of(module), drawn(shape, 0), drawn(shape, 1), *captured(module))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_under_a_checkpoint(name):
    """Statistics and generators are put back by effects, and so are put back again."""
    make, shape = LAYERS[name]
    module = make()

    def call(x):
        return tl.checkpoint(module, x * 2)

    judge(first_of(call), drawn(shape, 0), drawn(shape, 1), *captured(module))


PLACES = {
    "embedding": lambda x, i: F.embedding(i, x, padding_idx=1),
    "embedding of one": lambda x, i: F.embedding(i.reshape(-1).sum() % 2, x),
    "one index": lambda x, i: x[i],
    "two indices": lambda x, i: x[i[0], i[1]],
    "beside a slice": lambda x, i: x[:, i[0]] * x[1:, i],
    "sort": lambda x, i: tl.sort(x * i.sum(), 1),
    "topk": lambda x, i: tl.topk(x, 2),
    "median": lambda x, i: tl.median(x, 0),
    "gather": lambda x, i: tl.gather(x, 1, i),
    "scatter": lambda x, i: tl.scatter(x, 0, i, x * 3),
    "scatter_add": lambda x, i: tl.scatter_add(x, 0, i, x * 3),
    "one_hot": lambda x, i: x * F.one_hot(i, 2)[0],
}


@pytest.mark.parametrize("name", PLACES)
def test_places_that_change(name):
    first, second = np.array([[1, 0], [1, 1]]), np.array([[0, 0], [0, 1]])
    judge(PLACES[name], [*drawn((2, 2), 0), *tensors(first)], [*drawn((2, 2), 1), *tensors(second)])


@pytest.mark.parametrize("draw", [tl.rand, tl.randn])
def test_random_numbers_are_drawn_again(draw):
    generator = np.random.default_rng(0)
    judge(lambda x: x * draw(3, generator=generator) + draw(3, generator=5), drawn(3, 0), drawn(3, 1), (), [generator])


@pytest.mark.parametrize("norm", [2.0, 1.0, np.inf])
def test_clipping_follows_the_norm(norm):
    """The gradients of the first call are within the limit, those of the second beyond."""
    net = nn.Linear(3, 2, generator=0)

    def run(function, inputs):
        _, gradients = pulled(function, inputs)
        for p in net.parameters():
            p.grad = gradients[p].detach()
        return [optim.clip_grad_norm_(net.parameters(), 20.0, norm), *(p.grad for p in net.parameters())]

    small, large = (drawn((4, 3), seed)[0].numpy() * size for seed, size in ((0, 1e-3), (1, 1e3)))
    judge(net, tensors(small), tensors(large), *captured(net), run=run)


def test_a_norm_that_is_not_finite_is_refused_again():
    w = tl.tensor([1.0, 2.0], requires_grad=True)
    w.grad = tl.tensor([1.0, 2.0])
    program = Program(w, w.grad)
    with program.recording():
        optim.clip_grad_norm_(w, 1.0, error_if_nonfinite=True)
    with pytest.raises(tl.GradientError, match="the norm of the gradients is inf"):
        program.run([(w.grad._data, np.array([np.inf, 1.0], np.float32))])
