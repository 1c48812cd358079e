"""HTTP/1.1 connections: limits for headers and time, and what a request that streams needs of them.

``H2Stream`` is the same for HTTP/2. All use of the private names of Twisted's ``HTTPChannel`` is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.web.http import Request

    from resticd.http.lane import Memory

#: Seconds for the headers of a request to come in. Between requests ``Site``'s idle timeout counts.
HEADER_SECONDS = 10.0


class Channel(HTTPChannel):
    """An ``HTTPChannel`` that answers 431 to headers above the site's limit and closes when they take too long.

    Twisted's own timeout begins anew with every byte, so a client that sends a byte a minute would hold a connection
    for ever. While an answer waits for its client to read, the idle timeout runs as well.
    """

    #: What is left of a body would be read as the next request.
    needs_whole_body = True

    site: Any
    transport: Any
    _header_deadline: IDelayedCall | None = None
    _closing = False
    #: No request runs, and nothing of the next one is in.
    _at_rest = True
    #: A request was answered.
    _used = False
    #: The next answer is the last.
    finishing = False
    #: What came while an answer of the lane is awaited, None where none is.
    _held: list[bytes] | None = None
    _lost = False
    #: for the lane
    memory: Memory | None = None

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        # LineReceiver gives up a line that is longer, found or not; HTTPChannel has a limit of its own for them all.
        self.MAX_LENGTH = self.totalHeadersSize = self.site.settings.max_header_bytes
        # HTTPChannel keeps what ``timeOut`` is at a body's end, which is None where the timeout rests just then.
        self._savedTimeOut = self.site.timeOut
        super().connectionMade()
        self._expect_headers()

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        if self._held is not None:
            self._held.append(data)
            self.transport.pauseProducing()
            return
        if self._at_rest and not self._waitingForTransport and not self.finishing:
            lane = self.site.lane
            if lane is not None and lane.answer(self, data):
                self._forget_deadline()
                self._used = True
                return
        self._at_rest = False
        if self._header_deadline is None and not self._handlingRequest and not self.requests:
            self._expect_headers()
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """A line of the headers. The limit counts them all."""
        if self._receivedHeaderSize + len(line) > self.site.settings.max_header_bytes:
            self.lineLengthExceeded(line)
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """RFC 6585, section 5."""
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        self.loseConnection()

    def allHeadersReceived(self) -> None:
        """The headers of a request are in."""
        self._forget_deadline()
        super().allHeadersReceived()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Whether another request may follow ``request``, whose headers are in."""
        persistent = bool(super().checkPersistence(request, version))
        if persistent and self.finishing:
            request.setHeader(b"connection", b"close")
            return False
        return persistent

    def requestDone(self, request: Request) -> None:
        """A request is answered."""
        self._used = True
        pipelined = any(self._dataBuffer)  # HTTPChannel puts an empty piece there behind every body
        super().requestDone(request)
        self._at_rest = bool(self.persistent) and not (pipelined or self.requests or self._buffer)

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        super().pauseProducing()
        if self._handlingRequest:
            self.setTimeout(self.site.timeOut)

    def resumeProducing(self) -> None:
        """The transport's buffer is empty again."""
        if self._handlingRequest:
            self.setTimeout(None)
        super().resumeProducing()

    def loseConnection(self) -> None:
        """Close once all is written, which a client that does not read must not put off for ever."""
        if not self._closing:
            self._closing = True
            self.setTimeout(self.site.timeOut)
            super().loseConnection()

    def timeoutConnection(self) -> None:
        """Nothing has moved for too long."""
        if self._closing:
            self.transport.abortConnection()
        else:
            super().timeoutConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        self._lost = True
        self._forget_deadline()
        super().connectionLost(reason)

    def finish(self) -> None:
        """Take no further requests: close now, or after the answer that runs.

        A client whose first request, or part of one, may be on its way gets an answer: it could not tell whether the
        request was obeyed. The time for headers limits that.
        """
        self.finishing = True
        if self.requests:
            # Where the answer has not begun it will say so; a client that is told too late sees the connection close.
            if not self.requests[-1].startedWriting:
                self.close_after_answer()
            self.persistent = False
        elif self._at_rest and self._used:
            self.loseConnection()

    # For the lane.

    def hold(self) -> None:
        """An answer will take a moment: what comes meanwhile waits."""
        self._held = []
        self._at_rest = False
        self.setTimeout(None)

    def release(self, request: bytes = b"") -> None:
        """Go on: the answer was written, or ``request`` is to be received as if it came now."""
        held, self._held = self._held, None
        if self._lost:
            return
        self.setTimeout(self.site.timeOut)
        if held:
            self.transport.resumeProducing()
        if request:
            self._expect_headers()
            super().dataReceived(request)
        elif self.finishing:
            self.loseConnection()
        else:
            self._at_rest = True
        if held:
            self.dataReceived(b"".join(held))

    # For requests.

    def request_line(self) -> tuple[bytes, bytes, bytes]:
        """Method, path and protocol of the request that is being received, as soon as ``gotLength`` is called."""
        return self._command, self._path, self._version

    @property
    def connection_transport(self) -> object:
        """The transport of the connection."""
        return self.transport

    def pause_body(self) -> None:
        """Let the client wait; the idle timeout rests, since the waiting is ours."""
        self.setTimeout(None)
        self._networkProducer.pauseProducing()

    def resume_body(self) -> None:
        """Read on."""
        if not self._handlingRequest:
            self.setTimeout(self.site.timeOut)
        self._networkProducer.resumeProducing()

    def close_after_answer(self) -> None:
        """The answer that has not begun yet is the connection's last."""
        self.requests[-1].setHeader(b"connection", b"close")
        self.persistent = False

    def abort(self) -> None:
        """Break the connection, so that an incomplete answer does not look complete."""
        self.transport.abortConnection()

    # For who reads the body from the socket itself (``direct_receive``).

    @property
    def can_be_bypassed(self) -> bool:
        """Whether the rest of the body can be read behind this object's back: no part of it is on its way through
        it.
        """
        return self.length is not None and not self._busyReceiving

    def bypassed(self, count: int) -> None:
        """``count`` bytes of the body were read from the socket."""
        decoder: Any = self._transferDecoder
        decoder.contentLength -= count
        if decoder.contentLength == 0:
            # What _IdentityTransferDecoder.dataReceived does at the end.
            finish, decoder.dataCallback, decoder.finishCallback = decoder.finishCallback, None, None
            finish(b"")
            self.resume_body()

    def expect_progress(self, expected: bool) -> None:
        """Start or stop the idle timeout while somebody else reads or writes the socket."""
        self.setTimeout(self.site.timeOut if expected else None)

    def _expect_headers(self) -> None:
        self._header_deadline = self.callLater(HEADER_SECONDS, self._headers_late)

    def _headers_late(self) -> None:
        self._header_deadline = None
        self.transport.abortConnection()

    def _forget_deadline(self) -> None:
        deadline, self._header_deadline = self._header_deadline, None
        if deadline is not None:
            deadline.cancel()
