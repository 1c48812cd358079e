"""One entry of the log, made from an event of ``twisted.logger``, and the forms in which it is written.

Two keys of an event have a meaning here: ``fields``, a function that returns a dictionary for the JSON form to take in,
called by that form alone; ``block``, true where the lines of the message are our own and come as they are. The lines
after the first of every other message are indented, so that a line feed in a client's words never begins a line that
looks like another entry.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from twisted.logger import LogEvent, formatEvent

from resticd.errors import ResticdError
from resticd.observe.escapes import printable
from resticd.observe.levels import Level, is_mistake, level_of

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from resticd.observe.scrub import Scrubber


class Entry(NamedTuple):
    """An entry without secrets and without control characters other than line feeds and tabs."""

    #: seconds since the epoch
    time: float
    level: Level
    text: str
    #: who logged it: the logger's namespace
    source: str
    fields: Callable[[], dict[str, Any]] = dict
    block: bool = False

    @property
    def lines(self) -> list[str]:
        """The lines of the text; all but the first are indented."""
        first, *others = self.text.split("\n")
        return [first, *(line if self.block or not line else f"\t{line}" for line in others)]


def entry_of(event: LogEvent, scrubber: Scrubber) -> Entry:
    """The entry for an event. Never raises for what an event may hold."""
    text = formatEvent(event)
    fields = event.get("fields", dict)
    failure = event.get("log_failure")
    if failure is not None:
        text = "\n".join(filter(None, (text, describe(failure))))
    return Entry(
        time=event.get("log_time") or time.time(),
        level=level_of(event),
        text=printable(scrubber.scrub(text)).rstrip("\n"),
        source=printable(str(event.get("log_namespace", "-"))),
        fields=lambda: cast(dict[str, Any], scrubber.scrub_all(fields())),
        block=bool(event.get("block")),
    )


def describe(failure: Failure) -> str:
    """The traceback of an unexpected error; one sentence for a domain error and for what a client can cause."""
    if is_mistake(failure) or failure.check(ResticdError):
        return f"{getattr(failure.type, '__name__', failure.type)}: {failure.getErrorMessage()}"
    return failure.getTraceback().rstrip("\n")


_HEADS = {level: f"{level.name:<6}: " for level in Level}


def text_form(entry: Entry) -> str:
    """As rclone: ``2026/11/28 08:00:00 NOTICE: …``, local time."""
    return f"{_stamp(int(entry.time))} {plain_form(entry)}"


@lru_cache(maxsize=16)
def _stamp(seconds: int) -> str:
    return time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(seconds))


def plain_form(entry: Entry) -> str:
    """Without the time, for syslog, which adds it."""
    text = entry.text if "\n" not in entry.text else "\n".join(entry.lines)
    return _HEADS[entry.level] + text


def journal_form(entry: Entry) -> str:
    """For standard error under systemd: no time, and before each line its priority (sd-daemon(3))."""
    return "\n".join(f"<{entry.level.value}>{line}" for line in plain_form(entry).split("\n"))


def json_form(entry: Entry) -> str:
    """One JSON object with rclone's ``time``, ``level``, ``msg`` and ``source``, then the event's own fields.

    ASCII only, so that it can be cut into lines and printed anywhere.
    """
    return json.dumps(
        {
            "time": iso_time(entry.time),
            "level": entry.level.name.lower(),
            "msg": entry.text,
            "source": entry.source,
            **entry.fields(),
        }
    )


def iso_time(seconds: float) -> str:
    """ISO 8601 in local time, with milliseconds and offset."""
    local = time.localtime(seconds)
    offset = time.strftime("%z", local)
    milliseconds = int(seconds % 1 * 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{milliseconds:03d}{offset[:3]}:{offset[3:]}"
