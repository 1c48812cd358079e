"""The service: starts and stops every part in order, and obeys signals."""

from __future__ import annotations

import atexit
import os
import signal
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from resticd.assembly import make_listeners, make_remote, make_site
from resticd.bandwidth import Bandwidth
from resticd.config.connection import shown
from resticd.errors import ConfigurationError, ResticdError
from resticd.observe.log import LogSink
from resticd.options import Options, fail
from resticd.sd_notify import Notifier
from resticd.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

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
        self.status = 0
        self._reactor = reactor
        self._settings = settings
        self._notifier = Notifier.from_environment(os.environ)
        self._watchdog = LoopingCall(self._notifier.alive)
        self._watchdog.clock = reactor
        self._workers = Workers(reactor)
        self._bandwidth = Bandwidth(reactor, settings.bwlimit)
        self._remote = make_remote(settings, reactor, self._workers, self._bandwidth)
        sink = LogSink(access=settings.verbose > 0)
        self._site = make_site(settings, reactor, self._workers, self._remote, sink)
        self._listeners = make_listeners(settings, self._site, reactor, self._ended)

    def startService(self) -> None:
        """Start everything; a failure stops the reactor with one line in the log and exit status 1."""
        super().startService()
        self._workers.start()
        self._on_signal(signal.SIGUSR2, self._bandwidth.toggle)
        Deferred.fromCoroutine(self._start()).addErrback(self._failed)

    async def _start(self) -> None:
        await self._remote.start()
        await self._listeners.start()
        self._notifier.ready(f"serving {shown(self._settings.remote)}")
        if self._notifier.watchdog:
            self._watchdog.start(self._notifier.watchdog / 2)

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let what runs come to its end or break it off, let go of the remote, end the threads.

        A second signal breaks everything off at once.
        """
        super().stopService()
        seconds = self._settings.shutdown_timeout
        self._notifier.stopping("finishing transfers", seconds + 10)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._on_signal(number, self._site.abort)
        return Deferred.fromCoroutine(self._stop(seconds))

    async def _stop(self, seconds: float) -> None:
        await self._listeners.stop()
        if self._site.connections:
            self._log.info("waiting for {count} connections", count=len(self._site.connections))
        await self._site.finish(seconds)
        await self._remote.stop()
        if self._watchdog.running:
            self._watchdog.stop()
        self._workers.stop()

    def _on_signal(self, number: signal.Signals, call: Callable[[], object]) -> None:
        """Have the reactor call ``call`` when the signal comes."""
        signal.signal(number, lambda *_: self._reactor.callFromThread(call))

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
