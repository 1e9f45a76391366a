"""Arguments, results, methods and modules; ``check`` and ``report``; what is refused outside of a compiled function."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from test_compile import STORIES, World

import tinygrad_lenet as tl
from tinygrad_lenet import nn, optim
from tinygrad_lenet.kernels import memory


def test_structures_of_tensors_and_numbers():
    @tl.compile
    def function(batch, *, scale):
        x, extra = batch["x"], batch["more"][0]
        return {"sum": (x + extra) * scale, "parts": [x.exp(), (extra, 3)]}

    for k in range(5):
        x, extra = tl.rand(3, 2, generator=k), tl.rand(2, generator=k + 1)
        found = function({"x": x, "more": [extra]}, scale=2.0)
        assert found["parts"][1][1] == 3
        np.testing.assert_array_equal(found["sum"].numpy(), ((x + extra) * 2.0).numpy())
        np.testing.assert_array_equal(found["parts"][0].numpy(), x.exp().numpy())
    assert function.replayed == 3
    assert function({"x": x, "more": [extra]}, scale=3.0)["sum"].numpy().tolist() == ((x + extra) * 3.0).tolist()


def test_one_tensor_given_twice_is_not_two_tensors():
    function = tl.compile(lambda x, y: x * 10 + y)
    x, y = tl.tensor([1.0]), tl.tensor([2.0])
    for _ in range(4):
        assert function(x, x).item() == 11
        assert function(x, y).item() == 12
    outside = tl.tensor([3.0])
    function = tl.compile(lambda x: x * 10 + outside)
    for _ in range(4):
        assert function(outside).item() == 33
        assert function(x).item() == 13


def in_place(x):
    sums = tl.zeros(3)
    sums += x
    return sums * 1


def in_place_through_a_view(x):
    sums = tl.tensor(np.ones((2, 3), np.float32))
    sums[0][1:] += x[1:]
    return sums * 1


def test_a_constant_that_the_function_makes_and_changes_in_place():
    compiled, x = tl.compile(in_place), tl.tensor([1.0, 2.0, 3.0])
    with pytest.warns(UserWarning, match="change in place gets another .* at the second call, at .*test_compile_calls"):
        found = [compiled(x).tolist() for _ in range(5)]
    assert found == [in_place(x).tolist()] * 5


def test_a_copy_of_an_array_that_the_function_makes_and_changes_in_place():
    compiled = tl.compile(in_place_through_a_view)
    for k in range(5):
        x = tl.rand(3, generator=k)
        assert compiled(x).tolist() == in_place_through_a_view(x).tolist()
    assert compiled.replayed == 3


def test_a_view_of_a_tensor_from_outside_is_changed_in_place():
    weights = [tl.ones(2, 3), tl.ones(2, 3)]

    def function(weight, x):
        weight[0] += x
        weight[1].detach()[1:] += x[1:]
        return weight * x

    compiled = tl.compile(lambda x: function(weights[1], x))
    for k in range(5):
        x = tl.rand(3, generator=k)
        assert function(weights[0], x).tolist() == compiled(x).tolist()
        assert weights[0].tolist() == weights[1].tolist()
    assert weights[0]._version[0] == weights[1]._version[0]
    assert compiled.replayed == 3


def test_the_gradient_of_an_argument_is_not_read():
    compiled = tl.compile(lambda x: x * 2 if x.grad is None else x.grad * 1)
    inputs = [tl.rand(3, generator=k) for k in range(5)]
    for x in inputs[2:]:
        x.grad = x * 3
    with pytest.warns(UserWarning, match="the .grad of an argument of the function is read or set, at "):
        found = [compiled(x).tolist() for x in inputs]
    assert found == [(x * 2 if x.grad is None else x.grad).tolist() for x in inputs]


def test_the_gradient_of_another_tensor_at_each_call():
    weights, count = [tl.ones(3, requires_grad=True) for _ in range(2)], itertools.count()
    for k, weight in enumerate(weights):
        weight.grad = weight.detach() * (k + 1)
    compiled = tl.compile(lambda x: x + weights[next(count) % 2].grad)
    with pytest.warns(UserWarning, match="reads the .grad of another tensor at the second call"):
        assert [compiled(tl.zeros(1))[0].item() for _ in range(6)] == [1, 2, 1, 2, 1, 2]


def test_results_that_no_one_uses():
    def function(x):
        tl.max_pool2d(tl.relu(x), 2)
        tl.relu(x)
        return tl.max_pool2d(tl.relu(x), 2)

    compiled = tl.compile(function)
    for k in range(4):
        x = tl.randn(2, 3, 4, 4, generator=k)
        assert compiled(x).tolist() == function(x).tolist()
    assert compiled.replayed == 2


def test_numbers_that_change_are_refused():
    counts = iter(range(100))
    function = tl.compile(lambda x: (x * 2, next(counts)))
    with pytest.warns(UserWarning, match="returns other numbers at the second call"):
        assert [function(tl.ones(2))[1] for _ in range(5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), tl.from_dlpack])
def test_copies_made_by_python_are_refused(copied):
    function = tl.compile(lambda x: copied(x) * 2)
    with pytest.warns(UserWarning, match="reads the values of a tensor"):
        assert [function(tl.tensor([number])).item() for number in (1.0, 1.0, 2.0)] == [2, 2, 4]


def test_a_compiled_module_has_the_attributes_of_the_module():
    model = tl.compile(nn.Linear(2, 3, generator=0))
    assert [p.shape for p in model.parameters()] == [(3, 2), (3,)]
    for k in range(4):
        x = tl.rand(4, 2, generator=k)
        np.testing.assert_array_equal(model(x).detach().numpy(), model.fn(x).detach().numpy())
    assert model.replayed == 2


def test_a_method_may_be_compiled():
    class Scaled:
        def __init__(self, factor):
            self.factor = tl.tensor(factor)

        @tl.compile
        def apply(self, x):
            return x * self.factor

    two, three = Scaled(2.0), Scaled(3.0)
    for k in range(4):
        x = tl.rand(3, generator=k)
        assert two.apply(x).tolist() == (x * 2).tolist()
        assert three.apply(x).tolist() == (x * 3).tolist()


def test_check_raises_if_a_replay_differs():
    class Holder:
        factor = 1.0

    model = nn.Linear(2, 2, generator=0)
    step = tl.compile(check=True)(lambda x: (model(x) * Holder.factor).detach())
    for k in range(4):
        step(tl.rand(3, 2, generator=k))
    Holder.factor = 2.0  # an attribute of an object of the user, which no replay watches
    with pytest.raises(tl.TinygradLenetError, match="a result differs between the replay and the function; it depends"):
        step(tl.rand(3, 2, generator=9))


def test_check_allows_for_the_rounding_of_chunks():
    images = [tl.rand(128, 1, 28, 28, generator=k) for k in range(5)]
    model, scale = nn.LeNet5(generator=0), tl.tensor(1.0)
    optimizer = optim.SGD(model.parameters(), lr=0.01)

    @tl.compile(check=True)
    def step(x, y):
        loss = tl.cross_entropy(model(x), y) * scale
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for x in images:
        step(x, tl.tensor(np.arange(128) % 10))
    assert step.replayed == 3


def test_check_leaves_the_state_of_one_call():
    plain, checked = World(False, STORIES["Adam"]), World(True, STORIES["Adam"])
    checked.step = tl.compile(check=True)(checked.step.fn)
    for world in (plain, checked):
        world.go(range(6))
        world.end()
    for a, b in zip(plain.log, checked.log, strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_report_lists_the_ops_and_changes_nothing():
    s = World(True, STORIES["Adam"])
    for _ in range(2):
        s.go(range(1))
        with pytest.raises(tl.ArgumentError, match="there is no program: the third call with the same shapes"):
            s.step.report()
    s.go(range(1))
    before = [p.numpy().copy() for p in s.model.parameters()]
    text = s.step.report()
    assert [line.split()[0] for line in text.splitlines()[2:5]] == ["conv2d", "channel_moments", "_pick"]
    assert "test_compile.py, line " in text
    for p, was in zip(s.model.parameters(), before, strict=True):
        assert p.numpy().tobytes() == was.tobytes()


def test_a_report_lists_the_steps_of_a_chunk():
    model = nn.LeNet5(generator=0)
    step, labels = tl.compile(lambda x, y: tl.cross_entropy(model(x), y).detach()), tl.tensor(np.arange(128) % 10)
    for k in range(3):
        step(tl.rand(128, 1, 28, 28, generator=k), labels)
    whole, chunk = step.report().split("for one of 2 chunks of 64 rows\n")
    assert [line.split()[0] for line in whole.splitlines()[2:-1]] == ["checked_index", "count_classes", "chunks"]
    assert "(64, 6, 28, 28)" in chunk.splitlines()[1]


def test_a_report_leaves_a_result_its_graph():
    layers = nn.Linear(4, 4, generator=0), nn.Dropout(0.5, generator=1), nn.Linear(4, 1, generator=2)
    model, gradients = nn.Sequential(*layers), []
    for compiled in (False, True):
        forward = tl.compile(model) if compiled else model
        layers[1].generator = np.random.default_rng(3)
        for k in range(4):
            model.zero_grad()
            out = forward(tl.rand(5, 4, generator=k)).sum()
            if compiled and k > 1:
                assert "linear" in forward.report()
            out.backward()
            gradients.append([p.grad.numpy().tobytes() for p in model.parameters()])
    assert gradients[:4] == gradients[4:]


def test_a_leaf_that_the_function_makes_of_an_argument_is_not_the_argument():
    weight = nn.Parameter(np.ones(3, np.float32))

    @tl.compile
    def function(x):
        inner, other = x.detach(), weight.detach()
        inner.requires_grad = other.requires_grad = True
        return (inner * other * weight).sum()

    for k in range(4):
        x = tl.rand(3, generator=k, requires_grad=True)
        weight.grad = None
        function(x).backward()
        assert x.grad is None
        assert weight.grad.tolist() == x.tolist()
    assert function.replayed == 2


def test_a_compiled_function_may_be_called_from_several_lines():
    model = nn.Linear(2, 1, generator=0)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    step = tl.compile(optimizer.step)

    def prepared():
        optimizer.zero_grad()
        model(tl.ones(1, 2)).sum().backward()

    prepared()
    step()
    prepared()
    step()
    prepared()
    step()
    assert step.replayed == 1


def test_zero_and_minus_zero_are_two_numbers():
    function = tl.compile(lambda x, number: x * number)
    for number in (0.0, -0.0) * 4:
        assert np.signbit(function(tl.ones(1), number).numpy()) == np.signbit(number)


def test_numbers_of_numpy_are_compared_by_value():
    function = tl.compile(lambda x, number: x * number)
    for number in (1, np.nan, 2, 1, np.nan, 1, np.nan):
        np.testing.assert_array_equal(function(tl.ones(2), np.float32(number)).numpy(), np.full(2, number, np.float32))
    assert (function.traced, function.replayed) == (5, 2)


def test_a_second_derivative_through_a_compiled_forward_pass_is_refused():
    model = tl.compile(nn.Linear(2, 1, generator=0))
    for k in range(3):
        x = tl.rand(3, 2, generator=k, requires_grad=True)
        out = model(x).sum()
    with pytest.raises(tl.GradientError, match="a compiled function has no second derivatives outside of it"):
        tl.grad(out, x, create_graph=True)


def test_parameters_updated_between_forward_and_backward_are_noticed():
    layer = nn.Linear(2, 1, generator=0)
    model, x = tl.compile(layer), tl.ones(1, 2, requires_grad=True)
    for _ in range(4):
        out = model(x).sum()
        with tl.no_grad():
            layer.weight *= 2
        with pytest.raises(tl.GradientError, match="changed in place"):
            out.backward()


def test_sixteen_shapes_in_turn_are_replayed():
    function = tl.compile(lambda x: x + 1)
    for _ in range(4):
        for n in range(1, 17):
            assert function(tl.zeros(n)).tolist() == [1] * n
    assert (function.traced, function.replayed) == (32, 32)


def test_a_function_whose_shapes_never_repeat_is_no_longer_traced():
    function = tl.compile(lambda x: x + 1)
    for n in range(1, 33):
        function(tl.zeros(n))
    with pytest.warns(UserWarning, match="not replayed: too many calls find new shapes, numbers, arrays, lists or"):
        function(tl.zeros(33))
    for n in range(34, 60):
        assert function(tl.zeros(n)).tolist() == [1] * n
    assert function.traced == 33


def test_a_compiled_function_frees_what_its_traced_calls_used(monkeypatch):
    pool = memory._Pool()
    monkeypatch.setattr(memory, "_pool", pool)
    weight = tl.rand(8, 8, 3, 3, generator=0)

    @tl.compile
    def function(x):
        for _ in range(8):
            x = tl.conv2d(x, weight)  # each result has another size
        return x

    idle = []
    for _ in range(3):
        function(tl.ones(4, 8, 32, 32))
        idle.append(sum(map(len, pool.idle.values())))
    assert idle[0] >= 4
    assert max(idle[1:]) <= 1


def test_an_update_by_gradients_from_outside():
    results = []
    for compiled in (False, True):
        model = nn.Linear(3, 2, generator=0)
        optimizer = tl.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        step = tl.compile(optimizer.step) if compiled else optimizer.step
        for k in range(6):
            optimizer.zero_grad()
            (model(tl.rand(4, 3, generator=k)) ** 2).mean().backward()
            step()
        results.append([p.numpy().copy() for p in model.parameters()])
    assert step.replayed == 4
    for a, b in zip(*results, strict=True):
        assert a.tobytes() == b.tobytes()
