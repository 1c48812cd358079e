"""Bandwidth limits as text."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resticd.bandwidth import Limits, Timetable
from resticd.config.bwlimit import parse_bwlimit
from resticd.config.commandline import parse_command_line
from resticd.config.flags import Flag
from resticd.errors import ConfigurationError

KIB, MIB = 1 << 10, 1 << 20


def always(up: int | None, down: int | None) -> Limits:
    return Limits(Timetable(((0, up),)), Timetable(((0, down),)))


def at(text: str, day: str, time: str) -> tuple[int | None, int | None]:
    """The rates of ``text`` on a day of the week of 1 January 2024, a Monday."""
    number = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].index(day)
    hour, minute = map(int, time.split(":"))
    moment = datetime(2024, 1, 1, hour, minute) + timedelta(days=number)
    limits = parse_bwlimit(text)
    return limits.up.at(moment), limits.down.at(moment)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("666", 666 * KIB),
        ("100B", 100),
        ("10k", 10 * KIB),
        ("10M", 10 * MIB),
        ("1G", 1 << 30),
        ("1t", 1 << 40),
        ("2P", 2 << 50),
        ("1E", 1 << 60),
        ("0.625M", 640 * KIB),
        (".5M", 512 * KIB),
        ("5.", 5 * KIB),
        ("10Mi", 10 * MIB),
        ("10MiB", 10 * MIB),
        ("off", None),
        ("OFF", None),
        ("0", None),
    ],
)
def test_one_rate(text: str, rate: int | None) -> None:
    """One rate limits both directions, always; a plain number is KiB, and 0 is no limit."""
    assert parse_bwlimit(text) == always(rate, rate)


@pytest.mark.parametrize(
    ("text", "up", "down"),
    [("10M:100k", 10 * MIB, 100 * KIB), ("10M:off", 10 * MIB, None), ("off:1", None, KIB), ("0:0", None, None)],
)
def test_up_and_down(text: str, up: int | None, down: int | None) -> None:
    """Uploads and downloads have a rate each where there is a colon."""
    assert parse_bwlimit(text) == always(up, down)


@pytest.mark.parametrize("space", [" ", ";", "  ", "; "])
def test_times_of_the_day(space: str) -> None:
    """An entry without a day counts every day, and the evening's rate holds until the next morning."""
    text = space.join(["08:00,512k", "12:00,10M", "13:00,512k", "18:00,30M:1M", "23:00,off"])
    for day in ("Mon", "Wed", "Sun"):
        assert at(text, day, "07:59") == (None, None)
        assert at(text, day, "08:00") == (512 * KIB, 512 * KIB)
        assert at(text, day, "12:30") == (10 * MIB, 10 * MIB)
        assert at(text, day, "17:59") == (512 * KIB, 512 * KIB)
        assert at(text, day, "22:00") == (30 * MIB, MIB)
        assert at(text, day, "23:59") == (None, None)


def test_days_of_the_week() -> None:
    """A rate holds until the next entry, over days and over the end of the week."""
    text = "Mon-00:00,512 friday-23:59,10M SAT-10:00,1M Sun-20:00,off"
    assert at(text, "Mon", "00:00")[0] == 512 * KIB
    assert at(text, "Thu", "15:00")[0] == 512 * KIB
    assert at(text, "Fri", "23:59")[0] == 10 * MIB
    assert at(text, "Sun", "10:00")[0] == MIB
    assert at(text, "Sun", "20:00")[0] is None
    # from rclone's own tests
    text = "Mon-11:00,333 Tue-13:40,666 Fri-00:00,10M Sat-10:00,off Sun-23:00,667"
    assert at(text, "Thu", "23:59")[0] == 666 * KIB
    assert at(text, "Mon", "10:59")[0] == 667 * KIB


def test_days_and_every_day_together() -> None:
    """Entries with and without a day can be mixed, in any order."""
    text = "Mon-00:00,512 12:00,1M Sun-20:00,off"
    assert at(text, "Mon", "11:59")[0] == 512 * KIB
    assert at(text, "Mon", "12:00")[0] == MIB
    assert at(text, "Sun", "11:00")[0] == MIB
    assert at(text, "Sun", "21:00")[0] is None


def test_the_same_time_twice() -> None:
    """Of two entries for one time the later one counts, so a day can be an exception."""
    assert at("12:00,1M Wed-12:00,2M", "Wed", "13:00")[0] == 2 * MIB
    assert at("12:00,1M Wed-12:00,2M", "Thu", "13:00")[0] == MIB


def test_one_entry() -> None:
    """A timetable of one entry holds at all times."""
    assert at("10:20,666:333", "Mon", "00:00") == (666 * KIB, 333 * KIB)
    assert not parse_bwlimit("10:20,666").up.changes


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "empty"),
        (" ; ", "empty"),
        ("bad", "'bad'"),
        ("1000X", "'1000X'"),
        ("-1M", "'-1M'"),
        ("10M:", "'10M:'"),
        (":10M", "':10M'"),
        ("10M:1M:1M", "'10M:1M:1M'"),
        ("bad bad", "'bad'"),
        ("10M 20M", "'10M'"),
        ("2401,666", "'2401'"),
        ("08:00,512k 24:00,1M", "'24:00'"),
        ("08:60,512k", "'08:60'"),
        ("8:00,512k", "'8:00'"),
        ("08:00,512k,1M", "'512k,1M'"),
        ("bad-10:20,666", "'bad'"),
        ("Mon-Tue-10:20,666", "'Mon-Tue'"),
        ("Mon-bad,666", "'bad'"),
        ("Mon-10:20,bad", "'bad'"),
        ("Mon-10:20,", "''"),
        ("nan", "'nan'"),
        ("inf", "'inf'"),
        ("1e3", "'1e3'"),
    ],
)
def test_mistakes(text: str, part: str) -> None:
    """A mistake is an error that shows the part that is wrong."""
    with pytest.raises(ValueError, match=part):
        parse_bwlimit(text)


def test_a_mistake_on_the_command_line() -> None:
    """The error of a whole command line names the flag, its value and the part that is wrong, in one line."""
    flag = Flag("bwlimit", parse_bwlimit, Limits(), "Limit.", "RATE")
    with pytest.raises(ConfigurationError) as caught:
        parse_command_line(["--bwlimit", "08:00,512k 12:99,off"], [flag])
    assert str(caught.value).startswith("--bwlimit: '08:00,512k 12:99,off': '12:99' is not a time")
    assert "\n" not in str(caught.value)


def test_the_text_is_kept() -> None:
    """What was written can be shown again."""
    assert str(parse_bwlimit("10M:100k")) == "10M:100k"
    assert str(Limits()) == "off"


ENTRIES = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 23), st.integers(0, 59), st.integers(1, 99)), min_size=1, max_size=9
)


@given(ENTRIES, st.integers(0, 7 * 24 * 60 - 1))
def test_any_timetable(entries: list[tuple[int, int, int, int]], minute: int) -> None:
    """At any minute the rate is that of the entry that was met last when going back in time."""
    days = ("Mon", "tuesday", "Wed", "THU", "Friday", "sat", "Sun")
    text = " ".join(f"{days[day]}-{hour:02}:{minute:02},{rate}B" for day, hour, minute, rate in entries)
    rates = {(day * 24 + hour) * 60 + minute: rate for day, hour, minute, rate in entries}
    back = minute
    while back not in rates:
        back = (back - 1) % (7 * 24 * 60)
    assert parse_bwlimit(text).up.at(datetime(2024, 1, 1) + timedelta(minutes=minute)) == rates[back]
