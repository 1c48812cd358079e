"""What a TLS connection is before and after its handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.x509.oid import NameOID
from twisted.internet.interfaces import IHandshakeListener, IProtocolFactory, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from resticd.listeners.bulk_tls import BulkTlsTransport
from resticd.listeners.direct_tls import DirectTlsTransport

if TYPE_CHECKING:
    from collections.abc import Collection

    from OpenSSL.SSL import Connection
    from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IReactorTime
    from twisted.python.failure import Failure

    from resticd.listeners.tls import ServerTls

#: Seconds until a handshake must be complete.
HANDSHAKE_SECONDS = 10.0


def over_tls(
    tls: ServerTls,
    factory: IProtocolFactory,
    clock: IReactorTime,
    seconds: float = HANDSHAKE_SECONDS,
    transport: type[TLSMemoryBIOProtocol] = DirectTlsTransport,
) -> TLSMemoryBIOFactory:
    """``factory`` behind TLS. Connections whose handshake takes longer than ``seconds`` are closed.

    :param transport: of ``tls_transport``.
    """
    made = TLSMemoryBIOFactory(tls, False, AfterHandshake(factory, clock, seconds), clock)
    made.protocol = transport
    return made


def tls_transport(without: Collection[str]) -> type[TLSMemoryBIOProtocol]:
    """What moves the bytes, without the techniques ``without``."""
    if "bulk-tls" in without:
        return BufferingTLSTransport
    return BulkTlsTransport if "direct-tls" in without else DirectTlsTransport


def common_name(transport: object) -> str | None:
    """The common name of the client's verified certificate, None where there is none.

    Of several the last counts, as in Go and so in rclone. rclone falls back on the names of issuers; here only the
    client's own certificate counts.

    :param transport: the connection's transport, for HTTP/2 that of the whole connection.
    """
    if not ISSLTransport.providedBy(transport):
        return None
    connection: Connection | None = transport.getHandle()  # type: ignore[attr-defined]
    # A server that gets a certificate has asked for it, and asks only where it verifies.
    certificate = connection and connection.get_peer_certificate()
    if certificate is None:
        return None
    names = certificate.to_cryptography().subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[-1].value) or None if names else None


@implementer(IProtocolFactory)
class AfterHandshake:
    """Makes a protocol of the wrapped factory once the handshake is complete.

    It hides the wrapped factory from ``TLSMemoryBIOFactory``, which in Twisted 24.11 lets a site overrule the protocols
    that we offer by ALPN.
    """

    def __init__(self, factory: IProtocolFactory, clock: IReactorTime, seconds: float) -> None:
        self.factory = factory
        self.clock = clock
        self.seconds = seconds

    def doStart(self) -> None:
        """See ``IProtocolFactory``."""
        self.factory.doStart()

    def doStop(self) -> None:
        """See ``IProtocolFactory``."""
        self.factory.doStop()

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """See ``IProtocolFactory``."""
        return _Handshake(self, addr)


@implementer(IHandshakeListener)
class _Handshake(Protocol):
    """Stands in for the real protocol during the handshake; afterwards it is out of the way of the bytes."""

    #: a ``TLSMemoryBIOProtocol``
    transport: Any
    _log = Logger()
    _deadline: IDelayedCall

    def __init__(self, factory: AfterHandshake, peer: IAddress) -> None:
        self._factory = factory
        self._peer = peer

    def connectionMade(self) -> None:
        self._deadline = self._factory.clock.callLater(self._factory.seconds, self.transport.abortConnection)

    def handshakeCompleted(self) -> None:
        """See ``IHandshakeListener``."""
        self._deadline.cancel()
        protocol = self._factory.factory.buildProtocol(self._peer)
        if protocol is None:
            self.transport.abortConnection()
            return
        self.transport.wrappedProtocol = protocol
        protocol.makeConnection(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The handshake failed."""
        if self._deadline.active():
            self._deadline.cancel()
        self._log.debug("TLS handshake with {peer} failed: {reason}", peer=self._peer, reason=reason.getErrorMessage())
