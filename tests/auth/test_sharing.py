from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from resticd.auth.sharing import SharedCalls, shielded


class Calls:
    """Calls that end when the test says so."""

    def __init__(self) -> None:
        self.running: list[Deferred[bool]] = []

    def start(self) -> Deferred[bool]:
        self.running.append(Deferred())
        return self.running[-1]


def test_equal_calls_at_the_same_time_are_one() -> None:
    calls = Calls()
    shared: SharedCalls[bool] = SharedCalls()
    results = [shared.join(b"a", calls.start) for _ in range(3)]
    other = shared.join(b"b", calls.start)
    results[1].cancel()
    results[1].addErrback(lambda failure: failure.trap(CancelledError))
    first, second = calls.running
    first.callback(True)
    second.callback(False)
    assert [results[0].result, results[2].result, other.result] == [True, True, False]
    shared.join(b"a", calls.start)
    assert len(calls.running) == 3


def test_a_call_that_breaks_reaches_all_who_wait() -> None:
    calls = Calls()
    shared: SharedCalls[bool] = SharedCalls()
    seen: list[object] = []
    for _ in range(2):
        shared.join(b"a", calls.start).addErrback(lambda failure: seen.append(failure.check(OSError)))
    calls.running[0].errback(OSError("broken"))
    assert seen == [OSError, OSError]


def test_one_who_leaves_when_another_is_told_takes_nobody_along() -> None:
    calls = Calls()
    shared: SharedCalls[bool] = SharedCalls()
    first, leaving, last = (shared.join(b"a", calls.start) for _ in range(3))
    leaving.addErrback(lambda failure: failure.trap(CancelledError))
    first.addCallback(lambda _: leaving.cancel())
    calls.running[0].callback(True)
    assert last.result is True


def test_what_is_shielded_goes_on_when_nobody_waits() -> None:
    ended: list[bool] = []
    call: Deferred[bool] = Deferred()
    call.addCallback(lambda result: ended.append(result) or result)
    waiting = shielded(call)
    waiting.addErrback(lambda failure: failure.trap(CancelledError))
    waiting.cancel()
    call.callback(True)
    assert ended == [True]
    assert shielded(Deferred()).called is False
