"""The client's end of an HTTP/2 connection in this process, frame by frame, and requests that the test answers."""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.events
from hyperframe.frame import Frame
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from resticd.http.site import Site, SiteSettings


@implementer(IConsumer)
class Reader:
    """Reads a request's body, or does not, as the test says."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.data = bytearray()
        self.done = False
        self.failure: Failure | None = None
        self.producer: Any = None
        request.body.deliver(self).addCallbacks(self._succeeded, self._failed)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.data += data

    def _succeeded(self, _: None) -> None:
        self.done = True

    def _failed(self, failure: Failure) -> None:
        self.failure = failure


@implementer(IPushProducer)
class Source:
    """Writes an answer's body as fast as it is allowed to; ``left`` bytes are still to come."""

    def __init__(self, request: Any, length: int, chunk: int = 64 * 1024) -> None:
        self.request = request
        self.left = length
        self.chunk = chunk
        self.paused = False
        self.stopped = False
        self._writing = False
        request.setHeader(b"content-length", b"%d" % length)
        request.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        if self._writing:
            return
        self._writing = True
        while self.left and not self.paused and not self.stopped:
            size = min(self.left, self.chunk)
            self.left -= size
            self.request.write(bytes(size))
        self._writing = False
        if not self.left and not self.stopped:
            self.stopped = True
            self.request.unregisterProducer()
            self.request.finish()

    def stopProducing(self) -> None:
        self.stopped = True


class Requests(Resource):
    """Every request waits here, by its path, until the test does something with it."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[str, Any] = {}
        self.ended: list[str] = []
        self.broken: list[str] = []

    def render(self, request: Any) -> int:
        path = request.path.decode()
        self.waiting[path] = request
        over: Deferred[None] = request.notifyFinish()
        over.addCallbacks(lambda _: self.ended.append(path), lambda _: self.broken.append(path))
        return NOT_DONE_YET


class Sink:
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def emit(self, event: object) -> None:
        self.events.append(event)


class Peer:
    """A client whose every byte the test sees.

    :ivar waiting: the requests that the server's handlers have got, by path.
    :ivar headers, bodies, ended, resets: what has come of each stream.
    """

    def __init__(self, *, http2: bool = True, **settings: Any) -> None:
        peer, host = IPv4Address("TCP", "192.0.2.1", 1), IPv4Address("TCP", "192.0.2.2", 80)
        self.clock = Clock()
        self.sink = Sink()
        self.resource = Requests()
        self.site = Site(self.resource, self.clock, None, self.sink, SiteSettings(**settings), http2=http2)
        self.server: Any = self.site.buildProtocol(peer)
        self.transport = StringTransport(host, peer)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="latin-1"))
        self.headers: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.settings: dict[Any, int] = {}
        self.informational: list[int] = []
        #: whether the client opens its windows again for what it has got
        self.reads = True
        self.server.makeConnection(self.transport)
        self.h2.initiate_connection()

    # Sending.

    def exchange(self) -> None:
        """Carry bytes both ways until both sides have nothing to say."""
        while True:
            data = self.h2.data_to_send()
            if data:
                self.server.dataReceived(data)
            self.clock.advance(0)
            got = self.transport.value()
            self.transport.clear()
            if not data and not got:
                return
            for event in self.h2.receive_data(got):
                self._see(event)

    def raw(self, *frames: Any) -> None:
        """Send frames that the client's own h2 knows nothing of."""
        self.server.dataReceived(b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames))

    def frames(self) -> list[Any]:
        """What has come since, without the client's own h2 learning of it."""
        data, frames = self.transport.value(), []
        self.transport.clear()
        while data:
            frame, length = Frame.parse_frame_header(memoryview(data[:9]))
            frame.parse_body(memoryview(data[9 : 9 + length]))
            frames.append(frame)
            data = data[9 + length :]
        return frames

    def ask(
        self, path: str, method: str = "GET", *more: tuple[str, str], end: bool = True, exchange: bool = True
    ) -> int:
        """Begin a request; returns its stream."""
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "http"), (":authority", "x"), (":path", path), *more]
        self.h2.send_headers(stream, fields, end_stream=end)
        if exchange:
            self.exchange()
        return stream

    def send(self, stream: int, data: bytes, end: bool = False) -> int:
        """Send as much of ``data`` as the windows allow; returns how much that was."""
        sent = 0
        while sent < len(data):
            self.exchange()
            size = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(data) - sent)
            if size <= 0:
                return sent
            self.h2.send_data(stream, data[sent : sent + size], end_stream=end and sent + size == len(data))
            sent += size
        self.exchange()
        return sent

    def open(self, stream: int | None, size: int) -> None:
        """Open a window."""
        self.h2.increment_flow_control_window(size, stream)
        self.exchange()

    # What has come.

    @property
    def waiting(self) -> dict[str, Any]:
        return self.resource.waiting

    @property
    def closed(self) -> bool:
        """Whether the server has ended the connection."""
        return self.transport.disconnecting or self.aborted

    @property
    def aborted(self) -> bool:
        return bool(self.transport.disconnected or getattr(self.transport, "aborting", False))

    def status(self, stream: int) -> int:
        return int(self.headers[stream][":status"])

    def _see(self, event: Any) -> None:
        match event:
            case h2.events.ResponseReceived():
                self.headers[event.stream_id] = dict(event.headers)
            case h2.events.InformationalResponseReceived():
                self.informational.append(int(dict(event.headers)[":status"]))
            case h2.events.DataReceived():
                self.bodies.setdefault(event.stream_id, bytearray()).extend(event.data)
                if self.reads and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                self.ended.add(event.stream_id)
            case h2.events.StreamReset():
                self.resets[event.stream_id] = event.error_code
            case h2.events.RemoteSettingsChanged():
                self.settings.update({code: change.new_value for code, change in event.changed_settings.items()})
