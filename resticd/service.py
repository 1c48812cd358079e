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

from resticd.assembly import (
    make_listeners,
    make_log,
    make_remote,
    make_resource,
    make_stats,
    needs_restart,
    remote_depends_on,
    resolve_remote,
    secrets_of,
    site_settings,
)
from resticd.bandwidth import Bandwidth
from resticd.config.connection import shown
from resticd.errors import ConfigurationError, ResticdError
from resticd.http.site import Site
from resticd.observe.audit import AuditLog
from resticd.observe.levels import Level
from resticd.observe.log import LogSink
from resticd.observe.setup import Log
from resticd.observe.sinks import Sinks
from resticd.options import Options, fail
from resticd.sd_notify import Notifier
from resticd.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.application.service import IServiceCollection
    from twisted.python.failure import Failure

    from resticd.config.settings import Settings
    from resticd.interfaces import IEventSink, IReactor


def makeService(options: Options) -> ResticdService:
    """What ``twistd resticd`` runs. Ends the program where the settings cannot work."""
    from twisted.internet import reactor

    try:
        log = make_log(options.settings, reactor, options.parent)  # type: ignore[arg-type]
        service = ResticdService(reactor, options.settings, options.reread, log)  # type: ignore[arg-type]
    except ConfigurationError as error:
        fail(options.settings.explain(error))
    # twistd returns 0 whatever happened while its reactor ran.
    atexit.register(lambda: os._exit(service.status) if service.status else None)
    return service


class ResticdService(Service):
    """Serves one remote on all its listeners.

    ``MultiService`` would drop the Deferreds of its children, so the order is kept here: workers, remote, listeners,
    and back. Raises ``ConfigurationError`` where the settings cannot work.

    :param reread: reads the settings anew, for a reload.
    :param log: where the log goes.
    :ivar status: the exit status that the program should end with.
    """

    name = "resticd"
    _log = Logger()

    def __init__(self, reactor: IReactor, settings: Settings, reread: Callable[[], Settings], log: Log) -> None:
        self.status = 0
        self._reactor = reactor
        self._settings = settings
        self._reread = reread
        self._logging = log
        self._stats = make_stats(settings, reactor)
        self._audit = AuditLog(settings.audit_log, reactor) if settings.audit_log is not None else None
        self._notifier = Notifier.from_environment(os.environ)
        self._watchdog = LoopingCall(self._notifier.alive)
        self._watchdog.clock = reactor
        self._workers = Workers(reactor)
        self._bandwidth = Bandwidth(reactor, settings.bwlimit)
        resolved = resolve_remote(settings)
        log.scrubber.hide(*secrets_of(settings, resolved.spec))
        self._made_of = remote_depends_on(settings, resolved.spec)
        self._remote = make_remote(settings, resolved, reactor, self._workers, self._bandwidth)
        sinks: list[IEventSink] = [LogSink(access=log.level >= Level.INFO, put=log.put), self._stats]
        if self._audit is not None:
            sinks.append(self._audit)
        self._sink = Sinks(sinks)
        resource = make_resource(settings, reactor, self._workers, self._remote, self._sink)
        self._site = Site(
            resource, reactor, self._workers, self._sink, site_settings(settings), http2=settings.http2 != "off"
        )
        self._listeners = make_listeners(settings, self._site, reactor, self._ended)

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """See ``IService``; ``twistd`` calls it with the application, whose log we may take over."""
        self._logging.attach(parent)
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Start everything; a failure stops the reactor with one line in the log and exit status 1."""
        super().startService()
        self._logging.start()
        self._workers.start()
        self._stats.start()
        self._on_signal(signal.SIGUSR1, self._stats.print_now)
        self._on_signal(signal.SIGUSR2, self._bandwidth.toggle)
        self._on_signal(signal.SIGHUP, self.reload)
        Deferred.fromCoroutine(self._start()).addErrback(self._failed)

    async def _start(self) -> None:
        if self._audit is not None:
            self._audit.start()
        await self._remote.start()
        await self._listeners.start()
        self._notifier.ready(f"serving {shown(self._settings.remote)}")
        if self._notifier.watchdog:
            self._watchdog.start(self._notifier.watchdog / 2)

    def reload(self) -> Deferred[None]:
        """Read the settings and the remotes file anew and apply what can be applied while serving (SIGHUP).

        Running requests go on as they began. A mistake anywhere changes nothing, and the log says what it is. Fires,
        never fails, when it is decided.
        """
        self._notifier.reloading()
        self._logging.reopen()
        if self._audit is not None:
            self._audit.reopen()
        reloaded = Deferred.fromCoroutine(self._reload())
        reloaded.addErrback(self._not_reloaded)
        return reloaded.addCallback(lambda _: self._notifier.ready(f"serving {shown(self._settings.remote)}"))

    async def _reload(self) -> None:
        settings = await self._workers.run(self._reread)
        resolved = await self._workers.run(resolve_remote, settings)
        self._logging.scrubber.hide(*secrets_of(settings, resolved.spec))
        made_of = remote_depends_on(settings, resolved.spec)
        remote, old = self._remote, self._remote
        try:
            if made_of != self._made_of:
                remote = make_remote(settings, resolved, self._reactor, self._workers, self._bandwidth)
            resource = make_resource(settings, self._reactor, self._workers, remote, self._sink)
        except ConfigurationError as error:
            raise ConfigurationError(settings.explain(error)) from None
        if remote is not old:
            await remote.start()
        self._bandwidth.set_limits(settings.bwlimit)
        over = self._site.replace(resource, site_settings(settings))
        if remote is not old:
            over.addCallback(lambda _: old.stop())
        for name in needs_restart(self._settings, settings):
            self._log.warn("--{name} has changed; that needs a restart", name=name)
        self._remote, self._made_of, self._settings = remote, made_of, settings
        self._log.warn("reloaded")

    def _not_reloaded(self, failure: Failure) -> None:
        if failure.check(ResticdError):
            self._log.error("not reloaded: {reason}", reason=str(failure.value))
        else:
            self._log.failure("not reloaded", failure)

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
        self._stats.stop()
        if self._audit is not None:
            self._audit.stop()
        if self._watchdog.running:
            self._watchdog.stop()
        self._workers.stop()

    def _on_signal(self, number: signal.Signals, call: Callable[[], object]) -> None:
        """Have the reactor call ``call`` when the signal comes."""
        signal.signal(number, lambda *_: self._reactor.callFromThread(call))

    def _failed(self, failure: Failure) -> None:
        if failure.check(ResticdError):
            self._log.critical("{reason}", reason=self._settings.explain(failure.value))
        else:
            self._log.failure("cannot start", failure)
        self.status = 1
        # Where nothing had to be waited for, twistd's reactor does not run yet.
        self._reactor.callWhenRunning(self._reactor.stop)

    def _ended(self) -> None:
        """The client on standard input is gone."""
        if self.running:
            self._reactor.stop()
