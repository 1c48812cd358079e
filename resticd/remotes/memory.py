"""A remote in memory, ``:memory:``: for trying things and for tests. What it holds is gone with the process."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, cast

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from resticd.errors import AlreadyExists, ClientGone, Corrupt, NotFound, ResticdError, StorageError, Unsupported
from resticd.interfaces import Capabilities, Entry, IBody, IRemote, IUpload, Stat, Usage

if TYPE_CHECKING:
    from twisted.internet.interfaces import IConsumer, IProducer

    from resticd.streams import Span

PAGE = 1000
CHUNK = 64 * 1024


@frozen
class _Object:
    data: bytes
    modified: float


@implementer(IRemote)
class MemoryRemote:
    """See the module. Everything happens on the reactor thread, so creation is conditional by itself.

    A body is delivered as fast as its consumer takes it, in chunks of 64 KiB.
    """

    capabilities = Capabilities(conditional_create=True, verifies_hash=True)

    def __init__(self) -> None:
        self.objects: dict[str, _Object] = {}

    def start(self) -> Deferred[None]:
        """See ``IRemote``."""
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """See ``IRemote``."""
        return succeed(None)

    def stat(self, key: str) -> Deferred[Stat]:
        """See ``IRemote``."""
        stored = self.objects.get(key)
        if stored is None:
            return fail(NotFound("there is no such file"))
        return succeed(Stat(len(stored.data), stored.modified))

    async def list(self, prefix: str) -> AsyncGenerator[list[Entry], None]:
        """See ``IRemote``."""
        found = [
            Entry(key, len(stored.data), stored.modified)
            for key, stored in self.objects.items()
            if key.startswith(prefix)
        ]
        for start in range(0, len(found), PAGE):
            yield found[start : start + PAGE]

    def open(self, key: str, span: Span | None = None) -> Deferred[IBody]:
        """See ``IRemote``."""
        stored = self.objects.get(key)
        if stored is None:
            return fail(NotFound("there is no such file"))
        size = len(stored.data)
        try:
            offset, length = (0, size) if span is None else span.resolve(size)
        except Exception:
            return fail()
        return succeed(cast(IBody, _MemoryBody(stored.data, offset, length)))

    def begin(self, key: str, size: int | None, sha256: str | None, overwrite: bool = False) -> Deferred[IUpload]:
        """See ``IRemote``."""
        return succeed(cast(IUpload, _MemoryUpload(self, key, size, sha256, overwrite)))

    def delete(self, key: str) -> Deferred[None]:
        """See ``IRemote``."""
        self.objects.pop(key, None)
        return succeed(None)

    def make(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``; there are no directories."""
        return succeed(None)

    def tidy(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``; there are no directories."""
        return succeed(None)

    def usage(self) -> Deferred[Usage]:
        """See ``IRemote``."""
        return fail(Unsupported("memory has no quota"))


@implementer(IBody, IPushProducer)
class _MemoryBody:
    def __init__(self, data: bytes, offset: int, length: int) -> None:
        self.size = len(data)
        self.offset = offset
        self.length = length
        self._data = memoryview(data)[offset : offset + length]
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] | None = None
        self._paused = False
        self._writing = False

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``."""
        self._consumer = consumer
        done: Deferred[None] = Deferred(lambda _: self._finish(Failure(CancelledError())))
        self._done = done
        consumer.registerProducer(self, True)
        self.resumeProducing()
        return done

    def close(self) -> None:
        """See ``IBody``; there is nothing to release."""

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = True

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False
        if self._writing:  # called from within write below, whose loop goes on
            return
        self._writing = True
        while self._data and not self._paused and self._consumer is not None:
            chunk, self._data = self._data[:CHUNK], self._data[CHUNK:]
            self._consumer.write(bytes(chunk))
        self._writing = False
        if not self._data:
            self._finish(None)

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self._finish(Failure(ClientGone("the connection ended during the download")))

    def _finish(self, failure: Failure | None) -> None:
        consumer, self._consumer = self._consumer, None
        done, self._done = self._done, None
        if consumer is None or done is None:
            return
        consumer.unregisterProducer()
        if failure is None:
            done.callback(None)
        else:
            done.errback(failure)


@implementer(IUpload)
class _MemoryUpload:
    def __init__(self, remote: MemoryRemote, key: str, size: int | None, sha256: str | None, overwrite: bool) -> None:
        self._remote = remote
        self._key = key
        self._size = size
        self._sha256 = sha256
        self._overwrite = overwrite
        self._digest = hashlib.sha256() if sha256 is not None else None
        self._data = bytearray()
        self._producer: IProducer | None = None
        self._failure: Exception | None = None

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``; memory is never too slow."""
        self._producer = producer
        if self._failure is not None:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        if self._failure is not None:
            return
        self._data += data
        if self._size is not None and len(self._data) > self._size:
            self._give_up(Corrupt(f"more than the announced {self._size} bytes arrived"))
        elif self._digest is not None:
            self._digest.update(data)

    def commit(self) -> Deferred[Stat]:
        """See ``IUpload``."""
        try:
            self._check()
        except ResticdError as error:
            self._give_up(error)
            return fail(error)
        stored = self._remote.objects[self._key] = _Object(bytes(self._data), time.time())
        self._data = bytearray()
        return succeed(Stat(len(stored.data), stored.modified))

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._size is not None and len(self._data) != self._size:
            raise Corrupt(f"{len(self._data)} bytes arrived, {self._size} were announced")
        if self._digest is not None and self._digest.hexdigest() != self._sha256:
            raise Corrupt("the bytes do not hash to the name")
        if self._key in self._remote.objects and not self._overwrite:
            raise AlreadyExists("a file is stored under this name")

    def abort(self) -> Deferred[None]:
        """See ``IUpload``."""
        self._give_up(StorageError("the upload was given up"))
        return succeed(None)

    def _give_up(self, reason: Exception) -> None:
        self._failure = self._failure or reason
        self._data = bytearray()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
