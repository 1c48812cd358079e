"""Directories as they were when they were last read, for lists of what has not changed.

Reading 100,000 names and sizes takes half a second, remembering them a fifteenth of that. A directory's times change
with every name that comes or goes, and nothing that is stored here is ever changed in place, so a directory whose times
are the same holds what it held. What other programs change in place, which no program that knows restic does, shows
when the daemon is started anew, or with ``--cache-objects=false``.
"""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from resticd.remotes.local_tree import Listing

#: A directory that changed less than this before it was read, in seconds, may change once more within the same tick of
#: its file system's clock: it is not remembered.
RACY = 2.5
#: At most this much is kept, in bytes. A name takes 32, its size 4 or 8; what does not fit is read every time.
CAPACITY = 16 * 1024 * 1024
#: Fewer names are read as fast as they are remembered.
WORTH_IT = 8

#: Device, number, times, size and links of a directory.
_Fingerprint = tuple[int, int, int, int, int, int]


class _Kept(NamedTuple):
    fingerprint: _Fingerprint
    #: as numbers of 256 bits
    names: bytes
    sizes: array[int]
    directories: tuple[str, ...]

    @property
    def weight(self) -> int:
        return len(self.names) + len(self.sizes) * self.sizes.itemsize


class DirectoryMemory:
    """What directories hold. For several threads at once.

    Only directories are kept whose files all have 64 hexadecimal digits for a name, which fits them into half.

    :param is_local: whether the file system of an open file, on the device given, stamps times with this machine's
        clock (``PromptReader.learn``).
    :param now: the time in seconds since the epoch.
    """

    def __init__(self, is_local: Callable[[int, int], bool], now: Callable[[], float] = time.time) -> None:
        self._is_local = is_local
        self._now = now
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._weight = 0

    def recall(self, prefix: str, about: os.stat_result) -> tuple[list[str], list[int], tuple[str, ...]] | None:
        """Names and sizes of the files in a directory, and its directories, where it has not changed since.

        :param about: the directory as it is now.
        """
        kept = self._kept.get(prefix)
        if kept is None or kept.fingerprint != _fingerprint(about):
            return None
        text = kept.names.hex()
        return [text[at : at + 64] for at in range(0, len(text), 64)], kept.sizes.tolist(), kept.directories

    def can_keep(self, about: os.stat_result) -> bool:
        """Whether what is read from now on of a directory may be remembered. To be asked before it is read."""
        return self._now() - max(about.st_mtime, about.st_ctime) > RACY

    def keep(self, about: os.stat_result, fd: int, listing: Listing) -> None:
        """Remember a directory, if that is possible.

        :param about: the directory before it was read.
        :param fd: the directory.
        """
        prefix, names, sizes = listing.prefix, listing.names, listing.sizes
        self._forget(prefix)
        if len(names) < WORTH_IT:
            return
        text = "".join(names)
        try:
            numbers = bytes.fromhex(text)
        except ValueError:
            return
        if set(map(len, names)) != {64} or numbers.hex() != text or not self._is_local(fd, about.st_dev):
            return
        small = array("I", sizes) if max(sizes) < 1 << 32 else array("Q", sizes)
        inner = tuple(directory[len(prefix) : -1] for directory in listing.directories)
        kept = _Kept(_fingerprint(about), numbers, small, inner)
        with self._lock:
            if self._weight + kept.weight <= CAPACITY:
                self._weight += kept.weight
                self._kept[prefix] = kept

    def _forget(self, prefix: str) -> None:
        with self._lock:
            kept = self._kept.pop(prefix, None)
            if kept is not None:
                self._weight -= kept.weight


def _fingerprint(about: os.stat_result) -> _Fingerprint:
    return about.st_dev, about.st_ino, about.st_mtime_ns, about.st_ctime_ns, about.st_size, about.st_nlink
