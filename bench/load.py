"""The load client. It shares the machine with the server that it measures, so it does as little as it can.

Requests are prepared bytes on raw sockets. Bodies go out by ``sendfile`` from the page cache and are drained with
``MSG_TRUNC``, which lets the kernel drop them without a copy. Small requests run on one epoll loop. Statuses and
lengths are checked, contents are not: that is what the tests are for.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from ssl import SSLContext, SSLSocket
from typing import TypeVar

Job = TypeVar("Job")

#: As many as restic opens.
CONNECTIONS = 5
LIST_V2 = "application/vnd.x.restic.rest.v2"

_END = b"\r\n\r\n"
#: What is encrypted in one call, without the lock of the interpreter.
_PIECE = 1 << 20
_TIMEOUT = struct.pack("ll", 120, 0)


class Unexpected(Exception):
    """The server answered something else than it should."""


def request(method: str, path: str, *headers: str, body: int | None = None) -> bytes:
    """The head of an HTTP/1.1 request; ``body`` is the length of what will follow it."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "User-Agent: bench", *headers]
    if body is not None:
        lines += [f"Content-Length: {body}", "Content-Type: application/octet-stream"]
    return "\r\n".join([*lines, "", ""]).encode()


def connect(port: int) -> socket.socket:
    """A blocking connection whose calls fail when nothing moves for two minutes."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Not settimeout: it makes Python poll before each call.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEOUT)
    return connection


def exchange(
    port: int, requests: Iterable[bytes], status: int, length: int = 0, *, connections: int = CONNECTIONS
) -> None:
    """Send each of ``requests``, one after the other on each of a few connections, never two on one at once.

    :param status: what every answer must say.
    :param length: how long the body of every answer is.
    """
    waiting = iter(requests)
    with contextlib.ExitStack() as stack:
        poll = stack.enter_context(select.epoll())
        turns = {}
        for first in itertools.islice(waiting, connections):
            connection = stack.enter_context(connect(port))
            connection.setblocking(False)
            poll.register(connection, select.EPOLLIN)
            turns[connection.fileno()] = turn = _Turn(connection, f"HTTP/1.1 {status} ".encode(), length)
            turn.send(first)
        while turns:
            for descriptor, _ in poll.poll(120) or _nothing_comes():
                turn = turns[descriptor]
                if turn.receive():
                    following = next(waiting, None)
                    if following is None:
                        poll.unregister(descriptor)
                        del turns[descriptor]
                    else:
                        turn.send(following)


class _Turn:
    """One connection of ``exchange``: what has come of the answer that it waits for."""

    __slots__ = ("connection", "expected", "head", "length", "rest", "sink")

    def __init__(self, connection: socket.socket, expected: bytes, length: int) -> None:
        self.connection = connection
        self.expected = expected
        self.length = length
        self.sink = bytearray(length)
        self.head = b""
        # bytes of the body still to come, None while the head is awaited
        self.rest: int | None = None

    def send(self, data: bytes) -> None:
        if self.connection.send(data) != len(data):
            raise Unexpected("the socket's buffer is too small for one request")

    def receive(self) -> bool:
        """Take what is there; true when the answer is complete."""
        if self.rest is None:
            part = self.connection.recv(2048)
            if not part:
                raise Unexpected(f"closed after {self.head!r}")
            head = self.head + part
            end = head.find(_END)
            if end < 0:
                self.head = head
                return False
            if not head.startswith(self.expected):
                raise Unexpected(f"{head!r} where {self.expected!r} was expected")
            self.head = b""
            self.rest = self.length - (len(head) - end - len(_END))
        else:
            got = self.connection.recv_into(self.sink, self.rest, socket.MSG_TRUNC)
            if not got:
                raise Unexpected(f"closed {self.rest} bytes before the end")
            self.rest -= got
        if self.rest > 0:
            return False
        self.rest = None
        return True


def upload(
    port: int, files: Iterable[tuple[str, Path]], connections: int = CONNECTIONS, context: SSLContext | None = None
) -> None:
    """POST each file to the path before it, over several connections at once; each must be answered with 200.

    :param context: for TLS.
    """

    def post(connection: socket.socket, job: tuple[str, Path]) -> None:
        path, file = job
        with file.open("rb", buffering=0) as source:
            size = os.fstat(source.fileno()).st_size
            if context is not None:
                connection.sendall(request("POST", path, body=size))
                with mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ) as view, memoryview(view) as data:
                    for start in range(0, size, _PIECE):
                        connection.sendall(data[start : start + _PIECE])
                _, length, got = _head(connection, 200)
                _drain(connection, length - len(got), bytearray(4096))
                return
            connection.sendall(request("POST", path, body=size), socket.MSG_MORE)
            sent = 0
            while sent < size:
                sent += os.sendfile(connection.fileno(), source.fileno(), sent, size - sent)
        _, length, got = _head(connection, 200)
        _drain(connection, length - len(got), bytearray(4096))

    _share(port, files, post, connections, context)


def download(port: int, paths: Sequence[str], size: int, context: SSLContext | None = None) -> None:
    """GET each path over a few connections at once; each answer must be 200 and ``size`` bytes long.

    :param context: for TLS.
    """
    # Never written to, so it takes no memory.
    sink = bytearray(size)

    def get(connection: socket.socket, path: str) -> None:
        connection.sendall(request("GET", path))
        _, length, got = _head(connection, 200)
        if length != size:
            raise Unexpected(f"{path}: {length} bytes, expected {size}")
        _drain(connection, length - len(got), sink)

    _share(port, paths, get, CONNECTIONS, context)


def fetch(port: int, method: str, path: str, *headers: str, status: int = 200) -> bytes:
    """One request without a body on a new connection; returns the body of the answer (raw, chunks included)."""
    with connect(port) as connection:
        connection.sendall(request(method, path, *headers))
        head, length, got = _head(connection, status)
        parts = [got]
        left = length - len(got)
        chunked = b"transfer-encoding: chunked" in head.lower()
        while not parts[-1].endswith(b"0" + _END) if chunked else left > 0:
            part = connection.recv(1 << 20)
            if not part:
                raise Unexpected(f"{method} {path}: the body broke off")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


def _share(
    port: int,
    jobs: Iterable[Job],
    work: Callable[[socket.socket, Job], None],
    connections: int,
    context: SSLContext | None = None,
) -> None:
    """Call ``work(connection, job)`` for all jobs, from one thread for each connection."""
    queue = deque(jobs)

    def run() -> None:
        with connect(port) as plain, contextlib.suppress(IndexError):
            connection = plain if context is None else context.wrap_socket(plain)
            while True:
                work(connection, queue.popleft())

    with ThreadPoolExecutor(connections) as pool:
        for future in [pool.submit(run) for _ in range(connections)]:
            future.result()


def _head(connection: socket.socket, status: int) -> tuple[bytes, int, bytes]:
    """Head, Content-Length (0 without one) and the first bytes of the body of the next answer."""
    data = b""
    while (end := data.find(_END)) < 0:
        part = connection.recv(4096)
        if not part:
            raise Unexpected(f"closed after {data!r}")
        data += part
    head = data[:end]
    if not head.startswith(f"HTTP/1.1 {status} ".encode()):
        raise Unexpected(f"not {status} but {data[:1000]!r}")
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return head, int(rest.partition(b"\r\n")[0] or 0), data[end + len(_END) :]


def _drain(connection: socket.socket, rest: int, sink: bytearray) -> None:
    # The kernel cannot drop what only the client can decipher.
    flags = 0 if isinstance(connection, SSLSocket) else socket.MSG_TRUNC | socket.MSG_WAITALL
    while rest > 0:
        got = connection.recv_into(sink, min(rest, len(sink)), flags)
        if not got:
            raise Unexpected(f"closed {rest} bytes before the end")
        rest -= got


def _nothing_comes() -> list[tuple[int, int]]:
    raise Unexpected("no answer for two minutes")
