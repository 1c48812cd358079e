"""The composition root: makes every part, and starts and stops them in order."""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from resticd.auth.anonymous import Anonymous
from resticd.errors import ConfigurationError, ResticdError
from resticd.http.gate import Gate
from resticd.http.routes import Api
from resticd.http.site import Site, SiteSettings
from resticd.listeners.addresses import parse_address
from resticd.listeners.handshake import common_name
from resticd.listeners.listening import Listeners
from resticd.listeners.systemd import take_inherited_sockets
from resticd.listeners.tls import configure_tls
from resticd.listeners.unixsocket import parse_group, parse_mode
from resticd.observe.log import LogSink
from resticd.options import Options, fail
from resticd.remotes.local import LocalRemote
from resticd.remotes.memory import MemoryRemote
from resticd.repository.operations import Repositories
from resticd.repository.policy import Policy
from resticd.workers import Workers

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from resticd.config.settings import Settings
    from resticd.interfaces import IReactor, IRemote


def makeService(options: Options) -> ResticdService:
    """What ``twistd resticd`` runs. Ends the program where the settings cannot work."""
    from twisted.internet import reactor

    try:
        return ResticdService(reactor, options.settings)  # type: ignore[arg-type]
    except ConfigurationError as error:
        fail(error)


class ResticdService(Service):
    """Serves one remote on all its listeners.

    ``MultiService`` would drop the Deferreds of its children, so the order is kept here: workers, remote, listeners,
    and back. Raises ``ConfigurationError`` where the settings cannot work.
    """

    name = "resticd"
    _log = Logger(namespace="resticd")

    def __init__(self, reactor: IReactor, settings: Settings) -> None:
        self._reactor = reactor
        self._workers = Workers(reactor)
        self._remote = open_remote(settings.remote, self._workers)
        policy = Policy(settings.append_only, settings.private_repos, settings.delete_repos)
        repositories = Repositories(self._remote, policy, self._workers)
        gate = make_gate(settings, Api(repositories), self._workers, reactor)
        sink = LogSink(access=settings.verbose > 0)
        site = Site(gate.resource(), reactor, self._workers, sink, site_settings(settings))
        self._listeners = make_listeners(settings, site, reactor)

    def startService(self) -> None:
        """Start everything; a failure stops the reactor with one line in the log and exit status 1."""
        super().startService()
        self._workers.start()
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
        # twistd returns 0 whatever happened while its reactor ran.
        atexit.register(os._exit, 1)
        self._reactor.stop()


def open_remote(name: str, workers: Workers) -> IRemote:
    """The remote that ``name`` means."""
    if name == ":memory:":
        return MemoryRemote()
    return LocalRemote(Path(name), workers)


def make_gate(settings: Settings, api: Api, workers: Workers, reactor: IReactor) -> Gate:
    """Who may pass, as the settings say."""
    authenticator = Anonymous(lambda introduction: str(getattr(introduction.peer, "host", "unix")))
    return Gate(
        inner=api.resource(),
        authenticator=authenticator,
        base=settings.baseurl.strip("/"),
        allow_origin=settings.allow_origin,
        user_header=settings.user_from_header,
        common_name=common_name,
    )


def site_settings(settings: Settings) -> SiteSettings:
    """What all requests have in common, as the settings say."""
    return SiteSettings(
        max_header_bytes=settings.max_header_bytes,
        read_timeout=settings.server_read_timeout,
        write_timeout=settings.server_write_timeout,
        response_headers=settings.response_header,
    )


def make_listeners(settings: Settings, site: Site, reactor: IReactor) -> Listeners:
    """Where to listen, as the settings or the service manager say."""
    tls = configure_tls(settings.cert, settings.key, settings.client_ca, settings.min_tls_version)
    group = settings.unix_socket_group
    return Listeners(
        reactor,
        take_inherited_sockets() or [parse_address(text) for text in settings.addr],
        site,
        tls,
        unix_mode=parse_mode(settings.unix_socket_mode),
        unix_group=None if group is None else parse_group(group),
    )
