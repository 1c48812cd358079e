"""Connections of Twisted's HTTP client, with a handle on each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.client import HTTPConnectionPool
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocol, IProtocolFactory

#: How much of an answer is read while the request is still being sent.
_EARLY_ANSWER = 1024 * 1024
#: How much goes through a socket at once: every chunk costs, whatever its size.
_CHUNK = 512 * 1024
#: From this size on it is worth a system call of its own.
_AT_ONCE = 16 * 1024


class Link(ProtocolWrapper):
    """One connection, between Twisted's HTTP protocol and the transport.

    Twisted's parser stops reading once it has the headers of an answer, and shows an answer only when it has either
    sent the request or read the whole of the answer. A remote that refuses a body early would wait for us and
    we for it. So while a request is being sent reading goes on, for as much as a refusal may need.
    """

    transport: Any

    def __init__(self, factory: Any, wrapped: Any) -> None:
        super().__init__(factory, wrapped)
        self._sending = False
        self._early = 0
        self._plain = False
        #: whether ``abort`` was called; it takes effect in the reactor's next turn
        self.aborted = False

    def makeConnection(self, transport: Any) -> None:
        """See ``IProtocol``."""
        if isinstance(transport, Connection):  # not below TLS
            transport.bufferSize = transport.SEND_LIMIT = _CHUNK
            self._plain = True
        super().makeConnection(transport)

    @property
    def sending(self) -> bool:
        """Whether a request with a body is being sent."""
        return self._sending

    @sending.setter
    def sending(self, value: bool) -> None:
        self._sending = value
        self._early = 0

    def write(self, data: bytes) -> None:
        """See ``ITransport``. A large chunk goes to the socket at once, where nothing waits in front of it.

        Twisted's transport would wait for the reactor and put what is left of one chunk in front of a copy of the next.
        Instead whoever produces the body waits until all is gone. Saves a tenth of an upload's CPU time.
        """
        transport = self.transport
        if (
            len(data) < _AT_ONCE
            or not self._plain
            or transport.offset != len(transport.dataBuffer)
            or transport._tempDataBuffer
            or transport.disconnecting
            or transport.disconnected
        ):
            transport.write(data)
            return
        try:
            sent = transport.socket.send(data)
        except OSError:
            sent = 0  # full, or gone: the transport will find out
        if sent == len(data):
            return
        transport.write(data[sent:])
        if transport.producer is not None and transport.streamingProducer and not transport.producerPaused:
            transport.producerPaused = True
            transport.producer.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        if self._sending:
            self._early += len(data)
            if self._early > _EARLY_ANSWER:
                self.transport.pauseProducing()
        super().dataReceived(data)

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        if not self._sending:
            self.transport.pauseProducing()

    def abort(self) -> None:
        """Close the connection at once."""
        self.aborted = True
        self.transport.abortConnection()


class _LinkFactory(WrappingFactory):
    protocol = Link
    noisy = False


@implementer(IStreamClientEndpoint)
class LinkEndpoint:
    """An endpoint whose protocols get a ``Link`` for a transport."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def __repr__(self) -> str:
        return repr(self._endpoint)

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See ``IStreamClientEndpoint``; fires with the protocol of ``factory`` itself."""

        def unwrap(link: Any) -> IProtocol:
            protocol: IProtocol = link.wrappedProtocol
            return protocol

        return self._endpoint.connect(_LinkFactory(factory)).addCallback(unwrap)


class Pool(HTTPConnectionPool):
    """Keeps idle connections for later requests, and may open some before they are needed.

    :param most: how many are kept for one host.
    :param keep_alive: for how many seconds.
    """

    def __init__(self, reactor: Any, most: int, keep_alive: int) -> None:
        super().__init__(reactor)
        self.maxPersistentPerHost = most
        self.cachedConnectionTimeout = keep_alive
        # It would repeat what we repeat already, and could not sign anew.
        self.retryAutomatically = False
        self._opening: dict[Deferred[Any], Any] = {}

    def warm(self, key: Any, endpoint: IStreamClientEndpoint, wanted: int) -> None:
        """Open connections until ``wanted`` are idle or on their way, as far as they may be kept.

        One that fails is forgotten: the request that needs one will say why.
        """
        idle = [protocol for protocol in self._connections.get(key, ()) if protocol.state == "QUIESCENT"]
        there = len(idle) + list(self._opening.values()).count(key)
        for _ in range(min(wanted, self.maxPersistentPerHost) - there):
            opening: Deferred[Any] = self._newConnection(key, endpoint)
            self._opening[opening] = key
            opening.addCallback(self._opened, key).addErrback(lambda _: None).addBoth(self._forget, opening)

    def closeCachedConnections(self) -> Deferred[None]:
        """See ``HTTPConnectionPool``; those on their way are given up."""
        for opening in list(self._opening):
            opening.cancel()
        closed: Deferred[None] = super().closeCachedConnections()
        return closed

    def _opened(self, protocol: Any, key: Any) -> None:
        if protocol.state == "QUIESCENT":  # it may be closed again
            self._putConnection(key, protocol)

    def _forget(self, _: None, opening: Deferred[Any]) -> None:
        self._opening.pop(opening, None)


class Lease:
    """Stands for the pool in one request, and remembers the connection that the request got.

    Twisted's agents ask their pool for ``persistent`` and ``getConnection`` alone.

    :param has_body: whether the request has one.
    :ivar link: None as long as there is no connection.
    """

    persistent = True

    def __init__(self, pool: HTTPConnectionPool, has_body: bool) -> None:
        self.link: Link | None = None
        self._pool = pool
        self._has_body = has_body

    def getConnection(self, key: Any, endpoint: IStreamClientEndpoint) -> Deferred[Any]:
        """See ``HTTPConnectionPool``."""
        return self._pool.getConnection(key, endpoint).addCallback(self._got, key, endpoint)

    def _got(self, protocol: Any, key: Any, endpoint: IStreamClientEndpoint) -> Any:
        link: Link = protocol.transport
        if link.aborted:  # by who used it last, while its answer came to an end
            return self.getConnection(key, endpoint)
        link.sending = self._has_body
        self.link = link
        return protocol
