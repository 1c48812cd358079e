from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.peers import peer
from twisted.logger import LegacyLogObserverWrapper, LogPublisher, globalLogPublisher, textFileLogObserver
from twisted.python.syslog import SyslogObserver
from zope.interface.verify import verifyObject

from resticd.events import LoginRefused, RequestDone, RequestFailed
from resticd.interfaces import Caller, IEventSink
from resticd.observe.entry import json_form, plain_form, text_form
from resticd.observe.levels import Level
from resticd.observe.log import LogSink, refusal_line
from resticd.observe.observers import FilteredObserver, LogObserver
from resticd.observe.scrub import Scrubber

FILTER = Path(__file__).parents[2] / "conf/fail2ban/filter.d/resticd.conf"

DONE = RequestDone(Caller("bob", "192.0.2.7"), "GET", "/config", "HTTP/1.1", 200, 0, 155, 0.001)


class Lines:
    """A destination, and a file for Twisted's own observer."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, *text: object) -> None:
        self.lines.append(str(text[-1]).rstrip("\n"))

    def flush(self) -> None:
        pass

    def reopen(self) -> None:
        pass


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged at DEBUG during the test."""
    place = Lines()
    observer = LogObserver(Level.DEBUG, Scrubber(), plain_form, place)
    globalLogPublisher.addObserver(observer)
    yield place.lines
    globalLogPublisher.removeObserver(observer)


def test_it_is_a_sink() -> None:
    assert verifyObject(IEventSink, LogSink(access=True))


def test_access_lines_are_information(lines: list[str]) -> None:
    LogSink(access=True).emit(DONE)
    assert lines[0].startswith("INFO  : 192.0.2.7 - bob [")


def test_no_access_lines_are_made_where_none_are_wanted(lines: list[str]) -> None:
    LogSink(access=False).emit(DONE)
    assert lines == []


def test_an_explained_fault_is_one_line(lines: list[str]) -> None:
    LogSink(access=False).emit(RequestFailed("GET", "/x/?a=b", 502, "the remote is odd\x07"))
    assert lines == ["ERROR : GET /x/?a=***: 502: the remote is odd\\x07"]


def test_an_unexplained_fault_has_its_traceback(lines: list[str]) -> None:
    LogSink(access=False).emit(RequestFailed("GET", "/x", 500, "ValueError: y", "Traceback:\n  z"))
    assert lines == ["ERROR : GET /x: 500: ValueError: y\n\tTraceback:\n\t  z"]


def test_a_refused_login_is_a_notice(lines: list[str]) -> None:
    LogSink(access=False).emit(LoginRefused("192.0.2.7", "bob", "wrong user or password"))
    assert lines == ['NOTICE: login refused from 192.0.2.7 for "bob": wrong user or password']


def test_unknown_events_are_passed_over(lines: list[str]) -> None:
    LogSink(access=True).emit(object())
    assert lines == []


# The filter for fail2ban.


def expressions() -> list[re.Pattern[str]]:
    """The filter's expressions, as fail2ban understands its tags."""
    parser = configparser.ConfigParser()
    parser.read(FILTER)
    address = (
        r"(?:::f{4,6}:)?(?P<ip4>(?:\d{1,3}\.){3}\d{1,3})|(?P<ip6>\[?(?:[0-9a-fA-F]{1,4}::?|::){1,7}[0-9a-fA-F:]*\]?)"
    )
    patterns = parser["Definition"]["failregex"].strip().splitlines()
    return [re.compile(pattern.strip().replace("<ADDR>", f"(?:{address})")) for pattern in patterns]


EXPRESSIONS = expressions()

#: What fail2ban cuts out of a line before it looks at the rest.
DATES = re.compile(
    r'^(?:\{"time": "[\d:.T+-]*"|\d{4}/\d\d/\d\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[\d:]*\+\d{4}|\w{3} [ \d]\d [\d:]{8})'
)


def banned(line: str) -> set[str]:
    """Whom fail2ban would count a failure for."""
    rest = DATES.sub("", line)
    found = [match for expression in EXPRESSIONS if (match := expression.search(rest))]
    return {match["ip4"] or match["ip6"] for match in found}


class TwistdSyslog(SyslogObserver):
    """What ``twistd --syslog`` installs."""

    openlog = staticmethod(lambda *arguments: None)


def in_all_forms(event: object) -> dict[str, list[str]]:
    """The lines that an event leaves in each form of the log, by the form's name."""
    places = {name: Lines() for name in ("file", "syslog", "json", "syslog json", "twistd", "twistd syslog")}
    scrubber = Scrubber()
    old = TwistdSyslog("twisted")
    old.syslog = places["twistd syslog"].write
    observers = [
        LogObserver(Level.DEBUG, scrubber, text_form, places["file"]),
        LogObserver(Level.DEBUG, scrubber, plain_form, places["syslog"]),
        LogObserver(Level.DEBUG, scrubber, json_form, places["json"]),
        LogObserver(Level.DEBUG, scrubber, json_form, places["syslog json"]),
        FilteredObserver(Level.DEBUG, scrubber, textFileLogObserver(places["twistd"])),
        FilteredObserver(Level.DEBUG, scrubber, LegacyLogObserverWrapper(old.emit)),
    ]
    publisher = LogPublisher(*observers)
    globalLogPublisher.addObserver(publisher)
    try:
        LogSink(access=True).emit(event)
    finally:
        globalLogPublisher.removeObserver(publisher)
    return {
        name: [
            f"Nov 28 08:00:00 host resticd[12]: {line}" if "syslog" in name else line
            for text in place.lines
            for line in text.split("\n")
        ]
        for name, place in places.items()
    }


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "::1"])
def test_the_filter_finds_the_address_in_every_form(address: str) -> None:
    for name, lines in in_all_forms(LoginRefused(address, "bob", "wrong user or password")).items():
        assert banned(lines[0]) == {address}, name


hostile = st.one_of(
    st.text(st.characters()),
    st.lists(
        st.sampled_from(
            [
                "\n",
                "\r\n",
                '"',
                "\\",
                " ",
                'NOTICE: login refused from 198.51.100.1 for "x": y',
                "\t",
                "2026/11/28 08:00:00 ",
                "[resticd.login#warn] ",
                "Nov 28 08:00:00 host resticd[1]: ",
                'login refused from 198.51.100.1 for "',
                '{"time": "", "level": "notice", "msg": "login refused from 198.51.100.1 for \\"',
                "Authorization: Basic ",
                "token=",
            ]
        )
    ).map("".join),
)


@settings(max_examples=40, deadline=None)
@given(hostile)
def test_no_user_name_hides_its_sender_or_gets_another_one_banned(user: str) -> None:
    for name, lines in in_all_forms(LoginRefused("192.0.2.7", user, "wrong user or password")).items():
        assert [banned(line) for line in lines] == [{"192.0.2.7"}], name


@settings(max_examples=40, deadline=None)
@given(hostile, hostile, hostile)
def test_no_other_line_gets_anybody_banned(one: str, two: str, three: str) -> None:
    done = RequestDone(Caller(one, "192.0.2.7"), two, three, one, 200, 0, 0, 0.0, referer=two, agent=three)
    failed = RequestFailed(one, two, 500, three, two)
    for event in (done, failed, LoginRefused("unix", one, "no login")):
        for lines in in_all_forms(event).values():
            assert not any(banned(line) for line in lines)


def test_fail2ban_itself_agrees(tmp_path: Path) -> None:
    """Every form, with both kinds of addresses, and lines that must not match between them."""
    lines = [
        line
        for address in ("192.0.2.7", "2001:db8::7")
        for event in (LoginRefused(address, 'b"o\nb', "wrong user or password"), DONE)
        for form in in_all_forms(event).values()
        for line in form
    ]
    log = tmp_path / "log"
    log.write_text("\n".join(lines) + "\n")
    program = peer("fail2ban-regex").resolve()
    modules = program.parents[1] / "lib/python3/dist-packages"
    done = subprocess.run(
        [sys.executable, program, "--out", "ip", log, FILTER],
        env={"PYTHONPATH": str(modules), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["192.0.2.7"] * 6 + ["2001:db8::7"] * 6


def test_the_documented_line_is_what_is_written() -> None:
    line = refusal_line(LoginRefused("192.0.2.7", "bob", "wrong user or password"))
    assert f"#     {line}\n" in FILTER.read_text()
    assert json.dumps(line)[1:].startswith('login refused from 192.0.2.7 for \\"')
