"""Recycled memory: never handed out while anything still looks at it, in whatever thread, and used again afterwards."""

import ctypes
import pickle
import queue
import sys
import threading

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import memory

SHAPE, FLOAT = (64, 128), np.dtype(np.float32)


@pytest.fixture(autouse=True)
def shelves(monkeypatch):
    """Shelves that no other test has used."""
    monkeypatch.setattr(memory, "_mine", memory._Mine())
    return memory._mine.shelves


def taken(n=4):
    """New arrays, full of NaN: of what was handed out twice nothing is left."""
    arrays = [memory.empty(SHAPE, FLOAT) for _ in range(n)]
    for array in arrays:
        array.fill(np.nan)
    return arrays


VIEWS = {
    "itself": lambda a: a,
    "slice": lambda a: a[3:, ::2],
    "row": lambda a: a[5],
    "empty slice and back": lambda a: np.lib.stride_tricks.as_strided(a[:0], SHAPE, a.strides),
    "transpose": lambda a: a.T,
    "reshape": lambda a: a.reshape(-1, 2, 32),
    "view of a view": lambda a: a[1:].T.reshape(32, -1, order="F")[None],
    "other dtype": lambda a: a.view(np.uint8),
    "fields": lambda a: a.view([("x", np.float32), ("y", np.float32)])["y"],
    "subclass": lambda a: a.view(np.recarray),
    "view of a subclass": lambda a: np.asarray(a.view(np.matrix))[1:],
    "masked": lambda a: np.ma.asarray(a),
    "ravel": lambda a: np.ravel(a),
    "diagonal": lambda a: np.diagonal(a),
    "imaginary": lambda a: a.view(np.complex64).imag,
    "broadcast": lambda a: np.broadcast_to(a[:1], SHAPE),
    "windows": lambda a: np.lib.stride_tricks.sliding_window_view(a, (2, 2)),
    "flat": lambda a: a.flat,
    "iterator": lambda a: next(iter(np.nditer([a]).operands)),
    "memoryview": lambda a: memoryview(a),
    "buffer": lambda a: np.frombuffer(memoryview(a), FLOAT),
    "ndarray on it": lambda a: np.ndarray(SHAPE, FLOAT, a),
    "dlpack": lambda a: np.from_dlpack(a),
    "interface": lambda a: np.asarray(type("Holder", (), {"__array_interface__": a.__array_interface__, "a": a})()),
    "ctypes": lambda a: (ctypes.c_float * a.size).from_buffer(a),
    "pickle, out of band": lambda a: _unpickled(a),
    "split": lambda a: np.split(a, 4)[2],
    "Tensor": lambda a: tl.Tensor._wrap(a)[2:].transpose().numpy(),
    "Tensor, detached": lambda a: tl.Tensor._wrap(a).reshape(-1).detach(),
    "gradient": lambda a: tl.Tensor._wrap(a).expand_dims(0).squeeze(0),
}


def _unpickled(a):
    buffers = []
    data = pickle.dumps(a, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=buffers)


@pytest.mark.parametrize("name", VIEWS)
def test_what_looks_at_an_array_keeps_its_memory(name):
    expected = np.random.default_rng(0).random(SHAPE, FLOAT)
    for _ in range(2):  # once in new memory, once in recycled memory
        array = memory.empty(SHAPE, FLOAT)
        array[:] = expected
        view = VIEWS[name](array)
        before = np.array(view)
        del array
        others = taken()
        np.testing.assert_array_equal(np.array(view), before)
        assert len({other.ctypes.data for other in others}) == len(others)
        del view, others


def test_pytorch_keeps_the_memory_of_what_it_looks_at(torch):
    array = memory.empty(SHAPE, FLOAT)
    array.fill(1)
    views = [torch.from_numpy(array), torch.from_dlpack(array)]
    del array
    taken()
    assert all((view == 1).all() for view in views)


def test_memory_that_nobody_uses_is_used_again_the_latest_first(shelves):
    first, second = memory.empty(SHAPE, FLOAT), memory.empty(SHAPE, FLOAT)
    places = [first.ctypes.data, second.ctypes.data]
    view = first[2:]
    del first, second  # the first is still looked at
    third = memory.empty((64, 64), np.dtype(np.int64))
    assert third.ctypes.data == places[1]
    del third, view
    for _ in range(100):
        fourth = memory.empty(SHAPE[::-1], FLOAT)
        assert fourth.ctypes.data == places[0]
        del fourth
    assert shelves.total == 2 * 64 * 128 * 4


def test_a_frame_that_an_exception_keeps_alive_keeps_its_memory():
    def fail():
        array = memory.empty(SHAPE, FLOAT)
        array.fill(1)
        raise KeyError

    kept = None
    try:
        fail()
    except KeyError as error:
        kept = error
    taken()
    array = kept.__traceback__.tb_next.tb_frame.f_locals["array"]
    assert (array == 1).all()


def test_idle_memory_is_given_back_and_used_memory_is_not(shelves):
    used, idle = memory.empty(SHAPE, FLOAT), memory.empty(SHAPE, FLOAT)
    used.fill(1)
    del idle
    memory.release()
    assert shelves.total == used.nbytes
    assert len(shelves.lent) == 1
    taken()
    assert (used == 1).all()


def test_beyond_the_limit_idle_memory_is_given_back(shelves, monkeypatch):
    monkeypatch.setattr(memory, "_LIMIT", 10 * 2**20)
    for n in range(1, 200):
        memory.empty((n, 100_000), np.dtype(np.uint8))
        assert shelves.total <= max(10 * 2**20, n * 100_000)
    assert sum(block.size for block, *_ in shelves.lent.values()) < 2 * max(10 * 2**20, 200 * 100_000)


class Injected(BaseException):
    """An interrupt."""


def at_each_line(what, act):
    """Call ``what`` and, at one line of the package's code after another, ``act``; yield what comes of it."""
    line = 0
    while True:
        seen = 0

        def trace(frame, event, arg):
            nonlocal seen
            if frame.f_code.co_filename != memory.__file__:
                return None
            if event in ("line", "return"):
                seen += 1
                if seen == line:  # noqa: B023  # called before the next
                    sys.settrace(None)
                    act()
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            found = what()
        except Injected:
            found = None
        finally:
            sys.settrace(before)
        if seen < line:
            return
        yield found
        line += 1


@pytest.mark.parametrize("warm", [False, True])
def test_whoever_asks_for_memory_in_the_midst_of_it_gets_other_memory(warm):
    # As a signal handler, or the finaliser of an object, may.
    inner = []
    count = 0
    if warm:
        taken()
    for outer in at_each_line(lambda: memory.empty(SHAPE, FLOAT), lambda: inner.append(memory.empty(SHAPE, FLOAT))):
        count += 1
        arrays = [outer, *inner, *taken()]
        assert len({array.ctypes.data for array in arrays}) == len(arrays)
        del arrays, outer
        inner.clear()
    assert count > 8


@pytest.mark.parametrize("warm", [False, True])
def test_an_interrupt_anywhere_loses_no_memory_for_good(shelves, warm):
    def interrupt():
        raise Injected

    count = 0
    for _ in at_each_line(lambda: memory.empty(SHAPE, FLOAT), interrupt):
        count += 1
        arrays = taken(8 if warm else 0)
        assert len({array.ctypes.data for array in arrays}) == len(arrays)
        del arrays
    assert count > 8
    memory.release()
    assert shelves.total == len(shelves.lent) == 0


def test_threads_that_pass_arrays_on_never_get_one_that_is_in_use():
    # Each array is stamped by its maker, looked at by others, and dropped by whoever has it last.
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    ways = [queue.SimpleQueue() for _ in range(4)]
    wrong, ready = [], threading.Barrier(4)

    def work(me):
        rng = np.random.default_rng(me)
        held = []
        ready.wait(60)
        for i in range(1500):
            array = memory.empty(SHAPE, FLOAT)
            stamp = me * 100_000 + i
            array.fill(stamp)
            held.append((array[rng.integers(8) :], stamp))
            del array
            if rng.random() < 0.5:
                ways[rng.integers(4)].put(held.pop(rng.integers(len(held))))
            if rng.random() < 0.5 and not ways[me].empty():
                held.append(ways[me].get())
            while len(held) > 6 or (held and rng.random() < 0.3):
                view, stamp = held.pop(rng.integers(len(held)))
                if not (view == stamp).all():
                    wrong.append(stamp)
                del view

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    finally:
        sys.setswitchinterval(before)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_an_array_may_outlive_the_thread_that_made_it():
    arrays = []
    thread = threading.Thread(target=lambda: arrays.extend(taken(2)))
    thread.start()
    thread.join()
    for array in arrays:
        array.fill(1)
    taken()  # and the shelves that they came from are gone
    assert all((array == 1).all() for array in arrays)
