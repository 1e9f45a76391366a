"""Large kernels on several threads: the same bits, errors that arrive, and nothing that waits for ever."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn, optim
from tinygrad_lenet.threads import parallel, spread


@pytest.fixture
def three_threads(monkeypatch):
    monkeypatch.setattr("tinygrad_lenet.threads.WORTH", 1000)
    before = tl.get_num_threads()
    tl.set_num_threads(3)
    yield
    tl.set_num_threads(before)


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


def test_parts_of_arrays_make_up_the_whole_whatever_their_layout(three_threads):
    x = np.random.default_rng(0).standard_normal((5, 6, 7)).transpose(1, 2, 0)
    out = np.empty_like(x)
    threads = set()

    def work(x, out):
        threads.add(threading.get_ident())
        np.multiply(x, 2, out=out)

    spread(work, 1000, x, out)
    np.testing.assert_array_equal(out, 2 * x)
    assert len(threads) > 1


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


def test_many_threads_that_train_at_once_get_the_bits_of_one(three_threads):
    expected = [train(seed) for seed in range(8)]
    found = [b""] * 8

    def work(seed):
        found[seed] = train(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert found == expected


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


@pytest.mark.parametrize("number", [0, -1, 1.5, "2", None])
def test_a_number_of_threads_that_cannot_be_is_refused(number):
    with pytest.raises(tl.ArgumentError, match="set_num_threads"):
        tl.set_num_threads(number)
