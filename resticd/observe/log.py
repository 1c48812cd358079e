"""Events as entries of the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from resticd.events import LoginRefused, RequestDone, RequestFailed
from resticd.interfaces import IEventSink
from resticd.observe.access import access_fields, access_line
from resticd.observe.escapes import quoted, shown_uri, token

# In a class a Logger would take the class's name for its namespace. The filter in conf/fail2ban knows this one.
ACCESS = "resticd.access"
_access_log = Logger(namespace=ACCESS)
_login_log = Logger(namespace="resticd.login")
_log = Logger(namespace="resticd.http")


Put = Callable[[str, Callable[[], str], Callable[[], dict[str, Any]]], None]


@implementer(IEventSink)
class LogSink:
    """Writes access lines (INFO), refused logins (NOTICE) and faults (ERROR) with Twisted's logger.

    :param access: whether to make a line for every request; False saves the work where INFO is not written.
    :param now: the time in seconds since the epoch.
    :param put: takes what makes an access line right to the log, in place of the logger, which costs three times as
        much (``Log.put``).
    """

    def __init__(self, access: bool, now: Callable[[], float] = time.time, put: Put | None = None) -> None:
        self._access = access
        self._now = now
        self._put = _put if put is None else put

    def emit(self, event: object) -> None:
        """See ``IEventSink``."""
        if isinstance(event, RequestDone):
            if self._access:
                now = self._now()
                self._put(ACCESS, lambda: access_line(event, now), lambda: access_fields(event))
        elif isinstance(event, LoginRefused):
            _login_log.warn("{line}", line=refusal_line(event))
        elif isinstance(event, RequestFailed):
            _log.error(
                "{method} {uri}: {status}: {reason}{traceback}",
                method=token(event.method),
                uri=shown_uri(event.uri),
                status=event.status,
                reason=event.reason,
                traceback=f"\n{event.traceback}" if event.traceback else "",
            )


def _put(_: str, line: Callable[[], str], fields: Callable[[], dict[str, Any]]) -> None:
    _access_log.info("{line}", line=line(), fields=fields)


def refusal_line(event: LoginRefused) -> str:
    """The line that ``conf/fail2ban`` matches; it never changes its beginning::

        login refused from 192.0.2.7 for "bob": wrong user or password

    The address comes before every word that the client chooses, and what it chooses is quoted on the same line.
    """
    return f"login refused from {token(event.address)} for {quoted(event.user)}: {event.reason}"
