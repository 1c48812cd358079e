"""Two servers over one directory, one without the fast lane, say the same, byte for byte."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.blobstore import LARGE, LARGE_NAME, MISSING, SMALL, SMALL_NAME, fill
from support.daemons import Server, resticd
from support.waiting import wait_until

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LOGIN = "Authorization: Basic " + base64.b64encode(b"alice:secret").decode()
SHA_SECRET = "alice:{SHA}" + base64.b64encode(hashlib.sha1(b"secret").digest()).decode() + "\n"


def basic(user: str, password: str) -> bytes:
    """The last header of a request, and the end of its headers."""
    return b"\r\nAuthorization: Basic " + base64.b64encode(f"{user}:{password}".encode()) + b"\r\n\r\n"


class Pair(NamedTuple):
    """Two servers over one directory."""

    fast: Server
    plain: Server


@pytest.fixture(
    scope="module",
    params=[
        (),
        ("--user", "alice", "--pass", "secret"),
        ("--allow-origin", "https://x.example", "--response-header", "X-Frame-Options: DENY"),
        ("--baseurl", "base"),
        ("--response-header", "Server: other"),
        ("--user-from-header", "X-User", "--private-repos"),
    ],
    ids=["plain", "login", "headers", "baseurl", "own field", "header login"],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    scratch = tmp_path_factory.mktemp("lane")
    fill(scratch / "store")
    flags = ("-v", *request.param)
    with (
        resticd(scratch / "store", scratch, *flags) as fast,
        resticd(scratch / "store", scratch, "--without", "lane", *flags) as plain,
    ):
        yield Pair(fast, plain)


def ask(connection: socket.socket, request: bytes) -> bytes:
    """Send a request and return the whole answer, up to where the connection is closed or the next one would begin."""
    connection.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data.removeprefix(CONTINUE):
        part = connection.recv(65536)
        if not part:
            return data
        data += part
    head, _, body = data.removeprefix(CONTINUE).partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\ncontent-length: (\d+)", head)
    left = 0 if request.startswith(b"HEAD") or length is None else int(length[1]) - len(body)
    while left > 0:
        part = connection.recv(65536)
        if not part:
            break
        left -= len(part)
        data += part
    return re.sub(rb"\nDate: [^\r]+", b"\nDate: -", data)


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 20)


PATHS = [
    f"/r/data/{SMALL_NAME}",
    f"/r/data/{LARGE_NAME}",
    f"/r/data/{MISSING}",
    "/r/config",
    "/s/config",
    f"/r/locks/{SMALL_NAME}",
    f"/r/keys/{SMALL_NAME}",
    "/r/locks/",
    "/r/data",
    "/",
    "/r",
    "/r/s/",
    "/file-4769892902916130472",
    f"/r/%64ata/{SMALL_NAME}",
    f"/r//data/{SMALL_NAME}",
    f"/x/../r/data/{SMALL_NAME}",
    f"/r/data/{SMALL_NAME.upper()}",
    f"/r/data/{SMALL_NAME}?x=1",
    f"/r/data/{SMALL_NAME}/",
    "*",
    f"http://127.0.0.1/r/data/{SMALL_NAME}",
]
HEADERS = [
    (),
    ("Range: bytes=5-9",),
    ("Range: bytes=5-",),
    ("Range: bytes=-5",),
    ("Range: bytes=95-200",),
    ("Range: bytes=100-",),
    ("Range: bytes=9-5",),
    ("Range: bytes=0-1,4-5",),
    ("Range: lines=1-2",),
    ("range: bytes=1-2",),
    ("Range: bytes=1-2", "Range: bytes=3-4"),
    ("Range: bytes=1-2", 'If-Range: "x"'),
    ("Accept: */*", "User-Agent: restic", "Range: bytes=0-0", "Accept-Encoding: identity"),
    ("Content-Length: 0",),
    ("Content-Length: 3",),
    ("Transfer-Encoding: chunked",),
    ("Expect: 100-continue",),
    ("Connection: close",),
    ("Connection: keep-alive",),
    ("X-Forwarded-For: 192.0.2.9",),
    ("X-Forwarded-For: nobody, 192.0.2.9 ",),
    ("X-Unknown: x",),
    ("Bad Header: x",),
    ("no colon",),
    ("User-Agent: a\tb\x01c",),
    ("User-Agent: ü",),
    ("X-User: r",),
    ("X-User: r", "X-User: s"),
    ("User-Agent: " + "x" * 5000,),
    ("Authorization: Basic !",),
]


def requests(flags_of: Pair) -> Iterator[bytes]:
    """Every path, and every combination of headers for two of them, by both methods and in odd versions."""
    base = "/base" if "--baseurl" in flags_of.fast.arguments else ""
    login = (LOGIN,) if "--user" in flags_of.fast.arguments else ()
    user = ("X-User: r",) if "--user-from-header" in flags_of.fast.arguments else ()

    def request(method: str, path: str, *headers: str, version: str = "HTTP/1.1") -> bytes:
        lines = (f"{method} {base}{path} {version}", "Host: 127.0.0.1", *headers)
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    for method in ("HEAD", "GET"):
        for path in PATHS:
            yield request(method, path, *login, *user)
        for path in PATHS[:2]:
            for headers in HEADERS:
                with_login = () if any(header.startswith("Authorization") for header in headers) else login
                with_user = () if any(header.startswith("X-User") for header in headers) else user
                body = {"Content-Length: 3": b"abc", "Transfer-Encoding: chunked": b"3\r\nabc\r\n0\r\n\r\n"}
                whole = request(method, path, *headers, *with_login, *with_user)
                yield whole + (body.get(headers[0], b"") if headers else b"")
        yield request(method, PATHS[0], *login, *user, version="HTTP/1.0")
        yield request(method, PATHS[0], *login, *user, version="HTTP/2.0")
        yield request(method, PATHS[0], *login, *user).replace(b"\r\n", b"\n") + b"\r\n\r\n"


def test_same_answers(pair: Pair) -> None:
    """The answer is the same on a new connection, and on one whose last request was answered by the lane."""
    first = next(requests(pair))
    for request in requests(pair):
        for before in ((), (first,)):
            answers = []
            for server in pair:
                with connect(server) as connection:
                    answers.append([ask(connection, one) for one in (*before, request)])
            assert answers[0] == answers[1], request


UPLOAD_HEADERS = [
    (),
    ("Content-Type: application/octet-stream", "User-Agent: Go-http-client/1.1", "Accept: application/vnd.x.restic"),
    ("Expect: 100-continue",),
    ("Connection: close",),
    ("X-Unknown: x",),
    ("Range: bytes=1-2",),
]


def uploads(flags_of: Pair) -> Iterator[bytes]:
    """Uploads of all kinds; those that are stored are stored twice, once through each server."""
    base = "/base" if "--baseurl" in flags_of.fast.arguments else ""
    login = (LOGIN,) if "--user" in flags_of.fast.arguments else ()
    user = ("X-User: r",) if "--user-from-header" in flags_of.fast.arguments else ()

    def post(path: str, body: bytes, *headers: str, length: str | None = None) -> bytes:
        length = f"Content-Length: {len(body)}" if length is None else length
        lines = (f"POST {base}{path} HTTP/1.1", "Host: x", *headers, *login, *user, *filter(None, [length]))
        return "\r\n".join([*lines, "", ""]).encode() + body

    def name(body: bytes) -> str:
        return hashlib.sha256(body).hexdigest()

    for headers in UPLOAD_HEADERS:
        body = os.urandom(4096)
        yield post(f"/r/data/{name(body)}", body, *headers)
    for size in (0, 1, 30_000, 65_536, 65_537, 200_000):
        body = os.urandom(size)
        yield post(f"/r/keys/{name(body)}", body)
        yield post(f"/r/index/{name(body)}", body, length=f"Content-Length: 0{size}")
    yield post(f"/new/data/{name(SMALL)}", SMALL)
    yield post("/r/config", b"another")
    yield post("/r/?create=true", b"")
    yield post(f"/r/data/{MISSING}", SMALL)
    yield post(f"/r/data/{SMALL_NAME}", SMALL[::-1])
    yield post(f"/r/keys/{SMALL_NAME}", SMALL)
    yield post(f"/r/data/{SMALL_NAME}?x=1", SMALL)
    yield post(f"/s/locks/{SMALL_NAME}", SMALL)
    yield post("/r/locks/", SMALL)
    yield post(f"/r/data/{SMALL_NAME}", b"5\r\n01234\r\n0\r\n\r\n", length="Transfer-Encoding: chunked")
    yield post(f"/r/data/{SMALL_NAME}", SMALL, length="Content-Length: +100")


def test_same_answers_to_uploads(pair: Pair) -> None:
    """… and the connection takes the next request."""
    following = next(requests(pair))
    for request in uploads(pair):
        answers = []
        for server in pair:
            with connect(server) as connection, contextlib.suppress(ConnectionError):
                answers.append([ask(connection, one) for one in (request, following)])
        assert answers[0] == answers[1], request[:300]


def test_wrong_password(pair: Pair) -> None:
    """A wrong password is refused in the same words, whatever the connection has shown before."""
    guess = basic("alice", "wrong")
    first = next(requests(pair))
    answers = []
    for server in pair:
        with connect(server) as connection:
            ask(connection, first)
            answers.append(ask(connection, re.sub(rb"(\r\nAuthorization: [^\r]+)?\r\n\r\n", guess, first)))
    assert answers[0] == answers[1]


def test_streams(pair: Pair) -> None:
    """Requests in pieces, right behind each other, behind a body, or behind an empty line."""
    one = next(requests(pair))
    two = one.replace(b"HEAD", b"GET").replace(b"\r\n\r\n", b"\r\nRange: bytes=3-6\r\n\r\n")
    post = one.replace(b"HEAD", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 100\r\n\r\n") + SMALL
    last = one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    for chunks in (
        (one + two, last),
        (one, two + one, last),
        (one[:20], one[20:], two, last),
        (one, two[:-1], two[-1:], one, last),
        (one, two[:-2], two[-2:] + one, last),
        (post, one, two, last),
        (one, post[:-50], post[-50:] + one, two, last),
        (post + one + two, last),
        (one, b"\r\n", two, last),
        (one, b"\r\n" + two, one, last),
        (one, b"nonsense\r\n\r\n", two),
        (one + last, two),
    ):
        answers = []
        for server in pair:
            with connect(server) as connection:
                data = b""
                for chunk in chunks:
                    with contextlib.suppress(ConnectionError):
                        connection.sendall(chunk)
                    # Whatever comes now: the next piece shall meet a connection at rest, where it can.
                    if select.select([connection], [], [], 0.03)[0]:
                        data += connection.recv(65536)
                while part := connection.recv(65536):
                    data += part
                answers.append(re.sub(rb"\nDate: [^\r]+", b"\nDate: -", data))
        assert answers[0] == answers[1], chunks


def test_changes_are_seen(tmp_path: Path) -> None:
    """A connection that is known sees at once that a file is gone, is back, or that its user is."""
    fill(tmp_path / "store")
    passwords = tmp_path / "htpasswd"
    passwords.write_text(SHA_SECRET)
    request = f"GET /r/data/{SMALL_NAME} HTTP/1.1\r\nHost: x\r\n".encode() + basic("alice", "secret")[2:]
    path = tmp_path / "store/r/data" / SMALL_NAME[:2] / SMALL_NAME
    with resticd(tmp_path / "store", tmp_path, "--htpasswd", str(passwords)) as server, connect(server) as connection:

        def status() -> int:
            return int(ask(connection, request)[9:12])

        assert [status() for _ in range(3)] == [200, 200, 200]
        path.rename(path.with_name("away"))
        assert status() == 404
        path.with_name("away").rename(path)
        assert status() == 200
        passwords.write_text("# nobody\n")
        assert status() == 401
        passwords.write_text(SHA_SECRET)
        wait_until(lambda: status() == 200)


def test_reload_is_seen(tmp_path: Path) -> None:
    """A connection that is known is judged by the new settings after a reload."""
    fill(tmp_path / "store")
    settings = tmp_path / "resticd.toml"
    settings.write_text('response-header = ["X-A: 1"]\n')
    request = f"HEAD /r/data/{SMALL_NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with (
        resticd(tmp_path / "store", tmp_path, "--settings", str(settings)) as server,
        connect(server) as connection,
    ):
        assert b"X-A: 1" in ask(connection, request)
        settings.write_text('response-header = ["X-A: 2"]\nuser = "alice"\npass = "secret"\n')
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: ask(connection, request).startswith(b"HTTP/1.1 401"))
        assert b"X-A: 2" in ask(connection, request.replace(b"\r\n\r\n", basic("alice", "secret")))


def test_a_client_that_does_not_read(tmp_path: Path) -> None:
    """Many answers that nobody reads stay within bounds: the server stops reading requests."""
    fill(tmp_path / "store")
    path = tmp_path / "store/r/data" / LARGE_NAME[:2] / LARGE_NAME
    path.write_bytes(LARGE[:128_000])
    request = f"GET /r/data/{LARGE_NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with resticd(tmp_path / "store", tmp_path) as server, connect(server) as connection:
        ask(connection, request)
        before = server.resident()
        connection.setblocking(False)
        sent = 0
        while sent < 20_000:  # 2.5 GB of answers
            if not select.select([], [connection], [], 1)[1]:
                break
            try:
                connection.send(request)
            except BlockingIOError:
                break
            sent += 1
        assert server.resident() - before < 20 * 1024 * 1024
