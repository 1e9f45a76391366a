"""Large kernels on several threads: the same bits, errors that arrive, and nothing that waits for ever."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import oracles
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn, optim
from tinygrad_lenet.core import signature
from tinygrad_lenet.core.primitive import REGISTRY
from tinygrad_lenet.kernels import threads
from tinygrad_lenet.kernels.threads import parallel, spread


@pytest.fixture
def three_threads():
    with oracles.worth_threads(1000):
        yield


def train(seed, steps=3):
    """The bytes of a small LeNet-5's weights after a few steps."""
    model = nn.LeNet5(generator=seed)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    images, labels = tl.randn(8, 1, 28, 28, generator=seed), np.arange(8)
    for _ in range(steps):
        loss = tl.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return b"".join(value.tobytes() for value in model.state_dict().values())


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_ranges_make_up_the_whole_once(three_threads, count):
    seen = np.zeros(count, int)

    def work(start, stop):
        seen[start:stop] += 1

    parallel(work, count, 1e9)
    assert (seen == 1).all()


def note_who(helped, helper_begins):
    """Note the thread that computes a part; the main thread waits until a helper has begun, or it would do all."""
    helped.add(threading.get_ident())
    if threading.current_thread() is threading.main_thread():
        helper_begins.wait(60)
    else:
        helper_begins.set()


def test_parts_of_arrays_make_up_the_whole_whatever_their_layout(three_threads):
    x = np.random.default_rng(0).standard_normal((5, 6, 7)).transpose(1, 2, 0)
    out = np.empty_like(x)
    helped, helper_begins = set(), threading.Event()

    def work(x, out):
        note_who(helped, helper_begins)
        np.multiply(x, 2, out=out)

    spread(work, 1000, x, out)
    np.testing.assert_array_equal(out, 2 * x)
    assert len(helped) > 1


@pytest.mark.parametrize("at", [0, 99])
def test_an_error_on_any_thread_arrives_and_the_next_call_works(three_threads, at):
    def work(start, stop):
        if start <= at < stop:
            raise ValueError("on purpose")

    for _ in range(3):
        with pytest.raises(ValueError, match="on purpose"):
            parallel(work, 100, 1e9)
    seen = []
    parallel(lambda start, stop: seen.extend(range(start, stop)), 10, 1e9)
    assert sorted(seen) == list(range(10))


class Injected(BaseException):
    """An interrupt."""


def interrupted_at(points, what):
    """Call ``what``; raise at each of these moments in threads.py, which are counted: every opcode that is run there
    is one. Returns how many there were until the last.
    """
    seen = 0
    original = threads._finally

    def trace(frame, event, arg):
        nonlocal seen
        if not frame.f_code.co_filename.endswith("kernels/threads.py"):
            return None
        frame.f_trace_opcodes = True
        seen += 1
        if seen in points:
            raise Injected
        return trace

    def again(settle, *others):  # Python stops tracing when the tracer raises
        original(lambda: (sys.settrace(trace), settle()), *others)

    before, threads._finally = sys.gettrace(), again
    sys.settrace(trace)
    try:
        what()
    except Injected:
        pass
    finally:
        sys.settrace(before)
        threads._finally = original
    return seen


@pytest.mark.parametrize("again", [(), (3,), (1, 20)], ids=["once", "and again", "and twice again"])
def test_an_interrupt_anywhere_leaves_nobody_at_work_and_the_helpers_usable(three_threads, again):
    out, began = np.zeros(30), threading.Event()
    point, seen = 0, 0

    def work(start, stop):
        if start:
            began.set()
            time.sleep(0.001)
        elif point % 2:  # then a helper has begun when the caller is done
            began.wait(0.01)
        out[start:stop] += 1

    while seen >= point:
        point += 3 if again else 1
        out[:] = 0
        began.clear()
        seen = interrupted_at({point, *(point + a for a in again)}, lambda: parallel(work, 30, 1e9))
        assert not threads._crew.served
        written = out.copy()
        if point % 7 == 0:
            time.sleep(0.003)
        np.testing.assert_array_equal(out, written)  # nobody writes afterwards
        assert (out <= 1).all()
    assert point > 300
    out[:] = 0
    helped, helper_begins = set(), threading.Event()

    def note(start, stop):
        note_who(helped, helper_begins)
        out[start:stop] += 1

    parallel(note, 30, 1e9)
    assert (out == 1).all()
    assert len(helped) > 1


@pytest.fixture
def no_callbacks():
    """The garbage collector calls nobody (hypothesis, for one), who would be interrupted in our place."""
    before = gc.callbacks[:]
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = before


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers on this system")
def test_signals_at_random_moments_leave_nobody_at_work(three_threads, no_callbacks):
    out, count, left = np.zeros((300, 100)), 0, 0

    def work(start, stop):
        np.sin(out[start:stop] + 1, out=out[start:stop])

    def interrupt(signum, frame):
        nonlocal count, left
        while frame is not None and not frame.f_code.co_filename.endswith("kernels/threads.py"):
            frame = frame.f_back
        if frame is not None and left:
            left -= 1
            count += 1
            raise Injected

    before = signal.signal(signal.SIGALRM, interrupt)
    rng = np.random.default_rng(0)
    try:
        for _ in range(100):
            left = 3  # in quick succession
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 1e-3), 1e-4)
            while left:
                try:
                    while left:
                        parallel(work, 300, 1e9)
                except Injected:
                    written = out.copy()
                    assert not threads._crew.served
                    np.testing.assert_array_equal(out, written)
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert count == 300


def test_helpers_that_are_busy_leave_the_others_to_do_their_own(three_threads):
    inside, leave, found = threading.Event(), threading.Event(), []

    def hold(start, stop):
        inside.set()
        leave.wait(60)

    first = threading.Thread(target=parallel, args=(hold, 30, 1e9))
    first.start()
    assert inside.wait(60)
    try:
        parallel(lambda start, stop: found.append((start, stop, threading.get_ident())), 30, 1e9)
        assert found == [(0, 30, threading.get_ident())]
    finally:
        leave.set()
        first.join(60)
    assert not threads._crew.served


def at_once(count, work):
    """What ``work(i)`` gives in so many threads that begin together and are switched as often as can be."""
    found, ready = [None] * count, threading.Barrier(count)

    def run(i):
        ready.wait(60)
        try:
            found[i] = work(i)
        except BaseException as error:
            found[i] = error

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(count)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
    finally:
        sys.setswitchinterval(before)
    assert not any(worker.is_alive() for worker in workers)
    return found


def norms_and_dropout(seed, steps=3):
    """The bytes of a model with batch norm, two kinds of dropout and Adam after a few steps."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, generator=rng),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout2d(0.2, generator=rng),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * 13 * 13, 16, generator=rng),
        nn.BatchNorm1d(16),
        nn.Tanh(),
        nn.Dropout(0.3, generator=rng),
        nn.Linear(16, 10, generator=rng),
    )
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    images = tl.randn(8, 1, 28, 28, generator=rng)
    for _ in range(steps):
        optimizer.zero_grad()
        tl.cross_entropy(model(images), np.arange(8)).backward()
        optimizer.step()
    return b"".join(value.tobytes() for value in model.state_dict().values())


def second_order(seed, steps=3):
    """The bytes of weights that learn from the norm of a gradient, by a gradient of the gradient."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 5, generator=rng), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 24 * 24, 3, generator=rng)
    )
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    images = tl.randn(4, 1, 28, 28, generator=rng)
    for _ in range(steps):
        x = tl.tensor(images, requires_grad=True)
        loss = tl.cross_entropy(model(x), [0, 1, 2, 0])
        (slope,) = tl.grad(loss, x, create_graph=True)
        optimizer.zero_grad()
        (loss + (slope * slope).sum()).backward()
        optimizer.step()
    return b"".join(value.tobytes() for value in model.state_dict().values())


@pytest.mark.parametrize("learn", [train, norms_and_dropout, second_order])
def test_sixteen_threads_that_train_at_once_get_the_bits_of_one(three_threads, learn):
    expected = [learn(seed) for seed in range(16)]
    assert len(set(expected)) == 16
    assert at_once(16, learn) == expected


def test_sixteen_threads_that_use_ops_for_the_first_time_at_once(three_threads):
    # Whatever is filled on first use: the plans of ops, what is known of windows.
    for op in REGISTRY.values():
        op.plans.clear()
    oracles.forget_geometry()
    found = at_once(16, lambda i: second_order(0))
    assert found == [second_order(0)] * 16


@pytest.mark.parametrize("event", ["another thread", "an interrupt"])
def test_another_thread_or_an_interrupt_at_the_first_use_of_an_op(monkeypatch, event):
    # Annotations are read at the first use. Half-way, another thread uses the op, or an interrupt comes.
    first, operand, found = signature.Unread(tl.exp.op.forward), signature._operand, []

    def half_way(annotation):
        monkeypatch.setattr(signature, "_operand", operand)
        if event == "an interrupt":
            raise Injected
        found.extend(at_once(1, lambda i: first.operands))
        return operand(annotation)

    monkeypatch.setattr(signature, "_operand", half_way)
    try:
        found.append(first.operands)
    except Injected:
        found += [first.operands, first.operands]
    assert found == [[1], [1]]


@pytest.mark.parametrize("record", [False, True])
def test_many_threads_may_use_one_model(three_threads, record):
    model = nn.LeNet5(generator=0).eval()
    batches = [tl.randn(4, 1, 28, 28, generator=i) for i in range(8)]

    def infer(i):
        found = []
        for x in batches[i % 8 :] + batches[: i % 8]:
            if record:
                out = model(x)
                found.append(
                    (out.numpy().tobytes(), [g.numpy().tobytes() for g in tl.grad(out.sum(), model.parameters())])
                )
            else:
                with tl.no_grad():
                    out = model(x)
                assert not out.requires_grad
                found.append(out.numpy().tobytes())
        return found[-(i % 8) :] + found[: -(i % 8)] if i % 8 else found

    expected = infer(0)
    assert at_once(16, infer) == [expected] * 16
    assert all(p.grad is None for p in model.parameters())


def test_gradients_of_shared_parameters_from_many_threads_all_arrive():
    p, q = tl.zeros(3, requires_grad=True), tl.ones(2, 1, requires_grad=True)

    def add(i):
        for _ in range(50):
            (p * (i + 1) + q).sum().backward()

    assert at_once(16, add) == [None] * 16
    np.testing.assert_array_equal(p.grad.numpy(), np.full(3, 2 * 50 * sum(range(1, 17)), np.float32))  # whole numbers
    np.testing.assert_array_equal(q.grad.numpy(), np.full((2, 1), 3 * 50 * 16, np.float32))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers on this system")
def test_an_interrupted_backward_pass_does_not_stop_those_of_other_threads(no_callbacks):
    p, count, armed = tl.zeros(3, requires_grad=True), 0, False

    def interrupt(signum, frame):
        nonlocal count, armed
        if armed:
            armed, count = False, count + 1
            raise Injected

    def work(seconds):  # a function: some places of a loop lie outside of the `try` around it, in Python 3.13
        y = p.sum()
        signal.setitimer(signal.ITIMER_REAL, seconds)
        while True:
            y.backward(retain_graph=True)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for i in range(1000):
            armed = True
            with pytest.raises(Injected):
                work(1e-6 + i % 100 * 5e-7)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert count == 1000
    assert at_once(1, lambda i: (p * 2).sum().backward()) == [None]


def test_a_tensor_made_in_one_thread_is_differentiated_in_another():
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    made = at_once(4, lambda i: (x * (i + 1)).exp())
    assert at_once(1, lambda i: sum(made).sum().backward()) == [None]
    expected = sum((i + 1) * np.exp((i + 1) * np.array([1.0, 2.0])) for i in range(4))
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-6)


def test_the_number_of_threads_changes_no_bit_of_a_training_run(three_threads):
    several = train(0)
    tl.set_num_threads(1)
    assert train(0) == several


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_helpers_of_its_own(three_threads):
    expected = train(1)  # the parent's helpers have been at work
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # a child that waits for ever is killed
        os._exit(0 if train(1) == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_usual_variables_are_respected(name):
    code = "import tinygrad_lenet as tl; print(tl.get_num_threads())"
    env = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")} | {name: "5"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "5\n"


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
VALUES = {"": None, " 4 ": 4, "\t3\n": 3, "007": 7, "+2": 2, "4,2": 4, " 4 , 3,2": 4, "9999": 9999}
VALUES |= dict.fromkeys(["0", "-1", "4;2", "4,", ",4", "4,x", "abc", "1.5", "4 2", "0x4", "1e3", "four", "\u0664"])
VALUES |= dict.fromkeys(["9" * 5000, "10000", "1_0", "\uff15", "\udc80", "0" * 5000, "-" * 5000, " ", ",", "None"])


@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value[:12]))
@pytest.mark.parametrize("first", ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_variable_holds_a_number_or_a_list_as_in_openmp_or_is_ignored(monkeypatch, first, value):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(first, value)
    monkeypatch.setattr(threads._crew, "size", None)
    assert tl.get_num_threads() == (VALUES[value] or CORES)
    if first == "OMP_NUM_THREADS":
        monkeypatch.setenv("MKL_NUM_THREADS", "6")
        monkeypatch.setattr(threads._crew, "size", None)
        assert tl.get_num_threads() == (VALUES[value] or 6)


@pytest.mark.parametrize(
    "number", [0, -1, 1.5, "2", None, -(10**5000), "9" * 10**6], ids=lambda value: type(value).__name__
)
def test_a_number_of_threads_that_cannot_be_is_refused(number):
    with pytest.raises(tl.ArgumentError, match="set_num_threads"):
        tl.set_num_threads(number)
