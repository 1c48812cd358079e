"""HTTP/2 on standard input and output, without restic."""

from __future__ import annotations

import hashlib
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hyperframe.frame import DataFrame, SettingsFrame
from support.h2_client import RESTICD, Stdio, all_frames

BODY = os.urandom(1_000_000)
PATH = f"/data/{hashlib.sha256(BODY).hexdigest()}"
LENGTH = ("content-length", str(len(BODY)))


def files(store: Path) -> list[Path]:
    return [path for path in store.rglob("*") if path.is_file()]


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_requests(tmp_path: Path) -> None:
    with Stdio(tmp_path / "store", tmp_path) as resticd:
        ask = resticd.client.ask
        assert ask("POST", "/?create=true").status == 200
        assert ask("POST", PATH, BODY).status == 200
        assert ask("GET", PATH).body == BODY
        assert ask("GET", PATH, b"", ("range", "bytes=10-19")).body == BODY[10:20]
        assert ask("HEAD", PATH).headers["content-length"] == str(len(BODY))
        assert ask("DELETE", PATH).status == 200
        assert ask("GET", PATH).status == 404
        assert resticd.end() == 0
    assert resticd.output() == ""


def test_nothing_but_frames(tmp_path: Path) -> None:
    """However much is logged, it goes to standard error."""
    with Stdio(tmp_path / "store", tmp_path, "-vv", "--stats", "10ms", "--fast-list") as resticd:
        assert resticd.client.ask("POST", PATH, BODY).status == 200
        assert resticd.client.ask("GET", PATH).body == BODY
        eventually(lambda: "Transferred" in resticd.output())
        assert resticd.end() == 0
    frames = all_frames(resticd.client.received)
    assert isinstance(frames[0], SettingsFrame)
    assert b"".join(frame.data for frame in frames if isinstance(frame, DataFrame)) == BODY
    assert f"GET {PATH}" in resticd.output()
    assert "--fast-list has no meaning here" in resticd.output()


def test_an_idle_server_ends_at_once(tmp_path: Path) -> None:
    with Stdio(":memory:", tmp_path) as resticd:
        assert resticd.client.step()
        assert resticd.end() == 0
        assert resticd.client.goaway == 0


def test_standard_input_that_is_closed_from_the_start() -> None:
    command = [RESTICD, "serve", "restic", "--stdio", ":memory:"]
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    all_frames(done.stdout)


def test_a_complete_upload_is_stored_and_answered(tmp_path: Path) -> None:
    """Its last byte is the last thing that comes."""
    with Stdio(tmp_path / "store", tmp_path) as resticd:
        stream = resticd.client.begin("POST", PATH, LENGTH, end=False)
        resticd.client.upload(stream, BODY)
        assert resticd.end() == 0
        assert resticd.client.responses[stream].complete
        assert resticd.client.responses[stream].status == 200
    assert (tmp_path / "store/data" / PATH[6:8] / PATH[6:]).read_bytes() == BODY


def test_a_broken_upload_leaves_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with Stdio(store, tmp_path) as resticd:
        stream = resticd.client.begin("POST", PATH, LENGTH, end=False)
        resticd.client.upload(stream, BODY[:-1], end=False)
        eventually(lambda: files(store))
        assert resticd.end() == 0
        assert not resticd.client.responses[stream].complete
    assert not files(store)


def test_an_answer_that_nobody_reads_does_not_keep_it(tmp_path: Path) -> None:
    """The window is used up and nobody can open it any more."""
    with Stdio(tmp_path / "store", tmp_path, window=65_535) as resticd:
        assert resticd.client.ask("POST", PATH, BODY).status == 200
        resticd.client.reads = False
        stream = resticd.client.begin("GET", PATH)
        while len(resticd.client.responses[stream].body) < 65_535:
            assert resticd.client.step()
        assert resticd.end() == 0
        assert not resticd.client.responses[stream].complete


def test_standard_output_that_is_closed_ends_it(tmp_path: Path) -> None:
    """In the middle of an upload, while standard input stays open."""
    store = tmp_path / "store"
    with Stdio(store, tmp_path) as resticd:
        stream = resticd.client.begin("POST", PATH, LENGTH, end=False)
        resticd.client.upload(stream, BODY[:-1], end=False)
        eventually(lambda: files(store))
        resticd.stdout.close()
        assert resticd.process.wait(60) == 0
    assert not files(store)
    assert "Traceback" not in resticd.output()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_request_end(tmp_path: Path, number: signal.Signals) -> None:
    with Stdio(tmp_path / "store", tmp_path) as resticd:
        client = resticd.client
        stream = client.begin("POST", PATH, LENGTH, end=False)
        client.upload(stream, BODY[:-1], end=False)
        resticd.process.send_signal(number)
        while client.goaway is None:
            assert client.step()
        client.upload(stream, BODY[-1:])
        assert client.wait(stream).status == 200
        assert resticd.process.wait(60) == 0
    assert len(files(tmp_path / "store")) == 1


def test_protocol_errors_end_it_too(tmp_path: Path) -> None:
    with Stdio(tmp_path / "store", tmp_path) as resticd:
        assert resticd.client.ask("GET", "/config").status == 404
        os.write(resticd.stdin.fileno(), bytes.fromhex("000001") + bytes(1000))
        while resticd.client.step():
            pass
        assert resticd.process.wait(60) == 0
    all_frames(resticd.client.received)


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_a_terminal_is_refused(stream: str) -> None:
    """A person who tries it reads a sentence, not frames."""
    ours, theirs = pty.openpty()
    try:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, stream: theirs}
        command = [RESTICD, "serve", "restic", "--stdio", ":memory:"]
        done = subprocess.run(command, check=False, stderr=subprocess.PIPE, timeout=60, **streams)
        os.write(theirs, b".")
        assert os.read(ours, 100) == b"."
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 1
    assert not done.stdout
    assert b"terminal" in done.stderr
    assert b"Traceback" not in done.stderr
