"""Observers for ``twisted.logger``: what is written, and in which words."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from resticd.observe.entry import Entry, describe, entry_of
from resticd.observe.escapes import printable
from resticd.observe.levels import Level, level_of

if TYPE_CHECKING:
    from resticd.observe.destinations import Destination
    from resticd.observe.scrub import Scrubber


@implementer(ILogObserver)
class LogObserver:
    """Writes entries to a destination.

    An entry that cannot be written is dropped; how many were is said as soon as one can be. May be called in any
    thread.

    :param threshold: the least level to write.
    :param form: the text of an entry (``observe.entry``).
    """

    def __init__(
        self, threshold: Level, scrubber: Scrubber, form: Callable[[Entry], str], destination: Destination
    ) -> None:
        self._threshold = threshold
        self._scrubber = scrubber
        self._form = form
        self._destination = destination
        self._lost = 0
        # Reentrant: a file that cannot be opened again is complained of in the middle of a write.
        self._lock = threading.RLock()

    def __call__(self, event: LogEvent) -> None:
        """See ``ILogObserver``."""
        if level_of(event) <= self._threshold:
            self._put(entry_of(event, self._scrubber))

    def put(self, source: str, line: str, fields: Callable[[], dict[str, Any]]) -> None:
        """Write an entry at INFO, as if ``source`` had logged it.

        :param line: has no control characters.
        """
        if self._threshold >= Level.INFO:
            scrub = self._scrubber
            self._put(Entry(time.time(), Level.INFO, scrub.scrub(line), source, lambda: scrub.scrub_all(fields())))

    def complain(self, sentence: str) -> None:
        """Write that something is wrong with the log itself."""
        self._put(Entry(time.time(), Level.ERROR, sentence, "resticd.observe"))

    def reopen(self) -> None:
        """Go on in the file that is in the old one's place."""
        with self._lock:
            self._destination.reopen()

    def _put(self, entry: Entry) -> None:
        with self._lock:
            try:
                if self._lost:
                    lost = f"{self._lost} entries of the log could not be written"
                    self._write(Entry(entry.time, Level.ERROR, lost, "resticd.observe"))
                    self._lost = 0
                self._write(entry)
            except OSError:
                self._lost += 1

    def _write(self, entry: Entry) -> None:
        self._destination.write(entry.level, self._form(entry))


@implementer(ILogObserver)
class FilteredObserver:
    """Passes on what is to be written to an observer that is not ours, in words without secrets.

    Of an event only what every observer needs goes on; other keys may hold anything. A failure goes on where its
    traceback is wanted and holds nothing to hide; else the text says of it what may be said.
    """

    def __init__(self, threshold: Level, scrubber: Scrubber, observer: ILogObserver) -> None:
        self._threshold = threshold
        self._scrubber = scrubber
        self._observer = observer

    def __call__(self, event: LogEvent) -> None:
        """See ``ILogObserver``."""
        if level_of(event) > self._threshold:
            return
        kept = {key: event[key] for key in _PASSED_ON if key in event}
        failure = event.get("log_failure")
        if failure is not None and self._presentable(describe(failure)):
            kept["log_failure"] = failure
            event = {key: value for key, value in event.items() if key != "log_failure"}
        self._observer({**kept, "log_format": "{text}", "text": entry_of(event, self._scrubber).text})

    def _presentable(self, description: str) -> bool:
        return "\n" in description and description == printable(self._scrubber.scrub(description))


_PASSED_ON = ("log_level", "log_namespace", "log_system", "log_time", "isError", "time", "system")
