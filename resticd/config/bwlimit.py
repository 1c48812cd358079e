"""``--bwlimit`` and ``--bwlimit-file``: one rate, or a timetable, as rclone reads them (``fs/bwtimetable.go``).

One rate holds always: ``10M``, or ``10M:100k`` for uploads and downloads. A timetable is a list of ``HH:MM,RATE`` and
``DAY-HH:MM,RATE`` with spaces or semicolons between; without a day an entry counts for every day. A rate holds until
the next one begins, across the end of the week too. (Between Sunday 00:00 and the first entry of Sunday rclone takes
the entry that was *written* last, against its own documentation.)

A rate is in KiB per second, or has a suffix B, K, M, G, T, P or E; ``off`` and 0 are no limit. Times are local.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from resticd.bandwidth import Limits, Timetable
from resticd.config.flags import parse_size

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)
_MINUTES_A_DAY = 24 * 60


def parse_bwlimit(text: str) -> Limits:
    """What ``text`` says. Raises ``ValueError`` that shows the part that is wrong."""
    entries = [entry for entry in re.split(r"[\s;]+", text) if entry]
    if not entries:
        raise ValueError("empty")
    up: dict[int, int | None] = {}
    down: dict[int, int | None] = {}
    if len(entries) == 1 and "," not in entries[0]:
        up[0], down[0] = _parse_rates(entries[0])
    else:
        for entry in entries:
            when, comma, rates = entry.partition(",")
            if not comma:
                raise ValueError(f"{entry!r} is not an entry such as 08:00,512k or Mon-08:00,10M:1M")
            pair = _parse_rates(rates)
            for minute in _parse_when(when):
                up[minute], down[minute] = pair
    return Limits(_timetable(up), _timetable(down), text)


def _timetable(rates: Mapping[int, int | None]) -> Timetable:
    return Timetable(tuple(sorted(rates.items())))


def _parse_rates(text: str) -> tuple[int | None, int | None]:
    """Bytes per second up and down."""
    up, colon, down = text.partition(":")
    return _parse_rate(up, text), _parse_rate(down if colon else up, text)


def _parse_rate(text: str, whole: str) -> int | None:
    try:
        return parse_size(text) or None
    except ValueError:
        raise ValueError(f"{whole!r} is not a rate such as 512, 10M, 10M:100k or off") from None


def _parse_when(text: str) -> list[int]:
    """The minutes of the week that an entry begins at."""
    day, dash, time = text.rpartition("-")
    match = _TIME.fullmatch(time)
    if match is None:
        raise ValueError(f"{time!r} is not a time of the day from 00:00 to 23:59")
    minute = int(match[1]) * 60 + int(match[2])
    return [number * _MINUTES_A_DAY + minute for number in (_parse_day(day) if dash else range(7))]


def _parse_day(text: str) -> list[int]:
    for number, name in enumerate(_DAYS):
        if text.lower() in (name, name[:3]):
            return [number]
    raise ValueError(f"{text!r} is not a day of the week such as Mon or monday")
