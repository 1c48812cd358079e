"""Trying again what failed for a passing reason."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from twisted.internet.task import deferLater
from twisted.logger import Logger

from resticd.errors import StorageError
from resticd.transport.errors import Busy, Refused

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

T = TypeVar("T")

#: Seconds before the first repetition; doubled for each further one.
FIRST_DELAY = 0.1
#: No pause of our own is longer.
LONGEST_DELAY = 5.0
#: A remote that asks for a longer pause is left alone: the client is told, and comes back by itself.
LONGEST_RETRY_AFTER = 15.0

_log = Logger(namespace="resticd.transport")


class Retries:
    """Repeats what is safe to repeat.

    :param tries: how often in all (``--low-level-retries``).
    :param jitter: gives a number from 0 to 1; pauses are between half and all of what is due, so that clients that
        failed together do not come back together.
    """

    def __init__(self, clock: IReactorTime, tries: int, jitter: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._tries = max(tries, 1)
        self._jitter = jitter

    async def run(self, attempt: Callable[[int], Awaitable[T]]) -> T:
        """What ``attempt`` returns, called again while it raises a ``StorageError`` that may pass.

        ``Refused`` and all other errors are final, and so is the last attempt's error.

        :param attempt: called with the number of the attempt, from 0.
        """
        for number in range(self._tries):
            try:
                return await attempt(number)
            except Refused:
                raise
            except StorageError as error:
                pause = self._pause(number, error)
                if number + 1 == self._tries or pause is None:
                    raise
                _log.debug("trying again in {pause:.1f} s: {reason}", pause=pause, reason=str(error))
            await deferLater(self._clock, pause)
        raise AssertionError("the loop returns or raises")

    def _pause(self, number: int, error: StorageError) -> float | None:
        asked = error.retry_after if isinstance(error, Busy) else 0.0
        if asked > LONGEST_RETRY_AFTER:
            return None
        due = min(LONGEST_DELAY, FIRST_DELAY * 2.0**number)
        return max(asked, due * (0.5 + self._jitter() / 2))
