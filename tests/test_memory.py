"""Recycled memory: never handed out while anything still looks at it, in whatever thread, and used again afterwards."""

import ctypes
import os
import pickle
import queue
import subprocess
import sys
import threading

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet.kernels import memory

SHAPE, FLOAT = (64, 128), np.dtype(np.float32)


@pytest.fixture(autouse=True)
def pool(monkeypatch):
    """A pool that no other test has used."""
    monkeypatch.setattr(memory, "_pool", memory._Pool())
    return memory._pool


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


def test_memory_that_nobody_uses_is_used_again_the_latest_first(pool):
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
    assert pool.total == 2 * 64 * 128 * 4


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


def idle_bytes(pool):
    """The bytes of blocks that nobody uses, counted one by one."""
    return sum(size * len(shelf) for size, shelf in pool.idle.items())


def held_bytes(pool):
    """The bytes of blocks that the pool knows, counted one by one."""
    return sum(block.size - memory._ALIGNMENT for block in pool.blocks.values())


def test_beyond_the_limit_what_was_lent_the_longest_time_ago_is_forgotten(pool, monkeypatch):
    monkeypatch.setattr(memory, "_LIMIT", 3 * 100_000)
    byte = np.dtype(np.uint8)
    for size in (100_000, 99_999, 99_998):
        memory.empty((size,), byte)
    memory.empty((100_000,), byte)  # again: now 99,999 is the oldest
    memory.empty((99_997,), byte)
    assert [size for size, shelf in pool.idle.items() if shelf] == [100_000, 99_998, 99_997]
    large = memory.empty((300_001,), byte)  # above the limit by itself: it drives nobody out
    large.fill(1)
    del large
    assert idle_bytes(pool) == held_bytes(pool) == pool.total == 100_000 + 99_998 + 99_997


def test_an_array_whose_block_was_forgotten_keeps_its_memory(pool, monkeypatch):
    monkeypatch.setattr(memory, "_LIMIT", 2 * 64 * 128 * 4)
    arrays = taken(6)
    views = [array[1:] for array in arrays]
    for i, array in enumerate(arrays):
        array.fill(i)
    del arrays, array
    taken()
    assert [set(view.ravel().tolist()) for view in views] == [{i} for i in range(6)]
    views.clear()
    assert idle_bytes(pool) == pool.total == 2 * 64 * 128 * 4


def test_idle_memory_stays_below_the_limit_whatever_sizes_come_and_go(pool, monkeypatch):
    monkeypatch.setattr(memory, "_LIMIT", 10 * 2**20)
    for n in range(1, 200):
        memory.empty((n, 100_000), np.dtype(np.uint8))
        assert idle_bytes(pool) <= held_bytes(pool) == pool.total <= 10 * 2**20


def events(act):
    """How many functions ``act()`` calls, Python's and C's, and lines that it executes."""
    count = 0

    def profile(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    def trace(frame, event, arg):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        act()
    finally:
        sys.setprofile(None)
        sys.settrace(before)
    return count


def test_an_allocation_takes_as_long_however_much_is_in_use(pool, monkeypatch):
    # Arrays of 330 MB, the pages of which nobody touches. No new block may cost more than so many calls and lines.
    size = 16 * 1024
    assert 20_000 * size > memory._LIMIT

    def one():
        return memory.empty((size,), np.dtype(np.uint8))

    def new(extra):
        return lambda: [memory.empty((size + extra + i,), np.dtype(np.uint8)) for i in range(100)]

    few, recycled = events(new(1)), events(one)
    live = [one() for _ in range(20_000)]
    assert events(new(1001)) < 2 * few
    one()
    assert events(one) <= recycled
    assert len(pool.blocks) <= memory._LIMIT // size
    del live
    assert idle_bytes(pool) <= pool.total <= memory._LIMIT


def test_a_new_block_now_and_then_counts_all_and_that_is_cheap(pool, monkeypatch):
    monkeypatch.setattr(memory, "_LIMIT", 2**20)
    recounts = 0
    original = memory._Pool.recount

    def recount(self):
        nonlocal recounts
        recounts += 1
        original(self)

    monkeypatch.setattr(memory._Pool, "recount", recount)
    for n in range(3 * memory._RECOUNT):  # as many sizes
        memory.empty((16 * 1024 + n,), np.dtype(np.uint8))
    assert recounts == 3
    assert len(pool.idle) <= memory._RECOUNT + 2**20 // (16 * 1024)  # nothing is kept of the sizes that are gone
    assert held_bytes(pool) == pool.total <= 2**20


def in_threads(count, work):
    """Run ``work(i)`` in so many threads, which are switched often."""
    errors, ready = [], threading.Barrier(count)

    def run(i):
        try:
            ready.wait(60)
            work(i)
        except BaseException as error:
            errors.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    finally:
        sys.setswitchinterval(before)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []


def test_eight_threads_that_ended_leave_no_more_than_one(pool):
    def work(i):
        for _ in range(3):
            kept = [memory.empty((200_000 + 1000 * n,), FLOAT) for n in range(60)]  # 55 MB
            del kept

    in_threads(8, work)
    assert idle_bytes(pool) <= memory._LIMIT <= 270_000_000
    before = len(pool.blocks)
    size = next(size for size, shelf in pool.idle.items() if shelf)
    number, _ = next(iter(pool.idle[size].items()))
    place = pool.blocks[number].ctypes.data + pool.blocks[number].offset
    arrays = [memory.empty((size,), np.dtype(np.uint8)) for _ in list(pool.idle[size])]
    assert place in [array.ctypes.data for array in arrays]  # what other threads left serves this one
    assert len(pool.blocks) == before


def test_arrays_of_random_sizes_that_die_in_any_order_and_thread(pool, monkeypatch):
    monkeypatch.setattr(memory, "_LIMIT", 20 * 2**20)
    shared, wrong = [], []

    def work(i):
        rng = np.random.default_rng(i)
        for n in range(3000):
            size = int(rng.integers(16_384, 18_000)) * int(rng.choice([1, 1, 1, 4, 40]))
            array = memory.empty((size,), np.dtype(np.uint8))
            stamp = (i + 4 * n) % 256
            array[:64] = array[-64:] = stamp
            shared.append((array, stamp))
            del array
            while len(shared) > 600 or rng.random() < 0.45:
                try:
                    other, stamp = shared.pop(int(rng.integers(-200, 0)))
                except IndexError:
                    break
                if not (other[:64] == stamp).all() or not (other[-64:] == stamp).all():
                    wrong.append(stamp)
                del other

    in_threads(4, work)
    assert wrong == []
    pool.recount()
    assert idle_bytes(pool) <= held_bytes(pool) == pool.total <= 20 * 2**20 + 4 * 18_000 * 40
    assert len(pool.idle) <= len(pool.blocks)
    shared.clear()
    assert all(number in block.shelf for number, block in pool.blocks.items())


RESIDENT = """
import gc, sys, threading
import numpy as np
from tinygrad_lenet.kernels import memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 // 10**6

def work(i):
    for j in range(4):  # the batch size changes
        held = [memory.empty((1 + n % 7, 200_000 + 40_000 * j), np.dtype(np.float32)) for n in range(30)]
        for array in held:
            array.fill(i)

before = resident()
for _ in range(2):
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(resident() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the system does not tell what memory is resident")
def test_the_resident_memory_that_ended_threads_leave_is_bounded():
    done = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < 340  # MB; eight threads used 1,000 at once


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_memory_of_its_own():
    array = memory.empty((100, 10_000), FLOAT)
    idle = memory.empty((100, 10_000), FLOAT)
    array.fill(1)
    idle.fill(1)
    del idle
    pid = os.fork()
    if pid == 0:
        array.fill(2)
        others = [memory.empty((100, 10_000), FLOAT) for _ in range(3)]
        for other in others:
            other.fill(3)
        os._exit(0 if (array == 2).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (array == 1).all()
    assert (memory.empty((100, 10_000), FLOAT) == 1).all()  # the idle block, which the child filled in its own copy


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
def test_an_interrupt_anywhere_loses_no_memory_for_good(pool, warm, monkeypatch):
    def interrupt():
        raise Injected

    count = 0
    for _ in at_each_line(lambda: memory.empty(SHAPE, FLOAT), interrupt):
        count += 1
        arrays = taken(8 if warm else 0)
        assert len({array.ctypes.data for array in arrays}) == len(arrays)
        del arrays
    assert count > 8
    assert pool.total >= held_bytes(pool)  # so that the limit holds
    monkeypatch.setattr(memory, "_LIMIT", 0)
    while pool.total:
        pool.forget()
    assert not pool.blocks
    assert idle_bytes(pool) == 0


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


def test_idle_memory_can_be_freed(pool):
    used = taken()
    taken()
    memory.trim()
    assert [len(shelf) for shelf in pool.idle.values()] == [0]
    assert len(pool.blocks) == 4
    assert pool.total == sum(array.nbytes for array in used)
    del used
    assert len(taken()) == len(pool.blocks) == 4
