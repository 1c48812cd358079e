"""A request whose handler runs when the headers are in, and whose body streams.

Twisted's ``Request.gotLength`` makes a file and the handler runs when all of the body lies in it. Here the handler
runs from ``gotLength`` itself. This module owns everything that follows from that; it does not know whether the
channel is HTTP/1.1's (``Channel``) or HTTP/2's (``H2Stream``).

- The handler runs after both ``gotLength`` and ``parseCookies``, whichever comes last: then all headers are in.
- The method and path are not in the request then, but in the channel.
- The channel cannot begin the next request before the body of this one was read. ``finish`` therefore waits for the
  body's end; what nobody wants is drained within bounds and then the connection is closed, so that the rest of a body
  is never read as the next request.
- Twisted answers Expect: 100-continue after ``gotLength``, possibly after our final answer. The header is taken away
  and ``want_body`` answers it when somebody wants the body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from twisted.internet.interfaces import IConsumer, IDelayedCall
from twisted.python.failure import Failure
from twisted.web import server
from zope.interface import implementer

from resticd.events import RequestDone
from resticd.http.body import RequestBody
from resticd.http.fields import common_fields, date
from resticd.interfaces import Caller

if TYPE_CHECKING:
    from resticd.events import Transfer
    from resticd.http.site import Site
    from resticd.repository.names import Target

#: A body that nobody wants is read up to this many bytes before its connection is closed: a client that is in the
#: middle of a pack (16 MiB by default) learns the answer instead of a reset connection.
DRAIN_BYTES = 32 * 1024 * 1024
#: … and for this long, in seconds.
DRAIN_SECONDS = 10.0
#: What is left of a body may be this long for the connection to be kept after an early answer.
KEEP_BYTES = 64 * 1024


class StreamingRequest(server.Request):
    """See the module.

    :ivar body: the request's ``RequestBody``.
    :ivar caller: who sent it; set by the gate.
    """

    site: Site
    body: RequestBody
    #: a ``Channel`` or ``H2Stream``; None once the connection is lost
    channel: Any
    caller = Caller()
    #: what the path names; set by the gate
    target: Target
    defaultContentType = None

    _upload: Transfer | None = None
    _download: Transfer | None = None
    _headers_in = False
    _length: int | None = None
    _length_known = False
    _dispatched = False
    _finishing = False
    _reported = False
    _expects_continue = False
    _drain_deadline: IDelayedCall | None = None
    _deadline: IDelayedCall | None = None
    _started: float = 0.0

    # From the channel: headers, body, end.

    def gotLength(self, length: int | None) -> None:
        """The length of the body is known, None where it is chunked (see ``Request.gotLength``)."""
        self._length = length
        self._length_known = True
        self._dispatch_early()

    def parseCookies(self) -> None:
        """All headers are in. Cookies are of no interest."""
        self._headers_in = True
        self._dispatch_early()

    def track(self, transfer: Transfer) -> None:
        """Count the bytes of ``transfer`` from now on; those of the body that are in already count too."""
        if transfer.upload:
            transfer.moved = self.body.received
            self._upload = transfer
        else:
            self._download = transfer

    def count_sent(self, count: int) -> None:
        """``count`` bytes of the answer were written to the socket by ``direct_send``."""
        self.sentLength += count
        if self._download is not None:
            self._download.moved += count

    def handleContentChunk(self, data: bytes) -> None:
        """Some of the body is in."""
        if self._upload is not None:
            self._upload.moved += len(data)
        self.body.arrived(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """All of the body is in."""
        if self._dispatched:
            self._set_deadline(self.site.settings.write_timeout)
        else:
            self._dispatch(command, path, version)
        self.body.ended()

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone."""
        self._stop_deadlines()
        if self._dispatched:
            self.body.lost()
            if not self.finished:
                self._report(complete=False)
        super().connectionLost(reason)

    def _dispatch_early(self) -> None:
        """Run the handler now if there is a body to stream; a request without one is dispatched when it is complete."""
        if not (self._headers_in and self._length_known) or self._length == 0:
            return
        self._dispatch(*self.channel.request_line())

    def _dispatch(self, command: bytes, path: bytes, version: bytes) -> None:
        self._dispatched = True
        self.site = self.channel.site
        self.site.requests.add(self)
        self._started = self.site.clock.seconds()
        self.content = None
        self.body = RequestBody(self, self._length)
        if self._length == 0:
            self.body.complete = True
        self._expects_continue = (self.requestHeaders.getRawHeaders(b"expect") or [b""])[0].lower() == b"100-continue"
        self.requestHeaders.removeHeader(b"expect")
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, query = path.partition(b"?")
        self.args = _parse_query(query)
        settings = self.site.settings
        self._set_deadline(settings.write_timeout if self.body.complete else settings.read_timeout)
        self.process()

    def process(self) -> None:
        """Hand the request to the site's resource.

        ``postpath``, which the gate sets, is percent-encoded: ``repository.names.parse`` alone undoes that, once.
        """
        common_fields(self.responseHeaders, date(), self.site.settings.response_headers)
        self.prepath = []
        self.postpath = []
        try:
            self.render(self.site.resource)
        except Exception:
            self.processingFailed(Failure())

    def getRequestHostname(self) -> bytes:
        """A constant: Klein refuses what is no host name, and restic's for a unix socket is its path in base64."""
        return b"resticd"

    @property
    def gone(self) -> bool:
        """Whether the client's connection is lost."""
        return self._disconnected

    # The body's side of the connection (``http.body.Upstream``).

    def pause_body(self) -> None:
        """Let the client wait."""
        if self.channel is not None:
            self.channel.pause_body()

    def resume_body(self) -> None:
        """Read on."""
        if self.channel is not None:
            self.channel.resume_body()

    def want_body(self) -> None:
        """Answer Expect: 100-continue, once, unless the final answer has begun."""
        if self._expects_continue and not self.startedWriting and self.channel is not None:
            self._expects_continue = False
            self.channel._send100Continue()

    def body_taken(self, count: int) -> None:
        """``count`` further bytes of the body were read from the socket after ``body.take_over``
        (``direct_receive``).
        """
        if self.channel is not None:
            self.body.received += count
            if self._upload is not None:
                self._upload.moved += count
            self.channel.bypassed(count)

    # The answer.

    def write(self, data: bytes) -> None:
        """Write some of the answer; the first call writes the headers."""
        if not self.startedWriting and not self.body.complete:
            left = self.body.left
            if (left is None or left > KEEP_BYTES) and self.channel is not None:
                self.channel.close_after_answer()
        if self._download is not None:
            self._download.moved += len(data)
        super().write(data)

    def finish(self) -> None:
        """The answer is complete. The request ends when its body was read, or drained within bounds; over HTTP/2 at
        once.
        """
        if self._disconnected or self._finishing:
            return
        self._finishing = True
        if not self.startedWriting:
            self.write(b"")
        if self.body.complete or not self.channel.needs_whole_body:
            self._finish_now()
            return
        self._drain_deadline = self.site.clock.callLater(DRAIN_SECONDS, self.abort)
        self.body.deliver(_Drain(self)).addCallbacks(self._drained, lambda _: None)

    def abort(self) -> None:
        """Break the connection (HTTP/2: reset the stream), so that an incomplete answer cannot look complete."""
        self._stop_deadlines()
        if self.channel is not None:
            self.channel.abort()

    def _drained(self, _: None) -> None:
        if self.body.complete:
            self._finish_now()

    def _finish_now(self) -> None:
        self._stop_deadlines()
        self._report(complete=True)
        super().finish()

    def _set_deadline(self, seconds: float) -> None:
        """From now on the client has this long, whatever came before; 0 is no limit."""
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()
        if seconds and not self.finished and not self._disconnected:
            self._deadline = self.site.clock.callLater(seconds, self.abort)

    def _stop_deadlines(self) -> None:
        self._set_deadline(0)
        deadline, self._drain_deadline = self._drain_deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()

    def _report(self, complete: bool) -> None:
        if self._reported:
            return
        self._reported = True
        self.site.ended(self)
        self.site.sink.emit(
            RequestDone(
                caller=self.caller,
                method=self.method.decode("ascii", "replace"),
                uri=self.uri.decode("ascii", "backslashreplace"),
                protocol=self.clientproto.decode("ascii", "replace"),
                status=self.code,
                received=self.body.received,
                sent=self.sentLength,
                duration=self.site.clock.seconds() - self._started,
                complete=complete,
                referer=(self.getHeader(b"referer") or b"").decode("ascii", "backslashreplace"),
                agent=(self.getHeader(b"user-agent") or b"").decode("ascii", "backslashreplace"),
            )
        )


def _parse_query(query: bytes) -> dict[bytes, list[bytes]]:
    """The fields of a query, whatever bytes they encode: in Latin-1 each byte is a character."""
    fields = parse_qs(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    return {name.encode("latin-1"): [value.encode("latin-1") for value in values] for name, values in fields.items()}


@implementer(IConsumer)
class _Drain:
    """Reads what is left of a body, up to a bound, and forgets it."""

    def __init__(self, request: StreamingRequest) -> None:
        self._request = request
        self._left = DRAIN_BYTES

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """See ``IConsumer``."""

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self._left -= len(data)
        if self._left < 0:
            self._request.abort()
