"""HTTP/2 (RFC 9113) on one connection: h2 speaks the protocol, this moves the bytes.

Twisted's own ``H2Connection`` buffers a whole window of every answer, as far as the client opens it, and sends one
frame for each turn of the reactor. Here memory is bounded whatever the client does:

- Of each answer at most ``h2_stream.OUTBOUND_HIGH`` bytes and a chunk wait; the producer is paused beyond.
- A stream whose body nobody reads holds its own window (``STREAM_WINDOW``) and no more: the connection's window is
  given back at once, so a
  stalled stream does not stop the others.
- Streams, header sizes, resets (CVE-2023-44487) and frames that want an answer (pings, settings: CVE-2019-9512,
  -9515) are limited;
  who goes beyond is closed with GOAWAY.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from resticd.http.h2_stream import H2Stream

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IDelayedCall

    from resticd.http.site import Site

#: As many as Go's server allows, which rclone is.
MAX_STREAMS = 250
#: Bytes of a body that a client may send ahead of its consumer.
STREAM_WINDOW = 512 * 1024
CONNECTION_WINDOW = 16 * 1024 * 1024
#: Large frames cost less: Go's client fills them up to 512 KiB.
MAX_FRAME = 128 * 1024
#: Bytes handed to the transport at a time.
WRITE_SIZE = 128 * 1024
#: Seconds between looks for streams and connections without progress.
LOOK_SECONDS = 10.0
#: Streams that a client may reset, and frames that it may want answered, at once, and how many more a second.
BURST, RATE = 1000, 50.0


@implementer(IPushProducer)
class H2Connection(Protocol):
    """The server's side of one connection.

    :param site: makes the requests.
    :param idle_seconds: how long a connection may be without streams, and a stream without progress; 0 is for ever.
    """

    transport: Any

    def __init__(self, site: Site, idle_seconds: float) -> None:
        self.site = site
        self.clock = site.clock
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self._h2 = h2.connection.H2Connection(config)
        self._streams: dict[int, H2Stream] = {}
        self._ready: dict[int, H2Stream] = {}
        self._unacknowledged: dict[int, int] = {}
        self._blocked = False
        self._pumping = False
        self._lost = False
        self._finishing = False
        self._idle_seconds = idle_seconds
        self._busy_at = 0.0
        self._look: IDelayedCall | None = None
        self._budget = _Budget(self.clock.seconds)

    # IProtocol

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        self.peer: IAddress = self.transport.getPeer()
        self.host: IAddress = self.transport.getHost()
        self.is_secure = ISSLTransport.providedBy(self.transport)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._h2.initiate_connection()
        self._h2.update_settings(
            {
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
                SettingCodes.MAX_HEADER_LIST_SIZE: self.site.settings.max_header_bytes,
            }
        )
        self._h2.increment_flow_control_window(CONNECTION_WINDOW)
        self._busy_at = self.clock.seconds()
        self._schedule_look()
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        if self._lost:
            return
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self._close(f"protocol error: {type(error).__name__}")
            return
        for event in events:
            handler = _HANDLERS.get(type(event))
            if handler is not None and not self._lost:
                handler(self, event)
        self._flush()
        self._pump()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        if self._lost:
            return
        self._lost = True
        look, self._look = self._look, None
        if look is not None:
            look.cancel()
        streams, self._streams = self._streams, {}
        self._ready.clear()
        for stream in streams.values():
            stream.connection_lost(reason)

    def finish(self) -> None:
        """Take no further streams: GOAWAY, and the connection closes when those that run are answered.

        h2 would end the connection with its own GOAWAY, so this one is made by hand (RFC 9113, section 6.8).
        """
        self._finishing = True
        goaway = GoAwayFrame(0, last_stream_id=self._h2.highest_inbound_stream_id)
        self._flush()
        self.transport.write(goaway.serialize())
        if not self._streams:
            self._close("finished")

    # Events

    def _request(self, event: h2.events.RequestReceived) -> None:
        if self._finishing:
            self._h2.reset_stream(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        stream = H2Stream(self, event.stream_id, ended=event.stream_ended is not None)
        self._streams[event.stream_id] = stream
        stream.begin(event.headers)

    def _data(self, event: h2.events.DataReceived) -> None:
        length = event.flow_controlled_length
        self._h2.increment_flow_control_window(length)
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        padding = length - len(event.data)
        if padding:
            self.consumed(event.stream_id, padding)
        elif not event.data and not event.stream_ended:
            self._spend("empty frames")
        if event.data:
            stream.data_arrived(event.data)

    def _ended(self, event: h2.events.StreamEnded) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.body_ended()

    def _reset(self, event: h2.events.StreamReset) -> None:
        stream = self._forget(event.stream_id)
        if stream is not None:
            stream.connection_lost(Failure(ConnectionLost("the client reset the stream")))
        self._spend("resets")

    def _window_updated(self, event: h2.events.WindowUpdated) -> None:
        streams = [self._streams.get(event.stream_id)] if event.stream_id else list(self._streams.values())
        for stream in streams:
            if stream is not None and stream.has_output:
                self._ready[stream.stream_id] = stream

    def _settings_changed(self, event: h2.events.RemoteSettingsChanged) -> None:
        self._spend("settings")
        for stream in self._streams.values():
            if stream.has_output:
                self._ready[stream.stream_id] = stream

    def _ping(self, event: h2.events.PingReceived) -> None:
        self._spend("pings")

    def _goaway(self, event: h2.events.ConnectionTerminated) -> None:
        self.transport.loseConnection()

    # From the streams

    def consumed(self, stream_id: int, length: int) -> None:
        """A stream's consumer took ``length`` bytes of its body: the client may send as many more."""
        total = self._unacknowledged.get(stream_id, 0) + length
        if total >= STREAM_WINDOW // 2:
            total = 0 if self._open_window(stream_id, total) else total
        self._unacknowledged[stream_id] = total

    def _open_window(self, stream_id: int, length: int) -> bool:
        try:
            self._h2.increment_flow_control_window(length, stream_id)
        except h2.exceptions.ProtocolError:
            return False  # the client has ended or reset the stream
        self._flush()
        return True

    def send_headers(self, stream_id: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send a stream's headers, unless the client has reset it."""
        try:
            self._h2.send_headers(stream_id, headers)
        except h2.exceptions.ProtocolError:
            return
        self._flush()

    def has_output(self, stream: H2Stream) -> None:
        """A stream has bytes to send, or its answer is complete."""
        if stream.stream_id in self._streams:
            self._ready[stream.stream_id] = stream
            self._pump()

    def reset(self, stream_id: int) -> None:
        """Break a stream off."""
        if self._forget(stream_id) is None:
            return
        try:
            self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
        except h2.exceptions.ProtocolError:
            return
        self._flush()

    def _forget(self, stream_id: int) -> H2Stream | None:
        self._ready.pop(stream_id, None)
        self._unacknowledged.pop(stream_id, None)
        self._busy_at = self.clock.seconds()
        stream = self._streams.pop(stream_id, None)
        if self._finishing and not self._streams and not self._lost:
            self._flush()
            self._close("finished")
        return stream

    # To the transport

    def _flush(self) -> None:
        """Write what h2 wants to say."""
        data = self._h2.data_to_send()
        if data and not self._lost:
            self.transport.write(data)

    def _pump(self) -> None:
        """Send the streams' bytes in turns, a frame each, until the transport or the windows are full."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._ready and not self._blocked and not self._lost:
                stream_id, stream = next(iter(self._ready.items()))
                del self._ready[stream_id]
                if self._send_some(stream):
                    self._ready[stream_id] = stream  # to the end of the line
        finally:
            self._pumping = False

    def _send_some(self, stream: H2Stream) -> bool:
        """Send a little of one stream. Whether there is more that could be sent."""
        stream_id = stream.stream_id
        try:
            size = min(self._h2.local_flow_control_window(stream_id), WRITE_SIZE)
            if size > 0:
                frame = self._h2.max_outbound_frame_size
                for chunk in stream.take_output(size):
                    for start in range(0, len(chunk), frame):
                        self._h2.send_data(stream_id, chunk[start : start + frame])
            if stream.is_complete:
                self._h2.end_stream(stream_id)
                self._flush()
                self._forget(stream_id)
                return False
        except h2.exceptions.ProtocolError:
            # Reset by the client; h2 tells in an event that is still to come, or has come.
            return False
        self._flush()
        stream.output_taken()
        return size > 0 and stream.has_output

    def pauseProducing(self) -> None:
        """See ``IPushProducer``: the transport is full."""
        self._blocked = True

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._blocked = False
        self._pump()

    def stopProducing(self) -> None:
        """See ``IPushProducer``: the transport is gone."""

    # Limits

    def _spend(self, what: str) -> None:
        if not self._budget.spend():
            self._close(f"too many {what}", h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)

    def _close(self, why: str, code: h2.errors.ErrorCodes | None = None) -> None:
        """Say GOAWAY and end the connection with all its streams."""
        if code is not None:
            self._h2.close_connection(code)
        self._flush()
        self.connectionLost(Failure(ConnectionLost(why)))
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _schedule_look(self) -> None:
        if self._idle_seconds:
            self._look = self.clock.callLater(LOOK_SECONDS, self._look_around)

    def _look_around(self) -> None:
        """End what makes no progress through the client's fault."""
        self._look = None
        before = self.clock.seconds() - self._idle_seconds
        for stream in list(self._streams.values()):
            if stream.is_waiting and stream.progress < before:
                stream.abort()
        if not self._streams and self._busy_at < before:
            self._close("idle", h2.errors.ErrorCodes.NO_ERROR)
        if not self._lost:
            self._schedule_look()


class _Budget:
    """A bucket of tokens for what costs us more than the client."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._tokens = float(BURST)
        self._at = seconds()

    def spend(self) -> bool:
        """Take one; False where none is left."""
        now = self._seconds()
        self._tokens = min(BURST, self._tokens + max(0.0, now - self._at) * RATE)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


_HANDLERS: dict[type, Callable[[H2Connection, Any], None]] = {
    h2.events.RequestReceived: H2Connection._request,
    h2.events.DataReceived: H2Connection._data,
    h2.events.StreamEnded: H2Connection._ended,
    h2.events.StreamReset: H2Connection._reset,
    h2.events.WindowUpdated: H2Connection._window_updated,
    h2.events.RemoteSettingsChanged: H2Connection._settings_changed,
    h2.events.PingReceived: H2Connection._ping,
    h2.events.ConnectionTerminated: H2Connection._goaway,
}
