"""What the flags make of single requests: base, CORS, headers, limits."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from http.client import HTTPResponse, IncompleteRead
from pathlib import Path

import pytest
from support.asking import ask, blob, closed, connect, read_answer
from support.daemons import Server
from support.restic import Restic

from resticd import __version__

Start = Callable[..., Server]


@pytest.mark.parametrize("base", ["x", "/x", "/x/", "a/b"])
def test_base_url(start_resticd: Start, tmp_path: Path, base: str) -> None:
    """With or without slashes at its ends; nothing is served beside it."""
    server = start_resticd(tmp_path / "store", "--baseurl", base)
    prefix = base.strip("/")
    if base == "/x/":
        Restic(server.repository(f"{prefix}/laptop"), tmp_path)("init")
    else:
        assert ask(server.port, "POST", f"/{prefix}/laptop/config", b"config").status == 200
    assert (tmp_path / "store/laptop/config").exists()
    assert ask(server.port, "GET", f"/{prefix}/laptop/keys/").status == 200
    for path in ("/laptop/keys/", "/", f"/{prefix}y/laptop/keys/", f"/{prefix}laptop/keys/", f"//{prefix}/keys/"):
        assert ask(server.port, "GET", path).status == 404
    assert ask(server.port, "GET", f"/{prefix}/../keys/").status == 400


def test_a_base_is_plain_text(start_resticd: Start, tmp_path: Path) -> None:
    """Whatever has to be percent-encoded in a request; a repository below it may be called like it."""
    server = start_resticd(tmp_path / "store", "--baseurl", "/my böckups (1)/")
    Restic(server.repository("my%20b%C3%B6ckups%20(1)/laptop"), tmp_path)("init")
    Restic(server.repository("my%20b%C3%B6ckups%20(1)/my%20b%C3%B6ckups%20(1)"), tmp_path)("init")
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["laptop", "my böckups (1)"]


def test_cors(start_resticd: Start) -> None:
    """A browser's question is answered without a login, and every answer may be read by the one origin."""
    origin = "https://backup.example"
    server = start_resticd(":memory:", "--allow-origin", origin, "--user", "alice", "--pass", "pw")
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "range"}
    answer = ask(server.port, "OPTIONS", "/config", headers=asked)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-methods"] == "DELETE, GET, HEAD, OPTIONS, POST"
    assert answer.headers["access-control-allow-headers"] == "Authorization, Content-Type, Range"
    for status, login in ((401, None), (200, ("alice", "pw"))):
        answer = ask(server.port, "GET", "/keys/", login=login)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, origin)
        assert answer.headers["vary"] == "Origin"


def test_without_cors_options_is_no_way_in(start_resticd: Start) -> None:
    server = start_resticd(":memory:", "--user", "alice", "--pass", "pw")
    assert ask(server.port, "OPTIONS", "/config").status == 401
    assert ask(server.port, "OPTIONS", "/config", login=("alice", "pw")).status == 405


def test_headers_of_every_answer(start_resticd: Start) -> None:
    """Its own name and version, and what --response-header says, also on errors."""
    flags = ("--response-header", "X-One: 1", "--response-header", "X-Two: a: b")
    server = start_resticd(":memory:", *flags, "--user", "alice", "--pass", "pw")
    for login, path, status in ((None, "/keys/", 401), (("alice", "pw"), "/keys/", 200), (("alice", "pw"), "//", 400)):
        answer = ask(server.port, "GET", path, login=login)
        assert answer.status == status
        assert answer.headers["server"] == f"resticd/{__version__}"
        assert (answer.headers["x-one"], answer.headers["x-two"]) == ("1", "a: b")


@pytest.mark.parametrize(
    "junk",
    [
        b"X: " + b"y" * 5000 + b"\r\n\r\n",
        b"".join(b"X-%d: %s\r\n" % (number, b"y" * 50) for number in range(100)) + b"\r\n",
        b"X: " + b"y" * 100_000,
        b"y" * 100_000,
    ],
    ids=["one long line", "many lines", "a line without end", "no header at all"],
)
def test_large_headers_are_answered_with_431(start_resticd: Start, junk: bytes) -> None:
    server = start_resticd(":memory:")
    with connect(server.port) as wire:
        try:
            wire.sendall(b"GET /keys/ HTTP/1.1\r\nHost: x\r\n" + junk)
        except ConnectionError:
            return  # the answer has crossed our bytes and was lost with the connection
        answer = read_answer(wire)
        assert (answer.status, answer.headers["connection"]) == (431, "close")
        assert closed(wire)


def test_the_limit_for_headers_is_a_flag(start_resticd: Start) -> None:
    server = start_resticd(":memory:", "--max-header-bytes", "20000")
    assert ask(server.port, "GET", "/keys/", headers={"X": "y" * 19_000}).status == 200
    assert ask(server.port, "GET", "/keys/", headers={"X": "y" * 20_000}).status == 431


def test_server_read_timeout(start_resticd: Start, tmp_path: Path) -> None:
    """A body that goes on and on is cut off in the end, and nothing of it is stored."""
    server = start_resticd(tmp_path / "store", "--server-read-timeout", "500ms")
    with connect(server.port) as wire:
        wire.sendall(f"POST {blob(b'x')} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n".encode())
        deadline = time.monotonic() + 20
        with pytest.raises(ConnectionError):
            while time.monotonic() < deadline:
                wire.sendall(b"x" * 10)
                time.sleep(0.02)
    assert ask(server.port, "GET", "/data/").body == b"[]"


def test_server_write_timeout(start_resticd: Start, tmp_path: Path) -> None:
    """An answer that is read too slowly is broken off, and never looks complete."""
    server = start_resticd(tmp_path / "store", "--server-write-timeout", "500ms")
    body = os.urandom(32 * 1024 * 1024)
    assert ask(server.port, "POST", blob(body), body).status == 200
    with connect(server.port) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        wire.sendall(f"GET {blob(body)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        response = HTTPResponse(wire)
        response.begin()
        deadline = time.monotonic() + 20
        with pytest.raises((ConnectionError, IncompleteRead)):
            while time.monotonic() < deadline:
                assert response.read(1000), "it ends early"
                time.sleep(0.02)
    assert ask(server.port, "HEAD", blob(body)).headers["content-length"] == str(len(body))
