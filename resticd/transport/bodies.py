"""Bodies of requests: bytes that are at hand, and bytes that are still on their way from a client."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from resticd.streams import HIGH_WATER

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer

_SLICE = 128 * 1024


def _nothing() -> None:
    """What a body does before anybody watches it."""


@implementer(IBodyProducer)
class BytesBody:
    """Bytes in memory. Each attempt to send them needs a new one.

    :ivar sent: whether all was handed to the connection.
    :ivar remote_turn: called when the remote has to act: its buffers are full, or it has everything.
    :ivar our_turn: called when it has taken something.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self.length = len(data)
        self.sent = False
        self.remote_turn: Callable[[], None] = _nothing
        self.our_turn: Callable[[], None] = _nothing
        self._data = memoryview(data)
        self._sent = 0
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] | None = None
        self._paused = False
        self._writing = False

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBodyProducer``."""
        self._consumer = consumer
        done: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._done = done
        self.our_turn()
        self._write()
        return done

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = True
        self.remote_turn()

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False
        self.our_turn()
        self._write()

    def stopProducing(self) -> None:
        """See ``IBodyProducer``."""
        self._consumer = None

    def _write(self) -> None:
        if self._writing:  # a write that made the transport resume at once
            return
        self._writing = True
        while self._consumer is not None and not self._paused and self._sent < self.length:
            piece = self._data[self._sent : self._sent + _SLICE]
            self._sent += len(piece)
            self._consumer.write(bytes(piece))
        self._writing = False
        if self._consumer is not None and self._sent == self.length and self._done is not None:
            done, self._done, self._consumer = self._done, None, None
            self.sent = True
            self.remote_turn()
            done.callback(None)


@implementer(IBodyProducer, IConsumer)
class StreamedBody:
    """Exactly ``length`` bytes, one at least, that are written to it while they are sent. It cannot be sent twice.

    The last byte is held back until ``release``: a server stores nothing of a body that falls short, so nothing can
    become visible before the sender has said that all is well. With ``length`` None the body goes in chunks
    (RFC 9112, section 7.1), and ``release`` says where it ends.

    The producer is paused while the connection is not there yet or the remote's buffers are full.

    :ivar received: how many bytes were written.
    :ivar excess: whether more than ``length`` bytes were written; the body is never completed then.
    :ivar sent: whether all was handed to the connection.
    :ivar remote_turn: called when the remote has to act: its buffers are full, or it has everything.
    :ivar our_turn: called when it has taken something.
    """

    def __init__(self, length: int | None) -> None:
        if length is not None and length < 1:
            raise ValueError("there is no last byte to hold back")
        self.length: Any = UNKNOWN_LENGTH if length is None else length
        self.sent = False
        self.received = 0
        self.excess = False
        self.remote_turn: Callable[[], None] = _nothing
        self.our_turn: Callable[[], None] = _nothing
        self._announced = length
        self._producer: IPushProducer | None = None
        self._producer_paused = False
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] | None = None
        self._paused = False
        self._stopped = False
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._last = b""
        self._released = False

    @property
    def complete(self) -> bool:
        """Whether exactly the announced bytes were written."""
        return self._announced in (None, self.received) and not self.excess

    @property
    def stopped(self) -> bool:
        """Whether the remote takes no more. Known before the request's end, which says why."""
        return self._stopped

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``; push producers only."""
        if not streaming:
            raise TypeError("an upload takes push producers only")
        self._producer = cast(IPushProducer, producer)
        self._producer_paused = False
        if self._stopped:
            self._stop_producer()
        else:
            self._balance()

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        if self._stopped or self.excess or not data:
            return
        if self._announced is not None and self.received + len(data) > self._announced:
            self.excess = True
            self._stop_producer()
            return
        self.received += len(data)
        if self.received == self._announced:
            data, self._last = data[:-1], data[-1:]
        self._buffer.append(data)
        self._buffered += len(data)
        self._flush()
        self._balance()

    def release(self) -> None:
        """Let the last byte go. Called once, when the body is complete and right."""
        self._released = True
        self._flush()

    def discard(self) -> None:
        """Take no more bytes, and tell the producer so."""
        self._stopped = True
        self._buffer, self._buffered = [], 0
        self._consumer = None
        self._stop_producer()

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBodyProducer``."""
        self._consumer = consumer
        done: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._done = done
        self.our_turn()
        self._flush()
        self._balance()
        return done

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = True
        self.remote_turn()
        self._balance()

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False
        self.our_turn()
        self._flush()
        self._balance()

    def stopProducing(self) -> None:
        """See ``IBodyProducer``."""
        self.discard()

    def _flush(self) -> None:
        while self._buffer and self._consumer is not None and not self._paused:
            data = self._buffer.pop(0)
            self._buffered -= len(data)
            self._consumer.write(data)
        if self._consumer is None or self._buffer or self._paused or not self._released or self._done is None:
            return
        done, self._done = self._done, None
        consumer, self._consumer = self._consumer, None
        if self._last:
            consumer.write(self._last)
        self.sent = True
        self.remote_turn()
        done.callback(None)

    def _balance(self) -> None:
        """Pause or resume the producer."""
        if self._producer is None:
            return
        full = self._paused or self._buffered >= HIGH_WATER
        if full and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()
        elif not full and self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()

    def _stop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
