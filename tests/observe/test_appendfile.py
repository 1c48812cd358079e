from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from resticd.observe.appendfile import LOOK_EVERY, AppendFile


class Log:
    """A file with a clock, and what was complained of."""

    def __init__(self, path: Path, **keywords: object) -> None:
        self.path = path
        self.clock = Clock()
        self.complaints: list[str] = []
        self.file = AppendFile(str(path), self.clock, self.complaints.append, **keywords)

    def line(self, text: str) -> None:
        self.file.follow()
        self.file.write(text.encode() + b"\n")


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path / "x.log")
    made.file.open()
    yield made
    made.file.close()


def test_what_is_there_already_is_kept(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("old\n")
    log = Log(tmp_path / "x.log")
    log.line("new")
    assert log.path.read_text() == "old\nnew\n"


def test_a_new_file_is_for_owner_and_group(log: Log) -> None:
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o640 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_new_file_belongs_to_whom_the_process_becomes(tmp_path: Path) -> None:
    Log(tmp_path / "x.log", owner=(12345, -1)).file.open()
    assert (tmp_path / "x.log").stat().st_uid == 12345
    (tmp_path / "y.log").touch()
    Log(tmp_path / "y.log", owner=(12345, -1)).file.open()
    assert (tmp_path / "y.log").stat().st_uid == 0


def test_a_renamed_file_is_left_within_a_second(log: Log) -> None:
    """As logrotate does with ``create`` or ``nocreate``."""
    log.line("1")
    log.path.rename(log.path.with_suffix(".1"))
    log.line("2")
    assert log.path.with_suffix(".1").read_text() == "1\n2\n"
    log.clock.advance(LOOK_EVERY)
    log.line("3")
    assert log.path.with_suffix(".1").read_text() == "1\n2\n"
    assert log.path.read_text() == "3\n"


def test_another_file_in_its_place_is_taken(log: Log) -> None:
    log.path.rename(log.path.with_suffix(".1"))
    log.path.touch(mode=0o600)
    log.clock.advance(LOOK_EVERY)
    log.line("1")
    assert log.path.read_text() == "1\n"
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_a_truncated_file_goes_on_at_its_beginning(log: Log) -> None:
    """As logrotate does with ``copytruncate``."""
    log.line("1")
    os.truncate(log.path, 0)
    log.line("2")
    assert log.path.read_bytes() == b"2\n"


def test_reopen_moves_on_at_once(log: Log) -> None:
    log.path.rename(log.path.with_suffix(".1"))
    log.file.reopen()
    log.line("1")
    assert log.path.read_text() == "1\n"


def test_where_no_new_file_can_be_made_the_old_one_is_written_on(log: Log) -> None:
    moved = log.path.with_suffix(".1")
    log.path.rename(moved)
    log.path.mkdir()
    for number in range(3):
        log.clock.advance(LOOK_EVERY)
        log.line(str(number))
    assert moved.read_text() == "0\n1\n2\n"
    assert log.complaints == [f"cannot open {log.path}: Is a directory"]
    log.path.rmdir()
    log.clock.advance(LOOK_EVERY)
    log.line("3")
    assert log.path.read_text() == "3\n"


def test_a_closed_file_is_opened_by_the_next_line(log: Log) -> None:
    log.file.close()
    log.line("1")
    assert log.path.read_text() == "1\n"


def test_no_descriptor_is_left_behind(log: Log) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(10):
        log.file.reopen()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_pipe_that_nobody_reads_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.log")
    with pytest.raises(OSError, match="No such device"):
        Log(tmp_path / "x.log").file.open()


def test_a_relative_path_is_meant_from_where_the_program_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = Log(Path("x.log"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    log.line("1")
    assert (tmp_path / "x.log").read_text() == "1\n"
