"""What every remote must do, as one suite that runs over every driver and wrapper.

A driver joins with a fixture named ``remote`` that yields a started ``IRemote`` over an empty place, and a class that
inherits from ``Conformance``::

    class TestMemory(Conformance):
        @pytest_twisted.async_yield_fixture
        async def remote(self):
            remote = MemoryRemote()
            await remote.start()
            yield remote
            await remote.stop()
"""

from __future__ import annotations

import hashlib
import os
from contextlib import aclosing

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.task import deferLater
from zope.interface import implementer
from zope.interface.verify import verifyObject

from resticd.errors import AlreadyExists, ClientGone, Corrupt, NotFound, RangeNotSatisfiable
from resticd.interfaces import Entry, IBody, IRemote, IUpload
from resticd.streams import Span

CHUNK = 64 * 1024
#: No more than this may be on its way between a producer and a consumer that waits.
FLIGHT = 8 * 1024 * 1024

KEYS = [
    "config",
    "a/b/c/data/00/" + "0" * 64,
    "with space/ünïcode/config",
    "per%20cent/plus+and&what?/config",
    'quote\'d "double"/config',
    "s" * 200 + "/config",
]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def settle(condition, seconds: float = 20) -> None:
    """Wait until ``condition()`` is true."""
    for _ in range(int(seconds * 100)):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("it did not come to that")


@implementer(IPushProducer)
class Source:
    """Pushes ``data`` into an upload as fast as it lets; counts what it was told."""

    def __init__(self, upload: IUpload, data: bytes, chunk: int = CHUNK) -> None:
        self.upload = upload
        self.data = memoryview(data)
        self.chunk = chunk
        self.written = 0
        self.paused = False
        self.stopped = False
        self.pauses = 0
        self.done: Deferred[None] = Deferred()

    def start(self) -> Deferred[None]:
        self.upload.registerProducer(self, True)
        self._push()
        return self.done

    def _push(self) -> None:
        while not self.paused and not self.done.called:
            if self.stopped or self.written == len(self.data):
                self.upload.unregisterProducer()
                self.done.callback(None)
                return
            chunk = bytes(self.data[self.written : self.written + self.chunk])
            self.written += len(chunk)
            self.upload.write(chunk)

    def pauseProducing(self) -> None:
        self.paused = True
        self.pauses += 1

    def resumeProducing(self) -> None:
        self.paused = False
        reactor.callLater(0, self._push)

    def stopProducing(self) -> None:
        self.stopped = True
        self.paused = False
        reactor.callLater(0, self._push)


@implementer(IConsumer)
class Sink:
    """Takes what a body delivers. ``pause_at``: pauses the producer after so many bytes, until ``resume``."""

    def __init__(self, pause_at: int | None = None, stop_at: int | None = None) -> None:
        self.data = bytearray()
        self.producer: IPushProducer | None = None
        self.pause_at = pause_at
        self.stop_at = stop_at

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        assert streaming
        assert self.producer is None
        verifyObject(IPushProducer, producer)
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        self.data += data
        if self.stop_at is not None and len(self.data) >= self.stop_at:
            self.stop_at = None
            self.producer.stopProducing()
        elif self.pause_at is not None and len(self.data) >= self.pause_at:
            self.producer.pauseProducing()

    def resume(self) -> None:
        self.pause_at = None
        self.producer.resumeProducing()


async def put(remote: IRemote, key: str, data: bytes, overwrite: bool = False, **announced: object) -> object:
    """Upload ``data`` as the daemon does; ``size`` and ``sha256`` can be announced otherwise."""
    size, digest = announced.get("size", len(data)), announced.get("sha256", sha256(data))
    upload = await remote.begin(key, size, digest, overwrite)
    try:
        await Source(upload, data).start()
        return await upload.commit()
    finally:
        await upload.abort()


async def get(remote: IRemote, key: str, span: Span | None = None) -> bytes:
    body = await remote.open(key, span)
    sink = Sink()
    await body.deliver(sink)
    assert len(sink.data) == body.length
    return bytes(sink.data)


async def everything(remote: IRemote, prefix: str = "") -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    async with aclosing(remote.list(prefix)) as pages:
        async for page in pages:
            assert len(page) <= 5000
            for entry in page:
                assert entry.key not in found
                found[entry.key] = entry
    return found


async def nothing_is_left(remote: IRemote) -> None:
    assert await everything(remote) == {}


class Conformance:
    """Inherit and give a fixture ``remote``."""

    #: how many objects the long list has; slow servers may do with fewer
    many = 2500
    #: bytes of a large object
    large = 9 * 1024 * 1024 + 17

    # The contract as such.

    @pytest_twisted.ensureDeferred
    async def test_interfaces(self, remote: IRemote) -> None:
        verifyObject(IRemote, remote)
        upload = await remote.begin("a", 1, None)
        verifyObject(IUpload, upload)
        verifyObject(IConsumer, upload)
        await upload.abort()
        await put(remote, "a", b"x")
        body = await remote.open("a")
        verifyObject(IBody, body)
        body.close()

    @pytest_twisted.ensureDeferred
    async def test_what_is_put_is_there(self, remote: IRemote) -> None:
        for key in KEYS:
            data = os.urandom(1000)
            stat = await put(remote, key, data)
            assert stat.size == 1000
            assert (await remote.stat(key)).size == 1000
            assert await get(remote, key) == data
        found = await everything(remote)
        assert {key: entry.size for key, entry in found.items()} == dict.fromkeys(KEYS, 1000)

    @pytest_twisted.ensureDeferred
    async def test_sizes(self, remote: IRemote) -> None:
        """Empty, one byte, around a chunk, and large."""
        for size in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, self.large):
            data = os.urandom(size)
            await put(remote, f"data/{size}", data)
            assert await get(remote, f"data/{size}") == data
            assert (await remote.stat(f"data/{size}")).size == size

    @pytest_twisted.ensureDeferred
    async def test_size_and_hash_need_not_be_known(self, remote: IRemote) -> None:
        data = os.urandom(200_000)
        await put(remote, "a", data, size=None)
        await put(remote, "b", data, sha256=None)
        await put(remote, "c", data, size=None, sha256=None)
        for key in "abc":
            assert await get(remote, key) == data

    @pytest_twisted.ensureDeferred
    async def test_missing(self, remote: IRemote) -> None:
        """NotFound for what is not there; deleting it is a success; a missing prefix has no pages."""
        for key in ("config", "data/00/x", "a/b/c/d"):
            with pytest.raises(NotFound):
                await remote.stat(key)
            with pytest.raises(NotFound):
                await remote.open(key)
            await remote.delete(key)
        assert await everything(remote, "nowhere/at/all/") == {}

    @pytest_twisted.ensureDeferred
    async def test_delete(self, remote: IRemote) -> None:
        await put(remote, "a/b", b"1")
        await put(remote, "a/c", b"2")
        await remote.delete("a/b")
        with pytest.raises(NotFound):
            await remote.stat("a/b")
        assert set(await everything(remote)) == {"a/c"}
        await put(remote, "a/b", b"3")
        assert await get(remote, "a/b") == b"3"

    @pytest_twisted.ensureDeferred
    async def test_make_and_tidy(self, remote: IRemote) -> None:
        """Making a place twice is fine, and tidying keeps every object."""
        await remote.make("x/y/")
        await remote.make("x/y/")
        await remote.make("")
        await nothing_is_left(remote)
        await put(remote, "x/y/z", b"1")
        await remote.tidy("x/")
        assert await get(remote, "x/y/z") == b"1"
        await remote.delete("x/y/z")
        await remote.tidy("x/")
        await remote.tidy("never/made/")
        await nothing_is_left(remote)

    @pytest_twisted.ensureDeferred
    async def test_spans(self, remote: IRemote) -> None:
        data = os.urandom(300_000)
        await put(remote, "a", data)
        spans = [
            (Span(0, 0), 0, 1),
            (Span(10, 19), 10, 10),
            (Span(100_000, 250_000), 100_000, 150_001),
            (Span(299_999, None), 299_999, 1),
            (Span(5, 10_000_000), 5, 299_995),
            (Span(None, 7), 299_993, 7),
            (Span(None, 10_000_000), 0, 300_000),
        ]
        for span, offset, length in spans:
            body = await remote.open("a", span)
            assert (body.size, body.offset, body.length) == (300_000, offset, length)
            body.close()
            assert await get(remote, "a", span) == data[offset : offset + length]

    @pytest_twisted.ensureDeferred
    async def test_spans_outside(self, remote: IRemote) -> None:
        await put(remote, "a", b"12345")
        await put(remote, "empty", b"")
        for key, span, size in (("a", Span(5, None), 5), ("a", Span(None, 0), 5), ("empty", Span(0, None), 0)):
            with pytest.raises(RangeNotSatisfiable) as caught:
                await remote.open(key, span)
            assert caught.value.size == size
        with pytest.raises(NotFound):
            await remote.open("missing", Span(5, None))

    @pytest_twisted.ensureDeferred
    async def test_long_list(self, remote: IRemote) -> None:
        """Complete at every depth, and a prefix is a prefix."""
        names = [f"data/{number % 256:02x}/{number:064d}" for number in range(self.many)] + ["keys/k", "config"]
        for start in range(0, len(names), 20):
            await gatherResults([Deferred.fromCoroutine(put(remote, key, b"x")) for key in names[start : start + 20]])
        assert set(await everything(remote)) == set(names)
        assert set(await everything(remote, "data/")) == set(names[:-2])
        assert set(await everything(remote, "data/00/")) == {name for name in names if name.startswith("data/00/")}
        assert set(await everything(remote, "keys/")) == {"keys/k"}

    @pytest_twisted.ensureDeferred
    async def test_a_list_can_be_left(self, remote: IRemote) -> None:
        for number in range(5):
            await put(remote, f"a/{number}/x", b"x")
        pages = remote.list("")
        await anext(pages)
        await pages.aclose()

    # Uploads that go wrong.

    @pytest_twisted.ensureDeferred
    async def test_short_upload(self, remote: IRemote) -> None:
        """Less than announced is Corrupt, and nothing is there."""
        for size in (1000, 3_000_000):
            with pytest.raises(Corrupt):
                await put(remote, "a", os.urandom(size - 100), size=size, sha256=None)
            await nothing_is_left(remote)

    @pytest_twisted.ensureDeferred
    async def test_long_upload(self, remote: IRemote) -> None:
        for size in (1000, 3_000_000):
            with pytest.raises(Corrupt):
                await put(remote, "a", os.urandom(size + 100), size=size, sha256=None)
            await nothing_is_left(remote)

    @pytest_twisted.ensureDeferred
    async def test_wrong_hash(self, remote: IRemote) -> None:
        for size in (0, 1000, 3_000_000):
            with pytest.raises(Corrupt):
                await put(remote, "a", os.urandom(size), sha256=sha256(b"other"))
            await nothing_is_left(remote)

    @pytest_twisted.ensureDeferred
    async def test_nothing_is_visible_before_commit(self, remote: IRemote) -> None:
        data = os.urandom(2_000_000)
        upload = await remote.begin("a/b", len(data), sha256(data))
        await nothing_is_left(remote)
        source = Source(upload, data[:1_500_000])
        await source.start()
        await nothing_is_left(remote)
        with pytest.raises(NotFound):
            await remote.stat("a/b")
        await upload.abort()
        await upload.abort()
        await nothing_is_left(remote)

    @pytest_twisted.ensureDeferred
    async def test_a_late_abort_leaves_a_retry_alone(self, remote: IRemote) -> None:
        """Upload A stalls, B of the same name finishes, A is given up: B is intact."""
        data = os.urandom(200_000)
        late = await remote.begin("a", len(data), sha256(data))
        await Source(late, data[:100_000]).start()
        await put(remote, "a", data)
        await late.abort()
        assert await get(remote, "a") == data
        assert set(await everything(remote)) == {"a"}

    @pytest_twisted.ensureDeferred
    async def test_nothing_is_replaced(self, remote: IRemote) -> None:
        await put(remote, "a", b"first")
        with pytest.raises(AlreadyExists):
            await put(remote, "a", b"second")
        with pytest.raises(AlreadyExists):
            await put(remote, "a", b"first")
        assert await get(remote, "a") == b"first"
        assert set(await everything(remote)) == {"a"}

    @pytest_twisted.ensureDeferred
    async def test_overwrite(self, remote: IRemote) -> None:
        """The whole of the old or the whole of the new, never anything else."""
        old, new = os.urandom(500_000), os.urandom(400_000)
        await put(remote, "a", old)
        upload = await remote.begin("a", len(new), sha256(new), True)
        await Source(upload, new).start()
        assert await get(remote, "a") == old
        await upload.commit()
        assert await get(remote, "a") == new
        with pytest.raises(Corrupt):
            await put(remote, "a", old, overwrite=True, sha256=sha256(b"other"))
        assert await get(remote, "a") == new

    @pytest_twisted.ensureDeferred
    async def test_two_uploads_at_once(self, remote: IRemote) -> None:
        """Exactly one of many parallel uploads of a name is stored, whole."""
        datas = [os.urandom(50_000) for _ in range(8)]
        uploads = [await remote.begin("a", len(data), sha256(data)) for data in datas]
        for upload, data in zip(uploads, datas, strict=True):
            await Source(upload, data).start()
        outcomes = []
        results = [upload.commit() for upload in uploads]
        for result in results:
            try:
                await result
                outcomes.append(True)
            except AlreadyExists:
                outcomes.append(False)
        for upload in uploads:
            await upload.abort()
        assert outcomes.count(True) == 1
        assert await get(remote, "a") == datas[outcomes.index(True)]
        assert set(await everything(remote)) == {"a"}

    @pytest_twisted.ensureDeferred
    async def test_cancelled_begin(self, remote: IRemote) -> None:
        for _ in range(20):
            beginning = remote.begin("a/b", 10, None)
            beginning.cancel()
            try:
                upload = await beginning
            except CancelledError:
                continue
            await upload.abort()
        await put(remote, "a/b", b"x")
        assert set(await everything(remote)) == {"a/b"}

    @pytest_twisted.ensureDeferred
    async def test_abort_in_the_middle_of_writes(self, remote: IRemote) -> None:
        data = os.urandom(3_000_000)
        for _ in range(5):
            upload = await remote.begin("a", len(data), sha256(data))
            source = Source(upload, data)
            source.start()
            await upload.abort()
        await nothing_is_left(remote)

    # Flow control.

    @pytest_twisted.ensureDeferred
    async def test_a_consumer_that_waits(self, remote: IRemote) -> None:
        """After a pause next to nothing comes, and after resuming the rest does."""
        data = os.urandom(self.large)
        await put(remote, "a", data)
        sink = Sink(pause_at=100_000)
        delivered = (await remote.open("a")).deliver(sink)
        await settle(lambda: len(sink.data) >= 100_000)
        await deferLater(reactor, 0.1)
        assert len(sink.data) < 100_000 + FLIGHT
        assert not delivered.called
        sink.resume()
        await delivered
        assert bytes(sink.data) == data
        assert sink.producer is None

    @pytest_twisted.ensureDeferred
    async def test_a_consumer_that_stops(self, remote: IRemote) -> None:
        await put(remote, "a", os.urandom(self.large))
        for _ in range(3):
            sink = Sink(stop_at=100_000)
            with pytest.raises(ClientGone):
                await (await remote.open("a")).deliver(sink)
            assert sink.producer is None

    @pytest_twisted.ensureDeferred
    async def test_cancelled_delivery(self, remote: IRemote) -> None:
        await put(remote, "a", os.urandom(self.large))
        sink = Sink(pause_at=100_000)
        delivered = (await remote.open("a")).deliver(sink)
        await settle(lambda: len(sink.data) >= 100_000)
        delivered.cancel()
        with pytest.raises(CancelledError):
            await delivered
        assert sink.producer is None

    @pytest_twisted.ensureDeferred
    async def test_a_body_may_be_closed_unread(self, remote: IRemote) -> None:
        await put(remote, "a", os.urandom(1000))
        for _ in range(10):
            body = await remote.open("a")
            body.close()
            body.close()

    @pytest_twisted.ensureDeferred
    async def test_a_paused_upload_goes_on(self, remote: IRemote) -> None:
        """A source far faster than any remote is held back, or swallowed whole, and everything arrives."""
        data = os.urandom(self.large)
        upload = await remote.begin("a", len(data), sha256(data))
        await Source(upload, data, chunk=1000).start()
        await upload.commit()
        assert await get(remote, "a") == data
