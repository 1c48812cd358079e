"""One process of several that serve: ``python -m resticd.processes.worker DESCRIPTOR``, started by the supervisor.

It does what it is told over the channel. When the supervisor is gone, or it is told to stop by a signal, it lets its
connections come to their end as a server of one process does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from attrs import evolve
from twisted.internet.defer import Deferred, succeed

from resticd.assembly import Shared, make_log
from resticd.listeners.listening import Sharing
from resticd.listeners.systemd import InheritedSocket
from resticd.processes.assignment import Assignment, unpack
from resticd.processes.board import DOWN, REQUESTS, UP, Board, Place
from resticd.processes.channel import Channel, attach
from resticd.processes.claims import SharedClaims
from resticd.processes.logins import SharedThrottle
from resticd.processes.totals import NOTHING, packed
from resticd.serving import Prepared, Serving

if TYPE_CHECKING:
    from resticd.listeners.listening import Source
    from resticd.remotes.wrappers.cache import CacheRemote

#: prctl(2)
_PR_SET_PDEATHSIG = 1


class Worker:
    """The worker of this process.

    :ivar channel: to the supervisor.
    """

    def __init__(self, reactor: Any) -> None:
        self.channel = Channel(
            {
                "serve": self._serve,
                "numbers": self._numbers,
                "prepare": self._prepare,
                "apply": self._apply,
                "discard": self._discard,
                "reopen": self._reopen,
                "suspend": self._suspend,
                "forget": self._forget,
                "stop": self._stop,
                "abort": self._abort,
            },
            self.leave,
        )
        self._reactor = reactor
        self._serving: Serving | None = None
        self._place: Place | None = None
        self._prepared: Prepared | None = None
        self._caches: WeakSet[CacheRemote] = WeakSet()
        self._stopping: Deferred[None] | None = None

    async def _start(self, assignment: Assignment) -> None:
        now = os.getcwd()  # noqa: PTH109 - as it was before, whatever it is
        os.chdir(assignment.directory)
        try:
            serving = self._make(assignment)
        finally:
            os.chdir(now)
        self._serving = serving
        serving.workers.start()
        serving.bandwidth.suspend(assignment.suspended)
        await serving.start()
        if self._place is not None and self._stopping is None:
            self._place.present()

    def _make(self, assignment: Assignment) -> Serving:
        settings, channel = assignment.settings, self.channel
        about_log = settings
        if assignment.relays:
            about_log = evolve(settings, use_json_log=True, log_file=None, syslog=False)
        log = make_log(about_log, self._reactor, None)
        board = Board(assignment.board, assignment.processes)
        self._place = board.place(assignment.index)
        sockets = [[socket.socket(fileno=number) for number in numbers] for _, numbers in assignment.places]
        sources: list[Source] = [
            InheritedSocket(where, bound[0]) if isinstance(where, str) else where
            for (where, _), bound in zip(assignment.places, sockets, strict=True)
        ]
        shared = Shared(
            up=board.credit(UP),
            down=board.credit(DOWN),
            requests=board.credit(REQUESTS),
            claims=partial(SharedClaims, channel),
            throttle=SharedThrottle(channel),
            deletions=self,
            sources=sources,
            sharing=Sharing(self._place, sockets),
        )
        serving = Serving(self._reactor, settings, assignment.resolved, log, ended=_nothing, shared=shared)
        # The supervisor has logged what there is to say of the settings.
        log.begin(discard=True)
        return serving

    def add(self, cache: CacheRemote) -> None:
        """See ``remotes.wrappers.cache.Deletions``."""
        self._caches.add(cache)

    def announce(self, key: str) -> None:
        """See ``remotes.wrappers.cache.Deletions``."""
        self.channel.tell("deleted", key=key)

    def leave(self) -> None:
        """Stop, and end the process then."""
        seconds = 0.0 if self._serving is None else self._serving.settings.shutdown_timeout
        self._finish(seconds).addBoth(lambda _: self._reactor.stop() if self._reactor.running else None)

    def _finish(self, seconds: float) -> Deferred[None]:
        """Let what runs come to its end. Fires when it has, for everybody who calls it."""
        if self._stopping is None:
            if self._place is not None:
                self._place.absent()
            self._stopping = succeed(None) if self._serving is None else self._serving.stop(seconds)
        finished: Deferred[None] = Deferred()

        def tell(outcome: Any) -> Any:
            finished.callback(None)
            return outcome

        self._stopping.addBoth(tell)
        return finished

    def _serve(self, assignment: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start(unpack(assignment)))

    def _numbers(self) -> dict[str, Any]:
        return packed(NOTHING if self._serving is None else self._serving.stats.snapshot())

    def _prepare(self, settings: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self._make_ready(*unpack(settings)))

    async def _make_ready(self, *settings: Any) -> None:
        assert self._serving is not None
        self._prepared = await self._serving.prepare(*settings)

    def _apply(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None and self._serving is not None:
            self._serving.apply(prepared)

    def _discard(self) -> Deferred[None]:
        prepared, self._prepared = self._prepared, None
        if prepared is None or self._serving is None:
            return succeed(None)
        return Deferred.fromCoroutine(self._serving.discard(prepared))

    def _reopen(self) -> None:
        if self._serving is not None:
            self._serving.reopen()

    def _suspend(self, suspended: bool) -> None:
        if self._serving is not None:
            self._serving.bandwidth.suspend(suspended)

    def _forget(self, key: str) -> None:
        for cache in list(self._caches):
            cache.forget(key)

    def _stop(self, seconds: float) -> Deferred[dict[str, Any]]:
        return self._finish(seconds).addCallback(lambda _: self._numbers())

    def _abort(self) -> None:
        if self._serving is not None:
            self._serving.abort()


def main(descriptor: int) -> None:
    """Serve until the supervisor says otherwise."""
    # Signals to the whole group reach the supervisor too, which tells what they mean. No process that is started here
    # inherits a handler, as it would inherit SIG_IGN.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, _nothing)
    # Beside the end of the channel, for a worker that is busy.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    from resticd.reactor import install

    reactor = install()
    worker = Worker(reactor)

    def running() -> None:
        # Twisted would end the process at once.
        signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(worker.leave))
        attach(reactor, descriptor, worker.channel)
        os.close(descriptor)

    reactor.callWhenRunning(running)
    reactor.run()


def _nothing(*_: object) -> None:
    """What nobody waits for."""


if __name__ == "__main__":
    main(int(sys.argv[1]))
