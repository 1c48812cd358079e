"""Work that many wait for and that is done once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from twisted.python.failure import Failure

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Whoever asks while ``work`` runs gets the outcome of that run; who asks afterwards begins another.

    It runs on when those who wait are cancelled.
    """

    def __init__(self, work: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> None:
        self._work = work
        self._running: Deferred[T] | None = None
        self._waiting: list[Deferred[T]] = []

    async def join(self) -> T:
        """What ``work`` returns; raises what it raises."""
        waiting: Deferred[T] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        if self._running is None:
            running = self._running = Deferred.fromCoroutine(self._work())
            running.addBoth(self._done)
        return await waiting

    def stop(self) -> None:
        """Give up what runs; those who wait get a ``CancelledError``."""
        if self._running is not None:
            self._running.cancel()

    def _done(self, result: T | Failure) -> None:
        self._running = None
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(result)  # a Failure goes down the errback side
