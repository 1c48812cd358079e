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

from resticd.assembly import make_log, needs_restart, resolve_remote
from resticd.config.connection import shown
from resticd.errors import ConfigurationError
from resticd.options import Options, fail
from resticd.reactor import install
from resticd.sd_notify import SIGN_SECONDS, Notifier
from resticd.serving import Serving
from resticd.signals import not_reloaded, on_signal, say_failed, say_reloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.application.service import IServiceCollection
    from twisted.python.failure import Failure

    from resticd.config.settings import Settings
    from resticd.interfaces import IReactor
    from resticd.observe.setup import Log
    from resticd.processes.supervisor import Supervisor


def makeService(options: Options) -> ResticdService | Supervisor:
    """What ``twistd resticd`` runs. Ends the program where the settings cannot work."""
    reactor = install()
    try:
        log = make_log(options.settings, reactor, options.parent)
        service = make_service(reactor, options.settings, options.reread, log)
    except ConfigurationError as error:
        fail(options.settings.explain(error))
    # twistd returns 0 whatever happened while its reactor ran.
    atexit.register(lambda: os._exit(service.status) if service.status else None)
    return service


def make_service(
    reactor: IReactor, settings: Settings, reread: Callable[[], Settings], log: Log
) -> ResticdService | Supervisor:
    """The service for one process or for several. Raises ``ConfigurationError``; see ``ResticdService``."""
    if settings.processes == 1:
        return ResticdService(reactor, settings, reread, log)
    from resticd.processes.supervisor import Supervisor

    return Supervisor(reactor, settings, reread, log)


class ResticdService(Service):
    """Serves one remote on all its listeners, in this process. See ``serving.Serving``.

    :param reread: reads the settings anew, for a reload.
    :param log: where the log goes.
    :ivar status: the exit status that the program should end with.
    """

    name = "resticd"
    _log = Logger()

    def __init__(self, reactor: IReactor, settings: Settings, reread: Callable[[], Settings], log: Log) -> None:
        self.status = 0
        self._is_over = False
        self._reactor = reactor
        self._reread = reread
        self._logging = log
        self._notifier = Notifier.take_from(os.environ)
        self._watchdog = LoopingCall(self._notifier.alive)
        self._watchdog.clock = reactor
        # A large directory is swept before it is served, and a far storage may be slow to answer.
        self._patience = LoopingCall(self._notifier.starting, "starting", 3 * SIGN_SECONDS)
        self._patience.clock = reactor
        self._serving = Serving(reactor, settings, resolve_remote(settings), log, ended=self._ended)

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """See ``IService``; ``twistd`` calls it with the application, whose log we may take over."""
        self._logging.attach(parent)
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Start everything; a failure stops the reactor with one line in the log and exit status 1."""
        super().startService()
        self._logging.start()
        self._serving.workers.start()
        self._serving.stats.start()
        on_signal(self._reactor, signal.SIGUSR1, self._serving.stats.print_now)
        on_signal(self._reactor, signal.SIGUSR2, self._serving.bandwidth.toggle)
        on_signal(self._reactor, signal.SIGHUP, self.reload)
        # Before the reactor runs twistd does not catch signals: who is told that we are ready may send one at once.
        self._reactor.callWhenRunning(lambda: Deferred.fromCoroutine(self._start()).addErrback(self._failed))

    async def _start(self) -> None:
        self._patience.start(SIGN_SECONDS)
        try:
            await self._serving.start()
        finally:
            self._patience.stop()
        self._notifier.ready(self._status)
        if self._notifier.watchdog:
            self._watchdog.start(self._notifier.watchdog / 2)

    @property
    def _status(self) -> str:
        return f"serving {shown(self._serving.settings.remote)}"

    def reload(self) -> Deferred[None]:
        """Read the settings and the remotes file anew and apply what can be applied while serving (SIGHUP).

        Running requests go on as they began. A mistake anywhere changes nothing, and the log says what it is. Fires,
        never fails, when it is decided.
        """
        self._notifier.reloading()
        self._serving.reopen()
        reloaded = Deferred.fromCoroutine(self._reload())
        reloaded.addErrback(not_reloaded, self._log)
        return reloaded.addCallback(lambda _: self._notifier.ready(self._status))

    async def _reload(self) -> None:
        workers = self._serving.workers
        settings = await workers.run(self._reread)
        resolved = await workers.run(resolve_remote, settings)
        prepared = await self._serving.prepare(settings, resolved)
        changed = needs_restart(self._serving.settings, settings)
        self._serving.apply(prepared)
        say_reloaded(changed, self._log)

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let what runs come to its end or break it off, let go of the remote, end the threads.

        A second signal breaks everything off at once.
        """
        super().stopService()
        seconds = self._serving.settings.shutdown_timeout
        self._notifier.stopping("finishing transfers", seconds + 10)
        for number in (signal.SIGTERM, signal.SIGINT):
            on_signal(self._reactor, number, self._serving.abort)
        return self._serving.stop(seconds).addCallback(self._stopped)

    def _stopped(self, _: None) -> None:
        if self._watchdog.running:
            self._watchdog.stop()

    def _failed(self, failure: Failure) -> None:
        say_failed(failure, self._serving.settings, self._log)
        self.status = 1
        self._reactor.stop()

    def _ended(self) -> None:
        """The client on standard input is gone."""
        if self.running and not self._is_over:
            self._is_over = True
            self._reactor.stop()
