"""Downloads over HTTP that are taken up again where the connection broke."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from resticd.errors import ClientGone, StorageError
from resticd.interfaces import IBody

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer

    from resticd.transport.retries import Retries


class Answer(Protocol):
    """What brings the bytes: a ``Response``, or something around one."""

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``Response``."""

    def discard(self) -> Deferred[None]:
        """See ``Response``."""


@implementer(IBody, IConsumer, IPushProducer)
class ResumingBody:
    """See ``IBody``. It stands between the connections to the server and the consumer.

    :param extent: size of the object, offset and length of this body.
    :param resume: gives a new answer that begins at an offset of the object.
    """

    def __init__(
        self,
        response: Answer,
        extent: tuple[int, int, int],
        resume: Callable[[int], Awaitable[Answer]],
        retries: Retries,
    ) -> None:
        self.size, self.offset, self.length = extent
        self._response = response
        self._resume = resume
        self._retries = retries
        self._delivered = 0
        self._consumer: IConsumer | None = None
        self._source: IPushProducer | None = None
        self._paused = False
        self._gone = False
        self._running: Deferred[None] | None = None

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``."""
        self._consumer = consumer
        consumer.registerProducer(self, True)
        running = Deferred.fromCoroutine(self._retries.run(self._attempt))
        if not running.called:
            self._running = running

        def ended(result: Failure | None) -> Failure | None:
            self._running = None
            self._consumer = None
            consumer.unregisterProducer()
            if self._gone and result is not None:
                return Failure(ClientGone("the connection ended during the download"))
            return result

        return running.addBoth(ended)

    def close(self) -> None:
        """See ``IBody``."""
        self._response.discard()  # nothing where it was delivered

    async def _attempt(self, number: int) -> None:
        if number:
            self._response = await self._resume(self.offset + self._delivered)
        await self._response.deliver(self)
        if self._delivered != self.length:
            raise StorageError("the download fell short")

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``: a connection begins to deliver."""
        self._source = cast(IPushProducer, producer)
        if self._paused:
            self._source.pauseProducing()

    def unregisterProducer(self) -> None:
        """See ``IConsumer``: the connection is done with."""
        self._source = None

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self._delivered += len(data)
        if self._consumer is not None:
            self._consumer.write(data)

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = True
        if self._source is not None:
            self._source.pauseProducing()

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False
        if self._source is not None:
            self._source.resumeProducing()

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self._gone = True
        if self._source is not None:
            self._source.stopProducing()
        elif self._running is not None:
            self._running.cancel()
