"""Large uploads written around the page cache (``O_DIRECT``).

Nobody reads a pack that was just stored, so there is no use in a copy of it that has to be made, kept and written in
the background. Packs of 16 MiB over five connections take three quarters of the time.

A disk whose head moves is better served by the page cache, which gathers what belongs together. Virtual machines call
every disk such a one, so what counts is how long the writes take.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resticd.remotes.local_prompt import PromptReader

#: What addresses, offsets and lengths must be multiples of: no file system asks for more than a page.
BLOCK = 4096
#: How much is written at a time, in bytes.
PIECE = 256 * 1024
#: How many buffers of that size are kept for the next uploads.
SPARE = 16
#: Shorter uploads are not worth it, in bytes.
WORTH_IT = 1024 * 1024
#: A disk that takes longer for a MiB, on an average, is slow; in seconds. Each of five writers at a time has 0.01 on a
#: disk of 500 MB/s, and 0.1 or more where a head moves.
SLOW = 0.04
#: How long a slow disk is left to the page cache, in seconds.
PAUSE = 60.0
#: How much the last write counts.
_WEIGHT = 1 / 16
# linux/magic.h: ext2 to ext4, XFS. Others copy first (Btrfs for its checksums), or have no page cache to go around.
_FILE_SYSTEMS = {0xEF53, 0x58465342}


class DirectWrites:
    """Says which files are written around the page cache. For several threads at once.

    :param now: the time in seconds, from anywhere.
    """

    def __init__(self, prompt: PromptReader, now: Callable[[], float] = time.monotonic) -> None:
        self._prompt = prompt
        self._now = now
        #: seconds for a MiB
        self._average = 0.0
        self._paused_until = float("-inf")

    def begin(self, fd: int, size: int | None) -> DirectFile | None:
        """For a new file of ``size`` bytes; None where the page cache is better, or nothing goes around it."""
        if size is None or size < WORTH_IT or self._now() < self._paused_until:
            return None
        if self._prompt.file_system(fd) not in _FILE_SYSTEMS:
            return None
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
        except OSError:
            return None
        return DirectFile(fd, self)

    def took(self, seconds: float, size: int) -> None:
        """A write of ``size`` bytes took this long."""
        # Threads that come between each other lose a sample, which does not matter.
        average = self._average + (seconds * 1024 * 1024 / size - self._average) * _WEIGHT
        if average > SLOW:
            self._paused_until, average = self._now() + PAUSE, 0.0
        self._average = average


class DirectFile:
    """A new file that is written around the page cache, in whole pieces from page-aligned memory.

    Large memoryviews are taken for such memory, as those of ``http.direct`` are; everything else is gathered. What is
    no whole piece, at the end, goes through the page cache, and so does all that follows a write that the kernel finds
    unfit. By one thread at a time.
    """

    def __init__(self, fd: int, writes: DirectWrites) -> None:
        self._fd = fd
        self._writes = writes
        self._direct = True
        self._buffer = memoryview(b"")
        self._filled = 0

    def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Take the next bytes. Raises ``OSError``."""
        for chunk in chunks:
            view = memoryview(chunk)
            if isinstance(chunk, memoryview) and len(view) >= PIECE and not self._filled:
                whole = len(view) - len(view) % BLOCK
                self._put(view[:whole])
                view = view[whole:]
            if view and not self._buffer:
                self._buffer = _take_buffer()
            while view:
                size = min(len(view), PIECE - self._filled)
                self._buffer[self._filled : self._filled + size] = view[:size]
                self._filled += size
                view = view[size:]
                if self._filled == PIECE:
                    self._flush()

    def finish(self) -> None:
        """Write what is left. Raises ``OSError``."""
        if self._filled:
            self._through_page_cache()
            self._flush()

    def close(self) -> None:
        """Let go of the memory; the file stays open."""
        _give_buffer(self._buffer)
        self._buffer = memoryview(b"")

    def _flush(self) -> None:
        size, self._filled = self._filled, 0
        self._put(self._buffer[:size])

    def _put(self, data: memoryview) -> None:
        while data:
            started = time.monotonic()
            try:
                written = os.write(self._fd, data)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._direct:
                    raise
                self._through_page_cache()
                continue
            if self._direct:
                self._writes.took(time.monotonic() - started, max(written, 1))
                if written % BLOCK:
                    self._through_page_cache()
            data = data[written:]

    def _through_page_cache(self) -> None:
        if self._direct:
            self._direct = False
            fcntl.fcntl(self._fd, fcntl.F_SETFL, fcntl.fcntl(self._fd, fcntl.F_GETFL) & ~os.O_DIRECT)


#: Some that are not in use.
_spare: list[memoryview] = []


def _take_buffer() -> memoryview:
    try:
        return _spare.pop()
    except IndexError:
        return memoryview(mmap.mmap(-1, PIECE))


def _give_buffer(buffer: memoryview) -> None:
    if buffer and len(_spare) < SPARE:
        _spare.append(buffer)
