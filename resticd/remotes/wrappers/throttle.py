"""Bandwidth limits: whatever moves to or from a remote waits until a limiter grants it.

A limited transfer takes the portable path: what ``begin`` and ``open`` give out is no ``IBlockingSink`` and no
``IFileBody``. Between its producer and its consumer stands a ``flow.Flow``; it holds no more than what arrives before
a pause takes effect. Lists and the answers of ``stat`` are not limited.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from resticd.bandwidth import Bandwidth, BandwidthLimiter, Limits, Timetable
from resticd.errors import ClientGone
from resticd.interfaces import IBody, IUpload
from resticd.remotes.wrappers.flow import Chain
from resticd.remotes.wrappers.passing import PassingRemote, PassingUpload

if TYPE_CHECKING:
    from twisted.internet.interfaces import IConsumer, IProducer, IReactorTime

    from resticd.interfaces import IRemote, Stat
    from resticd.streams import Span


class ThrottledUpload(PassingUpload):
    """An upload that takes bytes no faster than the limiters grant them."""

    def __init__(self, inner: IUpload, limiters: Sequence[BandwidthLimiter]) -> None:
        super().__init__(inner)
        self._chain = Chain(limiters, inner)
        self._aborted = False

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        self._chain.entrance.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._chain.entrance.unregisterProducer()

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self._chain.entrance.write(data)

    def commit(self) -> Deferred[Stat]:
        """See ``IUpload``; the last byte is granted before."""
        return Deferred.fromCoroutine(self._commit())

    async def _commit(self) -> Stat:
        try:
            await self._chain.drained()
            if self._aborted:
                raise CancelledError
        except Exception:
            await self.abort()
            raise
        return await self._inner.commit()

    def abort(self) -> Deferred[None]:
        """See ``IUpload``."""
        self._aborted = True
        self._chain.close()
        return self._inner.abort()


@implementer(IBody)
class ThrottledBody:
    """A body that is delivered no faster than the limiters grant it."""

    def __init__(self, inner: IBody, limiters: Sequence[BandwidthLimiter]) -> None:
        self.size = inner.size
        self.offset = inner.offset
        self.length = inner.length
        self._inner = inner
        self._limiters = limiters

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``."""
        return Deferred.fromCoroutine(self._deliver(consumer))

    async def _deliver(self, consumer: IConsumer) -> None:
        chain = Chain(self._limiters, consumer)
        try:
            await self._inner.deliver(chain.entrance)
            await chain.drained()
        finally:
            chain.close()
        if chain.stopped:
            raise ClientGone("the connection ended during the download")

    def close(self) -> None:
        """See ``IBody``."""
        self._inner.close()


class ThrottledRemote(PassingRemote):
    """``inner`` with limits on what moves to and from it.

    A transfer that no limit can ever touch, as the settings are when it begins, is that of ``inner`` itself.

    :param bandwidth: what all transfers share.
    :ivar file_limits: what each transfer is limited to for itself; a change counts for transfers that begin later.
    """

    def __init__(
        self, inner: IRemote, clock: IReactorTime, bandwidth: Bandwidth, file_limits: Limits | None = None
    ) -> None:
        super().__init__(inner)
        self.file_limits = file_limits or Limits()
        self._clock = clock
        self._bandwidth = bandwidth

    def open(self, key: str, span: Span | None = None) -> Deferred[IBody]:
        """See ``IRemote``."""

        def limit(body: IBody) -> IBody:
            limiters = self._limiters(self._bandwidth.down, self.file_limits.down)
            return ThrottledBody(body, limiters) if limiters else body

        return self._inner.open(key, span).addCallback(limit)

    def begin(self, key: str, size: int | None, sha256: str | None, overwrite: bool = False) -> Deferred[IUpload]:
        """See ``IRemote``."""

        def limit(upload: IUpload) -> IUpload:
            limiters = self._limiters(self._bandwidth.up, self.file_limits.up)
            return ThrottledUpload(upload, limiters) if limiters else upload

        return self._inner.begin(key, size, sha256, overwrite).addCallback(limit)

    def _limiters(self, shared: BandwidthLimiter, own: Timetable) -> Sequence[BandwidthLimiter]:
        """What a transfer has to pass: its own limit first, so that it asks the others for no more than it can use."""
        limiters = [BandwidthLimiter(self._clock, own)] if own.limits else []
        return [*limiters, shared] if shared.timetable.limits else limiters
