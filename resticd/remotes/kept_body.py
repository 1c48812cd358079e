"""Bodies of uploads that are small enough to wait in memory, so that sending them can be repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer


@implementer(IConsumer)
class KeptBody:
    """Keeps what is written to it, up to ``limit`` bytes; a source of more is stopped.

    :ivar received: how many bytes were written.
    """

    def __init__(self, limit: int) -> None:
        self.received = 0
        self._limit = limit
        self._chunks: list[bytes] = []
        self._producer: IPushProducer | None = None

    @property
    def data(self) -> bytes:
        """All of it."""
        return b"".join(self._chunks)

    def drop(self) -> None:
        """Forget what was kept."""
        self._chunks = []

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        self._producer = cast(IPushProducer, producer)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self.received += len(data)
        if self.received <= self._limit:
            self._chunks.append(data)
        elif self._producer is not None:
            producer, self._producer = self._producer, None
            producer.stopProducing()
