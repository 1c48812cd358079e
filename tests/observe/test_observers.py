from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial

import pytest
from twisted.logger import ILogObserver, LegacyLogObserverWrapper, Logger, LogPublisher, textFileLogObserver
from twisted.python import log as legacy
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from resticd.observe.entry import Entry, json_form, plain_form
from resticd.observe.levels import Level
from resticd.observe.observers import FilteredObserver, LogObserver
from resticd.observe.scrub import Scrubber


class Place:
    """A destination that may be full."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.full = False
        self.reopened = 0

    def write(self, level: Level, text: str) -> None:
        if self.full:
            raise OSError("no space")
        self.lines.append(text)

    def reopen(self) -> None:
        self.reopened += 1


@pytest.fixture
def place() -> Place:
    return Place()


def test_the_observers_are_what_twisted_asks_for(place: Place) -> None:
    observer = LogObserver(Level.INFO, Scrubber(), plain_form, place)
    assert verifyObject(ILogObserver, observer)
    assert verifyObject(ILogObserver, FilteredObserver(Level.INFO, Scrubber(), observer))


@pytest.mark.parametrize(
    ("threshold", "lines"),
    [
        (Level.OFF, []),
        (Level.ERROR, ["ERROR : e", "CRITICAL: c"]),
        (Level.NOTICE, ["NOTICE: w", "ERROR : e", "CRITICAL: c"]),
        (Level.INFO, ["INFO  : i", "NOTICE: w", "ERROR : e", "CRITICAL: c"]),
        (Level.DEBUG, ["DEBUG : d", "INFO  : i", "NOTICE: w", "ERROR : e", "CRITICAL: c"]),
    ],
)
def test_the_level_decides_what_is_written(place: Place, threshold: Level, lines: list[str]) -> None:
    log = Logger(namespace="resticd.x", observer=LogObserver(threshold, Scrubber(), plain_form, place))
    for level in ("debug", "info", "warn", "error", "critical"):
        getattr(log, level)(level[0])
    assert place.lines == lines


def test_entries_that_could_not_be_written_are_counted(place: Place) -> None:
    log = Logger(namespace="resticd.x", observer=LogObserver(Level.INFO, Scrubber(), plain_form, place))
    place.full = True
    log.info("1")
    log.info("2")
    place.full = False
    log.info("3")
    log.info("4")
    assert place.lines == ["ERROR : 2 entries of the log could not be written", "INFO  : 3", "INFO  : 4"]


def test_a_complaint_is_an_entry_and_reopening_is_passed_on(place: Place) -> None:
    observer = LogObserver(Level.ERROR, Scrubber(), json_form, place)
    observer.complain("cannot open it")
    assert json.loads(place.lines[0])["msg"] == "cannot open it"
    observer.reopen()
    assert place.reopened == 1


class Twistd:
    """The log that ``twistd`` writes, with ours in front."""

    def __init__(self, threshold: Level) -> None:
        self.lines: list[str] = []
        self.events: list[dict] = []
        inner = LogPublisher(textFileLogObserver(self, timeFormat=None), self.events.append)
        self.log = Logger(namespace="resticd.x", observer=FilteredObserver(threshold, Scrubber(), inner))

    def write(self, text: str) -> None:
        self.lines.append(text)

    def flush(self) -> None:
        pass


def test_twistds_log_gets_our_levels_without_secrets() -> None:
    twistd = Twistd(Level.NOTICE)
    twistd.log.info("quiet")
    twistd.log.warn("token={token} \x1b[2J", token="abc")
    assert twistd.lines == ["- [resticd.x#warn] token=*** \\x1b[2J\n"]
    assert "token" not in twistd.events[0]


def raised(error: Exception) -> Failure:
    try:
        raise error
    except Exception:
        return Failure()


def test_twistds_log_gets_a_traceback_once() -> None:
    twistd = Twistd(Level.NOTICE)
    twistd.log.failure("while dividing", raised(ZeroDivisionError("oh")))
    (line,) = twistd.lines
    assert line.count("Traceback") == 1
    assert line.count("ZeroDivisionError: oh") == 1
    assert "log_failure" in twistd.events[0]


def test_a_traceback_with_a_secret_is_passed_on_as_text() -> None:
    twistd = Twistd(Level.NOTICE)
    twistd.log.failure("while calling", raised(ZeroDivisionError("http://u:p4ss@host/")))
    (line,) = twistd.lines
    assert line.count("Traceback") == 1
    assert "ZeroDivisionError: http://***@host/" in line
    assert "log_failure" not in twistd.events[0]


def test_an_observer_of_the_old_kind_is_served_too() -> None:
    """``twistd --syslog`` is one."""
    texts: list[str | None] = []
    inner = LegacyLogObserverWrapper(lambda event: texts.append(legacy.textFromEventDict(event)))
    observer = FilteredObserver(Level.NOTICE, Scrubber(), inner)
    Logger(namespace="resticd.x", observer=observer).warn("token=abc {x}", x="y")
    assert texts == ["token=*** y"]


@pytest.mark.parametrize("form", [plain_form, json_form])
@pytest.mark.parametrize("threshold", [Level.NOTICE, Level.INFO])
def test_lines_may_come_without_the_logger(place: Place, form: Callable[[Entry], str], threshold: Level) -> None:
    """They look, and are cleaned of secrets, as if the logger had brought them."""
    observer = LogObserver(threshold, Scrubber(["topsecret"]), form, place)
    line, fields = "GET /?a=topsecret 200", {"uri": "/topsecret", "status": 200}
    observer.put("resticd.access", lambda: line, lambda: fields)
    direct = list(place.lines)
    log = Logger(namespace="resticd.access", observer=observer)
    log.info("{line}", line=line, fields=lambda: fields)
    first, second = ([re.sub('"time": "[^"]+"', "", entry) for entry in part] for part in (direct, place.lines))
    assert first * 2 == second
    assert len(direct) == (threshold >= Level.INFO)
    assert "topsecret" not in "".join(direct)


def test_lines_of_a_turn_are_written_together(place: Place) -> None:
    """In order, before whatever else is logged and before the file is another one; what is lost is counted."""
    calls: list[Callable[[], None]] = []
    observer = LogObserver(Level.INFO, Scrubber(), plain_form, place, calls.append)
    log = Logger(namespace="resticd.x", observer=observer)
    for line in ("one", "two"):
        observer.put("resticd.access", partial(str, line), dict)
    assert not place.lines
    assert len(calls) == 1
    calls.pop()()
    assert place.lines == ["INFO  : one\nINFO  : two"]
    observer.put("resticd.access", lambda: "three", dict)
    log.info("four")
    observer.put("resticd.access", lambda: "five", dict)
    observer.reopen()
    for call in calls:
        call()
    assert place.lines[1:] == ["INFO  : three", "INFO  : four", "INFO  : five"]
    place.full = True
    for line in ("six", "seven"):
        observer.put("resticd.access", partial(str, line), dict)
    observer.flush()
    place.full = False
    log.info("eight")
    assert place.lines[4:] == ["ERROR : 2 entries of the log could not be written", "INFO  : eight"]
