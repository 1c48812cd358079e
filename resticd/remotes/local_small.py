"""Small uploads to a local directory: gathered in memory, then made, written, synced and named in one turn of a worker.

restic's locks, keys, snapshots and indexes are small. Three turns (open, write, commit) cost such an upload as much as
its disk does: with one, 4 KiB take about half of the time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resticd.errors import StorageError
from resticd.interfaces import IUpload, Stat
from resticd.remotes.local_upload import TemporaryFile

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer
    from twisted.python.failure import Failure

    from resticd.workers import Workers

#: In bytes. Up to this an upload waits in memory until it is whole.
SMALL = 64 * 1024


Shortly = Callable[[bytes], Coroutine[Deferred[Any], Any, Stat | None]]


@implementer(IUpload)
class SmallUpload:
    """See ``IUpload``. Nothing is on disk before ``commit``.

    :param size: how many bytes are announced; not more than one above is ever kept.
    :param make: makes the temporary file; called in a worker.
    :param shortly: stores the bytes in a shorter way, as ``RingStore.store`` does; None for none.
    """

    def __init__(
        self, workers: Workers, size: int, make: Callable[[], TemporaryFile], shortly: Shortly | None = None
    ) -> None:
        self._workers = workers
        self._make = make
        self._shortly = shortly
        self._shortly_done: Deferred[None] | None = None
        self._size = size
        self._chunks: list[bytes] = []
        self._gathered = 0
        #: Keeps ``abort`` and the making of the file apart.
        self._lock = threading.Lock()
        self._file: TemporaryFile | None = None
        self._producer: IProducer | None = None
        self._given_up = False
        self._running = False
        self._over = False

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        if not streaming:
            raise TypeError("an upload takes push producers only")
        self._producer = producer
        if self._given_up:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """See ``IConsumer``. Of what is too much one byte is kept: for that the file refuses it all."""
        room = self._size + 1 - self._gathered
        if room > 0 and not self._given_up:
            self._gathered += len(data)
            self._chunks.append(data[:room])
            if self._gathered > self._size and self._producer is not None:
                self._producer.stopProducing()

    def commit(self) -> Deferred[Stat]:
        """See ``IUpload``."""

        def cancel(_: Deferred[Stat]) -> None:
            self.abort()

        result: Deferred[Stat] = Deferred(cancel)

        def finish(outcome: Stat | Failure) -> None:
            self._over = True
            if not result.called:  # it was cancelled otherwise
                result.callback(outcome)  # a Failure goes down the errback side

        self._running = True
        Deferred.fromCoroutine(self._commit()).addBoth(finish)
        return result

    async def _commit(self) -> Stat:
        if self._shortly is not None and self._gathered == self._size and not self._given_up:
            stored = await self._try_shortly(self._shortly)
            if stored is not None:
                return stored
        return await self._workers.run(self._store)

    async def _try_shortly(self, shortly: Shortly) -> Stat | None:
        self._shortly_done = Deferred()
        try:
            return await shortly(b"".join(self._chunks))
        finally:
            done, self._shortly_done = self._shortly_done, None
            done.callback(None)

    def _store(self) -> Stat:
        with self._lock:
            if self._given_up:
                raise StorageError("the upload was given up")
            file = self._file = self._make()
        chunks, self._chunks = self._chunks, []
        file.write(chunks)
        return file.commit()

    def abort(self) -> Deferred[None]:
        """See ``IUpload``."""
        self._given_up = True
        self._chunks = []
        if self._file is not None:
            self._file.give_up()
        if self._over or not self._running:
            return succeed(None)
        if self._shortly_done is not None:
            ended: Deferred[None] = Deferred()
            self._shortly_done.addCallback(ended.callback)
            return ended
        return self._workers.run(self._abort)

    def _abort(self) -> None:
        with self._lock:
            file = self._file
        if file is not None:
            file.abort()
