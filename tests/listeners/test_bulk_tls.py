"""Bodies over TLS: everything arrives, in order, whoever is slow, and an end that is none is noticed."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from support.certificates import Authority, client_context
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread

from resticd.listeners.handshake import over_tls
from resticd.listeners.tls import configure_tls

SIZE = 3_000_000


class Echo(Protocol):
    """Sends back what it gets, and has its producer paused when the client does not read."""

    def __init__(self, factory: Server) -> None:
        self.factory = factory

    def connectionMade(self) -> None:
        self.factory.protocol = self

    def dataReceived(self, data: bytes) -> None:
        self.factory.received.append(data)
        if self.factory.echo:
            self.transport.write(data)
        if self.factory.abort:
            self.transport.abortConnection()

    def connectionLost(self, reason: Any) -> None:
        self.factory.lost.callback(reason.type)


class Server(Factory):
    noisy = False

    def __init__(self, echo: bool = True, abort: bool = False) -> None:
        self.echo = echo
        self.abort = abort
        self.received: list[bytes] = []
        self.lost: Deferred[type] = Deferred()
        self.protocol: Any = None

    def buildProtocol(self, addr: object) -> Echo:
        return Echo(self)


@pytest.fixture
def serve(authority: Authority) -> Iterator[Callable[[Server], int]]:
    """A function ``serve(factory)``: the number of a port that speaks TLS."""
    pair = authority.server()
    tls = configure_tls(str(pair.cert), str(pair.key))
    ports: list[Any] = []

    def start(factory: Server) -> int:
        ports.append(reactor.listenTCP(0, over_tls(tls, factory, reactor), interface="127.0.0.1"))
        return ports[-1].getHost().port

    yield start
    for port in ports:
        pytest_twisted.blockon(port.stopListening())


def connect(authority: Authority, port: int, buffer: int = 0) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), 30)
    if buffer:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    return client_context(authority.file).wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize("buffer", [0, 4096])
@pytest_twisted.ensureDeferred
async def test_both_directions_at_once(authority: Authority, serve: Callable[[Server], int], buffer: int) -> None:
    """Everything comes back as it went, also through a narrow socket."""
    factory = Server()
    port = serve(factory)
    size = SIZE // 30 if buffer else SIZE
    data = os.urandom(size)

    def exchange() -> bytes:
        with connect(authority, port, buffer) as wire:
            sender = threading.Thread(target=wire.sendall, args=(data,))
            sender.start()
            got = b""
            while len(got) < size and (part := wire.recv(65536)):
                got += part
            sender.join()
            wire.unwrap().close()
            return got

    assert await deferToThread(exchange) == data
    assert b"".join(factory.received) == data
    # Records come in bunches.
    assert len(factory.received) < size / 4096
    assert await factory.lost is ConnectionDone


@pytest_twisted.ensureDeferred
async def test_an_end_without_farewell(authority: Authority, serve: Callable[[Server], int]) -> None:
    """What came before it is delivered; the end is no clean one, since anybody on the way could have made it."""
    factory = Server(echo=False)
    port = serve(factory)

    def send() -> None:
        with connect(authority, port) as wire:
            wire.sendall(b"x" * 100_000)
            # Closing it at once would be a reset, since nobody has read the server's session tickets.
            plain = socket.socket(fileno=wire.detach())
            plain.settimeout(30)
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(4096):
                pass
            plain.close()

    await deferToThread(send)
    assert await factory.lost is not ConnectionDone
    assert b"".join(factory.received) == b"x" * 100_000


@pytest_twisted.ensureDeferred
async def test_bytes_that_are_no_records(authority: Authority, serve: Callable[[Server], int]) -> None:
    """Whatever came before them is delivered, then the connection ends."""
    factory = Server(echo=False)
    port = serve(factory)

    def send() -> None:
        with connect(authority, port) as wire:
            wire.sendall(b"good")
            plain = socket.socket(fileno=os.dup(wire.fileno()))
            plain.settimeout(30)
            plain.sendall(b"this is not TLS at all")
            while plain.recv(4096):
                pass
            plain.close()

    await deferToThread(send)
    assert (await factory.lost) is not ConnectionDone
    assert b"".join(factory.received) == b"good"


@pytest_twisted.ensureDeferred
async def test_broken_off_from_within(authority: Authority, serve: Callable[[Server], int]) -> None:
    """A protocol that breaks its connection off in the middle of a bunch hears no more of it."""
    factory = Server(echo=False, abort=True)
    port = serve(factory)

    def send() -> None:
        with connect(authority, port) as wire:
            try:
                while True:
                    wire.sendall(b"x" * 100_000)
            except OSError:
                return

    await deferToThread(send)
    await factory.lost
    assert len(factory.received) == 1


@pytest_twisted.ensureDeferred
async def test_large_writes_and_a_producer(authority: Authority, serve: Callable[[Server], int]) -> None:
    """A write of megabytes arrives; a producer is paused while the client does not read, and goes on when it does."""
    factory = Server(echo=False)
    port = serve(factory)
    data = os.urandom(SIZE)
    go = threading.Event()
    pauses: list[str] = []

    class Producer:
        def pauseProducing(self) -> None:
            pauses.append("pause")

        def resumeProducing(self) -> None:
            pauses.append("resume")
            if pauses.count("resume") == 1:
                factory.protocol.transport.unregisterProducer()
                factory.protocol.transport.loseConnection()

        def stopProducing(self) -> None:
            pauses.append("stop")

    def write() -> None:
        factory.protocol.transport.registerProducer(Producer(), True)
        factory.protocol.transport.write(data)
        assert pauses == ["pause"]
        go.set()

    def read() -> bytes:
        with connect(authority, port) as wire:
            wire.sendall(b"go")
            reactor.callFromThread(reactor.callLater, 0.05, write)
            assert go.wait(30)
            got = b""
            while part := wire.recv(65536):
                got += part
            return got

    assert await deferToThread(read) == data
    await factory.lost
    assert pauses[:2] == ["pause", "resume"]
