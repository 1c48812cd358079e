from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from resticd.errors import ConfigurationError
from resticd.observe import destinations
from resticd.observe.destinations import LONGEST, StreamDestination, SyslogDestination
from resticd.observe.levels import Level


@pytest.fixture
def daemon(tmp_path: Path) -> socket.socket:
    """A syslog daemon's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "log"))
        listening.settimeout(5)
        yield listening


def test_syslog_gets_each_line_with_priority_time_and_tag(daemon: socket.socket, tmp_path: Path) -> None:
    syslog = SyslogDestination("LOCAL3", path=str(tmp_path / "log"))
    syslog.write(Level.ERROR, "ERROR : one\n\ttwo")
    first, second = daemon.recv(9999), daemon.recv(9999)
    assert first.startswith(b"<155>")  # 19 * 8 + 3
    assert first[5:20].count(b":") == 2
    assert first.endswith(b" resticd[%d]: ERROR : one" % os.getpid())
    assert second.endswith(b": \ttwo")


def test_a_line_that_is_too_long_for_syslog_is_cut(daemon: socket.socket, tmp_path: Path) -> None:
    SyslogDestination("USER", path=str(tmp_path / "log")).write(Level.INFO, "x" * 100_000)
    assert len(daemon.recv(99999)) == LONGEST


def test_a_syslog_daemon_that_was_restarted_is_found_again(daemon: socket.socket, tmp_path: Path) -> None:
    syslog = SyslogDestination("DAEMON", path=str(tmp_path / "log"))
    daemon.close()
    (tmp_path / "log").unlink()
    with pytest.raises(FileNotFoundError):
        syslog.write(Level.INFO, "lost")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.bind(str(tmp_path / "log"))
        syslog.write(Level.INFO, "found")
        assert again.recv(9999).endswith(b"found")


def test_a_syslog_daemon_that_hangs_does_not_hold_anybody_up(daemon: socket.socket, tmp_path: Path) -> None:
    syslog = SyslogDestination("DAEMON", path=str(tmp_path / "log"))
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            syslog.write(Level.INFO, "x" * 1000)


def test_no_syslog_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--syslog: cannot reach .*: No such file"):
        SyslogDestination("DAEMON", path=str(tmp_path / "none"))


def test_an_unknown_facility_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"--syslog-facility: .*: BREAKFAST"):
        SyslogDestination("BREAKFAST")


def test_a_full_pipe_is_waited_for_until_it_is_read() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    text = "x" * 200_000  # more than a pipe holds
    received = bytearray()

    def read() -> None:
        while len(received) < len(text) + 1:
            received.extend(os.read(reading, 65536))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        StreamDestination(writing).write(Level.INFO, text)
    finally:
        reader.join(10)
        os.close(reading)
        os.close(writing)
    assert bytes(received) == text.encode() + b"\n"


def test_a_pipe_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "PATIENCE", 0.01)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        with pytest.raises(BlockingIOError):
            StreamDestination(writing).write(Level.INFO, "x" * 200_000)
    finally:
        os.close(reading)
        os.close(writing)


def test_lone_surrogates_can_be_written() -> None:
    reading, writing = os.pipe()
    StreamDestination(writing).write(Level.INFO, "\udc80ü")
    assert os.read(reading, 99) == "\\udc80ü\n".encode()
    os.close(reading)
    os.close(writing)
