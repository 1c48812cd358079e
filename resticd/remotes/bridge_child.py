"""One rclone, started when it is needed and again when it has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from resticd.errors import RemoteTimeout, StorageError, Unavailable
from resticd.remotes.bridge_api import Features, RcloneApi
from resticd.remotes.bridge_command import serve_arguments, serve_environment
from resticd.remotes.bridge_log import RcloneLog
from resticd.transport.children import Child
from resticd.transport.errors import Refused
from resticd.transport.rundir import RunDirectory

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from resticd.remotes.registry import RcloneSettings
    from resticd.transport.settings import ClientSettings

#: Seconds before a start after two failures; doubled for each further one. After the first one there is no pause.
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
#: Who asks during a pause waits for its end, where that is so many seconds away at most.
PATIENCE = 5.0
#: An rclone that ran for so many seconds was well.
WELL = 60.0
#: Seconds between two looks whether it is ready, and in all. Backends may have to connect first.
_PERIOD = 0.02
_LONGEST_START = 120.0

_log = Logger(namespace="resticd.rclone")


class Running:
    """An rclone that serves.

    :ivar features: of the remote.
    """

    def __init__(self, api: RcloneApi, features: Features) -> None:
        self.api = api
        self.features = features


class Rclone:
    """Keeps one rclone running for a remote.

    It is started when somebody asks for it and none runs. One that ends is started again by the next who asks, but not
    at once where it fails again and again: who asks meanwhile is told when to come back.

    :param name: of the remote, for the log.
    :param target: the remote, as rclone names it.
    """

    def __init__(self, reactor: Any, name: str, target: str, settings: RcloneSettings, client: ClientSettings) -> None:
        #: the path of the program; found out before the first use
        self.program = settings.program
        self._reactor = reactor
        self._name = name
        self._target = target
        self._settings = settings
        self._client = client
        self._running: Running | None = None
        self._child: Child | None = None
        self._waiting: list[Deferred[Running]] = []
        self._gone: list[Deferred[None]] = []
        self._stopped = False
        self._failures = 0
        self._pause: IDelayedCall | None = None
        self._not_before = 0.0
        self._reason = ""

    @property
    def known(self) -> Features | None:
        """What the remote can do, where an rclone runs."""
        return self._running.features if self._running is not None else None

    @property
    def pid(self) -> int | None:
        """The process, where one runs."""
        return self._child.pid if self._child is not None else None

    def ready(self) -> Deferred[Running]:
        """Fires with an rclone that serves, or fails with ``Unavailable``. Can be cancelled."""
        if self._stopped:
            return _failed(StorageError("the server is stopping"))
        if self._running is not None:
            return succeed(self._running)
        left = self._not_before - self._reactor.seconds()
        if self._child is None and left > PATIENCE:
            return _failed(Unavailable(f"{self._name}: rclone does not run: {self._reason}", left))
        waiting: Deferred[Running] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        if self._child is None and self._pause is None:
            if left > 0:
                self._pause = self._reactor.callLater(left, self._begin)
            else:
                self._begin()
        return waiting

    def _begin(self) -> None:
        self._pause = None
        Deferred.fromCoroutine(self._start()).addErrback(lambda failure: _log.failure("starting rclone", failure))

    async def stop(self) -> None:
        """End it; nothing is started any more."""
        self._stopped = True
        if self._pause is not None:
            pause, self._pause = self._pause, None
            pause.cancel()
            self._tell(StorageError("the server is stopping"))
        if self._child is not None:
            gone: Deferred[None] = Deferred()
            self._gone.append(gone)
            await self._child.stop()
            await gone

    async def _start(self) -> None:
        log = RcloneLog(self._name, self._settings.clean)
        began = self._reactor.seconds()
        try:
            directory = RunDirectory()
        except StorageError as error:
            self._over(str(error), began)
            return
        try:
            self._child = child = Child(
                self._reactor,
                self.program,
                serve_arguments(directory.path / "bodies", directory.path / "calls"),
                serve_environment(self._settings, self._client, self._target),
                log.line,
            )
            api = RcloneApi(self._reactor, self._client, directory.path, self._settings.clean)
            try:
                features = await self._features(child, api, (directory.path / "bodies").exists)
                self._running = Running(api, features)
                self._tell(self._running)
                _log.info("{name}: rclone runs as process {pid}", name=self._name, pid=child.pid)
                await child.ended()
            except StorageError as error:
                log.last = log.last if child.status else str(error)
                await child.stop()
            for closed in api.close():
                closed.addErrback(lambda _: None)
            reason = f"it ended with {child.status}" + (f": {log.last}" if log.last else "")
        except StorageError as error:
            reason = str(error)
        finally:
            directory.remove()
        self._over(reason, began)

    async def _features(self, child: Child, api: RcloneApi, bound: Callable[[], bool]) -> Features:
        """Wait until it serves, then ask what the remote can do. Raises ``StorageError``."""
        deadline = self._reactor.seconds() + _LONGEST_START
        while not child.status and not self._stopped:
            if bound():
                try:
                    return Features.read(await api.call("operations/fsinfo"))
                except Refused:
                    raise
                except StorageError:
                    pass  # between bind and listen
            if self._reactor.seconds() > deadline:
                raise RemoteTimeout(f"it did not serve within {_LONGEST_START:g} s")
            await deferLater(self._reactor, _PERIOD)
        raise StorageError("it ended")

    def _over(self, reason: str, began: float) -> None:
        """It does not run any more, or could not be started."""
        served, self._running, self._child = self._running is not None, None, None
        if self._stopped:
            self._tell(StorageError("the server is stopping"))
            gone, self._gone = self._gone, []
            for each in gone:
                each.callback(None)
            return
        now = self._reactor.seconds()
        self._failures = 1 if served and now - began > WELL else self._failures + 1
        delay = 0.0 if self._failures == 1 else min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** (self._failures - 2))
        self._not_before = now + delay
        self._reason = reason
        if served:
            _log.warn(
                "{name}: rclone has gone and is started again when needed: {reason}", name=self._name, reason=reason
            )
        else:
            _log.error("{name}: rclone does not run: {reason}", name=self._name, reason=reason)
        self._tell(Unavailable(f"{self._name}: rclone does not run: {reason}", max(delay, 1.0)))

    def _tell(self, result: Running | StorageError) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if isinstance(result, Running):
                each.callback(result)
            else:
                each.errback(result)


def _failed(error: StorageError) -> Deferred[Running]:
    failed: Deferred[Running] = Deferred()
    failed.errback(Failure(error))
    return failed
