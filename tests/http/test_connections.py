"""What happens on the connection itself: early answers, pipelining, bodies cut short, clients that go."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemons import Server, resticd

BODY = os.urandom(300_000)
NAME = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    scratch = tmp_path_factory.mktemp("connections")
    with resticd(scratch / "store", scratch) as running:
        running.store = scratch / "store"
        yield running


@pytest.fixture
def store(server: Server) -> Iterator[Path]:
    """The served directory; what the test left there goes."""
    yield server.store
    for path in server.store.rglob("*"):
        if path.is_file():
            path.unlink()


class Wire:
    """A connection on which bytes are written and answers read."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self.file = self.socket.makefile("rb")

    def send(self, *parts: str | bytes) -> None:
        self.socket.sendall(b"".join(part.encode() if isinstance(part, str) else part for part in parts))

    def answer(self, head: bool = False) -> tuple[int, dict[str, str], bytes]:
        line = self.file.readline()
        assert line, "the connection was closed without an answer"
        headers = {}
        while (field := self.file.readline().rstrip(b"\r\n")) != b"":
            name, _, value = field.decode().partition(": ")
            headers[name.lower()] = value
        status = int(line.split()[1])
        body = b"" if head or status == 100 else self.file.read(int(headers.get("content-length", 0)))
        return status, headers, body

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def closed(self) -> bool:
        """Whether the server has closed the connection, or does so soon."""
        try:
            return self.file.read(1) == b""
        except ConnectionError:
            return True


def head(method: str, path: str, *headers: str) -> str:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""])


def post(path: str, length: int, *headers: str) -> str:
    return head("POST", path, f"Content-Length: {length}", *headers)


def temporary_files(store: Path) -> list[Path]:
    return list(store.rglob(".resticd-*"))


def open_files(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_a_body_cut_short_is_not_stored(server: Server, store: Path) -> None:
    """1000 bytes are announced and 900 sent: no answer of 200, no object, no temporary file."""
    wire = Wire(server)
    wire.send(post(f"/data/{NAME}", len(BODY)), BODY[:-100])
    eventually(lambda: temporary_files(store), "the upload begins")
    wire.socket.shutdown(socket.SHUT_WR)
    assert wire.closed()
    eventually(lambda: not temporary_files(store), "the temporary file is removed")
    assert not [path for path in store.rglob("*") if path.is_file()]


def test_late_cleanup_leaves_a_retry_alone(server: Server, store: Path) -> None:
    """An upload stalls, a second one of the same name succeeds, the first is killed: the file is whole."""
    first, second = Wire(server), Wire(server)
    first.send(post(f"/data/{NAME}", len(BODY)), BODY[:1000])
    eventually(lambda: len(temporary_files(store)) == 1, "the first upload begins")
    second.send(post(f"/data/{NAME}", len(BODY)), BODY)
    assert second.answer()[0] == 200
    first.close()
    eventually(lambda: not temporary_files(store), "the first upload is cleaned up")
    second.send(head("GET", f"/data/{NAME}"))
    assert second.answer()[2] == BODY


def test_a_late_success_is_a_success_too(server: Server, store: Path) -> None:
    """Two uploads of one name that both complete are both answered with 200, and one file is stored."""
    first, second = Wire(server), Wire(server)
    first.send(post(f"/data/{NAME}", len(BODY)), BODY[:1000])
    second.send(post(f"/data/{NAME}", len(BODY)), BODY)
    assert second.answer()[0] == 200
    first.send(BODY[1000:])
    assert first.answer()[0] == 200
    assert not temporary_files(store)


def test_the_rest_of_a_refused_body_is_not_a_request(server: Server, store: Path) -> None:
    """The body is itself a request; after an early answer nothing of it is obeyed."""
    smuggled = head("POST", "/smuggled/?create=true").encode()
    for body in (smuggled * 10, smuggled * 5000):
        wire = Wire(server)
        wire.send(post("/data/not-a-name", len(body)))
        status, headers, _ = wire.answer()
        assert status == 404
        wire.send(body)
        if headers.get("connection") == "close":
            assert wire.closed()
        else:
            wire.send(head("GET", "/data/"))
            assert wire.answer()[0] == 200
    assert not (store / "smuggled").exists()


def test_an_early_answer_reaches_a_client_that_sends_a_whole_pack(server: Server, store: Path) -> None:
    body = bytes(16 * 1024 * 1024)
    wire = Wire(server)
    wire.send(post("/data/not-a-name", len(body)), body)
    assert wire.answer()[0] == 404


def test_a_refused_endless_body_ends(server: Server, store: Path) -> None:
    wire = Wire(server)
    wire.send(post("/data/not-a-name", 10**12))
    assert wire.answer()[1]["connection"] == "close"
    with pytest.raises(ConnectionError):
        for _ in range(200):
            wire.send(bytes(1024 * 1024))


def test_expect_100_continue(server: Server, store: Path) -> None:
    """A client that asks first is told to go on when the upload has begun, or is refused without it."""
    wire = Wire(server)
    wire.send(post(f"/data/{NAME}", len(BODY), "Expect: 100-continue"))
    assert wire.answer()[0] == 100
    wire.send(BODY)
    assert wire.answer()[0] == 200
    wire = Wire(server)
    wire.send(post("/data/not-a-name", len(BODY), "Expect: 100-continue"))
    assert wire.answer()[0] == 404


def test_chunked_body(server: Server, store: Path) -> None:
    """A body of unknown length is stored when its hash is right."""
    wire = Wire(server)
    wire.send(head("POST", f"/data/{NAME}", "Transfer-Encoding: chunked"))
    for offset in range(0, len(BODY), 70_000):
        chunk = BODY[offset : offset + 70_000]
        wire.send(f"{len(chunk):x}\r\n", chunk, "\r\n")
    wire.send("0\r\n\r\n")
    assert wire.answer()[0] == 200
    wire.send(head("GET", f"/data/{NAME}"))
    assert wire.answer()[2] == BODY


def test_pipelined_requests_are_answered_in_order(server: Server, store: Path) -> None:
    """Uploads, downloads and lists behind each other in one go, at every cut of the stream into packets."""
    small = b"small"
    name = hashlib.sha256(small).hexdigest()
    stream = b"".join(
        [
            post(f"/keys/{name}", len(small)).encode(),
            small,
            head("GET", f"/keys/{name}").encode(),
            post(f"/data/{NAME}", len(BODY)).encode(),
            BODY,
            head("GET", f"/data/{NAME}").encode(),
            head("GET", f"/data/{NAME}", "Range: bytes=0-9").encode(),
            head("DELETE", f"/keys/{name}").encode(),
            head("GET", "/keys/").encode(),
        ]
    )
    for cut in (1, 7, 100, 180, 300, 5000, 65536, 299_999, len(stream) - 5):
        wire = Wire(server)
        wire.send(stream[:cut])
        time.sleep(0.02)  # makes a packet of its own likely; the outcome is the same without
        wire.send(stream[cut:])
        answers = [wire.answer() for _ in range(7)]
        assert [status for status, _, _ in answers] == [200, 200, 200, 200, 206, 200, 200]
        assert answers[1][2] == small
        assert answers[3][2] == BODY
        assert answers[4][2] == BODY[:10]
        assert json.loads(answers[6][2]) == []
        wire.send(head("DELETE", f"/data/{NAME}"))
        assert wire.answer()[0] == 200


def test_connection_close_is_obeyed(server: Server, store: Path) -> None:
    wire = Wire(server)
    wire.send(head("GET", "/keys/", "Connection: close"))
    assert wire.answer()[0] == 200
    assert wire.closed()


def test_a_client_that_leaves_a_download_costs_nothing(server: Server, store: Path) -> None:
    """50 downloads are left in the middle: the number of open files comes back to what it was."""
    body = os.urandom(8 * 1024 * 1024)
    name = hashlib.sha256(body).hexdigest()
    wire = Wire(server)
    wire.send(post(f"/data/{name}", len(body)), body)
    assert wire.answer()[0] == 200

    before = open_files(server)
    for _ in range(50):
        leaving = Wire(server)
        leaving.send(head("GET", f"/data/{name}"))
        leaving.socket.recv(100)
        leaving.close()
    eventually(lambda: open_files(server) <= before, "all files are closed")
    wire.send(head("GET", f"/data/{name}"))
    assert wire.answer()[2] == body


def test_refused_uploads_leak_nothing(server: Server, store: Path) -> None:
    """1000 refused uploads leave the number of open files and the directory unchanged."""
    wire = Wire(server)
    other = hashlib.sha256(b"x").hexdigest()
    body = b"not x"
    wire.send(post(f"/data/{other}", len(body)), body)
    assert wire.answer()[0] == 400
    before = open_files(server)
    for _ in range(1000):
        wire.send(post(f"/data/{other}", len(body)), body)
        assert wire.answer()[0] == 400
    assert open_files(server) <= before
    assert not [path for path in store.rglob("*") if path.is_file()]


def test_no_traceback_for_a_clients_mistake(server: Server, store: Path) -> None:
    for junk in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /keys/?%ff=\xff%&a=%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET \xff HTTP/1.1\r\nHost: \xff\r\nRange: \xff\r\nUser-Agent: \xff\r\nReferer: \xff\r\n\r\n",
    ):
        wire = Wire(server)
        wire.send(junk)
        wire.socket.shutdown(socket.SHUT_WR)
        wire.file.read()
    wire = Wire(server)
    wire.send(post(f"/data/{NAME}", 100), b"short")
    wire.close()
    assert "Traceback" not in server.output()
