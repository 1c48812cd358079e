"""HTTP/2 (RFC 9113) on one connection: ``h2_engine`` speaks the protocol, this moves the bytes.

Twisted's own ``H2Connection`` buffers a whole window of every answer, as far as the client opens it, and sends one
frame for each turn of the reactor. Here memory is bounded whatever the client does:

- Of each answer at most ``h2_stream.OUTBOUND_HIGH`` bytes and a chunk wait; the producer is paused beyond.
- A stream whose body nobody reads holds its own window and no more: the connection's window is given back at once, so
  that a stalled stream does not stop the others.
- Streams and header sizes are limited. Resets (CVE-2023-44487), frames that want an answer or bring nothing (pings,
  settings, empty frames: CVE-2019-9512, -9515, -9518) and windows opened by a few bytes (CVE-2019-9511) are paid from a
  ``Budget``; who has spent it is closed with GOAWAY.
- Who lets us write but does not read is broken off once ``CONTROL_HIGH`` bytes besides the answers' bodies wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import h2.errors
import h2.events
import h2.exceptions
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from resticd.http.channel import HEADER_SECONDS
from resticd.http.h2_bodies import BodyEngine
from resticd.http.h2_engine import CONNECTION_WINDOW, MAX_STREAMS, Budget, Engine
from resticd.http.h2_stream import H2Stream

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IDelayedCall

    from resticd.http.site import Site

#: Bytes of one answer's body that are handed to the transport at a time …
WRITE_SIZE = 256 * 1024
#: … and of all, before the reactor has its turn again.
PUMP_SIZE = 4 * 1024 * 1024
#: Bytes of everything else (headers, acknowledgements, resets) that may wait for a client that does not read.
CONTROL_HIGH = 256 * 1024
#: A client that opens a window by fewer bytes than this makes us send frames that are hardly worth their headers.
SMALL_UPDATE = 1024
#: Seconds between looks for streams and connections without progress.
LOOK_SECONDS = HEADER_SECONDS
#: Seconds for the client to close the connection itself after the last answer, and then for what was written to go out.
CLOSE_SECONDS = 2.0

#: Seconds for the client to stop sending a body whose answer it has got.
STOP_SECONDS = 0.5

_Codes = h2.errors.ErrorCodes


@implementer(IPushProducer)
class H2Connection(Protocol):
    """The server's side of one connection.

    :param site: makes the requests.
    :param idle_seconds: how long a connection may be without streams, and a stream without progress; 0 is for ever.
    """

    _log = Logger()
    transport: Any

    def __init__(self, site: Site, idle_seconds: float) -> None:
        self.site = site
        self.clock = site.clock
        engine = Engine if "h2-bodies" in site.settings.without else BodyEngine
        self._h2 = engine(site.settings.max_header_bytes)
        self._streams: dict[int, H2Stream] = {}
        #: those that have something to send and, as far as is known, room in their windows
        self._ready: dict[int, H2Stream] = {}
        #: streams whose answers were whole before their bodies, and when they will be reset
        self._answered: dict[int, IDelayedCall] = {}
        self._received = 0
        self._blocked = False
        self._waiting = 0
        self._handling = False
        self._pumping = False
        self._pump_later: IDelayedCall | None = None
        self._lost = False
        self._finishing = False
        self._input_over = False
        self._greeted = False
        self._idle_seconds = idle_seconds
        self._busy_at = 0.0
        self._timer: IDelayedCall | None = None
        self._budget = Budget(self.clock.seconds)

    # IProtocol

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        self.peer: IAddress = self.transport.getPeer()
        self.host: IAddress = self.transport.getHost()
        self.is_secure = ISSLTransport.providedBy(self.transport)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        #: Twisted's transports join what they are given, and take bytes alone; standard output's does neither.
        self._takes_views = getattr(self.transport, "takes_views", False)
        self.transport.registerProducer(self, True)
        self._busy_at = self.clock.seconds()
        if self._idle_seconds:
            self._timer = self.clock.callLater(LOOK_SECONDS, self._look_around)
        self._flush()

    def dataReceived(self, data: bytes | memoryview) -> None:
        """See ``IProtocol``. Nothing is kept of ``data`` that would change with it."""
        if self._lost:
            return
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self._close(type(error).__name__)  # h2 has made the GOAWAY
            return
        self._handling = True
        try:
            for event in events:
                handler = _HANDLERS.get(type(event))
                if handler is not None and not self._lost:
                    handler(self, event)
        finally:
            self._handling = False
        self._flush()
        self._pump()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        self._stop_timer()
        self._end_streams(reason)

    def finish(self) -> None:
        """Take no further streams; the connection closes when those that run are answered."""
        if self._lost or self._finishing:
            return
        self._finishing = True
        self._h2.announce_end()
        self._flush()
        self._close_if_finished()

    def input_ended(self) -> None:
        """The client will send nothing more, but may still read: what it has asked for in full is answered.

        Bodies that are not complete are lost, and so are answers that would need more of a window.
        """
        self._input_over = True
        for stream in list(self._streams.values()):
            if not stream.has_whole_request:
                stream.abort()
        self._pump()
        for stream in list(self._streams.values()):
            if stream.has_output and stream.stream_id not in self._ready:
                stream.abort()
        self.finish()

    # Events

    def _request(self, event: h2.events.RequestReceived) -> None:
        ended = event.stream_ended is not None
        if self._finishing or len(self._streams) >= MAX_STREAMS:
            self._h2.reset_stream(event.stream_id, _Codes.REFUSED_STREAM)
            self._spend("streams at once")
        elif self._h2.oversized(event.headers):
            self._refuse(event.stream_id, b"431", ended)
            self._spend("long headers")
        else:
            stream = H2Stream(self, event.stream_id, ended)
            self._streams[event.stream_id] = stream
            stream.begin(event.headers)

    def _refuse(self, stream_id: int, status: bytes, ended: bool) -> None:
        self._h2.send_headers(stream_id, [(b":status", status), (b"content-length", b"0")], end_stream=True)
        if not ended:
            self._h2.reset_stream(stream_id, _Codes.NO_ERROR)

    def _data(self, event: h2.events.DataReceived) -> None:
        length = event.flow_controlled_length
        self._received += length
        if self._received >= CONNECTION_WINDOW // 8:
            self._h2.increment_flow_control_window(self._received)
            self._received = 0
        if not event.data and not event.stream_ended:
            self._spend("empty frames")
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.data_arrived(event.data, length - len(event.data))

    def _ended(self, event: h2.events.StreamEnded) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.body_ended()
        waiting = self._answered.pop(event.stream_id, None)
        if waiting is not None:
            waiting.cancel()

    def _reset(self, event: h2.events.StreamReset) -> None:
        waiting = self._answered.pop(event.stream_id, None)
        if waiting is not None:
            waiting.cancel()  # as it should: it has its answer
            return
        stream = self._forget(event.stream_id)
        if stream is not None:
            stream.connection_lost(Failure(ConnectionLost("the client reset the stream")))
        self._spend("resets")

    def _window_updated(self, event: h2.events.WindowUpdated) -> None:
        if event.delta < SMALL_UPDATE:
            self._spend("small windows")
        if event.stream_id:
            self._may_send(self._streams.get(event.stream_id))
        else:
            self._all_may_send()

    def _settings_changed(self, event: h2.events.RemoteSettingsChanged) -> None:
        self._greeted = True
        self._spend("settings")
        self._all_may_send()

    def _all_may_send(self) -> None:
        for stream in self._streams.values():
            self._may_send(stream)

    def _may_send(self, stream: H2Stream | None) -> None:
        if stream is not None and stream.has_output:
            self._ready[stream.stream_id] = stream

    def _ping(self, event: h2.events.PingReceived) -> None:
        self._spend("pings")

    def _goaway(self, event: h2.events.ConnectionTerminated) -> None:
        self._finishing = True
        self._close_if_finished()

    # From the streams

    def open_window(self, stream_id: int, length: int) -> None:
        """Let the client send ``length`` bytes more of a stream's body."""
        try:
            self._h2.increment_flow_control_window(length, stream_id)
        except (h2.exceptions.ProtocolError, KeyError):
            return  # the client has ended or reset the stream
        self._flush()

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
        if stream_id in self._streams:
            self._send_reset(stream_id, _Codes.INTERNAL_ERROR)
            self._forget(stream_id)

    def _send_reset(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        try:
            self._h2.reset_stream(stream_id, code)
        except h2.exceptions.ProtocolError:
            return
        self._flush()

    def _stop_later(self, stream_id: int) -> None:
        """Tell the client that nobody wants the rest of a body whose answer is whole (RFC 9113, section 8.1), unless it
        stops by itself: curl 7.88 drops an answer that a reset follows at once.
        """
        if len(self._answered) >= MAX_STREAMS // 2:
            self._stop_body(next(iter(self._answered)))
        self._answered[stream_id] = self.clock.callLater(STOP_SECONDS, self._stop_body, stream_id)

    def _stop_body(self, stream_id: int) -> None:
        waiting = self._answered.pop(stream_id)
        if waiting.active():
            waiting.cancel()
        self._send_reset(stream_id, _Codes.NO_ERROR)

    def _forget(self, stream_id: int) -> H2Stream | None:
        self._ready.pop(stream_id, None)
        self._busy_at = self.clock.seconds()
        stream = self._streams.pop(stream_id, None)
        self._close_if_finished(linger=True)
        return stream

    # To the transport

    def _flush(self) -> None:
        """Write what h2 wants to say, all at once when all that has come is looked at."""
        if not self._handling:
            self._flush_now()

    def _flush_now(self) -> None:
        data = self._h2.data_to_send()
        if not data or self._lost:
            return
        self.transport.write(data)
        if self._blocked:
            self._waiting += len(data)
            if self._waiting > CONTROL_HIGH:
                self._close("reads nothing")
                self._abort()

    def _write(self, parts: list[bytes | memoryview]) -> None:
        """Write these bytes of an answer, and what h2 wants to say after them."""
        if last := self._h2.data_to_send():
            parts.append(last)
        if not parts or self._lost:
            return
        if self._takes_views:
            self.transport.writeSequence(parts)
        else:
            self.transport.write(b"".join(parts))

    def _pump(self) -> None:
        """Send the streams' bytes in turns, a few frames each, until the transport or the windows are full."""
        if self._pumping or self._handling or self._pump_later is not None:
            return
        self._pumping = True
        left = PUMP_SIZE
        try:
            while self._ready and not self._blocked and not self._lost:
                if left <= 0:
                    # A transport that takes all at once, and a producer that has all at hand, would never end.
                    self._pump_later = self.clock.callLater(0, self._pump_again)
                    break
                stream_id, stream = next(iter(self._ready.items()))
                del self._ready[stream_id]
                left -= self._send_some(stream)
        finally:
            self._pumping = False

    def _pump_again(self) -> None:
        self._pump_later = None
        self._pump()

    def _send_some(self, stream: H2Stream) -> int:
        """Send a little of one stream, and put it to the end of the line where there is more that could be sent.

        Returns how many bytes that were.
        """
        stream_id = stream.stream_id
        parts: list[bytes | memoryview] = []
        size = sent = 0
        try:
            size = min(self._h2.local_flow_control_window(stream_id), WRITE_SIZE)
            if size > 0:
                chunks = stream.take_output(size)
                sent = sum(map(len, chunks))
                parts = self._h2.send_body(stream_id, chunks)
            complete = stream.is_complete
            if complete:
                self._h2.end_stream(stream_id)
        except h2.exceptions.ProtocolError:
            # Reset by the client; h2 tells in an event that is still to come, or has come.
            self._write(parts)
            return sent
        self._write(parts)
        if complete:
            if not stream.has_whole_request:
                self._stop_later(stream_id)
            self._forget(stream_id)
            return sent
        stream.output_taken()
        if size <= 0 and stream.has_output and self._input_over:
            stream.abort()  # nobody will open its window
        if size > 0 and stream.has_output and stream_id in self._streams:
            self._ready[stream_id] = stream
        return sent

    def pauseProducing(self) -> None:
        """See ``IPushProducer``: the transport is full."""
        self._blocked = True

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._blocked = False
        self._waiting = 0
        self._pump()

    def stopProducing(self) -> None:
        """See ``IPushProducer``: the transport is gone."""

    # Limits and the end

    def _spend(self, what: str) -> None:
        if not self._budget.spend() and not self._lost:
            self._h2.close_connection(_Codes.ENHANCE_YOUR_CALM)
            self._close(f"too many {what}")

    def _look_around(self) -> None:
        """End what makes no progress through the client's fault."""
        self._timer = None
        before = self.clock.seconds() - self._idle_seconds
        for stream in list(self._streams.values()):
            if stream.is_waiting and stream.progress < before:
                stream.abort()
        if not self._greeted or (not self._streams and self._busy_at < before):
            self._h2.close_connection(_Codes.NO_ERROR)
            self._close("idle")
        if not self._lost:
            self._timer = self.clock.callLater(LOOK_SECONDS, self._look_around)

    def _close_if_finished(self, linger: bool = False) -> None:
        """End the connection where no stream runs and none may begin.

        :param linger: let the client close it: with bytes of its that we have not read, such as a WINDOW_UPDATE for the
            last answer, our end would be a reset, which can cost it the end of that answer (RFC 9112, section 9.6).
        """
        if not self._finishing or self._streams or self._lost:
            return
        if linger and not self._input_over:
            self._flush_now()
            self._end_streams(connectionDone)
            self._stop_timer()
            self._timer = self.clock.callLater(CLOSE_SECONDS, self._lose)
        else:
            self._close(None)

    def _close(self, why: str | None) -> None:
        """End the connection with all its streams, once what h2 has to say (GOAWAY) is written.

        :param why: for the log, None where everything is as it should be.
        """
        if why is not None:
            self._log.debug("{peer}: HTTP/2 connection closed: {why}", peer=self.peer, why=why)
        self._flush_now()
        self._end_streams(Failure(ConnectionLost(why or "finished")))
        self._lose()

    def _lose(self) -> None:
        self._stop_timer()
        self._timer = self.clock.callLater(CLOSE_SECONDS, self._abort)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _abort(self) -> None:
        """Do not wait for a client that reads nothing. Standard output has no such thing: its reader is our parent."""
        self._stop_timer()
        abort = getattr(self.transport, "abortConnection", None)
        if abort is not None:
            abort()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _end_streams(self, reason: Failure) -> None:
        self._lost = True
        for waiting in self._answered.values():
            waiting.cancel()
        self._answered.clear()
        if self._pump_later is not None:
            self._pump_later.cancel()
            self._pump_later = None
        streams, self._streams = self._streams, {}
        self._ready.clear()
        for stream in streams.values():
            stream.connection_lost(reason)


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
