"""Products on one thread of BLAS: its number is its own again afterwards, whatever happens, and changes no bits."""

import ctypes
import os
import subprocess
import sys
import threading

import numpy as np
import oracles
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet.kernels import blas, matmul, threads

FOUND = blas._number()
needs_openblas = pytest.mark.skipif(FOUND is None, reason="NumPy uses another BLAS than OpenBLAS")
RNG = np.random.default_rng(0)
A, B = (RNG.standard_normal((64, 64)).astype(np.float32) for _ in range(2))


class Count:
    """A BLAS that only counts its threads, and waits where it is asked to."""

    def __init__(self, number=5):
        self.number, self.seen = number, []

    def get(self):
        return self.number

    def set(self, number):
        self.number = number


@pytest.fixture
def counted(monkeypatch):
    """A BLAS with five threads, and the numbers that products met."""
    count, matmul = Count(), np.matmul
    monkeypatch.setattr(blas, "_number", lambda: (count.get, count.set))
    monkeypatch.setattr(np, "matmul", lambda *arrays: (count.seen.append(count.number), matmul(*arrays))[1])
    return count


@needs_openblas
def test_the_functions_found_are_those_of_the_library_that_computes():
    before = FOUND[0]()
    try:
        FOUND[1](2)
        assert FOUND[0]() == 2
        blas.product(A, B, np.empty_like(A))
        assert FOUND[0]() == 2
    finally:
        FOUND[1](before)


def test_a_product_has_one_thread_and_the_number_is_restored(counted):
    out = np.empty_like(A)
    blas.product(A, B, out)
    np.testing.assert_array_equal(out, A @ B)
    assert counted.seen == [1]
    assert counted.number == 5
    assert not blas._holders


def test_the_number_is_restored_after_an_error(counted):
    with pytest.raises(ValueError, match="mismatch"):
        blas.product(A, B[:5], np.empty_like(A))
    assert counted.seen == [1]
    assert counted.number == 5


class Injected(BaseException):
    """An interrupt."""


@pytest.mark.parametrize("again", [(), (3,), (1, 9)], ids=["once", "and again", "and twice again"])
def test_an_interrupt_anywhere_restores_the_number(counted, monkeypatch, again):
    """Python raises an interrupt where a function begins or has returned."""
    seen, points = 0, set()
    original = threads._finally

    def profile(frame, event, arg):
        nonlocal seen
        if frame.f_code.co_filename in (threads.__file__, blas.__file__) and event in ("call", "return", "c_return"):
            seen += 1
            if seen in points:
                raise Injected

    def resumed(settle, *others):  # Python stops profiling when the profiler raises
        original(lambda: (sys.setprofile(profile), settle()), *others)

    monkeypatch.setattr(threads, "_finally", resumed)
    monkeypatch.setattr(blas, "_finally", resumed)
    out, point = np.empty_like(A), 0
    while seen >= point:
        seen, point = 0, point + 1
        points = {point, *(point + a for a in again)}
        sys.setprofile(profile)
        try:
            blas.product(A, B, out)
        except Injected:
            pass
        finally:
            sys.setprofile(None)
        assert counted.number == 5
        assert not blas._holders
        assert point < 1000
    assert point > 20
    points = set()
    user = threading.Thread(target=blas.product, args=(A, B, out))  # nobody holds the lock
    user.start()
    user.join(10)
    assert not user.is_alive()


def test_the_last_of_several_threads_restores_the_number(monkeypatch):
    count, inside, go, plain = Count(), threading.Semaphore(0), threading.Event(), np.matmul

    def slow(*arrays):
        inside.release()
        go.wait(10)
        plain(*arrays)
        count.seen.append(count.number)

    monkeypatch.setattr(blas, "_number", lambda: (count.get, count.set))
    monkeypatch.setattr(np, "matmul", slow)
    users = [threading.Thread(target=blas.product, args=(A, B, np.empty_like(A))) for _ in range(3)]
    for user in users:
        user.start()
    for _ in users:
        assert inside.acquire(timeout=10)
    assert count.number == 1
    go.set()
    for user in users:
        user.join(10)
    assert count.seen == [1, 1, 1]
    assert count.number == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_forked_during_a_product_has_the_number_of_before(monkeypatch):
    count, inside, go = Count(), threading.Event(), threading.Event()
    monkeypatch.setattr(blas, "_number", lambda: (count.get, count.set))
    monkeypatch.setattr(np, "matmul", lambda *arrays: (inside.set(), go.wait(10)))
    other = threading.Thread(target=blas.product, args=(A, B, np.empty_like(A)))
    other.start()
    assert inside.wait(10)
    pid = os.fork()
    if not pid:
        os._exit(0 if count.number == 5 and not blas._holders and threads._lock.acquire(timeout=5) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert count.number == 1
    go.set()
    other.join(10)
    assert count.number == 5


def test_a_library_without_these_functions_is_another_blas(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda path: object())
    assert blas._number.__wrapped__() is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(128, 784, 512), (512, 100, 70), (33, 500, 40), (30, 700, 90), (5, 3000, 20)])
def test_products_have_the_same_bits_without_these_functions_and_for_any_number_of_threads(monkeypatch, shape, dtype):
    m, k, n = shape
    a, b = RNG.standard_normal((m, k)).astype(dtype), RNG.standard_normal((n, k)).astype(dtype).T
    expected = matmul.dot(a, b)
    np.testing.assert_allclose(expected, a.astype(float) @ b, rtol=1e-4 if dtype == np.float32 else 1e-11, atol=1e-4)
    for number in (1, 2, 3, 8):
        monkeypatch.setattr(threads._crew, "size", number)
        assert matmul.dot(a, b).tobytes() == expected.tobytes()
    held = blas._number()
    before = held[0]() if held else 1
    if held:
        held[1](1)  # without these functions the user sees to it
    try:
        monkeypatch.setattr(blas, "_number", lambda: None)
        assert matmul.dot(a, b).tobytes() == expected.tobytes()
    finally:
        if held:
            held[1](before)


BITS = """
import hashlib, os
import numpy as np
import tinygrad_lenet as tl
nn, rng = tl.nn, np.random.default_rng(0)
model = nn.Sequential(nn.Conv2d(8, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 14 * 14, 64))
model.load_state_dict({k: 0.02 * rng.standard_normal(v.shape).astype("f4") for k, v in model.state_dict().items()})
optimizer = tl.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
x = tl.tensor(rng.standard_normal((64, 8, 16, 16)).astype(np.float32))
for _ in range(3):
    loss = (model(x) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
found = [p.numpy() for p in model.parameters()]
for m, k, n in ((131, 477, 669), (600, 457, 373), (111, 393, 473)):
    found.append(tl.matmul(rng.standard_normal((m, k)), rng.standard_normal((n, k)).T).numpy())
print(hashlib.sha256(b"".join(array.tobytes() for array in found)).hexdigest())
"""


@needs_openblas
def test_a_network_has_the_same_bits_for_any_number_of_threads_of_blas_and_of_ours():
    found = set()
    for number in (1, 2, 4):
        env = {**os.environ, "OMP_NUM_THREADS": str(number), "OPENBLAS_NUM_THREADS": str(number)}
        run = subprocess.run([sys.executable, "-c", BITS], env=env, capture_output=True, text=True, timeout=120)
        assert not run.returncode, run.stderr
        found.add(run.stdout)
    assert len(found) == 1


def test_large_products_are_cut_into_parts_that_threads_share():
    at_work, helper_begins = set(), threading.Event()

    def slow(*arrays):
        at_work.add(threading.get_ident())
        if threading.current_thread() is threading.main_thread():
            helper_begins.wait(60)
        else:
            helper_begins.set()

    with pytest.MonkeyPatch.context() as patch, oracles.worth_threads(100_000):
        patch.setattr(blas, "product", slow)
        matmul.dot(np.ones((512, 64), np.float32), np.ones((64, 128), np.float32))
        assert len(at_work) > 1
        assert [part for part, _ in matmul._parts(512, 64, 128)] == [slice(i, i + 64) for i in range(0, 512, 64)]
        assert [part for _, part in matmul._parts(64, 64, 512)] == [slice(i, i + 64) for i in range(0, 512, 64)]
    assert tl.get_num_threads() >= 1
