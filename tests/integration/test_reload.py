"""SIGHUP: everything is read anew; a mistake changes nothing and says where it is."""

from __future__ import annotations

import hashlib
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemons import Server

Start = Callable[..., Server]
BODY = b"some bytes"
NAME = hashlib.sha256(BODY).hexdigest()


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
    deadline = time.monotonic() + 20
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
