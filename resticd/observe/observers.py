"""Observers for ``twisted.logger``: what is written, and in which words."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from resticd.observe.entry import Entry, describe, entry_of
from resticd.observe.escapes import printable
from resticd.observe.levels import Level, level_of

if TYPE_CHECKING:
    from resticd.observe.destinations import Destination
    from resticd.observe.scrub import Scrubber


#: Lines that are written together at most.
TOGETHER = 64


class _Waiting(NamedTuple):
    """See ``LogObserver.put``."""

    time: float
    source: str
    line: Callable[[], str]
    fields: Callable[[], dict[str, Any]]


@implementer(ILogObserver)
class LogObserver:
    """Writes entries to a destination.

    An entry that cannot be written is dropped; how many were is said as soon as one can be. May be called in any
    thread.

    :param threshold: the least level to write.
    :param form: the text of an entry (``observe.entry``).
    :param later: calls what it is given in a moment. The lines that ``put`` brings are made and written together then:
        a system call for each would take a quarter of a small request, and what is done many times in a row takes half
        as long. Whatever else is logged comes behind them. None writes them at once.
    """

    def __init__(
        self,
        threshold: Level,
        scrubber: Scrubber,
        form: Callable[[Entry], str],
        destination: Destination,
        later: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self._later = later
        self._waiting: list[_Waiting] = []
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

    def put(self, source: str, line: Callable[[], str], fields: Callable[[], dict[str, Any]]) -> None:
        """Write an entry at INFO, as if ``source`` had logged it.

        :param line: makes the text, which has no control characters.
        """
        if self._threshold < Level.INFO:
            return
        with self._lock:
            self._waiting.append(_Waiting(time.time(), source, line, fields))
            if self._later is None or len(self._waiting) >= TOGETHER:
                self.flush()
            elif len(self._waiting) == 1:
                self._later(self.flush)

    def flush(self) -> None:
        """Write the lines that wait."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            if waiting:
                self._attempt(Level.INFO, "\n".join(map(self._formed, waiting)), len(waiting))

    def _formed(self, waiting: _Waiting) -> str:
        scrub = self._scrubber
        line = scrub.scrub(waiting.line())
        return self._form(
            Entry(waiting.time, Level.INFO, line, waiting.source, lambda: scrub.scrub_all(waiting.fields()))
        )

    def complain(self, sentence: str) -> None:
        """Write that something is wrong with the log itself."""
        self._put(Entry(time.time(), Level.ERROR, sentence, "resticd.observe"))

    def reopen(self) -> None:
        """Go on in the file that is in the old one's place."""
        with self._lock:
            self.flush()
            self._destination.reopen()

    def _put(self, entry: Entry) -> None:
        with self._lock:
            self.flush()
            self._attempt(entry.level, self._form(entry), 1)

    def _attempt(self, level: Level, text: str, entries: int) -> None:
        try:
            if self._lost:
                lost = f"{self._lost} entries of the log could not be written"
                self._destination.write(
                    Level.ERROR, self._form(Entry(time.time(), Level.ERROR, lost, "resticd.observe"))
                )
                self._lost = 0
            self._destination.write(level, text)
        except OSError:
            self._lost += entries


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
