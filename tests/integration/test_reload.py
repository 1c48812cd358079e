"""SIGHUP: everything is read anew; a mistake changes nothing and says where it is."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from support.asking import ask
from support.daemons import Server
from support.waiting import wait_until

Start = Callable[..., Server]
BODY = b"some bytes"
NAME = hashlib.sha256(BODY).hexdigest()
#: of "change-me"
HASH = "$2y$10$bwov8B1ViUt6FJyy/VDqWOEmQcf/FVUGIH3UeXlUa0gyvO.Zc0VKq"


def request(server: Server, method: str, path: str, body: bytes | None = None) -> int:
    try:
        made = urllib.request.Request(f"{server.url}{path}", body, method=method)
        with urllib.request.urlopen(made, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def reload(server: Server, expected: str) -> None:
    """Send SIGHUP and wait for a further line with ``expected``."""
    before = server.output().count(expected)
    os.kill(server.pid, signal.SIGHUP)
    deadline = time.monotonic() + 60
    while server.output().count(expected) == before:
        assert time.monotonic() < deadline, server.output()
        time.sleep(0.02)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "resticd.toml"
    path.write_text("append-only = false\n")
    return path


def test_policy_and_limits(start_resticd: Start, tmp_path: Path, settings: Path) -> None:
    server = start_resticd(tmp_path / "store", "-v", "--settings", str(settings))
    assert request(server, "POST", f"/data/{NAME}", BODY) == 200
    assert request(server, "DELETE", f"/data/{NAME}") == 200
    settings.write_text('append-only = true\nbwlimit = "1M"\n')
    reload(server, "reloaded")
    assert request(server, "POST", f"/data/{NAME}", BODY) == 200
    assert request(server, "DELETE", f"/data/{NAME}") == 403


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("append-only = true\nnonsense = 1\n", "resticd.toml:2: unknown setting 'nonsense'"),
        ('\n\nappend-only = "yes"\n', "resticd.toml:3: append-only: neither true nor false"),
        ("append-only = \n", "resticd.toml:1: "),
        ('append-only = true\nhtpasswd = "/nowhere/at/all"\n', "resticd.toml:2: htpasswd: /nowhere/at/all: "),
        ('append-only = true\nbwlimit = "fast"\n', "resticd.toml:2: bwlimit: 'fast'"),
    ],
)
def test_a_mistake_changes_nothing(
    start_resticd: Start, tmp_path: Path, settings: Path, text: str, complaint: str
) -> None:
    server = start_resticd(tmp_path / "store", "--settings", str(settings))
    settings.write_text(text)
    reload(server, "not reloaded: ")
    assert complaint in server.output()
    assert "Traceback" not in server.output()
    assert request(server, "POST", f"/data/{NAME}", BODY) == 200
    assert request(server, "DELETE", f"/data/{NAME}") == 200


def test_another_remote(start_resticd: Start, tmp_path: Path) -> None:
    """A section of the remotes file that leads elsewhere is followed."""
    config = tmp_path / "rclone.conf"
    config.write_text(f"[place]\ntype = alias\nremote = {tmp_path}/first\n")
    server = start_resticd("place:", "-v", "--config", str(config))
    assert request(server, "POST", f"/data/{NAME}", BODY) == 200
    config.write_text(f"[place]\ntype = alias\nremote = {tmp_path}/second\n")
    reload(server, "reloaded")
    assert request(server, "HEAD", f"/data/{NAME}") == 404
    assert request(server, "POST", f"/data/{NAME}", BODY) == 200
    for place in ("first", "second"):
        assert (tmp_path / place / "data" / NAME[:2] / NAME).read_bytes() == BODY
    config.write_text("[place]\ntype = nonsense-of-no-driver\n")
    reload(server, "not reloaded: ")
    assert request(server, "HEAD", f"/data/{NAME}") == 200


def test_what_needs_a_restart_is_said(start_resticd: Start, tmp_path: Path, settings: Path) -> None:
    server = start_resticd(tmp_path / "store", "--settings", str(settings))
    settings.write_text('unix-socket-mode = "660"\n')
    reload(server, "--unix-socket-mode has changed; that needs a restart")
    assert request(server, "GET", "/keys/") == 200


def test_a_running_upload_goes_on_as_it_began(start_resticd: Start, tmp_path: Path) -> None:
    """Neither another remote nor another policy reaches it; the next request is under the new ones."""
    body = os.urandom(2_000_000)
    name = hashlib.sha256(body).hexdigest()
    settings = tmp_path / "resticd.toml"
    settings.write_text(f'remote = "{tmp_path}/first"\n')
    server = start_resticd(f"--settings={settings}")
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as wire:
        wire.sendall(f"POST /data/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        wire.sendall(body[: len(body) // 2])
        wait_until(lambda: list((tmp_path / "first").rglob(".resticd-*")))
        settings.write_text(f'remote = "{tmp_path}/second"\nappend-only = true\nserver-read-timeout = "1ms"\n')
        reload(server, "reloaded")
        wire.sendall(body[len(body) // 2 :])
        assert wire.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert (tmp_path / "first" / "data" / name[:2] / name).read_bytes() == body
    assert request(server, "HEAD", f"/data/{name}") == 404
    assert (tmp_path / "second").is_dir()


def test_passwords(start_resticd: Start, tmp_path: Path) -> None:
    """A line that cannot be used changes nothing and is named; a file that can be used counts at once."""
    passwords = tmp_path / "htpasswd"
    passwords.write_text(f"one:{HASH}\n")
    server = start_resticd(":memory:", "--htpasswd", str(passwords))
    assert ask(server.port, "GET", "/keys/", login=("one", "change-me")).status == 200
    passwords.write_text(f"two:{HASH}\nthree\n")
    reload(server, "not reloaded: ")
    assert f"{passwords}:2: no colon" in server.output()
    assert ask(server.port, "GET", "/keys/", login=("one", "change-me")).status == 200
    assert ask(server.port, "GET", "/keys/", login=("two", "change-me")).status == 401
    passwords.write_text(f"two:{HASH}\n")
    reload(server, "] reloaded")
    assert ask(server.port, "GET", "/keys/", login=("one", "change-me")).status == 401
    assert ask(server.port, "GET", "/keys/", login=("two", "change-me")).status == 200
