"""All listeners of the server, started and stopped together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from resticd.errors import ConfigurationError
from resticd.listeners.addresses import Address, EndpointAddress, TcpAddress, UnixAddress
from resticd.listeners.boundsocket import BoundSocket
from resticd.listeners.handshake import HANDSHAKE_SECONDS, over_tls
from resticd.listeners.systemd import InheritedSocket
from resticd.listeners.tcpsocket import bind_tcp
from resticd.listeners.unixsocket import DEFAULT_MODE, bind_unix

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint

    from resticd.interfaces import IReactor
    from resticd.listeners.tls import ServerTls

Source = Address | InheritedSocket


@frozen
class Listening:
    """One port that accepts connections.

    :ivar url: ``http://127.0.0.1:8080/``, ``https://…`` or ``unix:///path``.
    :ivar name: what the service manager calls its socket, None for others.
    """

    url: str
    port: IListeningPort
    name: str | None = None


class Listeners:
    """Serves ``site`` on all of ``sources``.

    Where there is a certificate every listener has TLS unless it says ``http://`` or is a unix socket; one that insists
    on TLS cannot be made without a certificate. Raises ``ConfigurationError`` for that and for endpoints that Twisted
    does not understand.

    :param sources: of ``parse_address``, or the service manager's sockets.
    :param site: makes the protocols of all connections; ``getHost`` of their transports tells a unix socket
        (``UNIXAddress``).
    :param tls: of ``configure_tls``.
    :param unix_mode: permissions of unix sockets.
    :param unix_group: their group id, None for the process's own. It does not reach Twisted's ``unix:`` endpoints.
    :param handshake_seconds: how long a TLS handshake may take.
    :ivar ports: what listens, in the order of ``sources``.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactor,
        sources: Sequence[Source],
        site: IProtocolFactory,
        tls: ServerTls | None = None,
        *,
        unix_mode: int = DEFAULT_MODE,
        unix_group: int | None = None,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        self.ports: list[Listening] = []
        self._reactor = reactor
        self._unix_mode = unix_mode
        self._unix_group = unix_group
        self._plain = site
        self._over_tls = None if tls is None else over_tls(tls, site, reactor, handshake_seconds)
        self._factories = [(source, self._factory_for(source)) for source in sources]
        self._endpoints = {
            source: self._make_endpoint(source) for source in sources if isinstance(source, EndpointAddress)
        }

    def start(self) -> Deferred[None]:
        """Listen everywhere. Fires when all ports accept connections.

        Fails with one ``ConfigurationError`` that names the address where one cannot; the others are closed then.
        """
        return Deferred.fromCoroutine(self._start())

    def stop(self) -> Deferred[None]:
        """Accept no more. Fires when the ports are closed; connections go on."""
        ports, self.ports = self.ports, []
        closed = gatherResults([maybeDeferred(listening.port.stopListening) for listening in ports])
        return closed.addCallback(lambda _: None)

    async def _start(self) -> None:
        bound: list[BoundSocket] = []
        try:
            # First bind all, then accept: nobody is served by a server that will not start.
            places = []
            for source, factory in self._factories:
                for place in await self._bind(source):
                    places.append((source, factory, place))
                    if isinstance(place, BoundSocket):
                        bound.append(place)
            for source, factory, place in places:
                self.ports.append(await self._listen(source, factory, place))
                if isinstance(place, BoundSocket):
                    bound.remove(place)
        except BaseException:
            for place in bound:
                place.close()
            await self.stop()
            raise
        for listening in self.ports:
            name = "" if listening.name is None else f" ({listening.name})"
            self._log.warn("listening on {url}{name}", url=listening.url, name=name)  # a notice

    async def _bind(self, source: Source) -> Sequence[BoundSocket | IStreamServerEndpoint]:
        try:
            if isinstance(source, TcpAddress):
                return await bind_tcp(self._reactor, source.host, source.port)
            if isinstance(source, UnixAddress):
                return [bind_unix(self._reactor, source.path, self._unix_mode, self._unix_group)]
        except (OSError, UnicodeError) as error:
            raise _cannot_listen(source, error) from None
        if isinstance(source, InheritedSocket):
            return [BoundSocket(self._reactor, source.socket)]
        return [self._endpoints[source]]

    async def _listen(
        self, source: Source, factory: IProtocolFactory, place: BoundSocket | IStreamServerEndpoint
    ) -> Listening:
        try:
            port = await place.listen(factory)
        except CannotListenError as error:
            raise _cannot_listen(source, error.socketError) from None
        except OSError as error:
            raise _cannot_listen(source, error) from None
        secure = factory is self._over_tls or (isinstance(source, EndpointAddress) and source.brings_tls)
        name = source.name if isinstance(source, InheritedSocket) else None
        return Listening(_url(port, secure), port, name)

    def _factory_for(self, source: Source) -> IProtocolFactory:
        """The site, plain or behind TLS."""
        if isinstance(source, UnixAddress) or (not isinstance(source, TcpAddress) and source.is_unix):
            return self._plain
        if (isinstance(source, EndpointAddress) and source.brings_tls) or source.tls is False:
            return self._plain
        if self._over_tls is not None:
            return self._over_tls
        if source.tls:
            raise ConfigurationError(f"{_subject(source)}: TLS needs --cert and --key")
        return self._plain

    def _make_endpoint(self, source: EndpointAddress) -> IStreamServerEndpoint:
        description = source.description
        if source.kind == "unix" and ":mode=" not in description:
            # Twisted's default lets everybody in, and unix sockets need no login.
            description = f"{description}:mode={self._unix_mode:o}"
        try:
            endpoint: IStreamServerEndpoint = serverFromString(self._reactor, description)
        except Exception as error:
            # Each kind fails in its own way: ValueError, TypeError, IndexError, SSL.Error …
            raise _cannot_listen(source, error) from error
        return endpoint


def _subject(source: Source) -> str:
    return str(source) if isinstance(source, InheritedSocket) else f"--addr: {source}"


def _cannot_listen(source: Source, error: BaseException) -> ConfigurationError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return ConfigurationError(f"{_subject(source)}: cannot listen: {' '.join(reason.split())}")


def _url(port: IListeningPort, secure: bool) -> str:
    host = port.getHost()
    scheme = "https" if secure else "http"
    if isinstance(host, IPv4Address):
        return f"{scheme}://{host.host}:{host.port}/"
    if isinstance(host, IPv6Address):
        return f"{scheme}://[{host.host}]:{host.port}/"
    if isinstance(host, UNIXAddress) and host.name:
        path = host.name.decode("utf-8", "backslashreplace")
        return f"unix://{path}" if path.startswith("/") else f"unix:@{path[1:]}"
    return f"{scheme}://{host}/"
