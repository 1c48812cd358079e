"""Moving bytes with bounded memory: spans of an object, and flow control between a thread and the reactor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from resticd.errors import ClientGone, RangeNotSatisfiable

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer

    from resticd.workers import Workers

#: An upload pauses its producer when this many bytes wait for the worker (as many again may be in its hands).
HIGH_WATER = 1024 * 1024
#: … and the worker is only called for this many at least, unless they are the last: a call costs as much as a hash of
#: 256 KiB, most of it threads that wait for each other.
BATCH = 512 * 1024
#: How much a download reads from disk at a time.
READ_SIZE = 256 * 1024
#: So many reads in a row do without a worker, where the consumer takes them; then the reactor has its turn.
PROMPT_READS = 4


@frozen
class Span:
    """A part of an object, as a Range header names it (RFC 9110, section 14.1.2).

    ``Span(2, 5)`` is the bytes 2 to 5 (four of them), ``Span(2, None)`` all from 2 on, ``Span(None, 5)`` the last 5.
    """

    first: int | None
    last: int | None

    def resolve(self, size: int) -> tuple[int, int]:
        """Offset and length within an object of ``size`` bytes. Raises ``RangeNotSatisfiable``."""
        if self.first is None:
            length = min(self.last or 0, size)
            offset = size - length
        else:
            offset = self.first
            length = size - offset if self.last is None else min(self.last + 1, size) - offset
        if length <= 0:
            raise RangeNotSatisfiable(size)
        return offset, length


@implementer(IConsumer)
class ThreadedWriter:
    """The consumer side of an upload whose bytes are taken by blocking calls in a worker, in order, one at a time.

    :param consume: called in a worker with a list of chunks. When it raises, the producer is stopped, what still
        comes is dropped, and ``drained`` fails with the error.
    """

    def __init__(self, workers: Workers, consume: Callable[[list[bytes]], None]) -> None:
        self._workers = workers
        self._consume = consume
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._busy = False
        self._paused = False
        self._failure: Failure | None = None
        self._producer: IPushProducer | None = None
        self._drained: list[Deferred[None]] = []

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Take a push producer; pull producers are not supported, as no caller has one."""
        if not streaming:
            raise TypeError("an upload takes push producers only")
        self._producer = cast(IPushProducer, producer)
        self._paused = False
        if self._failure is not None:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        """Nothing more comes from the producer."""
        self._producer = None
        self._next()

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._failure is not None:
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if not self._busy:
            self._next()
        elif self._waiting_bytes >= HIGH_WATER and not self._paused and self._producer is not None:
            self._paused = True
            self._producer.pauseProducing()

    def drained(self) -> Deferred[None]:
        """Fires when the worker has nothing in its hands and nothing waits; fails with what ``consume`` raised.

        Cancelling it leaves the worker to finish what it has.
        """
        result: Deferred[None] = Deferred(self._drained.remove)
        self._drained.append(result)
        self._next()
        self._settle()
        return result

    def discard(self) -> Deferred[None]:
        """Drop what waits and what comes. Fires, never fails, when the worker's hands are empty."""
        self._fail(Failure(CancelledError()))
        result = self.drained()
        result.addErrback(lambda _: None)
        return result

    def _next(self) -> None:
        """Call the worker if it has nothing in its hands and there is enough for it, or no more to come."""
        more = self._producer is not None and not self._drained
        if self._busy or not self._waiting or (more and self._waiting_bytes < BATCH):
            return
        chunks, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._busy = True
        self._workers.run(self._consume, chunks).addCallbacks(self._consumed, self._broke)

    def _consumed(self, _: None) -> None:
        self._busy = False
        self._next()
        if self._paused:
            self._paused = False
            if self._producer is not None:
                self._producer.resumeProducing()
        self._settle()

    def _broke(self, failure: Failure) -> None:
        self._busy = False
        self._fail(failure)
        self._settle()

    def _fail(self, failure: Failure) -> None:
        if self._failure is None:
            self._failure = failure
        self._waiting, self._waiting_bytes = [], 0
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    def _settle(self) -> None:
        while self._drained and not self._busy and not self._waiting:
            self._drained.pop(0).callback(self._failure)  # a Failure goes down the errback side


@implementer(IPushProducer)
class ThreadedReader:
    """The producer side of a download whose bytes come from blocking calls in a worker.

    One read is ahead of the consumer at most, so memory is bounded by two chunks.

    :param read: called in a worker with the most bytes wanted; returns at least one, or raises.
    :param length: how many bytes there are to read, in all.
    :param prompt: called in the reactor's thread; as ``read``, but returns nothing where it would have to wait. A
        worker then reads.
    """

    def __init__(
        self,
        workers: Workers,
        read: Callable[[int], bytes],
        length: int,
        prompt: Callable[[int], bytes] | None = None,
    ) -> None:
        self._workers = workers
        self._read = read
        self._prompt = prompt
        self._left = length
        self._consumer: IConsumer | None = None
        self._paused = False
        self._busy = False
        self._done: Deferred[None] | None = None
        self._outcome: Failure | None = None

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Fires when the last byte was written to ``consumer`` and no read runs any more.

        Fails with what ``read`` or the consumer raises, with ``ClientGone`` when the consumer stops. A read that runs
        when it is cancelled runs on, and what it returns is dropped.
        """
        self._consumer = consumer
        done: Deferred[None] = Deferred(self._cancelled)
        self._done = done
        consumer.registerProducer(self, True)
        self._next()
        return done

    def _cancelled(self, _: Deferred[None]) -> None:
        self._done = None  # it fires by itself
        self._stop(None)

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = True

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False
        self._next()

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self._stop(Failure(ClientGone("the connection ended during the download")))

    def _next(self) -> None:
        if self._busy or self._consumer is None:
            return
        self._busy = True  # a consumer that lets us go on in the middle of a write must not begin another read
        try:
            wanted = self._deliver_promptly()
        except Exception:
            self._broke(Failure())
            return
        self._busy = False
        if not wanted:
            self._settle()
        elif self._left == 0:
            self._stop(None)
        elif not self._paused:
            self._busy = True
            self._workers.run(self._read, min(READ_SIZE, self._left)).addCallback(self._arrived).addErrback(self._broke)

    def _deliver_promptly(self) -> bool:
        """Write what can be had at once; not all of it, since others wait for the reactor too.

        Whether the consumer still wants something.
        """
        for _ in range(PROMPT_READS):
            if self._prompt is None or self._consumer is None or self._paused or not self._left:
                break
            data = self._prompt(min(READ_SIZE, self._left))
            if not data:
                break
            self._left -= len(data)
            self._consumer.write(data)
        return self._consumer is not None

    def _arrived(self, data: bytes) -> None:
        self._busy = False
        if self._consumer is None:
            self._settle()
            return
        self._left -= len(data)
        self._consumer.write(data)
        self._next()

    def _broke(self, failure: Failure) -> None:
        self._busy = False
        if self._consumer is None:
            self._settle()
        else:
            self._stop(failure)

    def _stop(self, outcome: Failure | None) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        consumer.unregisterProducer()
        self._outcome = outcome
        if not self._busy:
            self._settle()

    def _settle(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done.callback(self._outcome)  # a Failure goes down the errback side
