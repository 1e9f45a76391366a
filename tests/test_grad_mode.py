"""Whether recording is on: context manager, decorator, threads, tasks."""

import asyncio
import contextvars
import threading

import pytest

import tinygrad_lenet as tl
from tinygrad_lenet.core.modes import listening


def leaf(n):
    return tl.ones(n, requires_grad=True)


def test_no_grad_and_enable_grad_nest_and_restore_even_after_exceptions():
    x = leaf(2)
    assert tl.is_grad_enabled()
    with tl.no_grad():
        assert not (x * 2).requires_grad
        with tl.enable_grad():
            assert (x * 2).requires_grad
            with tl.no_grad():
                assert not tl.is_grad_enabled()
            assert tl.is_grad_enabled()
        assert not tl.is_grad_enabled()
        with pytest.raises(KeyError), tl.enable_grad():
            raise KeyError
        assert not tl.is_grad_enabled()
    with pytest.raises(KeyError), tl.no_grad():
        raise KeyError
    assert tl.is_grad_enabled()


def test_one_no_grad_object_can_be_entered_again_within_itself():
    mode = tl.no_grad()
    with mode:
        with mode:
            assert not tl.is_grad_enabled()
        assert not tl.is_grad_enabled()
    assert tl.is_grad_enabled()


@pytest.mark.parametrize(("mode", "enabled"), [(tl.no_grad, False), (tl.enable_grad, True)])
def test_without_parentheses_a_mode_decorates_and_a_with_block_says_to_add_them(mode, enabled):
    @mode
    def double(x):
        """Twice x."""
        return x * 2

    with tl.no_grad():
        assert double(leaf(2)).requires_grad is enabled
    assert double(leaf(2)).requires_grad is enabled
    assert (double.__name__, double.__doc__) == ("double", "Twice x.")
    with pytest.raises(tl.ArgumentError, match=rf"write `with {mode.__name__}\(\):`"), mode:
        pass
    assert tl.is_grad_enabled()


def test_grad_mode_as_a_decorator_also_when_the_function_calls_itself_or_raises():
    @tl.no_grad()
    def predict(x, depth=2):
        assert not tl.is_grad_enabled()
        return predict(x, depth - 1) if depth else x * 2

    @tl.enable_grad()
    def record(x):
        return x * 2

    @tl.no_grad()
    def fail():
        raise KeyError

    x = leaf(2)
    assert not predict(x).requires_grad
    with tl.no_grad():
        assert record(x).requires_grad
    with pytest.raises(KeyError):
        fail()
    assert tl.is_grad_enabled()


def in_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_a_thread_that_starts_inside_no_grad_records():
    with tl.no_grad():
        assert in_thread(tl.is_grad_enabled)


def test_a_thread_that_inherits_the_context_records_all_the_same():
    # As from Python 3.14 on, without a global lock or with -X thread_inherit_context=1.
    def inside():
        outer = tl.is_grad_enabled(), (leaf(2) * 2).requires_grad
        with tl.no_grad():
            inner = tl.is_grad_enabled(), (leaf(2) * 2).requires_grad
            with tl.enable_grad():
                assert tl.is_grad_enabled()
        return outer, inner, tl.is_grad_enabled()

    def in_thread_with(context):
        return in_thread(lambda: context.run(inside))

    expected = (True, True), (False, False), True
    with tl.no_grad():
        assert in_thread_with(contextvars.copy_context()) == expected
        with tl.enable_grad():
            assert in_thread_with(contextvars.copy_context()) == expected
        assert in_thread(lambda: in_thread_with(contextvars.copy_context())) == expected
        assert asyncio.run(asyncio.to_thread(inside)) == expected
        assert not tl.is_grad_enabled()
        assert contextvars.copy_context().run(tl.is_grad_enabled) is False  # the same thread


def test_what_listens_to_ops_hears_those_of_its_own_thread_only():
    heard = []
    with listening(lambda op, args, out: heard.append(op.name)):
        leaf(2).exp()
        context = contextvars.copy_context()
        in_thread(lambda: context.run(leaf(2).tanh))
        in_thread(lambda: leaf(2).sin())
    leaf(2).cos()
    assert heard == ["exp"]


def test_no_grad_in_one_thread_does_not_stop_another():
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with tl.no_grad():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(10)
    try:
        assert tl.is_grad_enabled()
        assert (leaf(2) * 2).requires_grad
    finally:
        leave.set()
        thread.join()


def test_each_asyncio_task_has_its_own_grad_mode():
    async def main():
        entered, go = asyncio.Event(), asyncio.Event()

        async def infer():
            with tl.no_grad():
                entered.set()
                await go.wait()
                return tl.is_grad_enabled()

        async def train():
            await entered.wait()
            recording = tl.is_grad_enabled()
            go.set()
            return recording

        return await asyncio.gather(infer(), train())

    assert asyncio.run(main()) == [False, True]


def test_an_asyncio_task_starts_with_the_mode_of_the_one_that_makes_it():
    async def mode():
        return tl.is_grad_enabled()

    async def main():
        with tl.no_grad():
            made = asyncio.create_task(mode())
        return [await made, await asyncio.create_task(mode())]

    assert asyncio.run(main()) == [False, True]
