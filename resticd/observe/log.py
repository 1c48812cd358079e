"""Events as lines of the log."""

from __future__ import annotations

from twisted.logger import Logger
from zope.interface import implementer

from resticd.events import RequestDone, RequestFailed
from resticd.interfaces import IEventSink


@implementer(IEventSink)
class LogSink:
    """Writes access lines and errors with Twisted's logger.

    :param access: whether to write a line for every request.
    """

    _log = Logger(namespace="resticd")

    def __init__(self, access: bool) -> None:
        self._access = access

    def emit(self, event: object) -> None:
        """See ``IEventSink``."""
        if isinstance(event, RequestDone):
            if self._access:
                self._log.info("{line}", line=access_line(event))
        elif isinstance(event, RequestFailed):
            self._log.error(
                "{method} {uri}: {status}: {reason}{traceback}",
                method=event.method,
                uri=event.uri,
                status=event.status,
                reason=event.reason,
                traceback=f"\n{event.traceback}" if event.traceback else "",
            )


def access_line(event: RequestDone) -> str:
    """One line for one request; ``cut`` marks an answer that did not end."""
    cut = "" if event.complete else " cut"
    return (
        f"{event.caller.address} {event.caller.user or '-'} {event.method} {event.uri} {event.protocol}"
        f" {event.status} in={event.received} out={event.sent} {event.duration:.3f}s{cut}"
    )
