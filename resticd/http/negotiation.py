"""Which protocol a new connection speaks: HTTP/1.1, or HTTP/2 by ALPN or with prior knowledge (RFC 9113, section
3.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from resticd.http.channel import HEADER_SECONDS, Channel

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from resticd.http.h2_connection import H2Connection
    from resticd.http.site import Site

#: What a client that knows sends first (RFC 9113, section 3.4).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Negotiator(Protocol):
    """Waits for the first bytes, chooses, and hands the connection over."""

    transport: Any
    _deadline: IDelayedCall | None = None

    def __init__(self, site: Site) -> None:
        self._site = site
        self._early = b""
        self._chosen: Channel | H2Connection | None = None
        self._finishing = False

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        self._site.connections.add(self)
        if self._site.http2:
            self._deadline = self._site.clock.callLater(HEADER_SECONDS, self._late)
        else:
            self._hand_over(self._http1())

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        if self._chosen is not None:
            self._chosen.dataReceived(data)
            return
        data = self._early = self._early + data
        if getattr(self.transport, "negotiatedProtocol", None) == b"h2" or data.startswith(PREFACE):
            self._hand_over(self._http2(), data)
        elif not PREFACE.startswith(data):
            self._hand_over(self._http1(), data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        self._stop_waiting()
        if self._chosen is not None:
            self._chosen.connectionLost(reason)
        self._site.closed(self)

    def finish(self) -> None:
        """Take no further requests; the connection closes when those that run, or are on their way, are answered."""
        self._finishing = True
        if self._chosen is not None:
            self._chosen.finish()

    def abort(self) -> None:
        """Break the connection off."""
        self.transport.abortConnection()

    def _http1(self) -> Channel:
        site = self._site
        channel: Any = Channel()
        channel.site = channel.factory = site
        channel.requestFactory = site.requestFactory
        channel.timeOut = site.timeOut
        channel.callLater = site.clock.callLater
        made: Channel = channel
        return made

    def _http2(self) -> H2Connection:
        # Only who speaks HTTP/2 pays for its modules.
        from resticd.http.h2_connection import H2Connection

        return H2Connection(self._site, self._site.timeOut or 0)

    def _hand_over(self, protocol: Channel | H2Connection, data: bytes = b"") -> None:
        self._stop_waiting()
        self._chosen, self._early = protocol, b""
        protocol.makeConnection(self.transport)
        self.dataReceived = protocol.dataReceived  # type: ignore[method-assign]  # one call less for each read
        if data:
            protocol.dataReceived(data)
        if self._finishing:
            protocol.finish()

    def _late(self) -> None:
        self._deadline = None
        self.transport.abortConnection()

    def _stop_waiting(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()
