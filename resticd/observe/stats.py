"""Statistics: what was and is being moved, as rclone's ``--stats`` reports it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from resticd.errors import ConfigurationError
from resticd.events import RequestDone, RequestFailed, TransferDone, TransferStarted
from resticd.interfaces import IEventSink
from resticd.observe.average import Average
from resticd.observe.levels import Level, parse_level, twisted_level
from resticd.observe.report import Running, Snapshot, block, fields, one_line

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from resticd.events import Transfer

_log = Logger(namespace="resticd.stats")

SAMPLE_EVERY = 1.0
#: After this long without a transfer the average is zero and its sampling rests, in seconds.
REST_AFTER = 60.0


@frozen
class StatsOptions:
    """What the flags say of the reports. See ``make``."""

    #: seconds between two reports; 0 for none
    period: float = 60.0
    one_line: bool = False
    date: bool = False
    bits: bool = False
    level: Level = Level.INFO

    @classmethod
    def make(
        cls,
        stats: float = 60.0,
        stats_one_line: bool = False,
        stats_one_line_date: bool = False,
        stats_unit: str = "bytes",
        stats_log_level: str = "INFO",
    ) -> StatsOptions:
        """From the values of rclone's flags. Raises ``ConfigurationError``."""
        if stats_unit not in ("bits", "bytes"):
            raise ConfigurationError(f"--stats-unit: neither bits nor bytes: {stats_unit}")
        level = parse_level("stats-log-level", stats_log_level)
        if level is Level.OFF:
            raise ConfigurationError("--stats-log-level: not OFF; --stats 0 ends the reports")
        return cls(stats, stats_one_line or stats_one_line_date, stats_one_line_date, stats_unit == "bits", level)


@implementer(IEventSink)
class Statistics:
    """Counts requests, errors and transfers, and logs a report of them now and then.

    Counting costs the transfers nothing: they add to their ``Transfer`` and are looked at once a second.

    :param now: the time in seconds since the epoch, for ``--stats-one-line-date``.
    """

    def __init__(self, options: StatsOptions, clock: IReactorTime, now: Callable[[], float] = time.time) -> None:
        self._options = options
        self._clock = clock
        self._now = now
        self._started = clock.seconds()
        self._running: dict[Transfer, Average] = {}
        self._requests = self._errors = self._cut = 0
        #: of transfers that ended
        self._done = self._failed = self._received = self._sent = 0
        self._average = Average(0, self._started)
        self._busy = self._started
        self._changed = False
        self._sampling = _looping(self._sample, clock)
        self._reporting = _looping(self._report, clock)

    def start(self) -> None:
        """Report every ``period`` from now on; a period in which nothing happened is passed over."""
        if self._options.period:
            self._reporting.start(self._options.period, now=False)

    def stop(self) -> None:
        """End the reports, with a last one where something happened since the one before."""
        if self._reporting.running:
            self._reporting.stop()
            self._report()
        if self._sampling.running:
            self._sampling.stop()

    def emit(self, event: object) -> None:
        """See ``IEventSink``."""
        if isinstance(event, RequestDone):
            self._requests += 1
            self._cut += not event.complete
        elif isinstance(event, RequestFailed):
            self._errors += 1
        elif isinstance(event, TransferStarted):
            self._begin(event.transfer)
        elif isinstance(event, TransferDone):
            self._end(event)
        else:
            return
        self._changed = True

    def print_now(self) -> None:
        """Log a report at once (SIGUSR1), at NOTICE at least: who asks for it wants to see it."""
        self._put(min(self._options.level, Level.NOTICE))

    def snapshot(self) -> Snapshot:
        """The numbers as they are now."""
        return Snapshot(
            elapsed=self._clock.seconds() - self._started,
            received=self._received + _moved(self._running, upload=True),
            sent=self._sent + _moved(self._running, upload=False),
            speed=self._average.speed,
            requests=self._requests,
            errors=self._errors,
            cut=self._cut,
            done=self._done,
            failed=self._failed,
            running=tuple(
                Running(transfer.name, transfer.size, transfer.moved, average.speed, transfer.upload)
                for transfer, average in self._running.items()
            ),
        )

    def _begin(self, transfer: Transfer) -> None:
        now = self._clock.seconds()
        self._running[transfer] = Average(transfer.moved, now)
        if not self._sampling.running:
            self._average = Average(self._moved_in_all(), now)
            self._sampling.start(SAMPLE_EVERY, now=False)

    def _end(self, event: TransferDone) -> None:
        transfer = event.transfer
        self._running.pop(transfer, None)  # what moved in one step was never there
        self._busy = self._clock.seconds()
        if event.ok:
            self._done += 1
        else:
            self._failed += 1
        if transfer.upload:
            self._received += transfer.moved
        else:
            self._sent += transfer.moved

    def _moved_in_all(self) -> int:
        return self._received + self._sent + sum(transfer.moved for transfer in self._running)

    def _sample(self) -> None:
        now = self._clock.seconds()
        for transfer, average in self._running.items():
            average.sample(transfer.moved, now)
        self._average.sample(self._moved_in_all(), now)
        if not self._running and now - self._busy >= REST_AFTER:
            self._average.speed = 0.0
            self._sampling.stop()

    def _report(self) -> None:
        if self._changed or self._running:
            self._put(self._options.level)

    def _put(self, level: Level) -> None:
        self._changed = False
        put_report(self._options, self.snapshot(), level, self._now())


def put_report(options: StatsOptions, snapshot: Snapshot, level: Level, now: float) -> None:
    """Log a report. ``now`` is the time in seconds since the epoch."""
    if options.one_line:
        text = one_line(snapshot, options.bits, now if options.date else None)
    else:
        text = "\n" + block(snapshot, options.bits)
    _log.emit(twisted_level(level), "{text}", text=text, block=True, fields=lambda: {"stats": fields(snapshot)})


def _moved(transfers: Collection[Transfer], upload: bool) -> int:
    return sum(transfer.moved for transfer in transfers if transfer.upload is upload)


def _looping(call: Callable[[], object], clock: IReactorTime) -> LoopingCall:
    made = LoopingCall(call)
    made.clock = clock
    return made
