from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from zope.interface.verify import verifyObject

from resticd.errors import ConfigurationError
from resticd.events import Change, LoginRefused, RequestFailed
from resticd.interfaces import Caller, IEventSink
from resticd.observe import audit as module
from resticd.observe.appendfile import LOOK_EVERY
from resticd.observe.audit import RETRY_EVERY, AuditLog

BOB = Caller("bob", "192.0.2.7")
NAME = "2159dd48" * 8


def stored(number: int = 0) -> Change:
    return Change(BOB, "store", "/laptop", "data", NAME, number)


class Audit:
    """An audit log on a disk that may be full: ``room`` is how many bytes it takes, None for any number."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.clock = Clock()
        self.room: int | None = None
        self.logged: list[str] = []
        self.log = AuditLog(str(path), self.clock, lambda: 1795867200.25)
        write = os.write

        def limited(fd: int, data: bytes | memoryview) -> int:
            if self.room is None:
                return write(fd, data)
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = write(fd, data[: self.room])
            self.room -= written
            return written

        monkeypatch.setattr("resticd.observe.appendfile.os.write", limited)

    def records(self, path: Path | None = None) -> list[dict]:
        """What is written, each line by itself."""
        return [json.loads(line) for line in (path or self.path).read_text().splitlines()]

    def sizes(self, path: Path | None = None) -> list[int]:
        return [record["size"] for record in self.records(path)]

    def see(self, event: dict) -> None:
        if event["log_namespace"] == "resticd.audit":
            self.logged.append(formatEvent(event))


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Audit]:
    made = Audit(tmp_path / "audit", monkeypatch)
    globalLogPublisher.addObserver(made.see)
    made.log.start()
    yield made
    globalLogPublisher.removeObserver(made.see)
    made.room = None
    made.log.stop()


def test_it_is_a_sink(audit: Audit) -> None:
    assert verifyObject(IEventSink, audit.log)


def test_a_stored_file_is_a_record(audit: Audit) -> None:
    audit.log.emit(stored(1234))
    assert audit.records() == [
        {
            "time": "2026-11-28T12:00:00.250Z",
            "user": "bob",
            "address": "192.0.2.7",
            "action": "store",
            "repository": "/laptop",
            "type": "data",
            "name": NAME,
            "size": 1234,
            "outcome": "done",
        }
    ]


def test_what_was_refused_says_why(audit: Audit) -> None:
    audit.log.emit(Change(Caller(None, "::1"), "remove", "/", outcome="refused", reason="append-only"))
    audit.log.emit(LoginRefused("192.0.2.7", "bob", "wrong user or password"))
    first, second = audit.records()
    assert first == {
        "time": "2026-11-28T12:00:00.250Z",
        "user": None,
        "address": "::1",
        "action": "remove",
        "repository": "/",
        "outcome": "refused",
        "reason": "append-only",
    }
    assert (second["action"], second["user"], second["outcome"]) == ("login", "bob", "refused")


def test_an_empty_file_has_a_size(audit: Audit) -> None:
    audit.log.emit(stored(0))
    assert audit.sizes() == [0]


def test_what_changes_nothing_is_no_record(audit: Audit) -> None:
    audit.log.emit(RequestFailed("GET", "/x", 500, "x"))
    assert audit.records() == []


def test_words_of_clients_stay_inside_their_strings(audit: Audit) -> None:
    audit.log.emit(LoginRefused("192.0.2.7", 'x"}\n{"user": "root\ud800\u2028', "x"))
    (record,) = audit.records()
    assert record["user"] == 'x"}\n{"user": "root\ud800\u2028'
    assert audit.path.read_bytes().isascii()


def test_a_record_is_written_before_emit_returns(audit: Audit) -> None:
    for number in range(1000):
        audit.log.emit(stored(number))
        assert audit.path.read_bytes().count(b"\n") == number + 1
    assert audit.sizes() == list(range(1000))


def test_a_full_disk_loses_nothing_and_says_so_once(audit: Audit) -> None:
    audit.log.emit(stored(0))
    audit.room = 0
    for number in range(1, 4):
        audit.log.emit(stored(number))
        audit.clock.advance(RETRY_EVERY)
    assert audit.sizes() == [0]
    assert audit.logged == [f"audit log: cannot write {audit.path}: No space left on device"]
    audit.room = None
    audit.clock.advance(RETRY_EVERY)
    audit.log.emit(stored(4))
    assert audit.sizes() == [0, 1, 2, 3, 4]
    assert audit.logged[1:] == [f"{audit.path} is written again"]


@pytest.mark.parametrize("room", [1, 100, 250, 400])
def test_a_record_of_which_a_part_was_written_is_completed(audit: Audit, room: int) -> None:
    audit.room = room
    for number in range(3):
        audit.log.emit(stored(number))
    audit.room = None
    audit.clock.advance(RETRY_EVERY)
    assert audit.sizes() == [0, 1, 2]


def test_a_record_that_was_cut_by_a_rotation_is_whole_in_the_new_file(audit: Audit) -> None:
    audit.room = 100
    audit.log.emit(stored(0))
    audit.path.rename(audit.path.with_suffix(".1"))
    audit.room = None
    audit.clock.advance(max(RETRY_EVERY, LOOK_EVERY))
    assert audit.sizes() == [0]
    assert len(audit.path.with_suffix(".1").read_bytes()) == 100


def test_what_has_no_place_in_memory_goes_to_the_log(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKLOG", 600)
    audit.room = 0
    for number in range(5):
        audit.log.emit(stored(number))
    lost = [json.loads(line.partition(": ")[2])["size"] for line in audit.logged if line.startswith("not in")]
    audit.room = None
    audit.clock.advance(RETRY_EVERY)
    assert audit.sizes() + lost == [0, 1, 2, 3, 4]
    assert lost


def test_what_still_waits_at_the_end_goes_to_the_log(audit: Audit) -> None:
    audit.room = 0
    audit.log.emit(stored(7))
    audit.log.stop()
    assert '"size": 7' in audit.logged[-1]
    assert not audit.clock.getDelayedCalls()


def test_a_rotated_file_is_left(audit: Audit) -> None:
    audit.log.emit(stored(0))
    audit.path.rename(audit.path.with_suffix(".1"))
    audit.log.reopen()
    audit.log.emit(stored(1))
    audit.path.rename(audit.path.with_suffix(".2"))
    audit.clock.advance(LOOK_EVERY)
    audit.log.emit(stored(2))
    assert [audit.sizes(audit.path.with_suffix(suffix)) for suffix in (".1", ".2", "")] == [[0], [1], [2]]


def test_a_truncated_file_goes_on(audit: Audit) -> None:
    audit.log.emit(stored(0))
    os.truncate(audit.path, 0)
    audit.log.emit(stored(1))
    assert audit.sizes() == [1]


def test_a_file_that_cannot_be_opened_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--audit-log: cannot open /.*/none/audit: No such file or directory"):
        AuditLog(str(tmp_path / "none/audit"), Clock()).start()


@pytest.mark.parametrize("room", [1, 60])
def test_a_record_that_was_cut_beside_another_process_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """What the other one writes meanwhile is no part of it, and each whole record is a line."""
    audit = Audit(tmp_path / "audit.jsonl", monkeypatch)
    audit.log = AuditLog(str(audit.path), audit.clock, lambda: 1795867200.25, shared=True)
    audit.log.start()
    audit.room = room
    audit.log.emit(stored(1))
    audit.log.emit(stored(2))
    audit.room = None
    with audit.path.open("a") as other:
        other.write('\n{"size": 3}\n')
    audit.clock.advance(RETRY_EVERY)
    lines = audit.path.read_text().splitlines()
    assert [json.loads(line)["size"] for line in lines if line.startswith("{") and line.endswith("}")][-2:] == [1, 2]
    assert sum(line.endswith("}") for line in lines) == 3
    audit.log.stop()
