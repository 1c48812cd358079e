"""Twisted's epoll reactor, which tells a connection that there is something to read and nothing more.

For every event Twisted pushes a context for its legacy log, five calls deep, and asks the connection twice for its
descriptor. Nothing of resticd reads that context (its loggers have namespaces). Without it a process answers 1.2 times
as many HEAD requests, and 1.1 times as many small GETs.

Only what nothing else need be known of is done here: a socket of Twisted's own that may be read. Everything else, a
hang-up say, is Twisted's. ``twistd --reactor`` keeps its choice.
"""

from __future__ import annotations

import sys
from select import EPOLLIN
from typing import TYPE_CHECKING, Any

from twisted.internet import main, tcp
from twisted.internet.epollreactor import EPollReactor
from twisted.python import log

if TYPE_CHECKING:
    from collections.abc import Collection


class QuickReactor(EPollReactor):
    """See the module.

    :ivar quick: whether to be so.
    """

    quick = True

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events, at most for this many seconds, and handle them."""
        if not self.quick:
            super().doPoll(timeout)
            return
        selectables = self._selectables
        for fd, event in self._poller.poll(-1 if timeout is None else timeout, len(selectables)):
            selectable = selectables.get(fd)
            if event == EPOLLIN and isinstance(selectable, tcp.Connection):
                self._read(selectable)
            elif selectable is not None:
                log.callWithLogger(selectable, self._doReadOrWrite, selectable, fd, event)

    # What the main loop calls.
    doIteration = doPoll

    def _read(self, connection: Any) -> None:
        try:
            why = connection.doRead()
        except BaseException:  # as in Twisted: the connection is to blame, and the reactor goes on
            log.err()
            why = sys.exc_info()[1]
        if why:
            self._disconnectSelectable(connection, why, True)


def install() -> Any:
    """Make it the reactor, where none is installed yet. To be called before anything imports one.

    Returns the reactor, whichever it is.
    """
    if "twisted.internet.reactor" not in sys.modules:
        main.installReactor(QuickReactor())
    from twisted.internet import reactor

    return reactor


def choose(reactor: object, without: Collection[str]) -> None:
    """Let ``reactor`` be quick or not, where it can, by the techniques to do without."""
    if isinstance(reactor, QuickReactor):
        reactor.quick = "quick-events" not in without
