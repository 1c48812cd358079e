"""How much may pass now: the state of a limit, which several processes may share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from math import inf
from typing import Protocol

#: How long it counts that somebody waited, in seconds: longer than a slow disk takes to store what came at once.
CONTENDED = 1.0
#: What floating point may take from a whole unit.
_SLACK = 1e-9


class Floats(Protocol):
    """Three numbers that can be changed: a list, or memory that several processes see."""

    def __getitem__(self, index: int, /) -> float: ...

    def __setitem__(self, index: int, value: float, /) -> None: ...


class Credit:
    """A number that grows with time and is spent. It begins full, as after a quiet time.

    ``processes.board`` keeps the state of one where several processes see it.

    :param seconds: the time; its zero is that of everybody who shares the state.
    :param state: how much there is, when it was last refilled and when somebody last waited; an owner's own by default.
    :param lock: held while the state is looked at and changed.
    :ivar spread: how much later than need be those who wait should look again, at most, as a part of the time that they
        wait: where several look after one credit, all have their turn if none is always the first.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        state: Floats | None = None,
        lock: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        spread: float = 0.0,
    ) -> None:
        self.spread = spread
        self._seconds = seconds
        self._state: Floats = [0.0, -inf, -inf] if state is None else state
        self._lock = lock

    def refill(self, rate: float, saved: float, late: float = 0.0, waiting: bool = False) -> float:
        """Add what came at ``rate`` a second since the last refill; returns how much there is.

        :param saved: no more than this is kept …
        :param late: … but up to this while somebody waits, or did ``CONTENDED`` seconds ago.
        :param waiting: whether somebody waits for it now.
        """
        with self._lock():
            state = self._state
            now = self._seconds()
            if waiting:
                state[2] = now
            most = max(saved, late) if now - state[2] <= CONTENDED else saved
            state[0] = min(state[0] + max(now - state[1], 0) * rate, most)
            state[1] = now
            return state[0]

    def take(self, amount: float) -> bool:
        """Spend ``amount`` if there is so much."""
        with self._lock():
            if self._state[0] < amount - _SLACK:
                return False
            self._state[0] -= amount
            return True

    def put_back(self, amount: float) -> None:
        """What was taken and not used."""
        with self._lock():
            self._state[0] += amount

    def clear(self) -> None:
        """Begin with nothing from now on."""
        with self._lock():
            self._state[0] = 0.0
            self._state[1] = self._seconds()
