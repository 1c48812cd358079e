"""How fast bytes may pass: rates by the time of the week, and the limiter that all transfers of a direction share."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from math import inf
from random import random
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen
from twisted.logger import Logger

from resticd.credit import Credit

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: What one transfer is granted before the next has its turn: this many seconds' worth. Among ``n`` transfers the first
#: bytes of a new one wait for about ``n`` turns, whatever the rate is.
TURN = 0.01
#: … but never fewer or more bytes than these. The upper bound is how much a download reads at a time.
SMALLEST_TURN, LARGEST_TURN = 64, 256 * 1024
#: While nobody waits this many seconds' worth is saved up, and may pass at once later.
SAVED = 0.03
#: Amid transfers that wait again and again this many seconds' worth is: the reactor may be held up, and transfers that
#: began together are stored together.
LATE = 0.25
#: The limiter looks after those who wait no more often than this, in seconds.
TICK = 0.005

_DAY = 24 * 60

_log = Logger()


@frozen
class Timetable:
    """Rates of one direction over the week, in local time.

    :ivar slots: minute of the week (0 is Monday 00:00) and the rate from then on, in bytes per second, None for no
        limit; in the order of the minutes, at least one. Before the first slot the last one of the week before holds.
    """

    slots: tuple[tuple[int, int | None], ...] = ((0, None),)

    def at(self, moment: datetime) -> int | None:
        """The rate at a local time."""
        minute = moment.weekday() * _DAY + moment.hour * 60 + moment.minute
        # Before the first slot the index is -1: the last one.
        return self.slots[bisect_right(self.slots, minute, key=lambda slot: slot[0]) - 1][1]

    @property
    def limits(self) -> bool:
        """Whether there is a limit at any time."""
        return any(rate is not None for _, rate in self.slots)

    @property
    def changes(self) -> bool:
        """Whether the rate is not always the same."""
        return len({rate for _, rate in self.slots}) > 1


@frozen
class Limits:
    """What ``--bwlimit`` says.

    :ivar up: towards the remote: uploads.
    :ivar down: from the remote: downloads.
    :ivar text: as it was written.
    """

    up: Timetable = Timetable()
    down: Timetable = Timetable()
    text: str = field(default="off", eq=False)

    def __str__(self) -> str:
        return self.text


def format_rate(rate: int | None) -> str:
    """``off``, ``512 KiB/s``, ``1.5 MiB/s``."""
    if rate is None:
        return "off"
    value, unit = float(rate), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.4g} {unit}/s"


class Waiter(Protocol):
    """Something with bytes that may not pass yet."""

    @property
    def wanted(self) -> int:
        """How many bytes it would let pass now; with 0 it loses its place."""

    def grant(self, size: int) -> int:
        """Let up to ``size`` bytes pass; returns how many did. Never raises."""


class BandwidthLimiter:
    """Grants bytes at the rate in force, to all who wait in turn.

    Nothing runs while nobody waits. What passes in the first ``t`` seconds is at most ``t + SAVED`` seconds'
    worth, later in any ``t`` seconds ``t + LATE``. The time of the day is looked at once a minute, as the minute
    begins, so that neither a change of the clock nor the end of summer time makes a switch late.

    :param clock: measures the rate.
    :param name: with a name, what is in force is logged when it changes.
    :param wall: the local time.
    :param credit: what may pass now, where it is shared with the limiters of other processes: they keep to the limit
        together then.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timetable: Timetable,
        *,
        name: str = "",
        wall: Callable[[], datetime] = datetime.now,
        credit: Credit | None = None,
    ) -> None:
        self.timetable = timetable
        self._clock = clock
        self._name = name
        self._wall = wall
        self._suspended = False
        self._rate: int | None = None
        self._looked = False
        self._turn = LARGEST_TURN
        self._credit = Credit(clock.seconds) if credit is None else credit
        #: how much there was when it was last looked at
        self._available = 0.0
        self._refilled = clock.seconds()
        self._look_at = -inf
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()
        self._timer: IDelayedCall | None = None
        self._pumping = False
        self._refill()

    @property
    def rate(self) -> int | None:
        """The rate in force, in bytes per second; None for no limit."""
        self._refill()
        return self._rate

    def set_timetable(self, timetable: Timetable) -> None:
        """Limit by another timetable from now on, those who wait included."""
        self.timetable = timetable
        self._reconsider()

    def suspend(self, suspended: bool) -> None:
        """Let everything pass until this is called with false; the timetable goes on meanwhile."""
        self._suspended = suspended
        self._reconsider()

    def take(self, size: int) -> bool:
        """Whether ``size`` bytes may pass at once; counts them if so."""
        self._refill()
        if self._rate is None:
            return True
        return not self._waiting and self._credit.take(size)

    def wait(self, waiter: Waiter) -> None:
        """Grant ``waiter`` what it wants, in turns, until it wants nothing. The first grant may come before this
        returns.
        """
        self._waiting[waiter] = None
        self._pump()

    def leave(self, waiter: Waiter) -> None:
        """Grant nothing more to ``waiter``."""
        self._waiting.pop(waiter, None)
        if not self._waiting:
            self._stop_timer()

    def _reconsider(self) -> None:
        self._look_at = -inf
        self._stop_timer()
        self._pump()

    def _pump(self) -> None:
        """Grant what there is credit for."""
        if self._pumping:  # called by a waiter: the loop below comes to it
            return
        self._pumping = True
        self._refill()
        try:
            while self._waiting:
                waiter = next(iter(self._waiting))
                rate = self._rate
                share = waiter.wanted if rate is None else min(waiter.wanted, self._turn)
                # Counted before, since a grant may end in a call of ``take``.
                if rate is not None and not self._credit.take(share):
                    break
                del self._waiting[waiter]
                unused = share - waiter.grant(share)
                if rate is not None and unused:
                    self._credit.put_back(unused)
                self._available -= share
                if waiter.wanted:
                    self._waiting[waiter] = None
        finally:
            self._pumping = False
            self._schedule()

    def _schedule(self) -> None:
        if not self._waiting or self._timer is not None:
            return
        missing = min(next(iter(self._waiting)).wanted, self._turn) - self._available
        delay = max(missing / self._rate, TICK) if self._rate else 0
        delay *= 1 + self._credit.spread * random()  # noqa: S311 - not for secrets
        until_look = self._look_at - self._clock.seconds()
        self._timer = self._clock.callLater(max(min(delay, until_look), 0), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._pump()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _refill(self) -> None:
        """Bring rate and credit up to date."""
        now = self._clock.seconds()
        elapsed, self._refilled = now - self._refilled, now
        if self._rate is not None:
            saved, late = max(SAVED * self._rate, self._turn), LATE * self._rate
            self._available = self._credit.refill(self._rate, saved, late, bool(self._waiting))
        # The reactor's clock may be set back; its timers are late then, but the timetable need not be.
        if now >= self._look_at or elapsed < 0:
            self._look(now)

    def _look(self, now: float) -> None:
        """Look at the timetable."""
        moment = self._wall()
        self._look_at = now + 60 - moment.second - moment.microsecond / 1e6 if self.timetable.changes else inf
        rate = None if self._suspended else self.timetable.at(moment)
        begun, self._looked = self._looked, True
        if rate == self._rate:
            return
        self._rate = rate
        self._turn = LARGEST_TURN
        self._credit.clear()
        self._available = 0.0
        if rate is not None:
            self._turn = int(min(max(rate * TURN, SMALLEST_TURN), LARGEST_TURN))
        if self._name:
            # What changes while serving is a notice, as in rclone.
            log = _log.warn if begun else _log.info
            log("bandwidth limit for {name}: {rate}", name=self._name, rate=format_rate(rate))


class Bandwidth:
    """What all transfers share: one limiter for each direction.

    :ivar up: limits uploads.
    :ivar down: limits downloads.
    :ivar limits: what is configured.
    :ivar suspended: whether the limits are switched off.
    :param up: and ``down``: what may pass now, where it is shared with other processes.
    :param quiet: whether changes of what is in force stay out of the log.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limits: Limits,
        wall: Callable[[], datetime] = datetime.now,
        *,
        up: Credit | None = None,
        down: Credit | None = None,
        quiet: bool = False,
    ) -> None:
        names = ("", "") if quiet else ("uploads", "downloads")
        self.limits = limits
        self.up = BandwidthLimiter(clock, limits.up, name=names[0], wall=wall, credit=up)
        self.down = BandwidthLimiter(clock, limits.down, name=names[1], wall=wall, credit=down)
        self.suspended = False

    def set_limits(self, limits: Limits) -> None:
        """Limit by something else from now on, running transfers included. Suspended limits stay so."""
        self.limits = limits
        self.up.set_timetable(limits.up)
        self.down.set_timetable(limits.down)

    def toggle(self) -> bool:
        """Suspend the limits, or put them back in force (rclone's SIGUSR2). Returns whether they are in force now.

        Where nothing is limited at this time it does nothing, as in rclone (``fs/accounting/accounting_unix.go``).
        """
        if not self.suspended and self.up.rate is None and self.down.rate is None:
            _log.info("no bandwidth limit to switch off at this time")
            return True
        self.suspend(not self.suspended)
        return not self.suspended

    def suspend(self, suspended: bool) -> None:
        """Suspend the limits, or put them back in force."""
        self.suspended = suspended
        self.up.suspend(suspended)
        self.down.suspend(suspended)
