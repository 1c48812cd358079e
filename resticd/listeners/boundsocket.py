"""Listening sockets that Twisted did not make."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet import unix
from twisted.internet.defer import Deferred, succeed

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort, IProtocolFactory
    from twisted.python.failure import Failure

    from resticd.interfaces import IReactor

#: How many connections may wait to be accepted; the kernel lowers it to its own limit (``net.core.somaxconn``).
BACKLOG = 1024


class BoundSocket:
    """A socket that listens, TCP or unix, from which nothing is accepted yet.

    :param socket: owned from now on; made non-blocking and not passed to children.
    :param release: called once, before the socket is closed.
    """

    def __init__(self, reactor: IReactor, socket: socket.socket, release: Callable[[], object] | None = None) -> None:
        socket.setblocking(False)
        socket.set_inheritable(False)
        self._reactor = reactor
        self._socket = socket
        self._release = release or _nothing

    @property
    def socket(self) -> socket.socket:
        """The socket itself, for other processes to accept from."""
        return self._socket

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept connections for ``factory``; the port owns the socket then. Called once."""
        port: IListeningPort
        if self._socket.family == socket.AF_UNIX:
            unix_port = UnixPort(self._reactor, self._socket, factory, self._release)
            unix_port.startListening()
            port = unix_port
        else:
            port = self._reactor.adoptStreamPort(
                self._socket.fileno(),
                self._socket.family,
                factory,  # type: ignore[arg-type] # any IProtocolFactory will do
            )
            self._socket.close()
        return succeed(port)

    def close(self) -> None:
        """Give the socket up, where ``listen`` was not called."""
        self._release()
        self._socket.close()


class UnixPort(unix.Port):
    """Accepts from a unix socket that listens already, and leaves its file to who made it.

    Twisted's own port would make the file of an adopted socket writable to all, take it away at the end, and shut the
    socket down for the service manager too.
    """

    _shouldShutdown = False

    def __init__(
        self,
        reactor: IReactor,
        socket: socket.socket,
        factory: IProtocolFactory,
        release: Callable[[], object],
    ) -> None:
        # Twisted touches no file for a name in the abstract namespace. getHost asks the socket.
        super().__init__(b"\0resticd", factory, backlog=BACKLOG, reactor=reactor)
        self._preexistingSocket = socket
        self._release = release

    def connectionLost(self, reason: Failure) -> None:
        """The socket is about to be closed."""
        self._release()
        super().connectionLost(reason)


def _nothing() -> None:
    """What has nothing to release."""
