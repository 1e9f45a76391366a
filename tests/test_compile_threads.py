"""A compiled function in several threads, in a call of itself, and in a forked child."""

import os
import signal
import threading
from types import SimpleNamespace

import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn
from tinygrad_lenet.nn import module
from tinygrad_lenet.replay.compiled import Guard
from tinygrad_lenet.replay.program import Program
from tinygrad_lenet.replay.recording import Recording


def meanwhile(act):
    """Call ``act()`` in another thread, which is done, or waits for this one."""
    thread = threading.Thread(target=act)
    thread.start()
    thread.join(0.2)
    return thread


def once(monkeypatch, owner, name, before=lambda: None, after=lambda: None):
    """Let the next call of a function be preceded and followed by others."""
    original = getattr(owner, name)

    def call(*args, **kwargs):
        monkeypatch.setattr(owner, name, original)
        before()
        found = original(*args, **kwargs)
        after()
        return found

    monkeypatch.setattr(owner, name, call)


def test_two_threads_may_differentiate_one_result(monkeypatch):
    function, x = tl.compile(lambda x: x * x), tl.tensor([1.0, 2.0], requires_grad=True)
    for _ in range(3):
        out = function(x)
    found, others = [], []

    def differentiate(number):
        (gradient,) = tl.grad(out, x, tl.full((2,), number), retain_graph=True)
        found.append((number, gradient.tolist()))

    once(monkeypatch, Program, "run", lambda: others.append(meanwhile(lambda: differentiate(10.0))))
    differentiate(1.0)
    others[0].join()
    assert sorted(found) == [(1.0, [2.0, 4.0]), (10.0, [20.0, 40.0])]


def test_a_signal_handler_may_call_the_function_in_the_middle_of_a_call(monkeypatch):
    function, inner = tl.compile(lambda x: x * x), []
    x, y = tl.tensor([1.0], requires_grad=True), tl.tensor([10.0], requires_grad=True)
    for _ in range(3):
        function(x)
    once(monkeypatch, Recording, "_node", lambda: inner.append(function(y)))
    out = function(x)
    assert [tl.grad(out, x)[0].item(), tl.grad(inner[0], y)[0].item()] == [2.0, 20.0]


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.factors = [1.0]

    def forward(self, x):
        return x * self.factors[0]


@pytest.mark.parametrize("moment", ["a call in the middle of the assignment", "the assignment in the middle of a call"])
def test_an_attribute_that_another_thread_assigns_is_noticed(monkeypatch, moment):
    model, x = Scaled(), tl.tensor([2.0])
    function = tl.compile(lambda x: model(x))
    for _ in range(3):
        function(x)

    def assign():
        model.factors = [3.0]

    if moment == "a call in the middle of the assignment":
        once(monkeypatch, module, "_members", lambda: function(x))
        assign()
    else:
        model.factors = model.factors  # an assignment, after which the attributes are compared
        once(monkeypatch, Guard, "_now_attributes", after=assign)
        function(x)
    assert function(x).item() == 6.0


def test_threads_are_in_a_refused_function_at_the_same_time():
    meeting, met = SimpleNamespace(barrier=threading.Barrier(1)), []

    @tl.compile
    def function(x):
        meeting.barrier.wait(20)
        return x.item()

    with pytest.warns(UserWarning, match="reads the values of a tensor"):
        function(tl.tensor(1.0))
    function(tl.tensor(1.0))
    meeting.barrier = threading.Barrier(2)
    threads = [threading.Thread(target=lambda: met.append(function(tl.tensor(1.0)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == [1.0, 1.0]


def test_a_report_undoes_no_call_of_another_thread(monkeypatch):
    weight, others = tl.zeros(1), []

    @tl.compile
    def add(x):
        weight[...] = weight + x

    for _ in range(3):
        add(tl.ones(1))
    once(monkeypatch, Program, "load", after=lambda: others.append(meanwhile(lambda: add(tl.ones(1)))))
    assert "change in place" in add.report()
    others[0].join()
    assert weight.item() == 4.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_that_was_forked_during_a_call_may_call_the_function(monkeypatch):
    function, inside, leave = tl.compile(lambda x: x * 2), threading.Event(), threading.Event()
    for _ in range(3):
        function(tl.ones(1))
    once(monkeypatch, Program, "run", lambda: (inside.set(), leave.wait(60)))
    thread = threading.Thread(target=function, args=(tl.ones(1),))
    thread.start()
    inside.wait(60)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)  # a child that waits for ever is killed
        os._exit(0 if function(tl.ones(1)).item() == 2 else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    leave.set()
    thread.join()
    assert code == 0
