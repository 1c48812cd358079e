"""Single requests over HTTP, written as they are meant, for what no restic client would send."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPMessage, HTTPResponse
from typing import NamedTuple


class Answer(NamedTuple):
    status: int
    headers: HTTPMessage
    body: bytes


@contextlib.contextmanager
def connect(port: int, context: ssl.SSLContext | None = None, source: str | None = None) -> Iterator[socket.socket]:
    """A connection to 127.0.0.1, with TLS where ``context`` is given, from the address ``source``."""
    origin = None if source is None else (source, 0)
    with socket.create_connection(("127.0.0.1", port), 20, origin) as plain:
        if context is None:
            yield plain
            return
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            yield secure


def ask(
    port: int,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    login: tuple[str, str] | None = None,
    headers: dict[str, str | bytes] | None = None,
    context: ssl.SSLContext | None = None,
    source: str | None = None,
) -> Answer:
    """One request on a connection of its own. Paths and headers go out as they are.

    :param login: user and password.
    """
    with connect(port, context, source) as wire:
        connection = HTTPConnection("localhost")
        connection.sock = wire
        connection.putrequest(method, path)
        fields: dict[str, str | bytes] = {"Content-Length": str(len(body)), **(headers or {})}
        if login is not None:
            fields["Authorization"] = basic(*login)
        for name, value in fields.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        return read(connection.getresponse())


def read_answer(wire: socket.socket) -> Answer:
    """The answer to a GET that was written to ``wire`` by hand."""
    response = HTTPResponse(wire)
    response.begin()
    return read(response)


def read(response: HTTPResponse) -> Answer:
    return Answer(response.status, response.headers, response.read())


def basic(user: str, password: str) -> str:
    """The Authorization header of a login."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def blob(body: bytes, kind: str = "data", repository: str = "/") -> str:
    """The path of a file with these bytes."""
    return f"{repository}{kind}/{hashlib.sha256(body).hexdigest()}"


def closed(wire: socket.socket) -> bool:
    """Whether the server closes the connection before it sends anything more."""
    try:
        return wire.recv(1) == b""
    except ConnectionError:
        return True
