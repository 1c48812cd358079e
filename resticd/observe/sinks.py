"""One event to several sinks."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.logger import Logger
from zope.interface import implementer

from resticd.interfaces import IEventSink

_log = Logger(namespace="resticd.observe")


@implementer(IEventSink)
class Sinks:
    """Hands every event to all of ``sinks``, in their order.

    A sink that raises, against its contract, takes nothing from the others; that it did is logged once.
    """

    def __init__(self, sinks: Iterable[IEventSink]) -> None:
        self._sinks = tuple(sinks)
        self._broken: set[int] = set()

    def emit(self, event: object) -> None:
        """See ``IEventSink``."""
        for index, sink in enumerate(self._sinks):
            try:
                sink.emit(event)
            except Exception:
                if index not in self._broken:
                    self._broken.add(index)
                    _log.failure("{sink} cannot take an event", sink=type(sink).__name__)
