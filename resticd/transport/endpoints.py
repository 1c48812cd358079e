"""Where connections go: straight to the host, to a unix socket, or through a proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from resticd.errors import RemoteTimeout, Unavailable
from resticd.transport.connections import LinkEndpoint
from resticd.transport.errors import Refused
from resticd.transport.tls import TrustPolicy

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol, IProtocolFactory
    from twisted.web.client import URI

    from resticd.transport.proxies import Proxy
    from resticd.transport.settings import ClientSettings

_LONGEST_ANSWER = 64 * 1024


@implementer(IAgentEndpointFactory)
class Endpoints:
    """Makes the endpoint for a URL. Raises ``ConfigurationError`` where an authority's file cannot be used."""

    def __init__(self, reactor: Any, settings: ClientSettings) -> None:
        self._reactor = reactor
        self._settings = settings
        self._trust = TrustPolicy(settings.ca_cert, settings.check_certificate)
        self._to_proxy: dict[Proxy, IStreamClientEndpoint] = {}

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See ``IAgentEndpointFactory``. Plain requests through a proxy go to ``to_proxy`` instead."""
        host = uri.host.decode("ascii")
        endpoint: IStreamClientEndpoint
        if self._settings.unix_socket is not None:
            endpoint = UNIXClientEndpoint(self._reactor, self._settings.unix_socket, self._settings.contimeout)
        elif uri.scheme == b"https" and (proxy := self.proxy_for(uri)) is not None:
            endpoint = _TunnelEndpoint(
                self._reactor, self._hop(proxy), proxy, (host, uri.port), timeout=self._settings.contimeout
            )
        else:
            endpoint = HostnameEndpoint(self._reactor, host, uri.port, self._settings.contimeout)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._trust.creatorForNetloc(uri.host, uri.port), endpoint)
        return LinkEndpoint(endpoint)

    def proxy_for(self, uri: URI) -> Proxy | None:
        """The proxy through which a URL is reached, None for none."""
        if self._settings.unix_socket is not None:
            return None
        return self._settings.proxies.choose(uri.scheme.decode("ascii"), uri.host.decode("ascii"), uri.port)

    def to_proxy(self, proxy: Proxy) -> IStreamClientEndpoint:
        """The endpoint of the proxy itself, always the same one, so that its connections are pooled."""
        if proxy not in self._to_proxy:
            self._to_proxy[proxy] = LinkEndpoint(self._hop(proxy))
        return self._to_proxy[proxy]

    def _hop(self, proxy: Proxy) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self._reactor, proxy.host, proxy.port, self._settings.contimeout
        )
        if proxy.tls:
            endpoint = wrapClientTLS(self._trust.creatorForNetloc(proxy.host.encode(), proxy.port), endpoint)
        return endpoint


@implementer(IStreamClientEndpoint)
class _TunnelEndpoint:
    """A connection to ``host`` that a proxy opens on CONNECT (RFC 9110, section 9.3.6)."""

    def __init__(
        self, reactor: Any, hop: IStreamClientEndpoint, proxy: Proxy, target: tuple[str, int], *, timeout: float
    ) -> None:
        host, port = target
        self._reactor = reactor
        self._hop = hop
        self._proxy = proxy
        self._target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._timeout = timeout

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See ``IStreamClientEndpoint``. Fails with ``Refused`` or ``Unavailable`` where the proxy says no."""
        request = f"CONNECT {self._target} HTTP/1.1\r\nHost: {self._target}\r\n"
        if self._proxy.authorization:
            request += f"Proxy-Authorization: {self._proxy.authorization}\r\n"
        tunnel = _Tunnel(factory, request.encode() + b"\r\n", self._proxy.host)

        def connected(_: IProtocol) -> Deferred[IProtocol]:
            def late() -> None:
                tunnel.fail(RemoteTimeout(f"the proxy {self._proxy.host} did not open a connection in time"))

            timer = self._reactor.callLater(self._timeout, late)

            def stop(result: IProtocol) -> IProtocol:
                if timer.active():
                    timer.cancel()
                return result

            return tunnel.opened.addBoth(stop)

        return self._hop.connect(Factory.forProtocol(lambda: tunnel)).addCallback(connected)


class _Tunnel(Protocol):
    """Asks the proxy, then hands everything on."""

    def __init__(self, factory: IProtocolFactory, request: bytes, proxy: str) -> None:
        self.opened: Deferred[IProtocol] = Deferred(lambda _: self._abort())
        self._factory = factory
        self._request = request
        self._proxy = proxy
        self._answer = b""
        self._inner: IProtocol | None = None
        self._failed = False

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        self.transport.write(self._request)  # type: ignore[union-attr]  # set by now

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if end:
            self._answered(head, rest)
        elif len(self._answer) > _LONGEST_ANSWER:
            self.fail(Refused(f"the proxy {self._proxy} does not speak HTTP"))

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008  # Twisted's signature
        """See ``IProtocol``."""
        if self._inner is not None:
            self._inner.connectionLost(reason)
        else:
            self.fail(Unavailable(f"the proxy {self._proxy} closed the connection"))

    def fail(self, error: Exception) -> None:
        """Give up, unless the tunnel is open."""
        if self._inner is None and not self._failed:
            self._failed = True
            self._abort()
            self.opened.errback(Failure(error))

    def _answered(self, head: bytes, rest: bytes) -> None:
        status = head.partition(b"\r\n")[0].split(b" ", 2)
        code = int(status[1]) if len(status) > 1 and status[1].isdigit() else 0
        if not 200 <= code < 300:
            kind = Unavailable if code >= 500 else Refused
            self.fail(kind(f"the proxy {self._proxy} answers CONNECT with status {code}"))
            return
        inner = self._factory.buildProtocol(self.transport.getPeer())  # type: ignore[union-attr]
        if inner is None:
            self.fail(Unavailable("no connection is wanted any more"))
            return
        self._inner = inner
        inner.makeConnection(self.transport)  # type: ignore[arg-type]
        if rest:
            inner.dataReceived(rest)
        self.opened.callback(inner)

    def _abort(self) -> None:
        self._failed = True
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]
