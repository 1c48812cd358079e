"""The process that ``twistd`` started, where several serve: it binds the sockets, starts workers and keeps them going.

It serves nothing itself. What it does for the workers is in docs/design.md, Several processes.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, FirstError, gatherResults
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from resticd.assembly import (
    check_parts,
    find_sources,
    make_ports,
    needs_restart,
    resolve_remote,
    secrets_of,
    stats_options,
)
from resticd.auth.throttle import Throttle
from resticd.bandwidth import Bandwidth
from resticd.config.connection import shown
from resticd.config.flags import flags_of
from resticd.config.settings import ListenSettings, LogSettings, Settings
from resticd.listeners.systemd import InheritedSocket
from resticd.observe.levels import Level
from resticd.observe.stats import put_report
from resticd.processes.assignment import Assignment, pack, quiet
from resticd.processes.board import Board
from resticd.processes.channel import ChannelClosed, Handlers
from resticd.processes.child import Child
from resticd.processes.claims import ClaimBook, ClaimDesk
from resticd.processes.logins import LoginDesk
from resticd.processes.slot import Slot
from resticd.processes.totals import total
from resticd.sd_notify import SIGN_SECONDS, Notifier
from resticd.signals import not_reloaded, on_signal, say_failed, say_reloaded
from resticd.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.application.service import IServiceCollection
    from twisted.python.failure import Failure

    from resticd.observe.report import Snapshot
    from resticd.observe.setup import Log

#: How often workers are asked how they are, in seconds.
BEAT = 1.0


class Supervisor(Service):
    """Serves by ``settings.processes`` workers. Raises ``ConfigurationError`` where the settings cannot work.

    :param reread: and ``log``: as for ``ResticdService``.
    :ivar status: the exit status that the program should end with.
    """

    name = "resticd"
    _log = Logger()

    def __init__(self, reactor: Any, settings: Settings, reread: Callable[[], Settings], log: Log) -> None:
        self.status = 0
        self._reactor = reactor
        self._settings = settings
        self._started_with = settings
        self._reread = reread
        self._logging = log
        self._directory = os.getcwd()  # noqa: PTH109 - for os.chdir
        self._notifier = Notifier.take_from(os.environ)
        # A large directory is swept before it is served, and a far storage may be slow to answer.
        self._patience = _looping(lambda: self._notifier.starting("starting", 3 * SIGN_SECONDS), reactor)
        self._threads = Workers(reactor, size=2)
        self._bandwidth = Bandwidth(reactor, settings.bwlimit)
        self._throttle = Throttle(reactor)
        self._claims = ClaimBook()
        self._board = Board.create(settings.processes)
        self._generation = 0
        self._desks: dict[Slot, tuple[LoginDesk, ClaimDesk]] = {}
        self._resolved = resolve_remote(settings)
        log.scrubber.hide(*secrets_of(settings, self._resolved.spec))
        check_parts(settings, self._resolved, reactor, self._threads)
        self._sources = find_sources(settings)
        self._listeners = make_ports(settings, _Nobody(), reactor, self._sources, None)
        self._descriptors: list[list[int]] = []
        self._slots = [
            Slot(
                reactor,
                index,
                hire=self._hire,
                assignment=self._assign,
                gone=self._gone,
                catch_up=lambda slot: Deferred.fromCoroutine(self._bring_up_to_date(slot)),
            )
            for index in range(settings.processes)
        ]
        self._began = reactor.seconds()
        self._report_options = stats_options(settings)
        self._reported: Snapshot | None = None
        self._beat = _looping(lambda: Deferred.fromCoroutine(self._poll(watched=True)), reactor)
        self._reports = _looping(lambda: Deferred.fromCoroutine(self._report()), reactor)

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """See ``IService``; ``twistd`` calls it with the application, whose log we may take over."""
        self._logging.attach(parent)
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Start everything; a failure stops the reactor with one line in the log and exit status 1."""
        super().startService()
        self._logging.start()
        self._threads.start()
        on_signal(self._reactor, signal.SIGUSR1, lambda: Deferred.fromCoroutine(self._print_now()))
        on_signal(self._reactor, signal.SIGUSR2, self._toggle)
        on_signal(self._reactor, signal.SIGHUP, self.reload)
        # Children are heard of when the reactor runs; twistd's does not yet.
        self._reactor.callWhenRunning(lambda: Deferred.fromCoroutine(self._start()).addErrback(self._failed))

    async def _start(self) -> None:
        bound = await self._listeners.bind()
        self._descriptors = [[each.fileno() for each in sockets] for sockets in bound]
        starting = [Deferred.fromCoroutine(slot.start()) for slot in self._slots]
        self._patience.start(SIGN_SECONDS)
        try:
            await gatherResults(starting, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        finally:
            self._patience.stop()
        if not self.running:
            return
        self._log.warn("{count} workers serve", count=len(self._slots))  # a notice
        self._notifier.ready(self._status)
        watchdog = self._notifier.watchdog
        self._beat.start(min(BEAT, watchdog / 2) if watchdog else BEAT)
        if self._report_options.period:
            self._reports.start(self._report_options.period, now=False)

    @property
    def _status(self) -> str:
        return f"serving {shown(self._settings.remote)} by {len(self._slots)} processes"

    def reload(self) -> Deferred[None]:
        """As ``ResticdService.reload``, in all workers or in none."""
        self._notifier.reloading()
        self._logging.reopen()
        for slot in self._slots:
            slot.tell("reopen")
        reloaded = Deferred.fromCoroutine(self._reload())
        reloaded.addErrback(not_reloaded, self._log)
        return reloaded.addCallback(lambda _: self._notifier.ready(self._status))

    async def _reload(self) -> None:
        settings = await self._threads.run(self._reread)
        resolved = await self._threads.run(resolve_remote, settings)
        self._logging.scrubber.hide(*secrets_of(settings, resolved.spec))
        check_parts(settings, resolved, self._reactor, self._threads)
        packed = pack((settings, quiet(resolved)))
        asked = [slot for slot in self._slots if slot.is_serving]
        answers = await DeferredList([_call(slot, "prepare", settings=packed) for slot in asked], consumeErrors=True)
        refusals = [answer for fine, answer in answers if not fine and not answer.check(ChannelClosed)]
        if refusals:
            await DeferredList([_call(slot, "discard") for slot in asked], consumeErrors=True)
            raise refusals[0].value
        changed = needs_restart(self._settings, settings)
        self._settings, self._resolved = settings, resolved
        self._generation += 1
        for slot, (fine, _) in zip(asked, answers, strict=True):
            if fine:
                slot.generation = self._generation
                slot.tell("apply")
        self._bandwidth.set_limits(settings.bwlimit)
        say_reloaded(changed, self._log)

    async def _bring_up_to_date(self, slot: Slot) -> None:
        """A reload came while the worker was starting."""
        while slot.is_serving and slot.generation != self._generation:
            slot.generation = self._generation
            await _call(slot, "prepare", settings=pack((self._settings, quiet(self._resolved))))
            slot.tell("apply")

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let what runs in the workers come to its end or break it off, end them.

        A second signal breaks everything off at once.
        """
        super().stopService()
        seconds = self._settings.shutdown_timeout
        self._notifier.stopping("finishing transfers", seconds + 10)
        for number in (signal.SIGTERM, signal.SIGINT):
            on_signal(self._reactor, number, self._abort)
        return Deferred.fromCoroutine(self._stop(seconds))

    async def _stop(self, seconds: float) -> None:
        await self._listeners.stop()
        if self._beat.running:
            self._beat.stop()
        await gatherResults([Deferred.fromCoroutine(slot.stop(seconds)) for slot in self._slots])
        if self._reports.running:
            self._reports.stop()
            self._put_report(self._report_options.level)
        self._threads.stop()

    def _abort(self) -> None:
        for slot in self._slots:
            slot.abort()

    def _failed(self, failure: Failure) -> None:
        if not self.running:
            return  # it was stopped while it was starting
        say_failed(failure, self._settings, self._log)
        self.status = 1
        self._reactor.stop()

    def _hire(self, slot: Slot) -> Child:
        """Start a process."""
        login, claim = self._desks[slot] = LoginDesk(self._throttle), ClaimDesk(self._claims)
        handlers: Handlers = {**login.handlers, **claim.handlers, "deleted": partial(self._deleted, slot)}
        descriptors = [self._board.fd, *(number for numbers in self._descriptors for number in numbers)]
        relays = self._logging.put is None
        return Child(self._reactor, handlers, descriptors, relays=relays, environ=os.environ)

    def _assign(self, index: int) -> tuple[str, int]:
        places = [
            (source.name if isinstance(source, InheritedSocket) else source, numbers)
            for source, numbers in zip(self._sources, self._descriptors, strict=True)
        ]
        # What a reload does not change in the other workers is as it was for this one too.
        fixed = [flag.attribute for flag in (*flags_of(ListenSettings), *flags_of(LogSettings))]
        assignment = Assignment(
            settings=evolve(self._settings, **{_init(name): getattr(self._started_with, name) for name in fixed}),
            resolved=quiet(self._resolved),
            index=index,
            processes=len(self._slots),
            board=self._board.fd,
            places=places,
            directory=self._directory,
            relays=self._logging.put is None,
            suspended=self._bandwidth.suspended,
        )
        return pack(assignment), self._generation

    def _gone(self, slot: Slot) -> None:
        """A worker is: nobody waits for it any more."""
        self._board.absent(slot.index)
        for desk in self._desks.pop(slot, ()):
            desk.close()

    def _deleted(self, sender: Slot, key: str) -> None:
        for slot in self._slots:
            if slot is not sender:
                slot.tell("forget", key=key)

    def _toggle(self) -> None:
        self._bandwidth.toggle()
        for slot in self._slots:
            slot.tell("suspend", suspended=self._bandwidth.suspended)

    async def _poll(self, watched: bool = False) -> None:
        """Ask all workers for their numbers; tell the service manager when all have answered."""
        _ = self._bandwidth.up.rate, self._bandwidth.down.rate  # a look at the timetable logs what has changed
        await gatherResults([Deferred.fromCoroutine(slot.poll()) for slot in self._slots])
        if watched and self._notifier.watchdog and any(slot.is_serving for slot in self._slots):
            self._notifier.alive()

    async def _print_now(self) -> None:
        await self._poll()
        self._put_report(min(self._report_options.level, Level.NOTICE), always=True)

    async def _report(self) -> None:
        await self._poll()
        self._put_report(self._report_options.level)

    def _put_report(self, level: Level, *, always: bool = False) -> None:
        """Log what all workers have done, where anything has changed since the last report."""
        elapsed = self._reactor.seconds() - self._began
        numbers = total((slot.numbers for slot in self._slots), elapsed)
        same = evolve(numbers, elapsed=0.0, speed=0.0)
        if always or numbers.running or (same != self._reported and any((numbers.requests, numbers.errors))):
            put_report(self._report_options, numbers, level, time.time())
        self._reported = same


def _call(slot: Slot, name: str, **arguments: object) -> Deferred[Any]:
    """As ``Channel.call``, also where the worker is gone."""
    if slot.child is None:
        return Deferred.fromCoroutine(_gone())
    return slot.child.channel.call(name, **arguments)


async def _gone() -> None:
    raise ChannelClosed("the worker is gone")


def _init(name: str) -> str:
    """The argument by which attrs takes an attribute."""
    return name.lstrip("_")


def _looping(call: Callable[[], object], clock: Any) -> LoopingCall:
    made = LoopingCall(call)
    made.clock = clock
    return made


class _Nobody(Factory):
    """For ports that accept nothing."""

    noisy = False

    def buildProtocol(self, addr: object) -> None:
        """See ``IProtocolFactory``."""
