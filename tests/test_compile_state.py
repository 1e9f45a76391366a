"""State outside of a compiled function that changes: a replay reads it, or the function is traced anew or called."""

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn, optim


def list_of_weights():
    weights = [tl.rand(3, generator=0)]
    return lambda x: x * weights[0], lambda: weights.append(weights.pop() * 2)


def dict_of_modules():
    layers = {"first": [nn.Linear(3, 2, generator=0)]}
    return lambda x: layers["first"][0](x), lambda: layers.update(first=[nn.Linear(3, 2, generator=1)])


def dict_of_numbers():
    options = {"factor": 1.0}
    return lambda x: x * options["factor"], lambda: options.update(factor=2.0)


def array_of_an_op():
    array = np.ones(3)
    return lambda x: x * array, lambda: array.fill(2)


def array_made_a_tensor():
    array = np.ones(3)
    return lambda x: x * tl.tensor(array) + tl.tensor(array, dtype="float32"), lambda: array.fill(2)


def array_written_to_a_tensor():
    array, weight = np.ones(3, np.float32), tl.zeros(3)

    def function(x):
        weight[...] = array
        return weight * x

    return function, lambda: array.fill(2)


def array_of_class_weights():
    array, target = np.ones(3), tl.tensor(np.array(1))
    return lambda x: tl.cross_entropy(x, target, weight=array, reduction="sum"), lambda: array.put(1, 5)


def array_as_a_seed():
    array, weight = np.ones(3, np.float32), nn.Parameter(np.ones(3))

    def function(x):
        weight.grad = None
        (x * weight).backward(array)
        return weight.grad

    return function, lambda: array.fill(2)


FACTOR = 1.0


def decorated():
    global FACTOR
    FACTOR = 1.0

    @tl.no_grad()
    def function(x):
        return x * FACTOR

    return function, lambda: globals().update(FACTOR=2.0)


def parameter_is_frozen():
    weight = nn.Parameter(np.ones(3))
    function = lambda x, weight=None: x * weight  # noqa: E731  # as an argument
    return function, lambda: setattr(weight, "requires_grad", False), weight


def parameter_becomes_float32():
    weight = nn.Parameter(np.ones(3))
    return lambda x, weight: x * weight, lambda: weight._become(np.dtype(np.float32)), weight


FOUND_LATER = [
    list_of_weights, dict_of_modules, dict_of_numbers, array_of_an_op, array_made_a_tensor, array_written_to_a_tensor,
    array_of_class_weights, array_as_a_seed, decorated, parameter_is_frozen, parameter_becomes_float32,
]  # fmt: skip


@pytest.mark.parametrize("make", FOUND_LATER)
def test_a_change_after_three_calls_leads_to_the_right_result(make):
    results = []
    for compiled in (False, True):
        function, change, *more = make()
        function = tl.compile(function) if compiled else function
        for k in range(8):
            if k == 4:
                change()
            out = function(tl.rand(3, generator=k), *more)
            results.append((out.requires_grad, out.dtype, out.detach().numpy().tobytes()))
    assert results[:8] == results[8:]
    assert function.replayed >= 4


def test_a_global_variable_with_the_name_of_an_attribute_is_not_read(monkeypatch):
    function = tl.compile(lambda x: x.mean() * 2)
    for k in range(5):
        monkeypatch.setitem(globals(), "mean", k)  # as in "for step, batch in enumerate(loader)" with optimizer.step()
        function(tl.ones(k + 1)[:1])
    assert function.replayed == 3


def test_an_object_with_tensors_is_not_returned_again():
    @dataclasses.dataclass
    class Output:
        loss: tl.Tensor

    function, found = tl.compile(lambda x: Output(x.sum())), []
    with pytest.warns(UserWarning, match="the function returns a Output, which may hold values"):
        found += [function(tl.tensor([number])).loss.item() for number in (1.0, 1.0, 1.0, 2.0)]
    assert found == [1, 1, 1, 2]


def test_noise_that_is_written_into_an_array_is_refused():
    source, noise, found = np.random.default_rng(0), np.empty(3), []

    def function(x):
        source.standard_normal(out=noise)
        return x + noise

    compiled = tl.compile(function)
    with pytest.warns(UserWarning, match="add gets another number, array or option at the second call, at "):
        found += [compiled(tl.zeros(3)).tolist() for _ in range(4)]
    assert found == np.random.default_rng(0).standard_normal((4, 3)).tolist()


@pytest.mark.parametrize("make", [lambda o: optim.StepLR(o, 4, 0.5), lambda o: optim.OneCycleLR(o, 0.1, 20)])
def test_a_schedule_inside_of_the_function_is_not_forgotten(make):
    rates = []
    for compiled in (False, True):
        weight = nn.Parameter(np.ones(3))
        optimizer = optim.SGD([weight], lr=0.1)
        schedule = make(optimizer)

        def step(x, weight=weight, optimizer=optimizer, schedule=schedule):
            optimizer.zero_grad()
            (x * weight).sum().backward()
            optimizer.step()
            schedule.step()

        function = tl.compile(step) if compiled else step
        warns = pytest.warns(UserWarning, match="a schedule changes the learning rate, at ")
        with warns if compiled else nullcontext():
            for k in range(9):
                function(tl.rand(3, generator=k))
                rates.append((optimizer.param_groups[0]["lr"], *weight.tolist()))
    assert rates[:9] == rates[9:]


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls, self.seen = 0, []

    def forward(self, x):
        self.calls += 1
        self.seen.append(self.calls)
        return x * 2


def test_a_function_that_changes_a_module_by_python_is_refused():
    model, x = Counting(), tl.ones(2)
    compiled = tl.compile(lambda x: model(x))
    compiled(x)
    with pytest.warns(UserWarning, match="the function itself changes attributes of modules"):
        compiled(x)
    for _ in range(40):
        compiled(x)
    assert (model.calls, model.seen[-1], compiled.traced) == (42, 42, 2)


def test_a_function_that_changes_a_learning_rate_by_python_is_refused():
    weight = tl.ones(2, requires_grad=True)
    optimizer = optim.SGD([weight], lr=1.0)

    def step(x):
        optimizer.zero_grad()
        (weight * x).sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.5

    compiled = tl.compile(step)
    compiled(tl.ones(2))
    with pytest.warns(UserWarning, match="options of optimisers"):
        compiled(tl.ones(2))
    for _ in range(4):
        compiled(tl.ones(2))
    assert optimizer.param_groups[0]["lr"] == 0.5**6
    assert weight.tolist() == [1.0 - sum(0.5**k for k in range(6))] * 2


def test_a_gradient_through_the_graph_of_an_argument_is_refused():
    weight = tl.tensor([2.0], requires_grad=True)
    compiled = tl.compile(lambda x: tl.grad(x.sum(), weight)[0])
    with pytest.warns(UserWarning, match="a backward pass goes through the graph of an argument"):
        found = [compiled(weight * weight if k < 3 else weight * weight * weight).item() for k in range(5)]
    assert found == [4.0, 4.0, 4.0, 12.0, 12.0]


def test_a_program_is_made_for_the_number_of_threads():
    before, x = tl.get_num_threads(), tl.ones(2)
    compiled = tl.compile(lambda x: x * 2)
    try:
        for threads in (1, 2):
            tl.set_num_threads(threads)
            for _ in range(3):
                compiled(x)
            assert compiled.guards[0].recording.latest.threads == threads
    finally:
        tl.set_num_threads(before)
