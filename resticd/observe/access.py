"""The line for a request, and the same as fields."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from resticd.observe.escapes import field, shown_uri, token

if TYPE_CHECKING:
    from resticd.events import RequestDone

# strftime would write them in the language of the locale.
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()  # noqa: SIM905 - a table


def access_line(event: RequestDone, now: float) -> str:
    """Apache's combined log format (mod_log_config) and behind it the duration in seconds.

    The word ``cut`` at the end marks an answer whose connection ended before it was complete::

        192.0.2.7 - bob [28/Nov/2026:08:00:00 +0000] "GET /laptop/config HTTP/1.1" 200 155 "-" "Go-http-client" 0.003

    :param now: when the request ended, in seconds since the epoch; the line holds the time of its beginning.
    """
    caller, duration = event.caller, event.duration
    user = "-" if caller.user is None else token(caller.user)
    return (
        f"{token(caller.address)} - {user} [{_apache_time(int(now - duration))}]"
        f' "{field(f"{event.method} {shown_uri(event.uri)} {event.protocol}")}" {event.status} {event.sent or "-"}'
        f" {_client(event.referer, event.agent)} {duration:.3f}{'' if event.complete else ' cut'}"
    )


def access_fields(event: RequestDone) -> dict[str, Any]:
    """What the line says, and how much was received, for the JSON form of the log. Durations are in seconds."""
    return {
        "address": event.caller.address,
        "user": event.caller.user,
        "method": event.method,
        "uri": shown_uri(event.uri),
        "protocol": event.protocol,
        "status": event.status,
        "received": event.received,
        "sent": event.sent,
        "referer": event.referer,
        "agent": event.agent,
        "duration": round(event.duration, 6),
        "complete": event.complete,
    }


@lru_cache(maxsize=256)
def _client(referer: str, agent: str) -> str:
    return f'"{field(referer or "-")}" "{field(agent or "-")}"'


@lru_cache(maxsize=256)
def _apache_time(seconds: int) -> str:
    local = time.localtime(seconds)
    month = _MONTHS[local.tm_mon - 1]
    return f"{local.tm_mday:02d}/{month}/{local.tm_year}:{time.strftime('%H:%M:%S %z', local)}"
