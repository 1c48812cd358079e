from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

from resticd.errors import ConfigurationError
from resticd.events import RequestDone, RequestFailed, Transfer, TransferDone, TransferStarted
from resticd.interfaces import Caller, IEventSink
from resticd.observe.entry import json_form, plain_form
from resticd.observe.levels import Level
from resticd.observe.observers import LogObserver
from resticd.observe.report import MOST_ROWS, NAME_LENGTH
from resticd.observe.scrub import Scrubber
from resticd.observe.stats import REST_AFTER, Statistics, StatsOptions

MIB = 2**20
DONE = RequestDone(Caller(), "GET", "/config", "HTTP/1.1", 200, 0, 155, 0.001)


class Bench:
    """Statistics on a fake clock, and what is logged."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.texts: list[str] = []
        self.objects: list[dict] = []
        self.statistics = self.with_options()

    def with_options(self, **flags: object) -> Statistics:
        self.statistics = Statistics(StatsOptions.make(**flags), self.clock, lambda: 1795867200.0)
        return self.statistics

    def write(self, level: Level, text: str) -> None:
        (self.objects.append(json.loads(text)) if text.startswith("{") else self.texts.append(text))

    def transfer(self, size: int | None, upload: bool = True, name: str = "/laptop/data/2159") -> Transfer:
        transfer = Transfer(name, size, upload)
        self.statistics.emit(TransferStarted(transfer))
        return transfer

    def pass_time(self, seconds: int, *transfers: Transfer, speed: int = 0) -> None:
        for _ in range(seconds):
            for transfer in transfers:
                transfer.moved += speed
            self.clock.advance(1)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    observers = [LogObserver(Level.DEBUG, Scrubber(), form, made) for form in (plain_form, json_form)]
    for observer in observers:
        globalLogPublisher.addObserver(observer)
    yield made
    for observer in observers:
        globalLogPublisher.removeObserver(observer)
    made.statistics.stop()
    assert not made.clock.getDelayedCalls()


def test_it_is_a_sink(bench: Bench) -> None:
    assert verifyObject(IEventSink, bench.statistics)


def test_the_block_is_as_rclones(bench: Bench) -> None:
    bench.statistics.start()
    up = bench.transfer(16 * MIB)
    done = bench.transfer(5 * MIB, upload=False)
    bench.pass_time(10, up, speed=MIB)
    done.moved = 5 * MIB
    bench.statistics.emit(TransferDone(done, ok=True))
    bench.statistics.emit(DONE)
    bench.statistics.emit(RequestFailed("GET", "/x", 500, "x"))
    bench.pass_time(0)
    bench.statistics.print_now()
    (text,) = bench.texts
    rows = text.split("\n")
    assert rows == [
        "NOTICE: ",
        "Transferred:   \t       15 MiB / 21 MiB, 71%, 1 MiB/s, ETA 6s",
        "Received:             10 MiB, sent 5 MiB",
        "Errors:                 1",
        "Requests:               1",
        "Transferred:            1 / 2, 50%",
        "Elapsed time:        10.0s",
        "Transferring:",
        " * " + "/laptop/data/2159".rjust(NAME_LENGTH) + ": 62% / 16 MiB, 1 MiB/s, 6s, upload",
    ]
    bench.statistics.emit(TransferDone(up, ok=True))


def test_the_json_form_has_the_numbers(bench: Bench) -> None:
    up = bench.transfer(16 * MIB)
    bench.pass_time(4, up, speed=MIB)
    bench.statistics.print_now()
    (read,) = bench.objects
    assert read["level"] == "notice"
    assert "Transferred:" in read["msg"]
    assert read["stats"] == {
        "bytes": 4 * MIB,
        "received": 4 * MIB,
        "sent": 0,
        "totalBytes": 16 * MIB,
        "speed": MIB,
        "eta": 12,
        "elapsedTime": 4,
        "requests": 0,
        "errors": 0,
        "cut": 0,
        "transfers": 0,
        "failedTransfers": 0,
        "totalTransfers": 1,
        "transferring": [
            {
                "name": "/laptop/data/2159",
                "size": 16 * MIB,
                "bytes": 4 * MIB,
                "percentage": 25,
                "speedAvg": MIB,
                "eta": 12,
                "what": "upload",
            }
        ],
    }
    bench.statistics.emit(TransferDone(up, ok=False))


def test_one_line(bench: Bench) -> None:
    bench.with_options(stats_one_line=True, stats_unit="bits")
    up = bench.transfer(16 * MIB)
    bench.pass_time(4, up, speed=MIB)
    bench.statistics.print_now()
    assert bench.texts == ["NOTICE:         4 MiB / 16 MiB, 25%, 8 Mibit/s, ETA 12s (xfr#0/1)"]
    bench.statistics.emit(TransferDone(up, ok=True))


def test_one_line_with_a_date(bench: Bench) -> None:
    bench.with_options(stats_one_line_date=True)
    bench.statistics.print_now()
    assert re.fullmatch(r"NOTICE: 2026/11/2[78] \d\d:\d\d:00 -           0 B / 0 B, -, 0 B/s, ETA -", bench.texts[0])


def test_reports_come_with_the_period_at_their_level(bench: Bench) -> None:
    bench.with_options(stats=30.0, stats_log_level="ERROR", stats_one_line=True).start()
    bench.statistics.emit(DONE)
    bench.clock.advance(29)
    assert bench.texts == []
    bench.clock.advance(1)
    bench.statistics.emit(DONE)
    bench.clock.advance(30)
    assert len(bench.texts) == 2
    assert bench.texts[0].startswith("ERROR : ")


def test_a_period_in_which_nothing_happened_is_passed_over(bench: Bench) -> None:
    bench.with_options(stats=30.0).start()
    bench.statistics.emit(DONE)
    for _ in range(10):
        bench.clock.advance(30)
    assert len(bench.texts) == 1


def test_a_transfer_that_stands_still_is_reported(bench: Bench) -> None:
    bench.with_options(stats=30.0).start()
    transfer = bench.transfer(5)
    bench.clock.advance(30)
    bench.clock.advance(30)
    assert len(bench.texts) == 2
    bench.statistics.emit(TransferDone(transfer, ok=False))


def test_no_period_means_no_reports_but_when_asked_for(bench: Bench) -> None:
    bench.with_options(stats=0.0).start()
    bench.statistics.emit(DONE)
    bench.clock.advance(3600)
    assert bench.texts == []
    bench.statistics.print_now()
    assert len(bench.texts) == 1


def test_a_report_that_was_asked_for_is_shown_at_the_default_level(bench: Bench) -> None:
    bench.with_options(stats_log_level="DEBUG").print_now()
    bench.with_options(stats_log_level="ERROR").print_now()
    assert [text[:6] for text in bench.texts] == ["NOTICE", "ERROR "]


def test_the_last_report_comes_at_the_end(bench: Bench) -> None:
    bench.statistics.start()
    bench.statistics.emit(DONE)
    bench.statistics.stop()
    assert len(bench.texts) == 1


def test_a_transfer_in_one_step(bench: Bench) -> None:
    """It is never running, but it counts."""
    bench.statistics.emit(TransferDone(Transfer("/config", 155, upload=False, moved=155), ok=True))
    snapshot = bench.statistics.snapshot()
    assert (snapshot.done, snapshot.sent, snapshot.running) == (1, 155, ())


def test_what_failed_and_what_was_cut_is_counted(bench: Bench) -> None:
    transfer = bench.transfer(10)
    transfer.moved = 3
    bench.statistics.emit(TransferDone(transfer, ok=False))
    bench.statistics.emit(RequestDone(Caller(), "GET", "/", "HTTP/1.1", 200, 0, 0, 0.0, complete=False))
    snapshot = bench.statistics.snapshot()
    assert (snapshot.failed, snapshot.done, snapshot.cut, snapshot.requests) == (1, 0, 1, 1)
    assert snapshot.moved == snapshot.total == 3
    bench.statistics.print_now()
    assert ", 1 failed\n" in bench.texts[0]
    assert ", 1 cut short\n" in bench.texts[0]


def test_a_transfer_of_unknown_size(bench: Bench) -> None:
    transfer = bench.transfer(None)
    bench.pass_time(2, transfer, speed=MIB)
    bench.statistics.print_now()
    assert ":  - / 2 MiB, 1 MiB/s, -, upload" in bench.texts[0]
    bench.statistics.emit(TransferDone(transfer, ok=True))


def test_the_average_rests_when_nothing_is_moved(bench: Bench) -> None:
    transfer = bench.transfer(10 * MIB)
    bench.pass_time(10, transfer, speed=MIB)
    bench.statistics.emit(TransferDone(transfer, ok=True))
    assert bench.statistics.snapshot().speed == MIB
    bench.pass_time(int(REST_AFTER) - 1)
    assert 0 < bench.statistics.snapshot().speed < MIB / 10
    bench.pass_time(1)
    assert bench.statistics.snapshot().speed == 0
    assert not bench.clock.getDelayedCalls()
    again = bench.transfer(10 * MIB)
    bench.pass_time(1, again, speed=2 * MIB)
    assert bench.statistics.snapshot().speed == 2 * MIB
    bench.statistics.emit(TransferDone(again, ok=True))


def test_a_long_name_loses_its_middle_and_a_hostile_one_its_teeth(bench: Bench) -> None:
    bench.transfer(1, name="/laptop/data/" + "2159dd48" * 8)
    bench.transfer(1, name="/a\nNOTICE: login refused\x1b[2J\u202e")
    bench.statistics.print_now()
    rows = [row for row in bench.texts[0].split("\n") if row.startswith(" * ")]
    assert [len(row.split(": ")[0]) for row in rows[:1]] == [NAME_LENGTH + 3]
    assert "…" in rows[0]
    assert r"/a\nNOTICE: login refused\x1b[2J\u202e" in rows[1]


def test_a_report_names_only_so_many_transfers(bench: Bench) -> None:
    for number in range(MOST_ROWS + 7):
        bench.transfer(1, name=f"/{number}")
    bench.statistics.print_now()
    assert bench.texts[0].endswith("\n * and 7 more")
    assert len(bench.objects[0]["stats"]["transferring"]) == MOST_ROWS


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"stats_unit": "furlongs"}, "--stats-unit: neither bits nor bytes: furlongs"),
        ({"stats_log_level": "LOUD"}, "--stats-log-level: .*: LOUD"),
        ({"stats_log_level": "OFF"}, "--stats-log-level: not OFF"),
    ],
)
def test_wrong_flags(flags: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        StatsOptions.make(**flags)
