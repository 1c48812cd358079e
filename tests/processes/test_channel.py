"""Messages between processes: asked, answered, refused, lost."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport

from resticd.errors import ConfigurationError, StorageError
from resticd.processes import channel as module
from resticd.processes.backoff import Backoff
from resticd.processes.channel import Channel, ChannelClosed, Refused


class Pair:
    """Two ends; ``flow`` carries what waits."""

    def __init__(self, **handlers: Any) -> None:
        self.lost: list[str] = []
        self.a = Channel({}, lambda: self.lost.append("a"))
        self.b = Channel(handlers, lambda: self.lost.append("b"))
        self.transports = StringTransport(), StringTransport()
        self.a.makeConnection(self.transports[0])
        self.b.makeConnection(self.transports[1])

    def flow(self) -> None:
        for sender, receiver in ((self.transports[0], self.b), (self.transports[1], self.a)):
            data = sender.value()
            sender.clear()
            receiver.dataReceived(data)


def ended(deferred: Deferred[Any]) -> list[Any]:
    results: list[Any] = []
    deferred.addBoth(results.append)
    return results


def test_asked_and_told() -> None:
    told: list[Any] = []
    pair = Pair(double=lambda number: number * 2, note=lambda **what: told.append(what))
    answer = ended(pair.a.call("double", number=21))
    pair.a.tell("note", key="é", size=1)
    assert answer == []
    pair.flow()
    assert answer == [42]
    assert told == [{"key": "é", "size": 1}]


def test_answers_in_any_order() -> None:
    waiting: list[Deferred[str]] = []

    def wait() -> Deferred[str]:
        waiting.append(Deferred())
        return waiting[-1]

    pair = Pair(wait=wait)
    answers = [ended(pair.a.call("wait")) for _ in range(2)]
    pair.flow()
    waiting[1].callback("second")
    waiting[0].callback("first")
    pair.flow()
    assert answers == [["first"], ["second"]]


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ConfigurationError("--key: no"), ConfigurationError, "--key: no"),
        (StorageError("gone"), Refused, "gone"),
    ],
)
def test_refused(error: Exception, kind: type[Exception], text: str) -> None:
    def fail() -> None:
        raise error

    pair = Pair(fail=fail)
    answer = ended(pair.a.call("fail"))
    pair.flow()
    assert answer[0].check(kind)
    assert str(answer[0].value) == text


def test_cancelled() -> None:
    """The answer to what nobody waits for is dropped."""
    pair = Pair(double=lambda number: number * 2)
    asked = pair.a.call("double", number=1)
    answer = ended(asked)
    asked.cancel()
    pair.flow()
    assert len(answer) == 1


def test_the_other_end_is_gone() -> None:
    pair = Pair()
    answer = ended(pair.a.call("anything"))
    pair.a.connectionLost()
    assert answer[0].check(ChannelClosed)
    assert pair.lost == ["a"]
    assert ended(pair.a.call("anything"))[0].check(ChannelClosed)
    pair.a.tell("anything")


@pytest_twisted.ensureDeferred
async def test_the_other_end_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is bounded."""
    monkeypatch.setattr(module, "LONGEST", 10_000)
    pair = Pair()
    pair.a.pauseProducing()
    for _ in range(50):
        pair.a.tell("note", text="x" * 100)
    assert not pair.transports[0].disconnected
    for _ in range(50):
        pair.a.tell("note", text="x" * 100)
    assert pair.transports[0].disconnected
    pair = Pair()
    for _ in range(10):  # what flows is not
        pair.a.pauseProducing()
        for _ in range(50):
            pair.a.tell("note", text="x" * 100)
        pair.a.resumeProducing()
    assert not pair.transports[0].disconnected


def test_backoff() -> None:
    backoff = Backoff()
    assert [backoff.after(1) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.after(3600) == 0.5
    assert backoff.after(1) == 1
