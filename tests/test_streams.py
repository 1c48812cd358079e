"""Spans, and the flow between a thread and the reactor, with a worker that moves only when the test says so."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.producers import Producer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from resticd.errors import ClientGone, OutOfSpace, RangeNotSatisfiable, StorageError
from resticd.streams import BATCH, HIGH_WATER, PROMPT_READS, READ_SIZE, Span, ThreadedReader, ThreadedWriter

CHUNK = b"x" * 65536


class SteppedWorkers:
    """Workers whose calls wait for ``step``."""

    def __init__(self) -> None:
        self.calls: list[tuple[Deferred, Callable[[], Any]]] = []

    def run(self, call: Callable, *args: Any) -> Deferred:
        result: Deferred = Deferred(lambda _: None)
        self.calls.append((result, lambda: call(*args)))
        return result

    def step(self) -> None:
        """Let the call that came first return."""
        result, call = self.calls.pop(0)
        try:
            value = call()
        except Exception:
            value = Failure()
        result.callback(value)
        if isinstance(result.result, Failure):
            result.result.raiseException()  # nobody took it

    def finish(self) -> None:
        while self.calls:
            self.step()


@implementer(IConsumer)
class Consumer:
    """Keeps what it gets, and does ``on_write`` at each write."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.writes = 0
        self.producer: Any = None
        self.on_write: Callable[[], None] = lambda: None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        assert self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        assert self.producer is not None
        self.producer = None

    def write(self, data: bytes) -> None:
        self.data += data
        self.writes += 1
        self.on_write()


@pytest.fixture
def workers() -> SteppedWorkers:
    return SteppedWorkers()


@pytest.fixture
def taken() -> list[bytes]:
    """What the worker took, one text a call."""
    return []


@pytest.fixture
def writer(workers: SteppedWorkers, taken: list[bytes]) -> ThreadedWriter:
    return ThreadedWriter(workers, lambda chunks: taken.append(b"".join(chunks)))


def outcome(deferred: Deferred) -> Any:
    """What it fired with, or what it failed with."""
    assert deferred.called
    results: list[Any] = []
    deferred.addCallbacks(results.append, lambda failure: results.append(failure.value))
    return results[0]


# Spans.


@settings(deadline=None)
@given(st.integers(0, 30), st.none() | st.integers(0, 40), st.none() | st.integers(0, 40))
def test_a_span_is_a_slice(size: int, first: int | None, last: int | None) -> None:
    """A span names the bytes that RFC 9110 says, or none at all, and then it cannot be satisfied."""
    data = bytes(range(size))
    if first is None:
        expected = data[max(size - (last or 0), 0) :]
    else:
        expected = data[first:] if last is None else data[first : last + 1]
    try:
        offset, length = Span(first, last).resolve(size)
    except RangeNotSatisfiable as error:
        assert error.size == size
        assert not expected
    else:
        assert length > 0
        assert data[offset : offset + length] == expected


# The writer.


def test_a_writer_is_a_consumer(writer: ThreadedWriter) -> None:
    """The writer keeps the contract of IConsumer."""
    verifyObject(IConsumer, writer)


def test_chunks_arrive_in_order(workers: SteppedWorkers, writer: ThreadedWriter, taken: list[bytes]) -> None:
    """What waits while the worker is busy is handed over in one call, in order."""
    for chunk in (b"a", b"b", b"c"):
        writer.write(chunk)
    drained = writer.drained()
    assert len(workers.calls) == 1
    workers.step()
    assert not drained.called
    workers.step()
    assert outcome(drained) is None
    assert taken == [b"a", b"bc"]


def test_drained_fires_at_once_when_nothing_waits(writer: ThreadedWriter) -> None:
    """A writer that was given nothing is drained."""
    assert outcome(writer.drained()) is None


def test_a_writer_holds_back_its_producer(workers: SteppedWorkers, writer: ThreadedWriter) -> None:
    """No more than the high-water mark waits; the producer goes on once the worker took it."""
    producer = Producer()
    writer.registerProducer(producer, True)
    written = 0
    while "pause" not in producer.told:
        writer.write(CHUNK)
        written += len(CHUNK)
        assert written <= HIGH_WATER + BATCH + len(CHUNK)
    workers.step()
    assert producer.told == ["pause", "resume"]
    writer.unregisterProducer()
    workers.finish()
    assert producer.told == ["pause", "resume"]


def test_a_pull_producer_is_refused(writer: ThreadedWriter) -> None:
    """Only push producers are taken."""
    with pytest.raises(TypeError):
        writer.registerProducer(Producer(), False)


def test_an_error_stops_the_producer(workers: SteppedWorkers) -> None:
    """After an error in the worker the producer is stopped, what comes is dropped, and the reason is told."""

    def fail(_: list[bytes]) -> None:
        raise OutOfSpace("full")

    writer = ThreadedWriter(workers, fail)
    producer = Producer()
    writer.registerProducer(producer, True)
    writer.write(bytes(BATCH))
    writer.write(CHUNK)
    workers.step()
    assert producer.told == ["stop"]
    writer.write(CHUNK)
    assert workers.calls == []
    for _ in range(2):
        assert isinstance(outcome(writer.drained()), OutOfSpace)
    late = Producer()
    writer.registerProducer(late, True)
    assert late.told == ["stop"]


def test_discard_waits_for_the_worker(workers: SteppedWorkers, writer: ThreadedWriter, taken: list[bytes]) -> None:
    """What waits is dropped, what the worker has in its hands is waited for."""
    producer = Producer()
    writer.registerProducer(producer, True)
    writer.write(bytes(BATCH))
    writer.write(b"b")
    discarded = writer.discard()
    assert producer.told == ["stop"]
    assert not discarded.called
    workers.finish()
    assert outcome(discarded) is None
    assert taken == [bytes(BATCH)]


def test_a_worker_is_called_for_enough_or_for_the_last(
    workers: SteppedWorkers, writer: ThreadedWriter, taken: list[bytes]
) -> None:
    """Small pieces wait for each other while more may come, and not when the producer is gone or somebody waits."""
    writer.registerProducer(Producer(), True)
    for _ in range(BATCH // len(CHUNK) - 1):
        writer.write(CHUNK)
    assert workers.calls == []
    writer.write(CHUNK)
    assert len(workers.calls) == 1
    writer.write(b"a")
    workers.finish()
    assert taken == [CHUNK * (BATCH // len(CHUNK))]
    writer.unregisterProducer()
    workers.finish()
    assert taken[1:] == [b"a"]
    writer.registerProducer(Producer(), True)
    writer.write(b"b")
    drained = writer.drained()
    workers.finish()
    assert outcome(drained) is None
    assert taken[2:] == [b"b"]


def test_everyone_who_waits_is_told(workers: SteppedWorkers, writer: ThreadedWriter) -> None:
    """An upload that is aborted twice during its commit fires all three Deferreds."""
    writer.write(b"a")
    drained = writer.drained()
    discarded = [writer.discard(), writer.discard()]
    workers.finish()
    assert isinstance(outcome(drained), CancelledError)
    assert [outcome(each) for each in discarded] == [None, None]


def test_cancelled_drained(workers: SteppedWorkers, writer: ThreadedWriter, taken: list[bytes]) -> None:
    """Who does not wait any more is not told, and the worker finishes what it has."""
    writer.write(b"a")
    drained = writer.drained()
    drained.cancel()
    assert isinstance(outcome(drained), CancelledError)
    workers.finish()
    assert taken == [b"a"]
    assert outcome(writer.drained()) is None


# The reader.


class Source:
    """What a worker reads from."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def __call__(self, size: int) -> bytes:
        chunk = self.data[self.position : self.position + size]
        if not chunk:
            raise StorageError("shorter than it was")
        self.position += len(chunk)
        return chunk


DATA = bytes(range(256)) * (3 * READ_SIZE // 256) + b"the end"


def reader_of(workers: SteppedWorkers, data: bytes, length: int | None = None) -> ThreadedReader:
    return ThreadedReader(workers, Source(data), len(data) if length is None else length)


def test_a_reader_is_a_push_producer(workers: SteppedWorkers) -> None:
    """The reader keeps the contract of IPushProducer."""
    verifyObject(IPushProducer, reader_of(workers, b""))


def test_everything_is_delivered(workers: SteppedWorkers) -> None:
    """All bytes come, in pieces, and the producer is unregistered when the Deferred fires."""
    consumer = Consumer()
    done = reader_of(workers, DATA).deliver(consumer)
    while workers.calls:
        assert not done.called
        workers.step()
    assert outcome(done) is None
    assert consumer.data == DATA
    assert consumer.writes == 4
    assert consumer.producer is None


def test_nothing_to_deliver(workers: SteppedWorkers) -> None:
    """An empty object is delivered at once, without a read."""
    consumer = Consumer()
    assert outcome(reader_of(workers, b"").deliver(consumer)) is None
    assert workers.calls == []
    assert consumer.producer is None


def test_a_paused_reader_reads_at_most_one_chunk(workers: SteppedWorkers) -> None:
    """While the consumer waits no read is started; the one that ran is the only one ahead."""
    consumer = Consumer()
    done = reader_of(workers, DATA).deliver(consumer)
    consumer.producer.pauseProducing()
    workers.finish()
    assert consumer.writes == 1
    consumer.on_write = consumer.producer.pauseProducing
    for _ in range(2):
        consumer.producer.resumeProducing()
        consumer.producer.resumeProducing()
        assert len(workers.calls) == 1
        workers.finish()
    assert consumer.writes == 3
    consumer.producer.resumeProducing()
    workers.finish()
    assert outcome(done) is None, "the last byte was written, so there is nothing to wait for"
    assert consumer.data == DATA


def prompt_reader(workers: SteppedWorkers, source: Source, prompt: Callable[[int], bytes]) -> ThreadedReader:
    return ThreadedReader(workers, source, len(DATA), prompt)


def tell(consumer: Consumer, what: str) -> None:
    getattr(consumer.producer, what)()


def test_what_can_be_had_at_once_needs_no_worker(workers: SteppedWorkers) -> None:
    consumer, source = Consumer(), Source(DATA)
    done = prompt_reader(workers, source, source).deliver(consumer)
    assert outcome(done) is None
    assert workers.calls == []
    assert consumer.data == DATA
    assert consumer.producer is None


def test_prompt_reads_are_not_endless(workers: SteppedWorkers) -> None:
    """After a few the reactor has its turn: a worker reads."""
    consumer, data = Consumer(), bytes(range(256)) * (2 * PROMPT_READS * READ_SIZE // 256)
    source = Source(data)
    done = ThreadedReader(workers, source, len(data), source).deliver(consumer)
    assert consumer.writes == PROMPT_READS
    assert len(workers.calls) == 1
    workers.finish()
    assert outcome(done) is None
    assert consumer.data == data


def test_a_worker_reads_what_would_have_to_be_waited_for(workers: SteppedWorkers) -> None:
    """In turns, and with short reads."""
    consumer, source = Consumer(), Source(DATA)
    turns = iter([b"", None] * 100)

    def prompt(size: int) -> bytes:
        return b"" if next(turns) == b"" else source(min(size, 1000))

    done = prompt_reader(workers, source, prompt).deliver(consumer)
    assert len(workers.calls) == 1
    workers.finish()
    assert outcome(done) is None
    assert consumer.data == DATA


def test_prompt_reads_wait_for_the_consumer(workers: SteppedWorkers) -> None:
    """One that pauses in the middle of a write, and one that goes on there at once."""
    consumer, source = Consumer(), Source(DATA)
    consumer.on_write = partial(tell, consumer, "pauseProducing")
    done = prompt_reader(workers, source, source).deliver(consumer)
    assert consumer.writes == 1
    consumer.on_write = lambda: (consumer.producer.pauseProducing(), consumer.producer.resumeProducing())[0]
    consumer.producer.resumeProducing()
    assert outcome(done) is None
    assert consumer.data == DATA
    assert workers.calls == []


def test_a_consumer_that_stops_in_the_middle_of_a_prompt_read(workers: SteppedWorkers) -> None:
    consumer, source = Consumer(), Source(DATA)
    consumer.on_write = partial(tell, consumer, "stopProducing")
    done = prompt_reader(workers, source, source).deliver(consumer)
    assert isinstance(outcome(done), ClientGone)
    assert consumer.writes == 1
    assert workers.calls == []


def test_a_consumer_that_raises_in_a_prompt_read(workers: SteppedWorkers) -> None:
    consumer, source = Consumer(), Source(DATA)
    consumer.on_write = lambda: (_ for _ in ()).throw(OutOfSpace("full"))
    done = prompt_reader(workers, source, source).deliver(consumer)
    assert isinstance(outcome(done), OutOfSpace)
    assert consumer.producer is None


def test_a_consumer_that_stops(workers: SteppedWorkers) -> None:
    """The Deferred waits for the read that runs, and nothing is written after the stop."""
    consumer = Consumer()
    done = reader_of(workers, DATA).deliver(consumer)
    workers.step()
    consumer.producer.stopProducing()
    assert consumer.producer is None
    assert not done.called
    workers.finish()
    assert isinstance(outcome(done), ClientGone)
    assert consumer.writes == 1


def test_a_consumer_that_stops_within_write(workers: SteppedWorkers) -> None:
    """A stop from within a write ends the delivery there."""
    consumer = Consumer()
    done = reader_of(workers, DATA).deliver(consumer)
    consumer.on_write = consumer.producer.stopProducing
    workers.finish()
    assert isinstance(outcome(done), ClientGone)
    assert consumer.writes == 1


def test_a_consumer_that_is_closed_already(workers: SteppedWorkers) -> None:
    """A stop from within registerProducer ends the delivery before the first read."""
    consumer = Consumer()

    def register(producer: IPushProducer, streaming: bool) -> None:
        consumer.producer = producer
        producer.stopProducing()

    consumer.registerProducer = register
    assert isinstance(outcome(reader_of(workers, DATA).deliver(consumer)), ClientGone)
    assert workers.calls == []


def test_a_read_that_fails(workers: SteppedWorkers) -> None:
    """The error of a read is the delivery's."""
    consumer = Consumer()
    done = reader_of(workers, b"short", 1000).deliver(consumer)
    workers.finish()
    assert isinstance(outcome(done), StorageError)
    assert consumer.producer is None
    assert consumer.data == b"short"


def test_a_read_that_fails_after_a_stop(workers: SteppedWorkers) -> None:
    """Who stopped first is the reason."""
    consumer = Consumer()
    done = reader_of(workers, b"", 1000).deliver(consumer)
    consumer.producer.stopProducing()
    workers.finish()
    assert isinstance(outcome(done), ClientGone)


def test_a_consumer_that_raises(workers: SteppedWorkers) -> None:
    """A broken consumer ends its own delivery."""
    consumer = Consumer()
    consumer.on_write = lambda: 1 // 0
    done = reader_of(workers, DATA).deliver(consumer)
    workers.finish()
    assert isinstance(outcome(done), ZeroDivisionError)
    assert consumer.producer is None


@pytest.mark.parametrize("paused", [False, True])
def test_cancelled_delivery(workers: SteppedWorkers, paused: bool) -> None:
    """It fires at once and once, also while a read runs, whose bytes are dropped."""
    consumer = Consumer()
    done = reader_of(workers, DATA).deliver(consumer)
    if paused:
        consumer.producer.pauseProducing()
        workers.finish()
    before = consumer.writes
    done.cancel()
    assert isinstance(outcome(done), CancelledError)
    assert consumer.producer is None
    workers.finish()
    assert consumer.writes == before
