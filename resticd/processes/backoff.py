"""How long to wait before something that ended is started again."""

from __future__ import annotations

#: Seconds before the first new start; doubled with each that follows …
FIRST = 0.5
#: … up to this.
LONGEST = 30.0
#: What ran so long, in seconds, ran well: the next wait is the first one again.
WELL = 60.0


class Backoff:
    """The waits between starts of one thing."""

    def __init__(self) -> None:
        self._next = FIRST

    def after(self, ran: float) -> float:
        """Seconds to wait after it ran for ``ran`` seconds."""
        wait = FIRST if ran >= WELL else self._next
        self._next = min(wait * 2, LONGEST)
        return wait
