"""Bytes on their way from a producer to a consumer, held up by bandwidth limiters."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from resticd.bandwidth import BandwidthLimiter

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer


@implementer(IConsumer, IPushProducer)
class Flow:
    """A consumer that hands on to ``target``, whose producer it is, what the limiter grants.

    It pauses its own producer while it has something, or while ``target`` wants nothing.

    :ivar stopped: ``target`` has said that it wants no more.
    """

    def __init__(self, limiter: BandwidthLimiter, target: IConsumer) -> None:
        self.stopped = False
        self._limiter = limiter
        self._target = target
        self._source: IPushProducer | None = None
        self._registered = False
        self._chunks: deque[bytes] = deque()
        #: how much of the first chunk has passed
        self._offset = 0
        self._pending = 0
        #: ``target`` wants to wait
        self._held = False
        #: the source was told to wait
        self._paused = False
        self._closed = False
        self._failure: Failure | None = None
        self._drained: Deferred[None] | None = None

    # Towards the source.

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``; push producers only."""
        if not streaming:
            raise TypeError("a limited transfer takes push producers only")
        if self._closed:
            producer.stopProducing()
            return
        self._source = cast(IPushProducer, producer)
        self._paused = False
        if not self._registered:
            self._registered = True
            self._target.registerProducer(self, True)

    def unregisterProducer(self) -> None:
        """Nothing more comes; what waits is still granted."""
        self._source = None
        if not self._pending:
            self._unregister()

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        if self._closed or not data:
            return
        if not self._pending and not self._held and self._limiter.take(len(data)):
            self._target.write(data)
            return
        self._chunks.append(data)
        self._pending += len(data)
        if not self._held:
            self._limiter.wait(self)
        if self._pending and self._source is not None:
            # Said again with every chunk: one that was on its way may come after the first pause.
            self._paused = True
            self._source.pauseProducing()

    # Towards the limiter.

    @property
    def wanted(self) -> int:
        """See ``Waiter``."""
        return 0 if self._held else self._pending

    def grant(self, size: int) -> int:
        """See ``Waiter``."""
        passed = 0
        try:
            while passed < size and self.wanted:
                piece = self._cut(size - passed)
                passed += len(piece)
                self._target.write(piece)
            if not self._pending:
                self._empty()
        except Exception:
            # One broken transfer must not stop the others.
            self._failure = Failure()
            self.close()
        return passed

    def _cut(self, size: int) -> bytes:
        """Take up to ``size`` bytes off the first chunk."""
        chunk = self._chunks[0]
        piece = chunk[self._offset : self._offset + size]
        self._pending -= len(piece)
        self._offset += len(piece)
        if self._offset == len(chunk):
            self._chunks.popleft()
            self._offset = 0
        return piece

    def _empty(self) -> None:
        if self._source is None:
            self._unregister()
        elif not self._held:
            self._resume()
        self._settle()

    def _resume(self) -> None:
        if self._paused and self._source is not None:
            self._paused = False
            self._source.resumeProducing()

    # Towards the target.

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._held = True
        if self._source is not None:
            self._paused = True
            self._source.pauseProducing()

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._held = False
        if self._pending:
            self._limiter.wait(self)
        else:
            self._resume()

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self.stopped = True
        self.close()

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            self._target.unregisterProducer()

    # Towards the owner.

    def drained(self) -> Deferred[None]:
        """Fires when nothing waits, or will ever pass; fails where ``target`` failed to take something.

        Called once, after the source's last ``write``. Cancelling it changes nothing.
        """

        def forget(_: Deferred[None]) -> None:
            self._drained = None

        self._drained = Deferred(forget)
        drained = self._drained
        self._settle()
        return drained

    def close(self) -> None:
        """Drop what waits, stop the source, leave the target and the limiter. May be called more than once."""
        if self._closed:
            return
        self._closed = True
        self._chunks.clear()
        self._pending = 0
        self._limiter.leave(self)
        source, self._source = self._source, None
        if source is not None:
            source.stopProducing()
        self._unregister()
        self._settle()

    def _settle(self) -> None:
        drained = self._drained
        if drained is None or self._pending:
            return
        self._drained = None
        if self._failure is None:
            drained.callback(None)
        else:
            drained.errback(self._failure)


class Chain:
    """Flows behind one another, one for each limiter.

    :ivar entrance: what the producer writes to.
    """

    def __init__(self, limiters: Sequence[BandwidthLimiter], target: IConsumer) -> None:
        self._flows: list[Flow] = []
        for limiter in reversed(limiters):
            target = Flow(limiter, target)
            self._flows.insert(0, target)
        self.entrance = self._flows[0]

    @property
    def stopped(self) -> bool:
        """Whether the target wanted no more."""
        return self._flows[-1].stopped

    async def drained(self) -> None:
        """Returns when everything has passed; raises what the target raised."""
        for flow in self._flows:
            await flow.drained()

    def close(self) -> None:
        """Drop what waits and stop the producer."""
        for flow in self._flows:
            flow.close()
