from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from resticd.events import RequestDone
from resticd.interfaces import Caller
from resticd.observe.access import access_fields, access_line

NOON = 1795867200.0  # 2026-11-28 12:00:00 UTC

DONE = RequestDone(
    caller=Caller("bob", "192.0.2.7"),
    method="GET",
    uri="/laptop/config",
    protocol="HTTP/1.1",
    status=200,
    received=0,
    sent=155,
    duration=2.0034,
    agent="Go-http-client/1.1",
)

#: As log readers know Apache's combined format, with a duration and perhaps a mark behind it.
COMBINED = re.compile(
    r'(?P<address>\S+) - (?P<user>\S+) \[(?P<time>[^]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3})'
    r' (?P<sent>\d+|-) "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)"'
    r" (?P<duration>\d+\.\d{3})(?P<cut> cut)?"
)


@pytest.fixture(autouse=True, scope="module")
def in_utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def test_a_line_is_apaches_combined_format_with_the_duration() -> None:
    assert access_line(DONE, NOON + 2.0034) == (
        '192.0.2.7 - bob [28/Nov/2026:12:00:00 +0000] "GET /laptop/config HTTP/1.1" 200 155'
        ' "-" "Go-http-client/1.1" 2.003'
    )


def test_who_has_no_login_is_a_dash() -> None:
    line = access_line(evolve(DONE, caller=Caller(None, "::1"), sent=0), NOON)
    assert line.startswith("::1 - - [")
    assert '" 200 - "' in line


def test_an_answer_that_was_cut_short_is_marked() -> None:
    assert access_line(evolve(DONE, complete=False), NOON).endswith('" 2.003 cut')


def test_values_of_a_query_are_not_written() -> None:
    event = evolve(DONE, uri="/x/?create=true&password=hunter2")
    assert '"GET /x/?create=true&password=*** HTTP/1.1"' in access_line(event, NOON)
    assert access_fields(event)["uri"] == "/x/?create=true&password=***"


anything = st.text(st.characters())


@settings(deadline=None)
@given(anything, anything, anything, anything, anything)
def test_whatever_a_client_sends_the_line_can_be_read(
    user: str, uri: str, referer: str, agent: str, method: str
) -> None:
    event = evolve(DONE, caller=Caller(user, "192.0.2.7"), uri=uri, referer=referer, agent=agent, method=method)
    line = access_line(event, NOON)
    read = COMBINED.fullmatch(line)
    assert read is not None
    assert line.isascii()
    assert line.isprintable()
    assert (read["address"], read["status"], read["sent"], read["duration"]) == ("192.0.2.7", "200", "155", "2.003")


def test_the_fields_say_what_the_line_says() -> None:
    assert access_fields(DONE) == {
        "address": "192.0.2.7",
        "user": "bob",
        "method": "GET",
        "uri": "/laptop/config",
        "protocol": "HTTP/1.1",
        "status": 200,
        "received": 0,
        "sent": 155,
        "referer": "",
        "agent": "Go-http-client/1.1",
        "duration": 2.0034,
        "complete": True,
    }
