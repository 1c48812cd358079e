"""The composition root: makes every part, and starts and stops them in order."""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger

from resticd.errors import ConfigurationError, ResticdError
from resticd.http.routes import Api
from resticd.http.site import Site
from resticd.observe.log import LogSink
from resticd.options import Options, fail
from resticd.remotes.local import LocalRemote
from resticd.remotes.memory import MemoryRemote
from resticd.repository.operations import Repositories
from resticd.repository.policy import Policy
from resticd.workers import Workers

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort
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
    and back.
    """

    name = "resticd"
    _log = Logger(namespace="resticd")

    def __init__(self, reactor: IReactor, settings: Settings) -> None:
        self._reactor = reactor
        self._settings = settings
        self._workers = Workers(reactor)
        self._remote: IRemote = open_remote(settings.remote, self._workers)
        policy = Policy(append_only=settings.append_only, delete_repos=settings.delete_repos)
        repositories = Repositories(self._remote, policy, self._workers)
        sink = LogSink(access=settings.verbose > 0)
        self._site = Site(Api(repositories).resource(), reactor, self._workers, sink)
        self._ports: list[IListeningPort] = []

    def startService(self) -> None:
        """Start everything; a failure stops the reactor with one line in the log and exit status 1."""
        super().startService()
        self._workers.start()
        Deferred.fromCoroutine(self._start()).addErrback(self._failed)

    async def _start(self) -> None:
        await self._remote.start()
        for address in self._settings.addr:
            host, _, port = address.rpartition(":")
            endpoint = serverFromString(self._reactor, f"tcp:{port}:interface={host}:backlog=1024")
            listening = await endpoint.listen(self._site)
            self._ports.append(listening)
            bound = listening.getHost()
            self._log.info("listening on http://{host}:{port}/", host=bound.host, port=bound.port)

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let go of the remote, end the threads."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for port in self._ports:
            await maybeDeferred(port.stopListening)
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
