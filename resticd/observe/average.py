"""The speed that reports show."""

from __future__ import annotations

#: How many samples, one a second, the average remembers (``averagePeriod`` in rclone's ``fs/accounting``).
PERIOD = 16


class Average:
    """An exponentially weighted moving average of a speed, as rclone's.

    :param moved: how many bytes the counter stands at.
    :param now: the time, in seconds.
    :ivar speed: in bytes per second.
    """

    __slots__ = ("_last_moved", "_last_time", "_samples", "speed")

    def __init__(self, moved: int, now: float) -> None:
        self.speed = 0.0
        self._last_moved = moved
        self._last_time = now
        self._samples = 0

    def sample(self, moved: int, now: float) -> None:
        """The counter stands at ``moved`` bytes; to be called about once a second."""
        elapsed = now - self._last_time
        if elapsed <= 0:
            return
        current = (moved - self._last_moved) / elapsed
        # The first samples weigh more, so that the average does not creep up from zero.
        self._samples = min(self._samples + 1, PERIOD)
        self.speed += (current - self.speed) / self._samples
        self._last_moved, self._last_time = moved, now
