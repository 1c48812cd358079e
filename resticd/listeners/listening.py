"""All listeners of the server, started and stopped together."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from resticd.errors import ConfigurationError
from resticd.listeners.addresses import Address, EndpointAddress, TcpAddress, UnixAddress
from resticd.listeners.boundsocket import BoundSocket
from resticd.listeners.handshake import HANDSHAKE_SECONDS, over_tls, tls_transport
from resticd.listeners.shared import Place, SharedEndpoint, SharedSocket, sockets_of
from resticd.listeners.systemd import InheritedSocket
from resticd.listeners.tcpsocket import bind_tcp
from resticd.listeners.unixsocket import DEFAULT_MODE, bind_unix

if TYPE_CHECKING:
    import socket

    from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint

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


@frozen
class Sharing:
    """What a process needs to accept from sockets that another process has bound.

    :ivar place: this process among the others.
    :ivar sockets: for each source its sockets, in the order in which that process has bound them.
    """

    place: Place
    sockets: Sequence[Sequence[socket.socket]]


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
    :param sharing: where another process has bound all of ``sources`` (``bind``); it has logged them too.
    :param without: the techniques to do without, for comparison: ``bulk-tls``, ``direct-tls``.
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
        sharing: Sharing | None = None,
        without: Collection[str] = (),
    ) -> None:
        self.ports: list[Listening] = []
        self._reactor = reactor
        self._sharing = sharing
        self._bound: list[BoundSocket] = []
        self._unix_mode = unix_mode
        self._unix_group = unix_group
        self._plain = site
        self._over_tls = (
            None if tls is None else over_tls(tls, site, reactor, handshake_seconds, tls_transport(without))
        )
        self._factories = [(source, self._factory_for(source)) for source in sources]
        self._endpoints = {
            source: self._make_endpoint(source)
            for source in sources
            if isinstance(source, EndpointAddress) and sharing is None
        }

    def start(self) -> Deferred[None]:
        """Listen everywhere. Fires when all ports accept connections.

        Fails with one ``ConfigurationError`` that names the address where one cannot; the others are closed then.
        """
        return Deferred.fromCoroutine(self._start())

    def bind(self) -> Deferred[list[list[socket.socket]]]:
        """Bind all sources and accept nothing: other processes do, see ``sharing``.

        Fires with the sockets of each source. Fails as ``start``. ``stop`` closes them here.
        """
        return Deferred.fromCoroutine(self._bind_for_others())

    def stop(self) -> Deferred[None]:
        """Accept no more. Fires when the ports are closed; connections go on."""
        bound, self._bound = self._bound, []
        for place in bound:
            place.close()
        ports, self.ports = self.ports, []
        closed = gatherResults([maybeDeferred(listening.port.stopListening) for listening in ports])
        return closed.addCallback(lambda _: None)

    async def _start(self) -> None:
        bound: list[BoundSocket | SharedSocket | SharedEndpoint] = []
        try:
            # First bind all, then accept: nobody is served by a server that will not start.
            places = []
            for number, (source, factory) in enumerate(self._factories):
                for place in await self._bind(source, number):
                    places.append((source, factory, place))
                    if isinstance(place, BoundSocket | SharedSocket | SharedEndpoint):
                        bound.append(place)
            for source, factory, place in places:
                self.ports.append(await self._listen(source, factory, place))
                if isinstance(place, BoundSocket | SharedSocket | SharedEndpoint):
                    bound.remove(place)
        except BaseException:
            for each in bound:
                each.close()
            await self.stop()
            raise
        for listening in self.ports:
            if self._sharing is None:
                self._say(listening.url, listening.name)

    async def _bind_for_others(self) -> list[list[socket.socket]]:
        found: list[list[socket.socket]] = []
        said = []
        try:
            for number, (source, factory) in enumerate(self._factories):
                found.append([])
                for place in await self._bind(source, number):
                    if isinstance(place, BoundSocket):
                        self._bound.append(place)
                        found[-1].append(place.socket)
                        host = _host_of(place.socket)
                    else:
                        self.ports.append(await self._listen(source, factory, place))
                        found[-1] += self._sockets_of(source)
                        host = self.ports[-1].port.getHost()
                    name = source.name if isinstance(source, InheritedSocket) else None
                    said.append((_url(host, self._is_secure(source, factory)), name))
        except BaseException:
            await self.stop()
            raise
        for url, name in said:
            self._say(url, name)
        return found

    def _say(self, url: str, name: str | None) -> None:
        self._log.warn("listening on {url}{name}", url=url, name="" if name is None else f" ({name})")  # a notice

    def _sockets_of(self, source: Source) -> list[socket.socket]:
        """Of the port that was made last."""
        try:
            return sockets_of(self.ports[-1].port)
        except ValueError as error:
            raise ConfigurationError(f"{_subject(source)}: {error}") from None

    async def _bind(
        self, source: Source, number: int
    ) -> Sequence[BoundSocket | SharedSocket | SharedEndpoint | IStreamServerEndpoint]:
        if self._sharing is not None:
            return self._adopt(source, self._sharing.place, self._sharing.sockets[number])
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

    def _adopt(
        self, source: Source, place: Place, sockets: Sequence[socket.socket]
    ) -> Sequence[SharedSocket | SharedEndpoint]:
        bound = [SharedSocket(self._reactor, each, place) for each in sockets]
        if not isinstance(source, EndpointAddress):
            return bound
        return [SharedEndpoint(self._reactor, source.description, each) for each in bound]

    async def _listen(
        self,
        source: Source,
        factory: IProtocolFactory,
        place: BoundSocket | SharedSocket | SharedEndpoint | IStreamServerEndpoint,
    ) -> Listening:
        try:
            port = await place.listen(factory)
        except CannotListenError as error:
            raise _cannot_listen(source, error.socketError) from None
        except OSError as error:
            raise _cannot_listen(source, error) from None
        name = source.name if isinstance(source, InheritedSocket) else None
        return Listening(_url(port.getHost(), self._is_secure(source, factory)), port, name)

    def _is_secure(self, source: Source, factory: IProtocolFactory) -> bool:
        return factory is self._over_tls or (isinstance(source, EndpointAddress) and source.brings_tls)

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
            # 4 MiB that most servers do without
            from twisted.internet.endpoints import serverFromString

            endpoint: IStreamServerEndpoint = serverFromString(self._reactor, description)
        except OSError as error:
            raise _cannot_listen(source, error) from error
        except Exception as error:
            # Each kind fails in its own way: ValueError, TypeError, IndexError, SSL.Error … in Python's words.
            raise ConfigurationError(f"{_subject(source)}: Twisted cannot make this endpoint") from error
        return endpoint


def _subject(source: Source) -> str:
    return str(source) if isinstance(source, InheritedSocket) else f"--addr: {source}"


def _cannot_listen(source: Source, error: BaseException) -> ConfigurationError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return ConfigurationError(f"{_subject(source)}: cannot listen: {' '.join(reason.split())}")


def _host_of(bound: socket.socket) -> IAddress:
    """The address of a socket, as a port of Twisted tells it."""
    name = bound.getsockname()
    if isinstance(name, tuple):
        kind = IPv4Address if len(name) == 2 else IPv6Address
        return kind("TCP", *name)
    return UNIXAddress(os.fsencode(name))


def _url(host: IAddress, secure: bool) -> str:
    scheme = "https" if secure else "http"
    if isinstance(host, IPv4Address):
        return f"{scheme}://{host.host}:{host.port}/"
    if isinstance(host, IPv6Address):
        return f"{scheme}://[{host.host}]:{host.port}/"
    if isinstance(host, UNIXAddress) and host.name:
        path = host.name.decode("utf-8", "backslashreplace")
        return f"unix://{path}" if path.startswith("/") else f"unix:@{path[1:]}"
    return f"{scheme}://{host}/"
