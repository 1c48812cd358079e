"""HTTP/2 on standard input and output, as ``rclone serve restic --stdio`` speaks it to restic."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure

from resticd.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from resticd.http.site import Site
    from resticd.interfaces import IReactor


def take_standard_output() -> int:
    """A private descriptor of standard output; what anybody else writes there goes to standard error from now on.

    Raises ``ConfigurationError`` where a person sits at the other end.
    """
    if os.isatty(0) or os.isatty(1):
        raise ConfigurationError("--stdio: this is a terminal; restic starts the program by itself")
    output = os.dup(1)
    os.dup2(2, 1)
    return output


class StdioListener:
    """One connection, which is there already; ``start`` and ``stop`` as ``Listeners`` has them.

    :param output: of ``take_standard_output``.
    :param ended: called when the client has closed its end.
    """

    def __init__(self, reactor: IReactor, site: Site, output: int, ended: Callable[[], object]) -> None:
        self._reactor = reactor
        self._site = site
        self._output = output
        self._ended = ended

    def start(self) -> Deferred[None]:
        """Begin to serve."""
        standard_io: Any = StandardIO
        standard_io(_Ending(self._site.prior_knowledge(), self._ended), 0, self._output, self._reactor)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Nothing: who closes standard input ends the connection."""
        return succeed(None)


class _Ending(Protocol):
    """Passes everything on to ``inner`` and tells when it is over."""

    def __init__(self, inner: Protocol, ended: Callable[[], object]) -> None:
        self._inner = inner
        self._ended = ended

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        assert self.transport is not None
        self._inner.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        self._inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        self._inner.connectionLost(reason)
        self._ended()
