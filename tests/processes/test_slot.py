"""A place for a worker: replaced when it ends, killed when it hangs, empty when it shall be."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock

from resticd.processes.slot import Slot


class Process:
    """A worker that is there until it is killed."""

    def __init__(self) -> None:
        self.pid = 1
        self.killed = False
        self.ended: Deferred[str] = Deferred()
        self.answers: dict[str, Deferred[object]] = {}
        self.channel = self

    def call(self, name: str, **_: object) -> object:
        self.answers[name] = Deferred()
        return self.answers[name]

    def close(self) -> None:
        self.kill()

    def kill(self) -> None:
        if not self.killed:
            self.killed = True
            self.ended.callback("SIGKILL")


def make_slot(reactor: MemoryReactorClock, hired: list[Process]) -> Slot:
    def hire(_: Slot) -> Process:
        hired.append(Process())
        return hired[-1]

    return Slot(
        reactor,
        0,
        hire=hire,  # type: ignore[arg-type]
        assignment=lambda _: ("", 0),
        gone=lambda _: None,
        catch_up=lambda _: succeed(None),
    )


def started(reactor: MemoryReactorClock, hired: list[Process]) -> Slot:
    slot = make_slot(reactor, hired)
    Deferred.fromCoroutine(slot.start())
    hired[0].answers["serve"].callback(None)
    assert slot.is_serving
    return slot


def test_a_worker_that_ends_is_replaced_later_and_later() -> None:
    reactor, hired = MemoryReactorClock(), []
    slot = started(reactor, hired)
    for wait in (0.5, 1, 2):
        hired[-1].kill()
        count = len(hired)
        reactor.advance(wait - 0.1)
        assert len(hired) == count
        reactor.advance(0.1)
        assert len(hired) == count + 1
        hired[-1].answers["serve"].callback(None)
        assert slot.is_serving


def test_a_worker_that_does_not_answer_is_killed() -> None:
    reactor, hired = MemoryReactorClock(), []
    slot = started(reactor, hired)
    Deferred.fromCoroutine(slot.poll())
    reactor.advance(59)
    assert not hired[0].killed
    reactor.advance(2)
    assert hired[0].killed


def test_a_stop_while_nobody_is_there() -> None:
    """Between the end of a worker and the start of the next: no other one comes."""
    reactor, hired = MemoryReactorClock(), []
    slot = started(reactor, hired)
    hired[0].kill()
    over: list[object] = []
    Deferred.fromCoroutine(slot.stop(10)).addBoth(over.append)
    assert over == [None]
    reactor.advance(100)
    assert len(hired) == 1


def test_a_stop_while_one_is_starting() -> None:
    reactor, hired = MemoryReactorClock(), []
    slot = started(reactor, hired)
    hired[0].kill()
    reactor.advance(1)
    over: list[object] = []
    Deferred.fromCoroutine(slot.stop(10)).addBoth(over.append)
    assert over == [None]
    assert hired[1].killed
    reactor.advance(100)
    assert len(hired) == 2
