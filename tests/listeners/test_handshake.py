"""A TLS connection before and after its handshake."""

from __future__ import annotations

import contextlib
import socket

import pytest
import pytest_twisted
from support.certificates import client_context
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from zope.interface.verify import verifyObject

from resticd.listeners.handshake import AfterHandshake, common_name, over_tls
from resticd.listeners.tls import configure_tls


class Recorder(Factory):
    """Fires ``made`` with the protocol once there is one, ``lost`` when its connection ends."""

    noisy = False

    def __init__(self, refuse=False):
        self.refuse = refuse
        self.made = Deferred()
        self.lost = Deferred()

    def buildProtocol(self, addr):
        if self.refuse:
            return None
        recorder = self

        class Recording(Protocol):
            def connectionMade(self):
                recorder.made.callback(self)

            def connectionLost(self, reason):
                recorder.lost.callback(None)

        return Recording()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def serve(authority, clock):
    """A function ``serve(factory)``: a TLS port whose handshakes may take ten seconds of ``clock``."""
    pair = authority.server()
    tls = configure_tls(str(pair.cert), str(pair.key))
    ports = []

    def start(factory):
        ports.append(reactor.listenTCP(0, over_tls(tls, factory, clock, 10), interface="127.0.0.1"))
        return ports[-1].getHost().port

    yield start
    for port in ports:
        pytest_twisted.blockon(port.stopListening())


async def wait_for_call(clock):
    """Until the server has accepted the connection."""
    while not clock.getDelayedCalls():
        pause = Deferred()
        reactor.callLater(0.005, pause.callback, None)
        await pause


def test_interfaces(clock):
    """The factory and its stand-in protocol are what Twisted takes."""
    factory = AfterHandshake(Recorder(), clock, 1)
    verifyObject(IProtocolFactory, factory)
    verifyObject(IHandshakeListener, factory.buildProtocol(None))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
async def test_handshake_that_never_ends(serve, clock, sent):
    """A client that stops in the middle of its handshake is cut off, not before its time, and HTTP never sees it."""
    factory = Recorder()
    with socket.create_connection(("127.0.0.1", serve(factory)), timeout=20) as client:
        client.sendall(sent)
        await wait_for_call(clock)
        clock.advance(9.9)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        client.settimeout(20)
        clock.advance(0.2)
        with pytest.raises(ConnectionResetError):
            await deferToThread(client.recv, 1)
    assert not factory.made.called
    assert not clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_handshake_that_ends(serve, clock, authority):
    """After the handshake there is no deadline, and the protocol has the connection to itself."""
    factory = Recorder()
    raw = socket.create_connection(("127.0.0.1", serve(factory)), timeout=20)
    client = await deferToThread(client_context(authority.file).wrap_socket, raw, server_hostname="localhost")
    protocol = await factory.made
    assert not clock.getDelayedCalls()
    clock.advance(1000)
    protocol.transport.write(b"x")
    clock.advance(0)
    assert await deferToThread(client.recv, 1) == b"x"
    client.close()
    await factory.lost


@pytest_twisted.ensureDeferred
async def test_plain_text(serve, clock, log):
    """Plain HTTP on a TLS port ends the connection at once, and leaves nothing behind."""
    factory = Recorder()
    with socket.create_connection(("127.0.0.1", serve(factory)), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while await deferToThread(client.recv, 100):
            pass
    assert not factory.made.called
    assert not clock.getDelayedCalls()
    assert log[-1].startswith("debug: TLS handshake with IPv4Address(")


@pytest_twisted.ensureDeferred
async def test_factory_that_refuses(serve, clock, authority):
    """A factory that makes no protocol ends the connection."""
    raw = socket.create_connection(("127.0.0.1", serve(Recorder(refuse=True))), timeout=20)
    client = await deferToThread(client_context(authority.file).wrap_socket, raw, server_hostname="localhost")
    # The end is announced by TLS, then the connection is reset; either may arrive first.
    with contextlib.suppress(ConnectionResetError):
        assert await deferToThread(client.recv, 1) == b""
    client.close()


def test_common_name_without_tls():
    """A plain transport has no certificate."""
    assert common_name(object()) is None
