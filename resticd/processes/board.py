"""Memory that all processes of one server see: how many connections each has, and what limits grant.

The supervisor makes it, the workers inherit the descriptor. It spares them messages where an answer is needed at once.
Each worker alone writes its own number of connections; a limit's credit is changed under a lock of the file
(fcntl(2), F_SETLK), which a process that is killed lets go of by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from functools import partial

from resticd.credit import Credit

#: In the order in which their credits lie: uploads, downloads, requests to the remote.
UP, DOWN, REQUESTS = range(3)
#: Bytes of one credit: three floats, and room.
_CREDIT = 32
_COUNTS = 4 * _CREDIT
_NUMBER = 8
#: See ``Credit``.
SPREAD = 0.5


class Board:
    """The memory of one server.

    :ivar fd: to be inherited by the workers.
    :param processes: how many workers there are at most.
    """

    def __init__(self, fd: int, processes: int) -> None:
        self.fd = fd
        self.processes = processes
        self._map = mmap.mmap(fd, _COUNTS + processes * _NUMBER)
        self._floats = memoryview(self._map).cast("d")
        self._counts = memoryview(self._map).cast("q")[_COUNTS // _NUMBER :]

    @classmethod
    def create(cls, processes: int) -> Board:
        """A new one, all of whose numbers are zero."""
        fd = os.memfd_create("resticd", os.MFD_CLOEXEC)
        os.ftruncate(fd, _COUNTS + processes * _NUMBER)
        return cls(fd, processes)

    def credit(self, which: int) -> Credit:
        """What a limit grants to all processes together: ``UP``, ``DOWN`` or ``REQUESTS``."""
        first = which * _CREDIT // _NUMBER
        # The reactor's clock may be set; this one is the same for all processes.
        return Credit(time.monotonic, self._floats[first : first + 3], partial(self._locked, which), SPREAD)

    @contextlib.contextmanager
    def _locked(self, which: int) -> Iterator[None]:
        fcntl.lockf(self.fd, fcntl.LOCK_EX, _CREDIT, which * _CREDIT)
        try:
            yield
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN, _CREDIT, which * _CREDIT)

    def absent(self, index: int) -> None:
        """The worker accepts no connections (any more)."""
        self._counts[index] = 0

    def place(self, index: int) -> Place:
        """The worker's own part."""
        return Place(self._counts, index)


class Place:
    """One worker among the others, as the ports of ``listeners.shared`` see it.

    A number on the board is that of the worker's connections and one more; zero is a worker that accepts none.
    """

    def __init__(self, counts: memoryview, index: int) -> None:
        self._counts = counts
        self._index = index
        self._connections = 0

    def present(self) -> None:
        """Connections are accepted from now on."""
        self._counts[self._index] = self._connections + 1

    def absent(self) -> None:
        """No more connections are accepted."""
        self._counts[self._index] = 0

    @property
    def is_next(self) -> bool:
        """Whether no other worker has fewer connections."""
        return not any(0 < count <= self._connections for count in self._counts)

    def opened(self) -> None:
        """A connection was accepted."""
        self._change(1)

    def closed(self) -> None:
        """A connection is gone."""
        self._change(-1)

    def _change(self, by: int) -> None:
        self._connections += by
        if self._counts[self._index]:
            self._counts[self._index] = self._connections + 1
