"""Times that a client has, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from resticd.http.channel import HEADER_SECONDS
from resticd.http.site import IDLE_SECONDS, Site, SiteSettings


class Swallow(Resource):
    """Reads the body, answers at its end, with as much as the path says."""

    isLeaf = True

    def render(self, request: object) -> int:
        done: Deferred[None] = request.body.deliver(self)

        def answer(_: None) -> None:
            size = int(request.path[1:] or 0)
            request.setHeader(b"content-length", b"%d" % size)
            request.write(b"x" * size)
            request.finish()

        done.addCallbacks(answer, lambda _: None)
        return NOT_DONE_YET

    def registerProducer(self, producer: object, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...

    def write(self, data: bytes) -> None: ...


class Sink:
    def emit(self, event: object) -> None: ...


class Connection:
    """The client's end."""

    def __init__(self, clock: Clock, settings: SiteSettings, http2: bool) -> None:
        peer, host = IPv4Address("TCP", "192.0.2.1", 1), IPv4Address("TCP", "192.0.2.2", 80)
        self.clock = clock
        self.transport = StringTransport(host, peer)
        self._protocol = Site(Swallow(), clock, None, Sink(), settings, http2=http2).buildProtocol(peer)
        self._protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self._protocol.dataReceived(data)

    def received(self) -> bytes:
        data = self.transport.value()
        self.transport.clear()
        return data

    @property
    def is_closed(self) -> bool:
        return self.transport.disconnecting

    def trickle(self, data: bytes, pause: float) -> float:
        """Send a byte at a time; returns the seconds until the connection is closed, or until the end."""
        start = self.clock.seconds()
        for byte in data:
            self.send(bytes([byte]))
            self.clock.advance(pause)
            if self.is_closed:
                break
        return self.clock.seconds() - start


@pytest.fixture(params=[True, False], ids=["http2 too", "http1 alone"])
def connect(request: pytest.FixtureRequest) -> Callable[..., Connection]:
    def make(**settings: object) -> Connection:
        return Connection(Clock(), SiteSettings(**settings), request.param)

    return make


HEADERS = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 100


def test_a_client_that_says_nothing_is_dropped(connect: Callable[..., Connection]) -> None:
    connection = connect()
    connection.clock.advance(HEADER_SECONDS - 0.1)
    assert not connection.is_closed
    connection.clock.advance(0.2)
    assert connection.is_closed


def test_headers_must_be_complete_in_time_however_they_come(connect: Callable[..., Connection]) -> None:
    """A byte now and then does not win more time. Between the choice of the protocol and the headers there may be
    another such time.
    """
    assert connect().trickle(HEADERS, 0.5) <= 2 * HEADER_SECONDS


def test_headers_of_a_second_request_too(connect: Callable[..., Connection]) -> None:
    connection = connect()
    connection.send(HEADERS + b"\r\n\r\n")
    assert connection.received().startswith(b"HTTP/1.1 200 ")
    connection.clock.advance(100)
    assert not connection.is_closed
    assert connection.trickle(HEADERS, 0.5) == HEADER_SECONDS
    assert connection.is_closed


def test_a_connection_may_be_idle_between_requests_for_a_while(connect: Callable[..., Connection]) -> None:
    connection = connect()
    connection.send(HEADERS + b"\r\n\r\n")
    connection.clock.advance(IDLE_SECONDS - 1)
    assert not connection.is_closed
    connection.send(HEADERS + b"\r\n\r\n")
    connection.clock.pump([1] * (IDLE_SECONDS - 1))
    assert not connection.is_closed
    connection.clock.advance(2)
    assert connection.is_closed


def test_a_body_must_make_progress(connect: Callable[..., Connection]) -> None:
    """As long as bytes come the connection stays; then the time begins anew with each."""
    connection = connect(read_timeout=0)
    connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(10):
        connection.clock.advance(IDLE_SECONDS - 1)
        assert not connection.is_closed
        connection.send(b"x")
    connection.clock.advance(IDLE_SECONDS + 1)
    assert connection.is_closed


def test_a_body_must_come_to_its_end(connect: Callable[..., Connection]) -> None:
    """However steadily it comes."""
    connection = connect(read_timeout=50)
    connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    assert connection.trickle(b"x" * 999, 1) == 50


def test_a_client_that_reads_nothing_is_dropped(connect: Callable[..., Connection]) -> None:
    """Once its connection takes no more of the answer, it has the idle time to take some."""
    connection = connect(write_timeout=0)
    connection.send(b"POST /100000 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab")
    connection.transport.producer.pauseProducing()
    connection.clock.advance(IDLE_SECONDS - 1)
    assert not connection.is_closed
    connection.clock.advance(2)
    assert connection.is_closed


@pytest.mark.parametrize("request_", [HEADERS + b"\r\nConnection: close\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"x" * 9000])
def test_a_last_answer_that_is_not_read_ends_too(connect: Callable[..., Connection], request_: bytes) -> None:
    """The transport would wait for ever until it is read; an answer to an error is no other."""
    connection = connect()
    connection.send(request_)
    assert connection.is_closed
    assert not connection.transport.disconnected
    connection.clock.pump([1] * (IDLE_SECONDS + 30))
    assert connection.transport.disconnected
