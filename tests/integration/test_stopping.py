"""Stopping: what runs comes to its end, or is broken off cleanly."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemons import Server

Start = Callable[..., Server]
BODY = os.urandom(2_000_000)
NAME = hashlib.sha256(BODY).hexdigest()


def begin_upload(server: Server) -> socket.socket:
    """An upload of which the half is sent."""
    wire = socket.create_connection(("127.0.0.1", server.port), timeout=30)
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
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_a_running_upload_is_finished(start_resticd: Start, tmp_path: Path) -> None:
    """SIGTERM: no new connections, idle ones close, the upload goes on, and then the server ends."""
    store = tmp_path / "store"
    server = start_resticd(store)
    idle = socket.create_connection(("127.0.0.1", server.port), timeout=30)
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
    assert server.process.wait(20) == -signal.SIGTERM  # as twistd ends
    assert (store / "data" / NAME[:2] / NAME).read_bytes() == BODY


def test_a_stalled_upload_is_broken_off(start_resticd: Start, tmp_path: Path) -> None:
    """After --shutdown-timeout nothing of it is left."""
    store = tmp_path / "store"
    server = start_resticd(store, "--shutdown-timeout", "500ms")
    wire = begin_upload(server)
    eventually(lambda: list(store.rglob(".resticd-*")), "the upload begins")
    os.kill(server.pid, signal.SIGTERM)
    assert server.process.wait(20) == -signal.SIGTERM  # as twistd ends
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
    assert server.process.wait(20) == -signal.SIGTERM  # as twistd ends
    assert not [path for path in store.rglob("*") if path.is_file()]
    wire.close()


@pytest.mark.parametrize("watchdog", [False, True])
def test_the_service_manager_is_told(start_resticd: Start, tmp_path: Path, watchdog: bool) -> None:
    """READY when it listens, signs of life when they are wanted, STOPPING when it goes."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(20)
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    if watchdog:
        environment["WATCHDOG_USEC"] = "200000"
    server = start_resticd(":memory:", environment=environment)
    message = manager.recv(4096).decode()
    assert "READY=1" in message
    assert "STATUS=serving :memory:" in message
    if watchdog:
        assert manager.recv(4096) == b"WATCHDOG=1"
        assert manager.recv(4096) == b"WATCHDOG=1"
    os.kill(server.pid, signal.SIGTERM)
    while "STOPPING=1" not in (message := manager.recv(4096).decode()):
        assert message == "WATCHDOG=1"
    assert "EXTEND_TIMEOUT_USEC=" in message
    assert server.process.wait(20) == -signal.SIGTERM  # as twistd ends
