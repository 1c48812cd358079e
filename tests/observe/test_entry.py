from __future__ import annotations

import json
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

from resticd.errors import BadGateway
from resticd.observe.entry import (
    Entry,
    describe,
    entry_of,
    iso_time,
    journal_form,
    json_form,
    plain_form,
    text_form,
)
from resticd.observe.levels import Level
from resticd.observe.scrub import Scrubber

NOON = 1795867200.25  # 2026-11-28 12:00:00.25 UTC


@pytest.fixture(autouse=True)
def in_kathmandu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zone with an odd offset: +05:45, without daylight saving."""
    monkeypatch.setenv("TZ", "XXX-5:45")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def raised(error: Exception) -> Failure:
    try:
        raise error
    except Exception:
        return Failure()


def logged(call: object) -> Entry:
    seen: list[Entry] = []
    call(Logger(namespace="resticd.http", observer=lambda event: seen.append(entry_of(event, Scrubber()))))
    (entry,) = seen
    return entry


def entry(text: str, level: Level = Level.NOTICE, block: bool = False) -> Entry:
    return Entry(NOON, level, text, "resticd", block=block)


def test_a_text_line_is_as_rclone_writes_it() -> None:
    assert text_form(entry("ready")) == "2026/11/28 17:45:00 NOTICE: ready"
    assert text_form(entry("ready", Level.INFO)) == "2026/11/28 17:45:00 INFO  : ready"


def test_syslog_gets_no_time() -> None:
    assert plain_form(entry("ready", Level.ERROR)) == "ERROR : ready"


def test_the_journal_gets_a_priority_before_each_line_and_no_time() -> None:
    assert journal_form(entry("one\ntwo", Level.ERROR)) == "<3>ERROR : one\n<3>\ttwo"


def test_further_lines_are_indented_unless_they_are_our_own() -> None:
    assert plain_form(entry("one\ntwo\n\nthree")) == "NOTICE: one\n\ttwo\n\n\tthree"
    assert plain_form(entry("one\ntwo", block=True)) == "NOTICE: one\ntwo"


def test_a_json_line_has_rclones_keys_and_the_events_own() -> None:
    seen = logged(lambda log: log.info("{x}", x="ready", fields=lambda: {"stats": {"bytes": 5}}))
    read = json.loads(json_form(seen))
    assert read.pop("time") == iso_time(seen.time)
    assert read == {"level": "info", "msg": "ready", "source": "resticd.http", "stats": {"bytes": 5}}


def test_the_fields_are_asked_for_by_the_json_form_alone() -> None:
    text_form(logged(lambda log: log.info("ready", fields=lambda: pytest.fail("asked"))))


def test_a_json_time_has_milliseconds_and_offset() -> None:
    assert iso_time(NOON) == "2026-11-28T17:45:00.250+05:45"


@settings(deadline=None)
@given(st.text(st.characters()))
def test_whatever_a_message_holds_each_form_is_sound(text: str) -> None:
    seen = logged(lambda log: log.warn("{text}", text=text, fields=lambda: {"text": text}))
    line = json_form(seen)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["level"] == "notice"
    first, *others = text_form(seen).split("\n")
    assert first[20:].startswith("NOTICE: ")
    assert all(other.startswith("\t") or not other for other in others)
    assert all(other.startswith("<5>") for other in journal_form(seen).split("\n"))


def test_secrets_are_masked_in_text_and_fields() -> None:
    seen = logged(lambda log: log.info("token={t}", t="abc", fields=lambda: {"uri": "?sig=abc"}))
    assert "abc" not in json_form(seen)


def test_an_unexpected_error_has_its_traceback() -> None:
    seen = logged(lambda log: log.failure("while {what}", raised(ZeroDivisionError("oh")), what="dividing"))
    assert seen.level is Level.CRITICAL
    assert seen.text.startswith("while dividing\nTraceback")
    assert "ZeroDivisionError: oh" in seen.text


@pytest.mark.parametrize("error", [BadGateway("the remote is odd"), ConnectionLost("gone")])
def test_an_error_that_explains_itself_has_none(error: Exception) -> None:
    seen = logged(lambda log: log.failure("while reading", raised(error)))
    assert seen.text == f"while reading\n{type(error).__name__}: {error}"
    assert describe(raised(error)) == seen.text.split("\n")[1]


def test_an_event_that_cannot_be_formatted_is_written_nevertheless() -> None:
    seen = logged(lambda log: log.info("{missing.attribute}", missing=object()))
    assert "Unable to format event" in seen.text


def test_an_event_of_the_old_kind_is_read() -> None:
    seen = entry_of({"log_text": "old", "log_format": "{log_text}", "log_time": NOON, "log_level": None}, Scrubber())
    assert (seen.text, seen.time, seen.source) == ("old", NOON, "-")
    assert os.linesep not in seen.text
