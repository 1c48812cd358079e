"""Calls in threads, and what becomes of them when nobody waits any more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import pytest_twisted
from support.waiting import until
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults

from resticd.errors import StorageError
from resticd.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers(reactor, 2)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What calls in these tests wait for; it opens at the end, so that a failed test does not hang."""
    event = threading.Event()
    yield event
    event.set()


@pytest_twisted.ensureDeferred
async def test_a_result_comes_back_on_the_reactor_thread(workers: Workers) -> None:
    """The call runs elsewhere, the callback here."""
    threads = []
    done = workers.run(threading.get_ident)
    done.addCallback(lambda ident: threads.extend([ident, threading.get_ident()]))
    await done
    assert threads[0] != threading.get_ident()
    assert threads[1] == threading.get_ident()


@pytest_twisted.ensureDeferred
async def test_arguments_and_errors_pass(workers: Workers) -> None:
    """A call gets its arguments, and its error is the Deferred's."""
    assert await workers.run(int, "20", base=16) == 32
    with pytest.raises(ValueError, match="invalid literal"):
        await workers.run(int, "x")


@pytest_twisted.ensureDeferred
async def test_no_more_than_the_size_run_at_once(workers: Workers, gate: threading.Event) -> None:
    """Two workers have two calls in their hands; the others wait in order."""
    started: list[int] = []

    def call(number: int) -> int:
        started.append(number)
        gate.wait(10)
        return number

    results = [workers.run(call, number) for number in range(5)]
    await until(lambda: len(started) == 2)
    gate.set()
    assert await gatherResults(results) == list(range(5))
    assert set(started[:2]) == {0, 1}


@pytest_twisted.ensureDeferred
async def test_a_cancelled_call_ends_unheard(workers: Workers, gate: threading.Event) -> None:
    """Cancelling fires at once; the call runs on and its result, or its error, is dropped."""
    ended = []

    def call(fails: bool) -> None:
        gate.wait(10)
        ended.append(fails)
        if fails:
            raise StorageError("nobody hears this")

    for fails in (False, True):
        done = workers.run(call, fails)
        done.cancel()
        with pytest.raises(CancelledError):
            await done
    gate.set()
    await until(lambda: len(ended) == 2)
    await workers.run(int)


@pytest_twisted.ensureDeferred
async def test_what_a_cancelled_call_returns_is_released(workers: Workers, gate: threading.Event) -> None:
    """It is released once, in a worker."""
    released = []

    def open_something() -> str:
        gate.wait(10)
        return "open"

    done = workers.run_releasing(lambda value: released.append((value, threading.get_ident())), open_something)
    done.cancel()
    with pytest.raises(CancelledError):
        await done
    gate.set()
    await until(lambda: released)
    await workers.run(int)
    ((value, thread),) = released
    assert value == "open"
    assert thread != threading.get_ident()


@pytest_twisted.ensureDeferred
async def test_what_was_handed_over_is_not_released(workers: Workers) -> None:
    """Nor is anything when the call failed, cancelled or not."""
    released: list[object] = []
    done = workers.run_releasing(released.append, int, "5")
    assert await done == 5
    done.cancel()
    failed = workers.run_releasing(released.append, int, "x")
    failed.cancel()
    with pytest.raises(CancelledError):
        await failed
    await gatherResults([workers.run(int) for _ in range(4)])
    assert released == []


@pytest_twisted.ensureDeferred
async def test_after_the_end() -> None:
    """A call to workers that were stopped fails rather than to wait for ever."""
    workers = Workers(reactor, 1)
    workers.start()
    assert await workers.run(int, "1") == 1
    workers.stop()
    with pytest.raises(StorageError):
        await workers.run(int, "1")
