"""Uploads whose size nobody told: rclone wants to know it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from resticd.errors import OutOfSpace, StorageError
from resticd.interfaces import IUpload, Stat
from resticd.streams import ThreadedReader, ThreadedWriter

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer

    from resticd.workers import Workers

#: What is longer goes from memory to a file.
_IN_MEMORY = 1024 * 1024


@implementer(IUpload)
class SpooledUpload:
    """Keeps the bytes in a temporary file of this machine, then hands them to an upload of known size.

    restic tells the size of everything; this is for other clients.

    :param make: an upload for a size in bytes.
    :param given_up: called where no upload is made.
    """

    def __init__(self, workers: Workers, make: Callable[[int], IUpload], given_up: Callable[[], object]) -> None:
        self._workers = workers
        self._make = make
        self._given_up = given_up
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed by commit or abort
        self._writer = ThreadedWriter(workers, self._consume)
        self._over = False

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        self._writer.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._writer.unregisterProducer()

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self._writer.write(data)

    def commit(self) -> Deferred[Stat]:
        """See ``IUpload``."""
        if self._over:
            return fail(StorageError("the upload was given up"))
        self._over = True
        return Deferred.fromCoroutine(self._commit())

    def abort(self) -> Deferred[None]:
        """See ``IUpload``."""
        if self._over:
            return succeed(None)
        self._over = True
        self._given_up()
        return self._writer.discard().addCallback(lambda _: self._file.close())

    async def _commit(self) -> Stat:
        try:
            try:
                await self._writer.drained()
            except BaseException:
                await self._writer.discard()
                self._given_up()
                raise
            size = self._file.tell()
            self._file.seek(0)
            upload = self._make(size)
            try:
                reader = ThreadedReader(self._workers, self._file.read, size)
                await reader.deliver(upload)
                return await upload.commit()
            finally:
                await upload.abort()
        finally:
            self._file.close()

    def _consume(self, chunks: list[bytes]) -> None:
        try:
            self._file.writelines(chunks)
        except OSError as error:
            raise OutOfSpace(f"no room for an upload of unknown size: {error.strerror}") from None
