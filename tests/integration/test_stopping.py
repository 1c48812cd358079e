"""Stopping: what runs comes to its end, or is broken off cleanly."""

from __future__ import annotations

import hashlib
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
from support.daemons import Server

from resticd.sd_notify import Notifier

Start = Callable[..., Server]
BODY = os.urandom(2_000_000)
NAME = hashlib.sha256(BODY).hexdigest()


def begin_upload(server: Server) -> socket.socket:
    """An upload of which the half is sent."""
    wire = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    wire.sendall(f"POST /data/{NAME} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode())
    wire.sendall(BODY[: len(BODY) // 2])
    return wire


def refuses(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Manager:
    """Stands in for systemd: reads what services say without a pause, since what does not fit is dropped."""

    def __init__(self, directory: Path) -> None:
        self._address = str(directory / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._address)
        self._messages: queue.Queue[list[str]] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self.seen: list[str] = []

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._address)
        self._reader.join()
        self._socket.close()

    def environment(self, watchdog: str | None) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self._address} | ({"WATCHDOG_USEC": watchdog} if watchdog else {})

    def wait_for(self, line: str) -> list[str]:
        """The lines of the next message with ``line``."""
        deadline = time.monotonic() + 90
        while True:
            lines = self._messages.get(timeout=max(deadline - time.monotonic(), 0))
            if line in lines:
                return lines

    def _read(self) -> None:
        while message := self._socket.recv(4096):
            lines = message.decode().split("\n")
            self.seen += lines
            self._messages.put(lines)


def test_a_running_upload_is_finished(start_resticd: Start, tmp_path: Path) -> None:
    """SIGTERM: no new connections, idle ones close, the upload goes on, and then the server ends."""
    store = tmp_path / "store"
    server = start_resticd(store)
    idle = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    idle.sendall(b"GET /keys/ HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in idle.recv(4096)
    wire = begin_upload(server)
    eventually(lambda: list(store.rglob(".resticd-*")), "the upload begins")
    os.kill(server.pid, signal.SIGTERM)
    assert idle.recv(4096) == b""
    eventually(lambda: refuses(server), "no new connections")
    wire.sendall(BODY[len(BODY) // 2 :])
    answer = wire.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer.lower()
    assert server.process.wait(60) == -signal.SIGTERM  # as twistd ends
    assert (store / "data" / NAME[:2] / NAME).read_bytes() == BODY


def test_a_stalled_upload_is_broken_off(start_resticd: Start, tmp_path: Path) -> None:
    """After --shutdown-timeout nothing of it is left."""
    store = tmp_path / "store"
    server = start_resticd(store, "--shutdown-timeout", "500ms")
    wire = begin_upload(server)
    eventually(lambda: list(store.rglob(".resticd-*")), "the upload begins")
    os.kill(server.pid, signal.SIGTERM)
    assert server.process.wait(60) == -signal.SIGTERM  # as twistd ends
    assert not [path for path in store.rglob("*") if path.is_file()]
    wire.close()


def test_a_second_signal_ends_at_once(start_resticd: Start, tmp_path: Path) -> None:
    store = tmp_path / "store"
    server = start_resticd(store, "--shutdown-timeout", "10m")
    wire = begin_upload(server)
    eventually(lambda: list(store.rglob(".resticd-*")), "the upload begins")
    os.kill(server.pid, signal.SIGTERM)
    eventually(lambda: refuses(server), "it is stopping")
    os.kill(server.pid, signal.SIGTERM)
    assert server.process.wait(60) == -signal.SIGTERM  # as twistd ends
    assert not [path for path in store.rglob("*") if path.is_file()]
    wire.close()


@pytest.mark.parametrize("sent", [b"", b"GET /ke", b"GET /keys/ HTTP/1.1\r\nHost: x\r\n"])
def test_a_request_on_its_way_is_answered(start_resticd: Start, tmp_path: Path, sent: bytes) -> None:
    """A client that has connected, and knows nothing of the stop, is not turned away."""
    server = start_resticd(":memory:")
    wire = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    wire.sendall(sent)
    # The server has accepted it when it answers a later one.
    other = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    other.sendall(b"GET /keys/ HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in other.recv(4096)
    os.kill(server.pid, signal.SIGTERM)
    assert other.recv(4096) == b""
    wire.sendall(b"GET /keys/ HTTP/1.1\r\nHost: x\r\n\r\n"[len(sent) :])
    answer = wire.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert server.process.wait(60) == -signal.SIGTERM  # as twistd ends


@pytest.mark.parametrize("watchdog", [False, True])
def test_the_service_manager_is_told(start_resticd: Start, tmp_path: Path, watchdog: bool) -> None:
    """READY when it listens, signs of life when they are wanted, STOPPING when it goes."""
    with Manager(tmp_path) as manager:
        server = start_resticd(":memory:", environment=manager.environment("400000" if watchdog else None))
        starting = manager.wait_for("STATUS=starting")
        assert "EXTEND_TIMEOUT_USEC=60000000" in starting
        assert "STATUS=serving :memory:" in manager.wait_for("READY=1")
        if watchdog:
            manager.wait_for("WATCHDOG=1")
            manager.wait_for("WATCHDOG=1")
        os.kill(server.pid, signal.SIGHUP)
        assert any(line.startswith("MONOTONIC_USEC=") for line in manager.wait_for("RELOADING=1"))
        assert "STATUS=serving :memory:" in manager.wait_for("READY=1")
        os.kill(server.pid, signal.SIGTERM)
        assert "EXTEND_TIMEOUT_USEC=40000000" in manager.wait_for("STOPPING=1")
        assert server.process.wait(60) == -signal.SIGTERM  # as twistd ends
    assert ("WATCHDOG=1" in manager.seen) is watchdog


def test_children_say_nothing_to_the_service_manager() -> None:
    """What they would need for that is not handed on."""
    environ: dict[str, str] = {"NOTIFY_SOCKET": "@there", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1", "HOME": "/"}
    assert Notifier.take_from(environ) == Notifier("@there", 0.0)
    assert environ == {"HOME": "/"}
    assert Notifier.take_from({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}).watchdog == 3.0
