"""An HTTP server of a few lines inside the test process, that does what no real server would do on request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol


@define
class Received:
    """One request, as far as it has come."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    connection: Any = field(default=None, repr=False)


class Connection(Protocol):
    """What a script talks to: ``await request()``, ``await body(n)``, ``send``, ``close``, ``abort``."""

    def __init__(self, script: Callable[[Connection], Awaitable[None]]) -> None:
        self._script = script
        self._data = bytearray()
        self._waiting: Deferred[None] | None = None
        self.lost: Deferred[None] = Deferred()
        self.is_lost = False
        self.failure: Any = None

    def connectionMade(self) -> None:
        def failed(failure: Any) -> None:
            if not failure.check(ConnectionError):
                self.failure = failure
                failure.printTraceback()
            self.abort()

        Deferred.fromCoroutine(self._script(self)).addErrback(failed)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        self._wake()

    def connectionLost(self, reason: Any = None) -> None:
        self.is_lost = True
        self._wake()
        self.lost.callback(None)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            if self.is_lost:
                raise ConnectionError("the client has gone")
            self._waiting = Deferred()
            await self._waiting

    async def request(self) -> Received:
        """The head of the next request."""
        await self._until(lambda: b"\r\n\r\n" in self._data)
        head, _, self._data = self._data.partition(b"\r\n\r\n")  # parts of a bytearray are bytearrays
        line, *lines = head.decode().split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.lower(): value for name, _, value in (text.partition(": ") for text in lines)}
        return Received(method, target, headers, connection=self)

    async def body(self, length: int) -> bytes:
        """The next bytes."""
        await self._until(lambda: len(self._data) >= length)
        data = bytes(self._data[:length])
        del self._data[:length]
        return data

    async def whole(self) -> Received:
        """The next request with its body."""
        request = await self.request()
        request.body = await self.body(int(request.headers.get("content-length", 0)))
        return request

    def pause(self) -> None:
        self.transport.pauseProducing()

    def resume(self) -> None:
        self.transport.resumeProducing()

    def send(self, data: bytes | str) -> None:
        self.transport.write(data.encode() if isinstance(data, str) else data)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A whole answer; ``content_type="text/xml"`` becomes Content-Type."""
        fields = {"Content-Length": str(len(body))}
        fields |= {name.replace("_", "-").title(): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.send(f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + body)

    def close(self) -> None:
        self.transport.loseConnection()

    def abort(self) -> None:
        self.transport.abortConnection()


class HttpPeer:
    """Listens on a free port of 127.0.0.1; ``script`` is run for each connection.

    :ivar connections: all that came.
    """

    def __init__(self, script: Callable[[Connection], Awaitable[None]], context: Any = None) -> None:
        self.connections: list[Connection] = []

        def accept() -> Connection:
            connection = Connection(script)
            self.connections.append(connection)
            return connection

        factory = Factory.forProtocol(accept)
        if context is None:
            self._listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            self._listening = reactor.listenSSL(0, factory, context, interface="127.0.0.1")
        self.port = self._listening.getHost().port
        self.url = f"http{'' if context is None else 's'}://127.0.0.1:{self.port}"

    def stop(self) -> Deferred[None]:
        for connection in self.connections:
            if not connection.is_lost:
                connection.abort()
        return maybeDeferred(self._listening.stopListening)


def always(answer: Callable[[Connection, Received], None]) -> Callable[[Connection], Awaitable[None]]:
    """A script that reads whole requests and calls ``answer`` for each."""

    async def script(connection: Connection) -> None:
        while True:
            answer(connection, await connection.whole())

    return script
