"""Work that goes on to its end, whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class SharedCalls(Generic[T]):
    """Calls that run, by a key that says what they compute."""

    def __init__(self) -> None:
        self._running: dict[bytes, list[Deferred[T]]] = {}

    def join(self, key: bytes, start: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Fires with the result of the call that runs under ``key``, or of ``start()`` where none does.

        Cancelling it ends the waiting alone; the call and the others who wait for it go on.
        """
        waiting = self._running.get(key)
        first = waiting is None
        if waiting is None:
            waiting = self._running[key] = []
        result: Deferred[T] = Deferred(waiting.remove)
        waiting.append(result)
        if first:
            start().addBoth(self._finish, key)
        return result

    def _finish(self, outcome: T | Failure, key: bytes) -> None:
        waiting = self._running.pop(key)
        while waiting:
            waiting.pop(0).callback(outcome)  # a Failure goes down the errback side


def shielded(call: Deferred[T]) -> Deferred[T]:
    """Fires with the result of ``call``. Cancelling it ends the waiting, ``call`` goes on."""
    # Having no canceller, it ignores what comes after a cancellation.
    result: Deferred[T] = Deferred()
    call.addBoth(result.callback)
    return result
