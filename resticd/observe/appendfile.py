"""A file that lines are appended to, and that others may rotate meanwhile."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

#: How often the path is looked at, in seconds: what logrotate moved away is left within this time.
LOOK_EVERY = 1.0


class AppendFile:
    """Appends to the file at ``path``, whichever file that is at the time.

    Every write goes to the end (``O_APPEND``), so a file that was truncated (logrotate's ``copytruncate``) goes on at
    its beginning. A file that was moved or removed (``create``) is noticed within ``LOOK_EVERY`` seconds, and by
    ``reopen`` at once; the new one is opened before the old one is let go, so that no line is lost where that fails.

    Writing is an ``os.write`` by the caller: a copy into the page cache. Nothing waits for the disk, and a pipe that is
    full refuses the bytes. Not for several threads at once.

    :param owner: user and group of a file that is made, where the process runs as root and will not stay it.
    :param complain: called with a sentence when the file that took the place of the old one cannot be opened.
    :ivar identity: device and inode of the file that is written to; another value after a rotation.
    """

    def __init__(
        self,
        path: str,
        clock: IReactorTime,
        complain: Callable[[str], object],
        owner: tuple[int, int] | None = None,
    ) -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100 - a daemon changes its directory
        self._clock = clock
        self._complain = complain
        self._owner = owner
        self._fd = -1
        self.identity = (0, 0)
        self._looked = 0.0
        self._complained = False

    def open(self) -> None:
        """Open the file, or what is at its path now, and make it where there is none. Raises ``OSError``."""
        fd = self._open()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self.identity = _identity(os.fstat(fd))
        self._looked = self._clock.seconds()
        self._complained = False

    def follow(self) -> None:
        """Look, now and then, whether another file is at the path, and go on in that one. To be called before a line.

        Opens the file where it is closed and raises ``OSError`` then.
        """
        if self._fd < 0:
            self.open()
        elif self._clock.seconds() - self._looked >= LOOK_EVERY:
            self._looked = self._clock.seconds()
            try:
                moved = _identity(os.stat(self.path)) != self.identity  # noqa: PTH116 - a str is at hand
            except OSError:
                moved = True
            if moved:
                self.reopen()

    def write(self, data: bytes | memoryview) -> int:
        """Append ``data``, or the first part of it. Returns how many bytes were written; raises ``OSError``."""
        return os.write(self._fd, data)

    def reopen(self) -> None:
        """As after a rotation: go on in the file that is at the path now. A failure goes to ``complain``."""
        try:
            self.open()
        except OSError as error:
            if not self._complained:
                self._complained = True
                self._complain(f"cannot open {self.path}: {error.strerror}")

    def close(self) -> None:
        """Let the file go; a later ``write`` opens it again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open(self) -> int:
        # O_NONBLOCK means nothing to a file; on a pipe neither opening nor writing waits for a reader then.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
        with contextlib.suppress(FileExistsError):
            fd = os.open(self.path, flags | os.O_EXCL, 0o640)
            if self._owner is not None and os.geteuid() == 0:
                os.fchown(fd, *self._owner)
            return fd
        return os.open(self.path, flags, 0o640)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
