"""Noticing that a remote makes no progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime


class IdleTimer:
    """Calls ``expired`` once, when ``restart`` lies ``seconds`` back and neither ``restart`` nor ``stop`` followed.

    ``restart`` costs next to nothing: the delayed call is not moved but looks at the time when it comes.
    """

    def __init__(self, clock: IReactorTime, seconds: float, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._expired = expired
        self._since: float | None = None
        self._call: IDelayedCall | None = None

    def restart(self) -> None:
        """Count from now on."""
        self._since = self._clock.seconds()
        if self._call is None:
            self._call = self._clock.callLater(self._seconds, self._look)

    def stop(self) -> None:
        """Do not count; ``restart`` may follow."""
        self._since = None

    def close(self) -> None:
        """Never call ``expired`` any more."""
        self._since = None
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _look(self) -> None:
        self._call = None
        if self._since is None:
            return
        left = self._since + self._seconds - self._clock.seconds()
        if left > 0:
            self._call = self._clock.callLater(left, self._look)
        else:
            self._since = None
            self._expired()
