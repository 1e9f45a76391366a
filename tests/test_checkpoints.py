"""Checkpoints: the second call of the function leaves everything else as it was, and costs what it should."""

import gc
import threading
import tracemalloc
import weakref
from collections import namedtuple

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import GradientError, nn
from tinygrad_lenet.core.graph import ancestors
from tinygrad_lenet.kernels import memory


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_checkpoint_moves_running_statistics_once(momentum, create_graph):
    def run(through):
        layer = nn.BatchNorm2d(3, momentum=momentum)
        x = tl.randn(4, 3, 5, 5, generator=1, requires_grad=True)
        block = nn.Sequential(layer, nn.ReLU(), layer)  # twice in one call
        y = through(block, x) + through(lambda x: through(layer, x * 2), x) + through(layer, x)
        outputs = [y]
        for _ in range(2):
            found = tl.grad((y**3).sum(), [x, layer.weight], create_graph=create_graph, retain_graph=True)
            outputs += found
        second = tl.grad((found[0] ** 2).sum(), x) if create_graph else ()
        return [*[o.numpy() for o in outputs], *layer.state_dict().values()], [g.numpy() for g in second]

    (first, second), (plain, plain_second) = run(tl.checkpoint), run(lambda f, x: f(x))
    for a, b in zip(first, plain, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(second, plain_second, strict=True):  # the nodes of the second pass come in another order
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_checkpoint_repeats_no_change_that_the_function_made():
    state = tl.tensor([1.0, 2.0])
    cache = tl.zeros(3, 2)

    def fn(x, t):
        before = x * state.clone()  # used, then changed, then used again
        state.data = state * 2
        cache[t] = before.detach()
        cache[t + 1][...] = 7.0  # through a view
        return before + x * state + cache.sum()

    x = tl.tensor([3.0, 5.0], requires_grad=True)
    y, z = tl.checkpoint(fn, x, 0), tl.checkpoint(fn, x, 1)
    assert state.tolist() == [4, 8]
    now, cached = state.numpy().copy(), cache.numpy().copy()
    (y + z).sum().backward(retain_graph=True)
    np.testing.assert_array_equal(x.grad.numpy(), [1 + 2 + 2 + 4, 2 + 4 + 4 + 8])
    (y + z).sum().backward()
    np.testing.assert_array_equal(state.numpy(), now)
    np.testing.assert_array_equal(cache.numpy(), cached)
    state += 1  # the later change is not undone either, and matters to no gradient
    w = tl.checkpoint(fn, x, 0)
    state += 1
    later = state.tolist()
    w.sum().backward()
    assert state.tolist() == later


def test_a_checkpoint_that_fails_sets_everything_back():
    state, rng, broken = tl.tensor([1.0]), np.random.default_rng(0), []

    def fn(x):
        state.data = state * 2
        if broken:
            raise RuntimeError("in the middle")
        return tl.dropout(x * 2, 0.5, generator=rng)

    x = tl.ones(9, requires_grad=True)
    y = tl.checkpoint(fn, x, generators=[rng])
    broken.append(True)
    drawn = rng.bit_generator.state
    with pytest.raises(RuntimeError, match="in the middle"):
        y.sum().backward(retain_graph=True)
    assert state.item() == 2
    assert rng.bit_generator.state == drawn
    assert tl.is_grad_enabled()
    broken.clear()
    y = tl.checkpoint(fn, x, generators=[rng])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())
    assert state.item() == 4


def test_a_checkpoint_gives_back_lists_tuples_and_dicts_as_they_are():
    Pair = namedtuple("Pair", "a b")

    def fn(x):
        return {"y": [x * 2, (x * x, 3)], "pair": Pair(x.exp(), None), "same": x, "index": x.argmax()}

    x = tl.tensor([1.0, 2.0], requires_grad=True)
    found, plain = tl.checkpoint(fn, x), fn(x)
    assert list(found) == list(plain)
    assert (type(found["y"]), type(found["y"][1]), found["pair"]._fields) == (list, tuple, ("a", "b"))
    total = found["y"][0].sum() + found["y"][1][0].sum() * 3 + found["pair"].a.sum() + found["same"].sum() * 5
    (g,) = tl.grad(total, x, create_graph=True)
    np.testing.assert_allclose(g.numpy(), 2 + 6 * x.numpy() + np.exp(x.numpy()) + 5, rtol=1e-6)
    (h,) = tl.grad(g.sum(), x)
    np.testing.assert_allclose(h.numpy(), 6 + np.exp(x.numpy()), rtol=1e-6)


def test_a_checkpoint_of_an_lstm_keeps_its_state_recomputed_too():
    lstm = nn.LSTM(3, 4, generator=0)
    x = tl.randn(5, 2, 3, generator=0, requires_grad=True)

    def run(through):
        out, (h, c) = through(lstm, x)
        return [out, *tl.grad((out**2).sum() + (h * c).sum(), [x, *lstm.parameters()], retain_graph=True)], (h, c)

    (a, states), (b, _) = run(tl.checkpoint), run(lambda f, x: f(x))
    for u, v in zip(a, b, strict=True):
        np.testing.assert_array_equal(u.detach().numpy(), v.detach().numpy())
    names = {node.plan.op.name for node in ancestors([s._node for s in states])}
    assert "checkpoint" in names
    assert "sigmoid" not in names


def test_a_checkpoint_that_gives_back_what_it_got():
    x, w = tl.ones(2, requires_grad=True), tl.tensor([2.0, 3.0], requires_grad=True)
    y = tl.checkpoint(lambda x: x, x)
    z, v, again = tl.checkpoint(lambda x: (x, w, x), x)
    (y * 2 + z * 3 + v * 5 + again * 7).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [12, 12])
    np.testing.assert_array_equal(w.grad.numpy(), [5, 5])


def test_tensors_that_the_function_makes_are_no_business_of_the_checkpoint():
    leaked = []

    def fn(x):
        mask = tl.tensor(x.numpy() > 0).astype("float32")
        constant = tl.full((2,), 3.0)
        leaked[:] = [constant]
        buffer = tl.zeros(2)
        for i in range(2):
            buffer[i] = i + 1.0
        return x * mask * constant * buffer, constant

    x = tl.tensor([1.0, -2.0], requires_grad=True)
    y, constant = tl.checkpoint(fn, x)
    constant += 5  # it was made inside
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3, 0])


def test_checkpoints_in_threads_do_not_hear_each_other():
    found = {}

    def work(seed):
        layer = nn.BatchNorm1d(4)
        x = tl.randn(8, 4, generator=seed, requires_grad=True)
        for _ in range(5):
            y = tl.checkpoint(layer, x)
            (y**3).sum().backward()
        found[seed] = x.grad.numpy(), layer.running_mean.numpy()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = dict(found)
    for seed in range(4):
        work(seed)
        for a, b in zip(together[seed], found[seed], strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_checkpoint_inside_of_no_grad_and_in_reverse():
    mask = tl.ones(3)

    def fn(x):
        with tl.no_grad():
            scale = tl.checkpoint(lambda x: x * mask, x) + 1
        return x * scale

    x = tl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = tl.checkpoint(fn, x)
    y.sum().backward(retain_graph=True)
    np.testing.assert_array_equal(x.grad.numpy(), [2, 3, 4])
    mask[0] = 7.0
    with pytest.raises(GradientError, match=r"gave other values.* uses another tensor of shape \(3,\)"):
        y.sum().backward()


def test_a_loop_of_checkpoints_over_slices_is_linear(monkeypatch):
    made, zeros = [0], np.zeros

    def counting(shape, *args, **kwargs):
        made[0] += int(np.prod(shape))
        return zeros(shape, *args, **kwargs)

    monkeypatch.setattr(np, "zeros", counting)

    def cost(n):
        x = tl.rand(n, 10, generator=0, requires_grad=True)
        total = sum(tl.checkpoint(lambda t: (x[t].exp() * x[t - 1]).sum(), t) for t in range(n))
        made[0] = 0
        total.backward()
        expected = np.exp(x.numpy()) * np.roll(x.numpy(), 1, 0) + np.roll(np.exp(x.numpy()), -1, 0)
        np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-6)
        return made[0]

    assert cost(20) < 2.2 * cost(10)


def test_nested_checkpoints_keep_no_graph_of_the_inner_calls():
    def peak(through):
        def layer(x):
            for _ in range(6):
                x = (x * x).sin()
            return x

        def block(x):
            for _ in range(6):
                x = through(layer, x)
            return x

        x = tl.rand(100_000, generator=0, requires_grad=True)
        y = tl.checkpoint(block, x)
        gc.collect()
        tracemalloc.start()
        y.sum().backward()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    monkey = memory._SMALL
    memory._SMALL = 1 << 40  # NumPy's own allocator, which tracemalloc sees
    try:
        assert peak(tl.checkpoint) < peak(lambda f, x: f(x)) / 2
    finally:
        memory._SMALL = monkey


def test_a_checkpoint_holds_no_constants_that_the_function_makes():
    made = []

    def fn(x):
        noise = tl.tensor(np.arange(6.0))
        made.append(weakref.ref(noise))
        buffer = tl.zeros(6)
        made.append(weakref.ref(buffer))
        (buffer * 2).sum()
        buffer[0] = 1.0
        return x * noise * x.detach() + (noise * 2) * buffer.detach()

    x = tl.tensor(np.ones(6), requires_grad=True)
    y = tl.checkpoint(fn, x)
    assert [there() for there in made] == [None, None]
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.arange(6.0))
    scale = [2.0]
    z = tl.checkpoint(lambda x: fn(x) * scale[0], x)
    scale[0] = 3.0
    with pytest.raises(GradientError, match=r"gave other values .* mul, is not the same or has other arguments"):
        z.sum().backward()
