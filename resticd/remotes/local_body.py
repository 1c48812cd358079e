"""One file of a local directory on its way to a consumer."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from zope.interface import implementer

from resticd.errors import StorageError
from resticd.interfaces import IFileBody
from resticd.remotes.local_errors import our_errors
from resticd.streams import ThreadedReader

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IConsumer

    from resticd.workers import Workers

T = TypeVar("T")


@implementer(IFileBody)
class LocalBody:
    """See ``IBody`` and ``IFileBody``.

    :param fd: an open file, which the body takes over.
    :param quick: whether closing it never waits, so that it need not cost a worker's turn (half of what opening costs).
    :param prompt: reads what the kernel has in memory (``PromptReader.read_open``), which needs no worker either.
    """

    def __init__(
        self,
        workers: Workers,
        fd: int,
        size: int,
        offset: int,
        length: int,
        *,
        quick: bool,
        prompt: Callable[[int, int, int], bytes] | None = None,
    ) -> None:
        self.size = size
        self.offset = offset
        self.length = length
        self._quick = quick
        self._prompt = prompt
        self._workers = workers
        self._fd = fd
        self._position = offset
        self._delivering = False
        self._closing = False
        #: A cancelled delivery ends while a read still runs: the descriptor must outlive the read.
        self._lock = Lock()
        self._closed = False

    def fileno(self) -> int:
        """See ``IFileBody``."""
        return self._fd

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``."""
        self._delivering = True
        prompt = None if self._prompt is None else partial(self._read_promptly, self._prompt)
        reader = ThreadedReader(self._workers, self._read, self.length, prompt)
        return reader.deliver(consumer).addBoth(self._release)

    def _read_promptly(self, prompt: Callable[[int, int, int], bytes], size: int) -> bytes:
        # No worker reads meanwhile, and nobody closes: the delivery, which does one thing at a time, is not over.
        data = prompt(self._fd, self._position, size)
        self._position += len(data)
        return data

    def _read(self, size: int) -> bytes:
        with self._lock, our_errors("reading"):
            if self._closed:
                raise StorageError("the download was given up")
            data = os.pread(self._fd, size, self._position)
        if not data:
            raise StorageError("the file became shorter while it was sent")
        self._position += len(data)
        return data

    def close(self) -> None:
        """See ``IBody``."""
        if not self._delivering:
            self._release(None)

    def _release(self, result: T) -> T:
        if not self._closing:
            self._closing = True
            if self._quick and self._lock.acquire(blocking=False):
                self._close()
                self._lock.release()
            else:
                self._workers.run(self.close_now)
        return result

    def close_now(self) -> None:
        """Close the file; waits for a read that runs. For workers."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._fd)
