"""Ports that several processes accept from, so that each has its part of the connections.

All of them wait on one socket, and the kernel wakes all that are idle. Twisted takes all connections that wait at once:
of five to two processes one took four, and a client's few connections last as long as its backup. So a process takes
one connection at a time, and waits a moment where another one has fewer. Five are three and two then, whichever process
is woken first; a process that hangs holds nobody up for longer than ``PATIENCE``.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, succeed
from twisted.protocols.tls import TLSMemoryBIOFactory

from resticd.listeners.boundsocket import BACKLOG, UnixPort

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort, IProtocolFactory
    from twisted.python.failure import Failure

    from resticd.interfaces import IReactor

#: How long a process waits for one that has fewer connections to take the next one, in seconds.
PATIENCE = 0.01


class Place(Protocol):
    """One process among those that accept from the same sockets."""

    @property
    def is_next(self) -> bool:
        """Whether no other process has fewer connections."""

    def opened(self) -> None:
        """A connection was accepted."""

    def closed(self) -> None:
        """A connection is gone."""


class _Counted:
    """A connection that its port's place counts."""

    server: Any

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.server.place.opened()

    def connectionLost(self, reason: Failure) -> None:
        """See ``IProtocol``."""
        self.server.place.closed()
        super().connectionLost(reason)  # type: ignore[misc] # of the transport beside this


class _CountedTcp(_Counted, tcp.Server):
    pass


class _CountedUnix(_Counted, unix.Server):
    pass


class _Shared:
    """What makes a port of Twisted a shared one."""

    place: Place
    reactor: Any
    _may_take = False

    @property
    def numberAccepts(self) -> int:
        """How many connections are taken at a time; Twisted would take a hundred."""
        return 1

    @numberAccepts.setter
    def numberAccepts(self, _: int) -> None:
        """It stays so."""

    def doRead(self) -> None:
        """A connection waits."""
        if self._may_take or self.place.is_next:
            self._may_take = False
            super().doRead()  # type: ignore[misc] # of the port beside this
        else:
            self.stopReading()  # type: ignore[attr-defined]
            self.reactor.callLater(PATIENCE, self._look_again)

    def _look_again(self) -> None:
        if self.connected and not self.disconnecting:  # type: ignore[attr-defined]
            self._may_take = True
            self.startReading()  # type: ignore[attr-defined]


class SharedTcpPort(_Shared, tcp.Port):
    """Accepts from a TCP socket that listens already."""

    transport: Any = _CountedTcp

    def __init__(self, reactor: IReactor, bound: socket.socket, factory: IProtocolFactory, place: Place) -> None:
        super().__init__(0, factory, BACKLOG, bound.getsockname()[0], reactor)
        self._preexistingSocket = bound
        self.place = place


class SharedUnixPort(_Shared, UnixPort):
    """Accepts from a unix socket that listens already, and leaves its file alone."""

    transport: Any = _CountedUnix

    def __init__(self, reactor: IReactor, bound: socket.socket, factory: IProtocolFactory, place: Place) -> None:
        super().__init__(reactor, bound, factory, lambda: None)
        self.place = place


class SharedSocket:
    """A listening socket of another process; ``listen`` and ``close`` as ``BoundSocket`` has them."""

    def __init__(self, reactor: IReactor, bound: socket.socket, place: Place) -> None:
        bound.setblocking(False)
        bound.set_inheritable(False)
        self._reactor = reactor
        self._socket = bound
        self._place = place

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept connections for ``factory``; the port owns the socket then. Called once."""
        make = SharedUnixPort if self._socket.family == socket.AF_UNIX else SharedTcpPort
        port: Any = make(self._reactor, self._socket, factory, self._place)
        port.startListening()
        return succeed(port)

    def close(self) -> None:
        """Give the socket up, where ``listen`` was not called."""
        self._socket.close()


class SharedEndpoint:
    """A Twisted endpoint whose socket listens already.

    The endpoint is made again, over a reactor that binds nothing, since it may wrap the factory: ``ssl:`` does.
    """

    def __init__(self, reactor: IReactor, description: str, bound: SharedSocket) -> None:
        self._bound = bound
        from twisted.internet.endpoints import serverFromString

        self._endpoint = serverFromString(_Adopting(reactor, bound), description)

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See ``SharedSocket``."""
        listening: Deferred[IListeningPort] = self._endpoint.listen(factory)
        return listening

    def close(self) -> None:
        """See ``SharedSocket``."""
        self._bound.close()


class _Adopting:
    """The reactor, but that every listener gets one socket that is there."""

    def __init__(self, reactor: IReactor, bound: SharedSocket) -> None:
        self._reactor = reactor
        self._bound = bound

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: IProtocolFactory, *_: object, **__: object) -> IListeningPort:
        """See ``IReactorTCP``."""
        return _result(self._bound.listen(factory))

    def listenUNIX(self, address: str, factory: IProtocolFactory, *_: object, **__: object) -> IListeningPort:
        """See ``IReactorUNIX``."""
        return _result(self._bound.listen(factory))

    def listenSSL(
        self,
        port: int,
        factory: IProtocolFactory,
        contextFactory: Any,  # noqa: N803 - as endpoints call it
        *_: object,
        **__: object,
    ) -> IListeningPort:
        """See ``IReactorSSL``."""
        return _result(self._bound.listen(TLSMemoryBIOFactory(contextFactory, False, factory)))


def _result(fired: Deferred[IListeningPort]) -> IListeningPort:
    """Of a Deferred that has fired."""
    results: list[IListeningPort] = []
    fired.addCallback(results.append)
    return results[0]


def sockets_of(port: IListeningPort) -> list[socket.socket]:
    """The socket of a port of Twisted, which stops accepting. Raises ``ValueError`` for a port of another kind."""
    if not isinstance(port, tcp.Port):
        raise ValueError("is not for several processes (--workers): tcp:, tcp6:, ssl: and unix: are")
    port.stopReading()
    return [port.socket]
