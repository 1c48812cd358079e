"""How many requests a second go to remotes (``--tpslimit``, ``--tpslimit-burst``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred, succeed

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


class Limiter(Protocol):
    """Says when the next request may go."""

    def acquire(self) -> Deferred[None]:
        """Fires when it may. Cancelling it gives the place to the next one."""


class TokenBucket:
    """Lets ``rate`` requests a second through, and ``burst`` at once after a quiet time; the others wait in order.

    :param clock: tells the time and wakes those who wait.
    """

    def __init__(self, clock: IReactorTime, rate: float, burst: int = 1) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = max(burst, 1)
        self._tokens = float(self._burst)
        self._counted = clock.seconds()
        self._waiting: list[Deferred[None]] = []
        self._scheduled = False

    def acquire(self) -> Deferred[None]:
        """See ``Limiter``."""
        self._count()
        if not self._waiting and self._tokens >= 1:
            self._tokens -= 1
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        self._schedule()
        return waiting

    def _count(self) -> None:
        now = self._clock.seconds()
        self._tokens = min(self._burst, self._tokens + (now - self._counted) * self._rate)
        self._counted = now

    def _schedule(self) -> None:
        if not self._scheduled and self._waiting:
            self._scheduled = True
            self._clock.callLater(max(0.0, (1 - self._tokens) / self._rate), self._wake)

    def _wake(self) -> None:
        self._scheduled = False
        self._count()
        # What floating point takes from a whole token must not cost another round.
        while self._waiting and self._tokens >= 1 - 1e-9:
            self._tokens -= 1
            self._waiting.pop(0).callback(None)
        self._schedule()
