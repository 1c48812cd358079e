"""How many requests a second go to remotes (``--tpslimit``, ``--tpslimit-burst``)."""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred, succeed

from resticd.credit import Credit

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


class Limiter(Protocol):
    """Says when the next request may go."""

    def acquire(self) -> Deferred[None]:
        """Fires when it may. Cancelling it gives the place to the next one."""


class TokenBucket:
    """Lets ``rate`` requests a second through, and ``burst`` at once after a quiet time; the others wait in order.

    :param clock: tells the time and wakes those who wait.
    :param credit: how many may go now, where it is shared with other processes, which keep to the rate together then.
    """

    def __init__(self, clock: IReactorTime, rate: float, burst: int = 1, credit: Credit | None = None) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = max(burst, 1)
        self._credit = Credit(clock.seconds) if credit is None else credit
        self._tokens = 0.0
        self._waiting: list[Deferred[None]] = []
        self._scheduled = False

    def acquire(self) -> Deferred[None]:
        """See ``Limiter``."""
        self._count()
        if not self._waiting and self._credit.take(1):
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        self._schedule()
        return waiting

    def _count(self) -> None:
        self._tokens = self._credit.refill(self._rate, self._burst)

    def _schedule(self) -> None:
        if not self._scheduled and self._waiting:
            self._scheduled = True
            delay = max(0.0, (1 - self._tokens) / self._rate)
            self._clock.callLater(delay * (1 + self._credit.spread * random()), self._wake)  # noqa: S311 - no secret

    def _wake(self) -> None:
        self._scheduled = False
        self._count()
        while self._waiting and self._credit.take(1):
            self._tokens -= 1
            self._waiting.pop(0).callback(None)
        self._schedule()
