"""Limited transfers, on a fake clock."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from resticd.bandwidth import Bandwidth, BandwidthLimiter, Limits, Timetable
from resticd.errors import ClientGone, Corrupt, OutOfSpace, StorageError
from resticd.interfaces import IBlockingSink, IBody, IFileBody, IRemote, IUpload, Stat
from resticd.remotes.memory import MemoryRemote
from resticd.remotes.wrappers.flow import Flow
from resticd.remotes.wrappers.throttle import ThrottledBody, ThrottledRemote, ThrottledUpload
from resticd.streams import Span

KIB, MIB = 1 << 10, 1 << 20
RATE = 64 * KIB


def always(up: int | None, down: int | None) -> Limits:
    return Limits(Timetable(((0, up),)), Timetable(((0, down),)))


def limiter(clock: Clock, rate: int | None = RATE) -> BandwidthLimiter:
    return BandwidthLimiter(clock, Timetable(((0, rate),)))


def run(clock: Clock, seconds: float, step: float = 0.005) -> None:
    for _ in range(round(seconds / step)):
        clock.advance(step)


def outcome(deferred: Deferred) -> object:
    """What a Deferred fired or failed with, None if it did not yet."""
    results: list[object] = []
    deferred.addCallbacks(results.append, lambda failure: results.append(failure.value))
    return results[0] if results else None


@implementer(IPushProducer)
class Source:
    """A producer that does what the test says, as long as it is not paused."""

    def __init__(self, consumer: IConsumer) -> None:
        self.consumer = consumer
        self.paused = False
        self.stopped = False
        consumer.registerProducer(self, True)

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.stopped = True

    def send(self, data: bytes) -> None:
        self.consumer.write(data)

    def end(self) -> None:
        self.consumer.unregisterProducer()


@implementer(IUpload)
class Target:
    """A consumer, or an upload, that says what happened to it."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.producer: IPushProducer | None = None
        self.committed = False
        self.aborted = False
        self.failure: Exception | None = None

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        assert streaming
        assert self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        assert self.producer is not None
        self.producer = None

    def write(self, data: bytes) -> None:
        self.chunks.append(data)

    def commit(self) -> Deferred[Stat]:
        assert self.producer is None
        assert not self.aborted
        if self.failure is not None:
            raise self.failure
        self.committed = True
        return succeed(Stat(len(self.data)))

    def abort(self) -> Deferred[None]:
        self.aborted = True
        return succeed(None)


def test_interfaces() -> None:
    """Limited transfers keep the contracts, but not those by which a transfer would go around the limit."""
    clock = Clock()
    remote = ThrottledRemote(MemoryRemote(), clock, Bandwidth(clock, always(RATE, RATE)))
    verifyObject(IRemote, remote)
    upload = outcome(remote.begin("a", 1, None))
    verifyObject(IUpload, upload)
    assert not IBlockingSink.providedBy(upload)
    upload.write(b"a")
    commit = upload.commit()
    run(clock, 1)
    assert outcome(commit) == outcome(remote.stat("a"))
    body = outcome(remote.open("a"))
    verifyObject(IBody, body)
    assert not IFileBody.providedBy(body)
    flow = Flow(limiter(clock), Target())
    verifyObject(IConsumer, flow)
    verifyObject(IPushProducer, flow)


def test_nothing_in_the_way_without_a_limit() -> None:
    """In a direction that is never limited the transfers are those of the remote itself."""
    clock = Clock()
    bandwidth = Bandwidth(clock, always(None, RATE))
    remote = ThrottledRemote(MemoryRemote(), clock, bandwidth)
    upload = outcome(remote.begin("a", None, None))
    assert not isinstance(upload, ThrottledUpload)
    upload.commit()
    assert isinstance(outcome(remote.open("a")), ThrottledBody)
    bandwidth.set_limits(always(RATE, None))
    assert isinstance(outcome(remote.begin("b", None, None)), ThrottledUpload)
    assert not isinstance(outcome(remote.open("a")), ThrottledBody)
    remote.file_limits = always(None, RATE)
    assert isinstance(outcome(remote.open("a")), ThrottledBody)


def test_off_at_this_time_passes_at_once() -> None:
    """While a limit is suspended bytes pass as they come, and nobody is paused."""
    target = Target()
    flow = Flow(limiter(Clock(), None), target)
    source = Source(flow)
    source.send(b"x" * MIB)
    assert target.chunks == [b"x" * MIB]
    assert not source.paused


def test_upload_at_the_rate() -> None:
    """An upload takes as long as the limit says, pauses its producer meanwhile, and is stored after its last byte."""
    clock = Clock()
    inner = MemoryRemote()
    remote = ThrottledRemote(inner, clock, Bandwidth(clock, always(RATE, None)))
    data = bytes(range(256)) * 512
    upload = outcome(remote.begin("a", len(data), sha256(data).hexdigest()))
    source = Source(upload)
    source.send(data[:RATE])
    assert source.paused
    run(clock, 1.02)
    assert not source.paused
    source.send(data[RATE:])
    assert source.paused
    source.end()
    commit = upload.commit()
    run(clock, 0.9)
    assert not commit.called
    assert inner.objects == {}
    run(clock, 0.15)
    assert outcome(commit).size == len(data)
    assert inner.objects["a"].data == data


def test_commit_of_an_empty_upload() -> None:
    """An upload without bytes waits for nothing."""
    upload = ThrottledUpload(Target(), [limiter(Clock())])
    source = Source(upload)
    source.end()
    assert outcome(upload.commit()) == Stat(0)


def test_chunks_that_were_on_their_way() -> None:
    """Every chunk that comes in spite of a pause is kept in order, and asks for the pause again."""
    clock = Clock()
    target = Target()
    source = Source(Flow(limiter(clock), target))
    source.send(b"a" * 1000)
    source.paused = False
    source.send(b"b" * 1000)
    assert source.paused
    run(clock, 0.5)
    assert target.data == b"a" * 1000 + b"b" * 1000
    assert not source.paused


def test_target_pauses() -> None:
    """While the target wants to wait nothing passes, whatever the limit would allow; its turn is not kept for it."""
    clock = Clock()
    target = Target()
    shared = limiter(clock)
    source = Source(Flow(shared, target))
    other = Target()
    Source(Flow(shared, other)).send(b"y" * 64 * KIB)
    source.send(b"x" * 64 * KIB)
    run(clock, 0.5)
    passed = len(target.data)
    assert 0 < passed < 64 * KIB
    target.producer.pauseProducing()
    run(clock, 0.3)
    assert len(target.data) == passed
    assert len(other.data) == pytest.approx((0.25 + 0.3) * RATE, rel=0.1)
    target.producer.resumeProducing()
    run(clock, 3)
    assert target.data == b"x" * 64 * KIB
    assert not source.paused


def test_target_pauses_with_nothing_waiting() -> None:
    """A pause of the target reaches the source, and so does its end."""
    target = Target()
    source = Source(Flow(limiter(Clock()), target))
    target.producer.pauseProducing()
    assert source.paused
    target.producer.resumeProducing()
    assert not source.paused


def test_upload_that_cannot_go_on() -> None:
    """When the remote stops an upload the client is stopped, and the commit says the remote's reason."""
    clock = Clock()
    target = Target()
    target.failure = OutOfSpace("full")
    upload = ThrottledUpload(target, [limiter(clock, 1), limiter(clock)])
    source = Source(upload)
    source.send(b"x" * 1000)
    target.producer.stopProducing()
    assert source.stopped
    source.send(b"x")
    source.end()
    assert isinstance(outcome(upload.commit()), OutOfSpace)
    assert clock.getDelayedCalls() == []


def test_upload_that_stops_while_its_end_waits() -> None:
    """The remote may also stop an upload when all of its bytes have come from the client."""
    clock = Clock()
    target = Target()
    target.failure = OutOfSpace("full")
    upload = ThrottledUpload(target, [limiter(clock)])
    source = Source(upload)
    source.send(b"x" * 10000)
    source.end()
    commit = upload.commit()
    run(clock, 0.05)
    target.producer.stopProducing()
    assert isinstance(outcome(commit), OutOfSpace)


def test_abort() -> None:
    """An upload that is thrown away while it waits leaves nothing in the limiter."""
    clock = Clock()
    target = Target()
    upload = ThrottledUpload(target, [limiter(clock)])
    source = Source(upload)
    source.send(b"x" * 1000)
    outcome(upload.abort())
    outcome(upload.abort())
    assert target.aborted
    assert source.stopped
    assert clock.getDelayedCalls() == []


def test_abort_during_commit() -> None:
    """An upload that is thrown away while its end waits is never committed, however short it is then."""
    clock = Clock()
    inner = MemoryRemote()
    remote = ThrottledRemote(inner, clock, Bandwidth(clock, always(RATE, None)))
    upload = outcome(remote.begin("a", None, None))
    upload.write(b"x" * 1000)
    commit = upload.commit()
    outcome(upload.abort())
    assert isinstance(outcome(commit), CancelledError)
    assert inner.objects == {}


def test_cancelled_commit() -> None:
    """Cancelling a commit that waits for its last bytes aborts the upload."""
    clock = Clock()
    target = Target()
    upload = ThrottledUpload(target, [limiter(clock)])
    upload.write(b"x" * 1000)
    commit = upload.commit()
    commit.cancel()
    assert isinstance(outcome(commit), CancelledError)
    assert target.aborted
    assert not target.committed
    assert clock.getDelayedCalls() == []


def test_short_upload() -> None:
    """What the remote refuses is refused, and nothing is stored."""
    clock = Clock()
    inner = MemoryRemote()
    remote = ThrottledRemote(inner, clock, Bandwidth(clock, always(RATE, None)))
    upload = outcome(remote.begin("a", 1000, None))
    upload.write(b"x" * 900)
    commit = upload.commit()
    run(clock, 1)
    assert isinstance(outcome(commit), Corrupt)
    assert inner.objects == {}


def test_target_that_breaks() -> None:
    """A consumer that raises ends its own transfer; the others go on."""
    clock = Clock()
    shared = limiter(clock)
    broken, sound = Target(), Target()
    broken.write = lambda data: 1 / 0
    upload = ThrottledUpload(broken, [shared])
    source = Source(upload)
    source.send(b"x" * 1000)
    other = Source(Flow(shared, sound))
    other.send(b"y" * 1000)
    run(clock, 1)
    assert source.stopped
    assert sound.data == b"y" * 1000
    assert isinstance(outcome(upload.commit()), ZeroDivisionError)
    assert broken.aborted
    assert not broken.committed


@pytest.mark.parametrize("span", [None, Span(10, 70_000)])
def test_download_at_the_rate(span: Span | None) -> None:
    """A body, or a part of one, is delivered at the rate, and ends after its last byte."""
    clock = Clock()
    data = bytes(range(256)) * 512
    inner = MemoryRemote()
    outcome(upload_of(inner, data).commit())
    remote = ThrottledRemote(inner, clock, Bandwidth(clock, always(None, RATE)))
    body = outcome(remote.open("a", span))
    offset, length = (span or Span(0, None)).resolve(len(data))
    assert (body.size, body.offset, body.length) == (len(data), offset, length)
    target = Target()
    done = body.deliver(target)
    assert target.data == b""
    run(clock, length / RATE * 0.95)
    assert not done.called
    assert target.producer is not None
    run(clock, length / RATE * 0.1)
    assert done.called
    assert target.producer is None
    assert target.data == data[offset : offset + length]


def upload_of(remote: MemoryRemote, data: bytes) -> IUpload:
    upload = outcome(remote.begin("a", None, None))
    upload.write(data)
    return upload


@implementer(IBody)
class ScriptedBody:
    """A body whose source is in the test's hands."""

    size = length = 100_000
    offset = 0
    closed = False

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        self.source = Source(consumer)
        self.done: Deferred[None] = Deferred(lambda _: self.source.end())
        return self.done

    def close(self) -> None:
        self.closed = True


def test_client_gone_during_a_download() -> None:
    """When the client goes while bytes wait the remote is told to stop, and nothing is left in the limiter."""
    clock = Clock()
    inner, target = ScriptedBody(), Target()
    done = ThrottledBody(inner, [limiter(clock, 1), limiter(clock)]).deliver(target)
    inner.source.send(b"x" * 50_000)
    target.producer.stopProducing()
    assert inner.source.stopped
    assert clock.getDelayedCalls() == []
    inner.done.errback(ClientGone("as the drivers say"))
    assert isinstance(outcome(done), ClientGone)


def test_client_gone_after_the_remote_is_done() -> None:
    """A client that goes while the last bytes wait did not get the whole body."""
    clock = Clock()
    inner, target = ScriptedBody(), Target()
    done = ThrottledBody(inner, [limiter(clock)]).deliver(target)
    inner.source.send(b"x" * 50_000)
    inner.source.end()
    inner.done.callback(None)
    run(clock, 0.1)
    target.producer.stopProducing()
    assert isinstance(outcome(done), ClientGone)


def test_remote_breaks_off() -> None:
    """An error of the remote ends the delivery at once, with the producer unregistered."""
    clock = Clock()
    inner, target = ScriptedBody(), Target()
    done = ThrottledBody(inner, [limiter(clock)]).deliver(target)
    inner.source.send(b"x" * 50_000)
    inner.source.end()
    inner.done.errback(StorageError("the disk is broken"))
    assert isinstance(outcome(done), StorageError)
    assert target.producer is None
    run(clock, 1)
    assert target.data == b""


def test_cancelled_download() -> None:
    """Cancelling a delivery stops the remote and lets go of the client."""
    clock = Clock()
    inner, target = ScriptedBody(), Target()
    done = ThrottledBody(inner, [limiter(clock)]).deliver(target)
    inner.source.send(b"x" * 50_000)
    done.cancel()
    assert isinstance(outcome(done), CancelledError)
    assert target.producer is None
    assert clock.getDelayedCalls() == []


def test_close() -> None:
    """A body that is not delivered is closed."""
    inner = ScriptedBody()
    ThrottledBody(inner, [limiter(Clock())]).close()
    assert inner.closed


def test_limits_of_each_file() -> None:
    """Each transfer is held to its own limit, and all together to the shared one."""
    clock = Clock()
    inner = MemoryRemote()
    remote = ThrottledRemote(inner, clock, Bandwidth(clock, always(None, 3 * RATE)), always(None, RATE))
    outcome(upload_of(inner, bytes(4 * RATE)).commit())
    targets = [Target() for _ in range(6)]
    deliveries = [outcome(remote.open("a")).deliver(targets[0])]
    run(clock, 1)
    assert len(targets[0].data) == pytest.approx(RATE, rel=0.05)
    deliveries += [outcome(remote.open("a")).deliver(target) for target in targets[1:]]
    before = len(targets[0].data)
    run(clock, 1)
    assert sum(len(target.data) for target in targets) - before == pytest.approx(3 * RATE, rel=0.05)
    for target in targets[1:]:
        assert len(target.data) == pytest.approx(RATE / 2, rel=0.1)
    for delivery in deliveries:
        delivery.cancel()
        outcome(delivery)
    assert clock.getDelayedCalls() == []


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 3), st.integers(0, 300_000)),
        st.tuples(st.just("advance"), st.just(0), st.integers(0, 3_000)),
        st.tuples(st.just("pause"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("resume"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("rate"), st.just(0), st.sampled_from([0, 100, 5_000, MIB, 200 * MIB])),
        st.tuples(st.just("toggle"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@given(ACTIONS, st.booleans())
def test_conservation(actions: list[tuple[str, int, int]], own_limits: bool) -> None:
    """Whatever happens on the way, what comes out is what went in, in order, and it all comes out in the end."""
    clock = Clock()
    bandwidth = Bandwidth(clock, always(RATE, None))
    targets = [Target() for _ in range(4)]
    limiters = [[BandwidthLimiter(clock, Timetable(((0, 2 * RATE),)))] if own_limits else [] for _ in targets]
    uploads = [ThrottledUpload(target, [*own, bandwidth.up]) for target, own in zip(targets, limiters, strict=True)]
    sources = [Source(upload) for upload in uploads]
    sent = [b""] * 4
    paused: set[int] = set()
    for serial, (action, which, amount) in enumerate(actions):
        if action == "send" and not sources[which].paused:
            data = bytes([serial]) * amount
            sent[which] += data
            sources[which].send(data)
        elif action == "advance":
            clock.advance(amount / 1000)
        elif action == "pause":
            paused.add(which)
            targets[which].producer.pauseProducing()
        elif action == "resume":
            paused.discard(which)
            targets[which].producer.resumeProducing()
        elif action == "rate":
            bandwidth.set_limits(always(amount or None, None))
        elif action == "toggle":
            bandwidth.toggle()
        for number, target in enumerate(targets):
            assert sent[number].startswith(target.data)
            assert sources[number].paused or (target.data == sent[number] and number not in paused)
    for which in paused:
        targets[which].producer.resumeProducing()
    for source in sources:
        source.end()
    commits = [upload.commit() for upload in uploads]
    bandwidth.set_limits(always(200 * MIB, None))
    run(clock, 200, step=0.2)
    assert [target.data for target in targets] == sent
    assert all(target.committed for target in targets)
    assert all(commit.called for commit in commits)
