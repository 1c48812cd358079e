"""Waiting for what cannot be called back."""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Outcome(Generic[T]):
    """What becomes of something, for all who wait for it; that one of them is cancelled does not change it.

    :param running: fires with the result; nobody else listens to it.
    """

    def __init__(self, running: Deferred[T]) -> None:
        self._running = running
        self._result: list[T | Failure] = []
        self._waiting: list[Deferred[None]] = []
        running.addBoth(self._done)

    @property
    def over(self) -> bool:
        """Whether there is a result."""
        return bool(self._result)

    def cancel(self) -> None:
        """Cancel it."""
        self._running.cancel()

    async def wait(self) -> T:
        """The result; raises what it failed with, and ``CancelledError`` where the wait is cancelled."""
        if not self._result:
            waiting: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(waiting)
            await waiting
        (result,) = self._result
        if isinstance(result, Failure):
            result.raiseException()
        return result

    async def to_the_end(self) -> T:
        """As ``wait``, but being cancelled changes nothing."""
        while True:
            try:
                return await self.wait()
            except CancelledError:
                if self.over:
                    raise

    def _done(self, result: T | Failure) -> None:
        self._result.append(result)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
