"""Compares what clients send with its hash, for remotes that do not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from resticd.errors import Corrupt
from resticd.interfaces import Capabilities, IRemote, IUpload, IVerifyingUpload, Stat
from resticd.remotes.wrappers.passing import PassingRemote
from resticd.streams import ThreadedWriter

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer

    from resticd.workers import Workers


@implementer(IRemote)
class VerifyingRemote(PassingRemote):
    """Hashes uploads in workers while they go to ``inner``, and commits there only what matches; but for those that are
    compared there (``IVerifyingUpload``).

    Nothing more is held back here: nothing is visible before ``commit`` is the promise of every upload.
    """

    def __init__(self, inner: IRemote, workers: Workers) -> None:
        super().__init__(inner)
        self._workers = workers

    @property
    def capabilities(self) -> Capabilities:
        """See ``IRemote``."""
        return evolve(self._inner.capabilities, verifies_hash=True)

    def begin(self, key: str, size: int | None, sha256: str | None, overwrite: bool = False) -> Deferred[IUpload]:
        """See ``IRemote``."""
        beginning = self._inner.begin(key, size, sha256, overwrite)
        if sha256 is None or self._inner.capabilities.verifies_hash:
            return beginning
        expected = sha256

        def verified(upload: IUpload) -> IUpload:
            if IVerifyingUpload.providedBy(upload):
                return upload
            return cast(IUpload, _VerifyingUpload(upload, self._workers, expected))

        return beginning.addCallback(verified)


@implementer(IPushProducer)
class _Valve:
    """One of two consumers' hold on a producer that runs only while both let it."""

    def __init__(self, changed: Callable[[], None], stopped: Callable[[], None]) -> None:
        self.paused = False
        self._changed = changed
        self._stopped = stopped

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self.paused = True
        self._changed()

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self.paused = False
        self._changed()

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self._stopped()


@implementer(IUpload)
class _VerifyingUpload:
    def __init__(self, inner: IUpload, workers: Workers, sha256: str) -> None:
        self._inner = inner
        self._sha256 = sha256
        self._digest = hashlib.sha256()
        self._hasher = ThreadedWriter(workers, self._update)
        self._to_inner = _Valve(self._balance, self._refused)
        self._to_hasher = _Valve(self._balance, self._refused)
        self._producer: IPushProducer | None = None
        self._paused = False
        self._is_refused = False
        self._committing = False

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``; push producers only."""
        if not streaming:
            raise TypeError("an upload takes push producers only")
        self._producer = cast(IPushProducer, producer)
        self._paused = self._to_inner.paused = self._to_hasher.paused = False
        self._hasher.registerProducer(self._to_hasher, True)
        self._inner.registerProducer(self._to_inner, True)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._producer = None
        self._hasher.unregisterProducer()
        self._inner.unregisterProducer()

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        if not self._is_refused:
            self._hasher.write(data)
            self._inner.write(data)

    def commit(self) -> Deferred[Stat]:
        """See ``IUpload``."""
        self._committing = True
        return Deferred.fromCoroutine(self._commit())

    def abort(self) -> Deferred[None]:
        """See ``IUpload``."""
        if self._committing:
            return succeed(None)
        self._is_refused = True
        return self._inner.abort()

    async def _commit(self) -> Stat:
        if not self._is_refused:  # otherwise the bytes are not complete, and the commit says why
            try:
                await self._hasher.drained()
                if self._digest.hexdigest() != self._sha256:
                    raise Corrupt("the bytes do not hash to the name")
            except BaseException:
                await self._inner.abort()
                raise
        return await self._inner.commit()

    def _update(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            self._digest.update(chunk)

    def _balance(self) -> None:
        wanted = self._to_inner.paused or self._to_hasher.paused
        if wanted == self._paused or self._producer is None:
            return
        self._paused = wanted
        if wanted:
            self._producer.pauseProducing()
        else:
            self._producer.resumeProducing()

    def _refused(self) -> None:
        """The inner upload wants no more."""
        self._is_refused = True
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
