from __future__ import annotations

from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

from resticd.interfaces import IEventSink
from resticd.observe.sinks import Sinks


class Good:
    def __init__(self) -> None:
        self.events: list[object] = []

    def emit(self, event: object) -> None:
        self.events.append(event)


class Broken:
    def emit(self, event: object) -> None:
        raise ValueError(event)


def test_every_sink_gets_every_event_and_a_broken_one_is_logged_once() -> None:
    first, last = Good(), Good()
    sinks = Sinks([first, Broken(), last])
    assert verifyObject(IEventSink, sinks)
    logged: list[dict] = []
    globalLogPublisher.addObserver(logged.append)
    try:
        sinks.emit(1)
        sinks.emit(2)
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert first.events == last.events == [1, 2]
    (event,) = (event for event in logged if event["log_namespace"] == "resticd.observe")
    assert event["sink"] == "Broken"
    assert event["log_failure"].check(ValueError)
