"""Everything that answers requests in one process, started and stopped in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from resticd.assembly import (
    ALONE,
    Resolved,
    Shared,
    make_listeners,
    make_remote,
    make_resource,
    make_stats,
    remote_depends_on,
    secrets_of,
    site_settings,
)
from resticd.bandwidth import Bandwidth
from resticd.errors import ConfigurationError
from resticd.http.site import Site
from resticd.observe.audit import AuditLog
from resticd.observe.levels import Level
from resticd.observe.log import LogSink
from resticd.observe.sinks import Sinks
from resticd.reactor import choose
from resticd.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.web.resource import IResource

    from resticd.config.settings import Settings
    from resticd.interfaces import IEventSink, IReactor, IRemote
    from resticd.observe.setup import Log


@frozen
class Prepared:
    """Settings that can be put in force, with the parts that they ask for."""

    settings: Settings
    made_of: tuple[object, ...]
    remote: IRemote
    resource: IResource


class Serving:
    """Serves one remote on all its listeners.

    ``MultiService`` would drop the Deferreds of its children, so the order is kept here: workers, audit log, remote,
    listeners, and back. Raises ``ConfigurationError`` where the settings cannot work.

    :param resolved: what the settings name.
    :param log: where the log goes.
    :param ended: called when a client on standard input is gone.
    :param shared: what is shared with other processes.
    :ivar settings: what is in force.
    :ivar workers: threads for calls that block.
    """

    _log = Logger(namespace="resticd.service.ResticdService")

    def __init__(
        self,
        reactor: IReactor,
        settings: Settings,
        resolved: Resolved,
        log: Log,
        *,
        ended: Callable[[], object],
        shared: Shared = ALONE,
    ) -> None:
        self.settings = settings
        choose(reactor, settings.without)
        self.workers = Workers(reactor)
        self.stats = make_stats(settings, reactor)
        is_alone = shared is ALONE
        self.bandwidth = Bandwidth(reactor, settings.bwlimit, up=shared.up, down=shared.down, quiet=not is_alone)
        self._reactor = reactor
        self._logging = log
        self._shared = shared
        self._audit = None
        if settings.audit_log is not None:
            self._audit = AuditLog(settings.audit_log, reactor, shared=not is_alone)
        log.scrubber.hide(*secrets_of(settings, resolved.spec))
        self._made_of = remote_depends_on(settings, resolved.spec)
        self._remote = make_remote(settings, resolved, reactor, self.workers, self.bandwidth, shared=shared)
        sinks: list[IEventSink] = [LogSink(access=log.level >= Level.INFO, put=log.put), self.stats]
        if self._audit is not None:
            sinks.append(self._audit)
        self._sink = Sinks(sinks)
        resource = make_resource(settings, reactor, self.workers, self._remote, self._sink, shared=shared)
        self.site = Site(
            resource, reactor, self.workers, self._sink, site_settings(settings), http2=settings.http2 != "off"
        )
        self._listeners = make_listeners(settings, self.site, reactor, ended, shared)

    async def start(self) -> None:
        """Serve. ``workers`` run already. Raises ``ConfigurationError``."""
        if self._audit is not None:
            self._audit.start()
        await self._remote.start()
        await self._listeners.start()

    async def prepare(self, settings: Settings, resolved: Resolved) -> Prepared:
        """Make what other settings ask for, without a change of what is in force. Raises ``ResticdError``."""
        self._logging.scrubber.hide(*secrets_of(settings, resolved.spec))
        made_of = remote_depends_on(settings, resolved.spec)
        remote = self._remote
        try:
            if made_of != self._made_of:
                remote = make_remote(
                    settings, resolved, self._reactor, self.workers, self.bandwidth, shared=self._shared
                )
            resource = make_resource(settings, self._reactor, self.workers, remote, self._sink, shared=self._shared)
        except ConfigurationError as error:
            raise ConfigurationError(settings.explain(error)) from None
        if remote is not self._remote:
            try:
                await remote.start()
            except BaseException:
                await remote.stop()
                raise
        return Prepared(settings, made_of, remote, resource)

    def apply(self, prepared: Prepared) -> None:
        """Put prepared settings in force; running requests go on as they began."""
        old = self._remote
        self.bandwidth.set_limits(prepared.settings.bwlimit)
        over = self.site.replace(prepared.resource, site_settings(prepared.settings))
        if prepared.remote is not old:
            over.addCallback(lambda _: old.stop())
        self._remote, self._made_of, self.settings = prepared.remote, prepared.made_of, prepared.settings

    async def discard(self, prepared: Prepared) -> None:
        """Let go of prepared settings that are not to be in force."""
        if prepared.remote is not self._remote:
            await prepared.remote.stop()

    def reopen(self) -> None:
        """Go on in the log files that are at their paths now."""
        self._logging.reopen()
        if self._audit is not None:
            self._audit.reopen()

    def stop(self, seconds: float) -> Deferred[None]:
        """Stop accepting, let what runs come to its end or break it off after ``seconds``, let go of everything."""
        return Deferred.fromCoroutine(self._stop(seconds))

    async def _stop(self, seconds: float) -> None:
        await self._listeners.stop()
        if self.site.connections:
            self._log.info("waiting for {count} connections", count=len(self.site.connections))
        await self.site.finish(seconds)
        await self._remote.stop()
        self.stats.stop()
        if self._audit is not None:
            self._audit.stop()
        self.workers.stop()

    def abort(self) -> None:
        """Break all connections off."""
        self.site.abort()
