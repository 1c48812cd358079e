"""The service: starts and stops every part in order."""

from __future__ import annotations

import atexit
import os
import signal
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from resticd.assembly import make_listeners, make_remote, make_site
from resticd.bandwidth import Bandwidth
from resticd.errors import ConfigurationError, ResticdError
from resticd.observe.log import LogSink
from resticd.options import Options, fail
from resticd.workers import Workers

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from resticd.config.settings import Settings
    from resticd.interfaces import IReactor


def makeService(options: Options) -> ResticdService:
    """What ``twistd resticd`` runs. Ends the program where the settings cannot work."""
    from twisted.internet import reactor

    try:
        service = ResticdService(reactor, options.settings)  # type: ignore[arg-type]
    except ConfigurationError as error:
        fail(error)
    # twistd returns 0 whatever happened while its reactor ran.
    atexit.register(lambda: os._exit(service.status) if service.status else None)
    return service


class ResticdService(Service):
    """Serves one remote on all its listeners.

    ``MultiService`` would drop the Deferreds of its children, so the order is kept here: workers, remote, listeners,
    and back. Raises ``ConfigurationError`` where the settings cannot work.

    :ivar status: the exit status that the program should end with.
    """

    name = "resticd"
    _log = Logger(namespace="resticd")

    def __init__(self, reactor: IReactor, settings: Settings) -> None:
        self._reactor = reactor
        self.status = 0
        self._workers = Workers(reactor)
        self._bandwidth = Bandwidth(reactor, settings.bwlimit)
        self._remote = make_remote(settings, reactor, self._workers, self._bandwidth)
        sink = LogSink(access=settings.verbose > 0)
        site = make_site(settings, reactor, self._workers, self._remote, sink)
        self._listeners = make_listeners(settings, site, reactor, self._ended)

    def startService(self) -> None:
        """Start everything; a failure stops the reactor with one line in the log and exit status 1."""
        super().startService()
        self._workers.start()
        signal.signal(signal.SIGUSR2, lambda *_: self._reactor.callFromThread(self._bandwidth.toggle))
        Deferred.fromCoroutine(self._start()).addErrback(self._failed)

    async def _start(self) -> None:
        await self._remote.start()
        await self._listeners.start()

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let go of the remote, end the threads."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._listeners.stop()
        await self._remote.stop()
        self._workers.stop()

    def _failed(self, failure: Failure) -> None:
        if failure.check(ResticdError):
            self._log.critical("{reason}", reason=str(failure.value))
        else:
            self._log.failure("cannot start", failure)
        self.status = 1
        self._reactor.stop()

    def _ended(self) -> None:
        """The client on standard input is gone."""
        if self.running:
            self._reactor.stop()
