"""HTTP/1.1 connections with limits: the size of the headers, and time to send them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

#: Seconds for the headers of a request to come in. Between requests ``Site``'s idle timeout counts.
HEADER_SECONDS = 10.0


class Channel(HTTPChannel):
    """An ``HTTPChannel`` that answers 431 to headers above the site's limit and closes when they take too long.

    Twisted's own timeout begins anew with every byte, so a client that sends a byte a minute would hold a connection
    for ever. While an answer waits for its client to read, the idle timeout runs as well.
    """

    site: Any
    transport: Any
    _header_deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        # LineReceiver gives up a line that is longer, found or not.
        self.MAX_LENGTH = self.site.settings.max_header_bytes
        super().connectionMade()
        self._expect_headers()

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
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

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        super().pauseProducing()
        if self._handlingRequest:
            self.setTimeout(self.timeOut)

    def resumeProducing(self) -> None:
        """The transport's buffer is empty again."""
        if self._handlingRequest:
            self.setTimeout(None)
        super().resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        self._forget_deadline()
        super().connectionLost(reason)

    def _expect_headers(self) -> None:
        self._header_deadline = self.callLater(HEADER_SECONDS, self._headers_late)

    def _headers_late(self) -> None:
        self._header_deadline = None
        self.transport.abortConnection()

    def _forget_deadline(self) -> None:
        deadline, self._header_deadline = self._header_deadline, None
        if deadline is not None:
            deadline.cancel()
