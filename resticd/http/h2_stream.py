"""One HTTP/2 stream as a request sees it: what ``channel.Channel`` is for HTTP/1.1."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from resticd.http.h2_engine import FIRST_WINDOW, STREAM_WINDOW

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProducer
    from twisted.web.http_headers import Headers

    from resticd.http.h2_connection import H2Connection

#: A stream's producer waits while this many bytes of its answer are not sent …
OUTBOUND_HIGH = 256 * 1024
#: … and goes on below this.
OUTBOUND_LOW = 64 * 1024

#: RFC 9113, section 8.2.2: fields that say something about an HTTP/1.1 connection.
_HOP_BY_HOP = frozenset({b"connection", b"transfer-encoding", b"keep-alive", b"upgrade", b"proxy-connection"})


@implementer(ITransport, IConsumer)
class H2Stream:
    """See the module.

    :param ended: whether the request has no body.
    :ivar stream_id: its number.
    :ivar progress: when bytes last moved, in the reactor's seconds.
    """

    #: a ``twisted.web`` request asks its channel for a transport; a stream has none of its own
    transport = None
    factory = None

    def __init__(self, connection: H2Connection, stream_id: int, ended: bool) -> None:
        self.stream_id = stream_id
        self.site: Any = connection.site
        self.progress = connection.clock.seconds()
        self._connection = connection
        self._inbound: deque[bytes] = deque()
        self._reading = True
        self._all_in = ended
        self._told_end = False
        # The first bytes that somebody reads open the window to its full width.
        self._owed = STREAM_WINDOW - FIRST_WINDOW
        self._outbound: deque[memoryview] = deque()
        self._outbound_bytes = 0
        self._finished = False
        self._producer: Any = None
        self._producer_paused = False
        self._request: Any = None
        self._lost = False

    # From the connection.

    def begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Make the request and dispatch it; it may answer at once."""
        request = self._request = self.site.requestFactory(self)
        length = 0 if self._all_in else None
        self._method, self._path = b"", b"*"  # CONNECT has no path
        for name, value in headers:
            if name == b":method":
                self._method = value
            elif name == b":path":
                self._path = value
            elif name == b":authority":
                request.requestHeaders.setRawHeaders(b"host", [value])
            elif not name.startswith(b":"):
                request.requestHeaders.addRawHeader(name, value)
                if name == b"content-length" and value.isdigit():
                    # Even if no body comes: then it falls short, and that is for the handler to find out.
                    length = int(value)
        request.gotLength(length)
        request.parseCookies()
        if self._all_in:
            self._tell_end()

    def request_line(self) -> tuple[bytes, bytes, bytes]:
        """Method, path and protocol."""
        return self._method, self._path, b"HTTP/2"

    def data_arrived(self, data: bytes, padding: int = 0) -> None:
        """Some of the request's body, and how many bytes came with it that are none of it."""
        self.progress = self._connection.clock.seconds()
        self._owed += padding
        if self._finished:
            return  # nobody reads it: no further window
        if self._reading and not self._inbound:
            self._hand_over(data)
        else:
            self._inbound.append(data)

    def _hand_over(self, data: bytes) -> None:
        self._owed += len(data)
        if data:
            self._request.handleContentChunk(data)
        self._open_window()

    def _open_window(self) -> None:
        """Let the client send as much as was read, now and then, unless the reader has enough for now."""
        if self._reading and not self._all_in and self._owed >= STREAM_WINDOW // 2:
            owed, self._owed = self._owed, 0
            self._connection.open_window(self.stream_id, owed)

    def body_ended(self) -> None:
        """The last of the request's body has arrived."""
        self._all_in = True
        if not self._inbound:
            self._tell_end()

    def _tell_end(self) -> None:
        if not self._told_end and not self._lost:
            self._told_end = True
            self._request.requestReceived(*self.request_line())

    def connection_lost(self, reason: Failure) -> None:
        """The stream was reset, or its connection is gone."""
        if self._lost:
            return
        self._lost = True
        self._inbound.clear()
        self._outbound.clear()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self._request.connectionLost(reason)

    # The body's side.

    def pause_body(self) -> None:
        """Give the client no further window."""
        self._reading = False

    def resume_body(self) -> None:
        """Read on, first what has arrived meanwhile."""
        self._reading = True
        self._open_window()
        while self._reading and self._inbound:
            self._hand_over(self._inbound.popleft())
        if self._all_in and not self._inbound and self._reading:
            self._tell_end()

    @property
    def has_whole_request(self) -> bool:
        """Whether the last byte of the request has come."""
        return self._all_in

    @property
    def is_waiting(self) -> bool:
        """Whether it is the client's turn: to send more of the body, or to take more of the answer."""
        return (self._reading and not self._all_in) or bool(self._outbound)

    def _send100Continue(self) -> None:
        self._connection.send_headers(self.stream_id, [(b":status", b"100")])

    #: An answer may end the stream while the body is still coming: no other request waits behind it.
    needs_whole_body = False

    def close_after_answer(self) -> None:
        """Nothing: a stream is used once."""

    # The answer's side: what ``twisted.web.http.Request`` asks of its channel.

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Send the headers of the answer."""
        fields = [(b":status", code)]
        fields += [
            (name.lower(), value)
            for name, values in headers.getAllRawHeaders()
            if name.lower() not in _HOP_BY_HOP
            for value in values
        ]
        self._connection.send_headers(self.stream_id, fields)

    def write(self, data: bytes) -> None:
        """See ``ITransport``."""
        if self._lost or not data:
            return
        self._outbound.append(memoryview(data))
        self._outbound_bytes += len(data)
        if self._outbound_bytes > OUTBOUND_HIGH and self._producer is not None and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()
        self._connection.has_output(self)

    def writeSequence(self, data: Any) -> None:
        """See ``ITransport``."""
        for chunk in data:
            self.write(chunk)

    def requestDone(self, request: object) -> None:
        """The answer is complete."""
        self._finished = True
        self._connection.has_output(self)

    def loseConnection(self) -> None:
        """See ``ITransport``: end the stream after what was written."""
        self._finished = True
        self._connection.has_output(self)

    def abort(self) -> None:
        """Reset the stream, so that an incomplete answer does not look complete."""
        self._connection.reset(self.stream_id)
        self.connection_lost(Failure(ConnectionLost("the stream was reset by us")))

    abortConnection = abort

    def take_output(self, size: int) -> list[memoryview]:
        """Up to ``size`` bytes of the answer, for the connection to send."""
        taken: list[memoryview] = []
        while size and self._outbound:
            chunk = self._outbound.popleft()
            if len(chunk) > size:
                self._outbound.appendleft(chunk[size:])
                chunk = chunk[:size]
            taken.append(chunk)
            size -= len(chunk)
            self._outbound_bytes -= len(chunk)
        if taken:
            self.progress = self._connection.clock.seconds()
        return taken

    def output_taken(self) -> None:
        """Let the producer go on where there is room again. It may write at once."""
        if self._producer_paused and self._outbound_bytes <= OUTBOUND_LOW:
            self._producer_paused = False
            if self._producer is not None:
                self._producer.resumeProducing()

    @property
    def has_output(self) -> bool:
        """Whether bytes wait to be sent."""
        return bool(self._outbound)

    @property
    def is_complete(self) -> bool:
        """Whether the answer is complete and all of it was taken."""
        return self._finished and not self._outbound

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``. Push producers only: resticd has no others."""
        if not streaming or self._producer is not None:
            raise ValueError("one push producer at a time")
        self._producer = producer
        self._producer_paused = False
        if self._lost:
            producer.stopProducing()
        elif self._outbound_bytes > OUTBOUND_HIGH and IPushProducer.providedBy(producer):
            self._producer_paused = True
            self._producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._producer = None
        self._producer_paused = False

    @property
    def connection_transport(self) -> object:
        """The transport of the whole connection."""
        return self._connection.transport

    def getPeer(self) -> IAddress:
        """See ``ITransport``."""
        return self._connection.peer

    def getHost(self) -> IAddress:
        """See ``ITransport``."""
        return self._connection.host

    def isSecure(self) -> bool:
        """Whether the connection has TLS."""
        return self._connection.is_secure
