"""Indexing: values as NumPy gives them, gradients as ``np.add.at`` puts them back, for drawn shapes and indices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_lenet as tl
from tinygrad_lenet import nn
from tinygrad_lenet.core.primitive import Plan
from tinygrad_lenet.ops.shape import _join

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)


def values(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def check(array, index):
    """Forward, gradient and the gradient's own gradient against NumPy."""
    x = tl.tensor(array, requires_grad=True)
    out = x[index]
    plain = array[index]
    assert out.shape == np.shape(plain)
    np.testing.assert_array_equal(out.numpy(), plain)
    if out.size and np.shares_memory(plain, array):
        assert np.shares_memory(out.numpy(), x.numpy())  # a view where NumPy gives a view
    g = values(out.shape, 1)
    expected = np.zeros_like(array)
    np.add.at(expected, index, g)
    (first,) = tl.grad(out, x, tl.tensor(g), retain_graph=True)
    np.testing.assert_allclose(first.numpy(), expected, rtol=1e-12, atol=1e-14)
    seed = tl.tensor(g, requires_grad=True)
    (recorded,) = tl.grad(out, x, seed, create_graph=True)
    np.testing.assert_allclose(recorded.numpy(), expected, rtol=1e-12, atol=1e-14)
    back = values(array.shape, 2)
    (second,) = tl.grad(recorded, seed, tl.tensor(back))  # linear in the seed: the same index, forward
    np.testing.assert_array_equal(second.numpy(), back[index])


@given(st.data(), SHAPES)
def test_basic_indices(data, shape):
    check(values(shape), data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True)))


@given(st.data(), hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
def test_integer_arrays_with_repeats(data, shape):
    index = data.draw(
        hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(min_dims=0, max_dims=3, max_side=4))
    )
    check(values(shape), index)


@given(st.data(), SHAPES)
def test_boolean_masks(data, shape):
    axes = data.draw(st.integers(1, len(shape)))
    check(values(shape), data.draw(hnp.arrays(np.bool_, shape[:axes])))


@given(st.data(), hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=4))
def test_slices_integers_arrays_masks_and_new_axes_mixed(data, shape):
    length = data.draw(st.integers(1, 3))
    index = []
    for n in shape[: data.draw(st.integers(1, len(shape)))]:
        kind = data.draw(st.sampled_from(["slice", "integer", "array", "mask", "list"]))
        if kind == "slice":
            index.append(data.draw(st.slices(n)))
        elif kind == "integer":
            index.append(data.draw(st.integers(-n, n - 1)))
        elif kind == "mask":  # of as many elements as the arrays beside it have
            mask = np.zeros(n, bool)
            mask[:1] = True
            index.append(mask)
        else:
            picks = data.draw(st.lists(st.integers(-n, n - 1), min_size=length, max_size=length))
            index.append(picks if kind == "list" else np.array(picks))
        if data.draw(st.booleans()) and len(index) < 5:
            index.append(None)
    if data.draw(st.booleans()):
        index.insert(data.draw(st.integers(0, len(index))), Ellipsis) if len(index) <= len(shape) else None
    try:
        values(shape)[tuple(index)]
    except IndexError:
        with pytest.raises(tl.OutOfRangeError):
            tl.tensor(values(shape))[tuple(index)]
        return
    check(values(shape), tuple(index))


@pytest.mark.parametrize(
    "index",
    [
        [],
        ([], slice(None)),
        True,
        False,
        np.True_,
        (True, 0),
        np.array(1),
        np.array(True),
        np.int64(-1),
        np.uint8(2),
        (np.array([0, 1]), np.array([[2], [0]])),
        (slice(None), [True, False, True, False]),
        ([0, 0, 0], [1, 1, 1]),
        [[0, 1], [2, 2]],
        (Ellipsis, -1),
        (slice(None, None, -1), slice(3, 0, -2)),
        (None, 1, None),
        (),
        slice(np.int64(1), np.int64(3)),
        range(2),
    ],
    ids=repr,
)
def test_odd_indices(index):
    plain = list(index) if isinstance(index, range) else index
    array = values((3, 4))
    x = tl.tensor(array, requires_grad=True)
    np.testing.assert_array_equal(x[index].numpy(), array[plain])
    check(array, plain)


def test_tensors_as_indices():
    array = values((3, 4))
    x = tl.tensor(array, requires_grad=True)
    np.testing.assert_array_equal(x[x > 0].numpy(), array[array > 0])
    np.testing.assert_array_equal(x[tl.arange(2), tl.tensor(np.array([3, 0]))].numpy(), array[[0, 1], [3, 0]])
    np.testing.assert_array_equal(x[tl.arange(2)[1] : tl.arange(4)[3]].numpy(), array[1:3])
    np.testing.assert_array_equal(x[x.argmax(axis=0), tl.arange(4)].numpy(), array.max(0))
    np.testing.assert_array_equal(x[tl.argmax(x[:, 0])].numpy(), array[array[:, 0].argmax()])
    with pytest.raises(tl.DTypeError, match=r"got float32; for a tensor use x\.astype"):
        x[tl.ones(2)]


def test_an_index_array_that_is_changed_before_backward_does_no_harm():
    x, index = tl.tensor(values(4), requires_grad=True), np.array([0, 0, 3])
    out = x[index]
    index[:] = 1
    out.backward([1.0, 2.0, 4.0])
    np.testing.assert_array_equal(x.grad.numpy(), [3, 0, 0, 4])
    mask = np.array([True, False, True, False])
    y = tl.tensor(values(4), requires_grad=True)
    out = y[tl.tensor(mask)]
    mask[:] = False
    out.backward([1.0, 2.0])
    np.testing.assert_array_equal(y.grad.numpy(), [1, 0, 2, 0])


def test_overlapping_slices_of_one_tensor_sum():
    x = tl.tensor(values(5), requires_grad=True)
    (x[:3] * 2 + x[1:4] * 10 + x[2:] * 100).backward([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(x.grad.numpy(), [2, 4 + 10, 6 + 20 + 100, 30 + 200, 300])


# Loops: what a backward pass touches grows with their length, not with its square.


def recurrent(layer, **options):
    return lambda x: [layer(2, 2, batch_first=True, generator=0, **options)(x)[0]]


def of_rows(loop):
    """A loop over the rows of the matrix that (3, n, 2) is."""

    def run(x):
        rows = x.reshape(-1, x.shape[2])
        return loop(rows, len(rows))

    return run


LOOPS = {
    "x[:, t]": lambda x: [x[:, t] for t in range(x.shape[1])],
    "x[:, -t]": lambda x: [x[:, -t : 1 - t or None] for t in range(1, x.shape[1] + 1)],
    "x[t]": of_rows(lambda x, n: [x[t] for t in range(n)]),
    "for row in x": of_rows(lambda x, n: list(x)),
    "x[i][j]": lambda x: [x[i][j] for i in range(3) for j in range(x.shape[1])],
    "for row in x, for y in row": lambda x: [y for row in x[None] for part in row for y in part],
    "x.T[t]": of_rows(lambda x, n: [x.T[:, t] for t in range(n)]),
    "x.swapaxes(0, 1)[t]": lambda x: [x.swapaxes(0, 1)[t] for t in range(x.shape[1])],
    "x[::-1][t]": of_rows(lambda x, n: [tl.flip(x, 0)[t] for t in range(n)]),
    "x.reshape(-1)[i]": lambda x: [x.reshape(-1)[i] for i in range(x.size)],
    "x.flatten(1)[:, t]": lambda x: [x.flatten(1)[:, 2 * t : 2 * t + 2] for t in range(x.shape[1])],
    "x.unsqueeze(1)[..., t, :]": lambda x: [x.unsqueeze(1)[..., t, :] for t in range(x.shape[1])],
    "x[..., :1].squeeze(-1)[0, t]": lambda x: [x[..., :1].squeeze(-1)[0, t] for t in range(x.shape[1])],
    "unbind": lambda x: tl.unbind(x, 1),
    "split": lambda x: tl.split(x, x.shape[1], 1),
    "chunk": lambda x: tl.chunk(x, x.shape[1], 1),
    "an array": of_rows(lambda x, n: [x[np.array([t, 0])] for t in range(n)]),
    "a mask": of_rows(lambda x, n: [x[np.arange(n) == t] for t in range(n)]),
    "embedding": of_rows(lambda x, n: [tl.embedding([t, t], x) for t in range(n)]),
    "gather": of_rows(lambda x, n: [tl.gather(x, 0, [[t, t]]) for t in np.arange(n)]),
    "take_along_axis": of_rows(lambda x, n: [tl.take_along_axis(x, [[t, t]], 0) for t in np.arange(n)]),
    "RNN": recurrent(nn.RNN),
    "LSTM": recurrent(nn.LSTM, num_layers=2),
    "GRU": recurrent(nn.GRU, bidirectional=True),
}


@pytest.fixture
def touched(monkeypatch):
    """The elements of all gradients that rules hand on, and of all zeros."""
    count = [0]
    pull, zeros = Plan.pull, np.zeros

    def counting_pull(self, node, seed, needed, arrive):
        def passed(vertex, gradient):
            count[0] += sum(value.size for value in getattr(gradient, "values", [gradient]))
            arrive(vertex, gradient)

        pull(self, node, seed, needed, passed)

    def counting_zeros(shape, *args, **kwargs):
        count[0] += int(np.prod(shape))
        return zeros(shape, *args, **kwargs)

    monkeypatch.setattr(Plan, "pull", counting_pull)
    monkeypatch.setattr(np, "zeros", counting_zeros)
    return count


@pytest.mark.parametrize("create_graph", [False, True], ids=["arrays", "tensors"])
@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_the_backward_pass_of_a_loop_is_linear_in_its_length(touched, loop, create_graph):
    def cost(n):
        x = tl.rand(3, n, 2, generator=0, requires_grad=True)
        y = tl.concatenate([part.reshape(-1) for part in loop(x)])
        y = (y * y).sum()
        touched[0] = 0
        (g,) = tl.grad(y, x, create_graph=create_graph)
        if create_graph:
            (g * g).sum().backward()
        return touched[0]

    assert cost(24) < 2.2 * cost(12)


def mixed(x, w):
    """Picked and whole uses of ``x`` in turn, some elements twice, one vertex inside, views of views."""
    h = x * w
    total = (x[0] ** 2).sum() + (x**3).sum() + (x[1:, 1] * x[:-1, 0]).sum() + (x * w).sum()
    total = total + (h[[0, 2, 0]] ** 2 * w).sum() + (h.T[1] ** 3).sum() + (h**2).sum() + (h[h.numpy() > 0] ** 2).sum()
    return total + sum((row**2).sum() for row in h) + (h[::-1][0, ...] ** 2).sum()


def nested(x, w):
    """Views of views, picked from once and twice, with and without axes left."""
    h = (x * w)[1:]
    total = (x[0][1] ** 2).sum() + (x.T[1][::-1][0] ** 3).sum() + (x[1:].T[[0, 2, 0]] ** 2).sum() + x[2][1][None].sum()
    view = h.T[::-1]
    total = total + (view[0] ** 2).sum() + (view[1:, 1] ** 3).sum() + (h[0][None, 1] ** 2 * w).sum()
    total = total + (x[True][0][1] ** 2).sum() + (h[np.True_][:, 0] ** 3).sum() + (x[[0, 1]][1] ** 2).sum()
    return total + (x[None].swapaxes(0, 2)[1, :, 0] ** 2).sum() + (x[x.numpy()[:, 0] > 0][0] ** 2).sum() + (h**2).sum()


def regrouped(x, w):
    """Parts that pass through a reshape, which may be a view of contiguous memory only."""
    h = x * w
    total = (x.reshape(-1)[3] ** 2).sum() + (x.reshape(2, 6)[1, 2:4] ** 3).sum() + (x.T.reshape(6, 2)[4] ** 2).sum()
    total = total + (h.reshape(6, 2)[[0, 5, 0]] ** 2).sum() + (h.flatten()[2::5] ** 3).sum()
    total = total + (h.unsqueeze(1).T[1, 0, ::2] ** 2).sum() + (h[1:].reshape(-1)[4].reshape(1, 1)[0] ** 3).sum()
    total = total + (h[:, :1].squeeze(1)[2].unsqueeze(0)[0] ** 2).sum() + (h[2].reshape(3, 1).T[0, 1:] ** 3).sum()
    # The backward pass begins with these, and their sum is not contiguous.
    return total + (h.T * values((3, 4))).sum() + (h.T * values((3, 4), 1)).sum()


@pytest.mark.parametrize("mixed", [mixed, nested, regrouped])
def test_gradients_of_parts_and_of_the_whole_are_summed_in_one_order(mixed):
    x, w = values((4, 3)), values((1, 3), 1)
    assert tl.testing.gradcheck(mixed, [x, w], order=2)
    inputs = [tl.tensor(a, requires_grad=True) for a in (x, w)]
    plain = tl.grad(mixed(*inputs), inputs)
    recorded = tl.grad(mixed(*inputs), inputs, create_graph=True)
    for a, b in zip(plain, recorded, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_hook_sees_the_sum_of_all_parts_once_and_replaces_it():
    for create_graph in (False, True):
        seen = []
        x = tl.tensor(np.arange(3.0), requires_grad=True)
        h = x * 1
        h.register_hook(lambda g, seen=seen: seen.append(g.tolist()))
        h.register_hook(lambda g: g * 10)
        x.register_hook(lambda g, seen=seen: seen.append(g.tolist()))
        y = h[0] + h[1] * 2 + h[0] * 3 + x[2]
        found = tl.grad(y, [h, x], create_graph=create_graph)
        assert seen == [[4, 2, 0], [40, 20, 1]]
        assert [g.tolist() for g in found] == [[40, 20, 0], [40, 20, 1]]


def test_lists_of_many_lengths_leave_no_memory_behind():
    xs = [tl.ones(1, requires_grad=True) for _ in range(300)]
    for n in range(1, 300):
        tl.stack(xs[:n])
    assert len(_join.op.plans) <= 100


def test_more_axes_than_add_at_can_take_are_added_to_what_is_there():
    x = tl.tensor(values((2,) + (1,) * 31), requires_grad=True)
    for create_graph in (False, True):
        y = (x[:, [0, 0]] * 2).sum() + (x.transpose() * 3).sum() + (x.transpose()[..., [1, 0, 1]] * 5).sum()
        (g,) = tl.grad(y, x, create_graph=create_graph)
        assert g.numpy().ravel().tolist() == [12, 17]


def test_indices_along_an_axis_that_do_not_fit_the_others_are_refused():
    x = tl.ones(3, 4)
    with pytest.raises(tl.ShapeError, match=r"axis 1, the lengths of indices \(2, 2\) must be 1 or those of \(3, 4\)"):
        tl.take_along_axis(x, np.zeros((2, 2), np.int64), 1)
    assert tl.take_along_axis(x[:1], np.zeros((5, 2), np.int64), 1).shape == (5, 2)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_the_padded_copies_of_an_element_give_it_their_gradients(mode):
    x = tl.arange(4.0, requires_grad=True)
    weights = np.arange(1.0, 9.0, dtype=np.float32)
    (tl.pad(x, (2, 2), mode=mode) * weights).sum().backward()
    expected = {"reflect": [3, 2 + 4 + 8, 1 + 5 + 7, 6], "replicate": [6, 4, 5, 21], "circular": [10, 12, 6, 8]}
    np.testing.assert_array_equal(x.grad.numpy(), expected[mode])
