"""What every remote must do, as one suite that runs over every driver and wrapper.

A driver joins with a class that inherits from ``Conformance`` and has a fixture named ``remote``, which yields a
started ``IRemote`` over an empty place::

    class TestMemory(Conformance):
        @pytest_twisted.async_yield_fixture
        async def remote(self):
            remote = MemoryRemote()
            await remote.start()
            yield remote
            await remote.stop()
"""

from __future__ import annotations

import gc
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import aclosing, suppress

import pytest
import pytest_twisted
from support.waiting import until
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, LogLevel, eventAsText, globalLogPublisher
from zope.interface import implementer
from zope.interface.verify import verifyObject

from resticd.errors import (
    AlreadyExists,
    ClientGone,
    Corrupt,
    NotFound,
    RangeNotSatisfiable,
    ResticdError,
    StorageError,
    Unsupported,
)
from resticd.interfaces import Entry, IBlockingSink, IBody, IFileBody, IRemote, IUpload, Stat
from resticd.remotes.directories import directories
from resticd.streams import Span

CHUNK = 64 * 1024

KEYS = [
    "config",
    "a/b/c/data/00/" + "0" * 64,
    "with space/ünïcode/config",
    "per%20cent/plus+and&what?/config",
    'quote\'d "double"/config',
    "s" * 200 + "/config",
]

#: Names of repositories that the grammar of paths takes and that servers may take for something else.
ODD_NAMES = [
    *("...", "..a", ".hidden", "-rf", "~", "*", "[a]", "{b}", "a:b", "a;b,c", "a|b<c>d", "$HOME", "#", "@", "!", "^"),
    *("a b", " leading", "trailing ", "trailing.", "%2e%2e", "%", "a?b=c", "a+b", "CON", "Upper", "upper", "`x`"),
    *(
        "\N{FOX FACE}",
        "e\N{COMBINING ACUTE ACCENT}",
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
        "\N{RIGHT-TO-LEFT OVERRIDE}x",
    ),
    *("x" * 255, ".resticd-00.tmp"),
]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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
    """Takes what a body delivers.

    ``pause_at``: pauses the producer after so many bytes, until ``resume``; ``stop_at``: stops it.
    """

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
        if self.stop_at == 0:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        assert self.producer is not None
        self.producer = None

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        assert self.producer is not None
        self.data += data
        if self.stop_at is not None and len(self.data) >= self.stop_at:
            self.stop_at = None
            self.producer.stopProducing()
        elif self.pause_at is not None and len(self.data) >= self.pause_at:
            self.producer.pauseProducing()

    def resume(self) -> None:
        self.pause_at = None
        self.producer.resumeProducing()


async def put(remote: IRemote, key: str, data: bytes, overwrite: bool = False, **announced: object) -> Stat:
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
    #: whether an upload pauses a producer that is faster than the remote
    holds_back = True
    #: no more bytes than this are on their way between a producer and a consumer that waits
    flight = 4 * 1024 * 1024

    #: keys that the remote takes
    keys = KEYS
    #: names of repositories that the remote keeps apart
    odd_names = ODD_NAMES

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _nothing_unheard(cls) -> Iterator[None]:
        """No test may leave an error that nobody took, such as that of a Deferred without an errback."""
        unheard: list[str] = []

        def observe(event: LogEvent) -> None:
            text = eventAsText(event)
            # Twisted says this first, and then, in an event of its own, what the error was. The other one is what the
            # garbage collector makes of a coroutine which a test has left waiting.
            passed_over = ("Unhandled error in Deferred:", "cannot reuse already awaited coroutine")
            if event["log_level"] >= LogLevel.error and not text.strip().endswith(passed_over):
                unheard.append(text)

        globalLogPublisher.addObserver(observe)
        yield
        gc.collect()
        globalLogPublisher.removeObserver(observe)
        if unheard:  # this module's asserts do not tell values
            pytest.fail("\n".join(unheard))

    async def fill(self, remote: IRemote, keys: list[str]) -> None:
        """Store an object of one byte under each key; a driver may know a faster way."""
        for start in range(0, len(keys), 20):
            await gatherResults([Deferred.fromCoroutine(put(remote, key, b"x")) for key in keys[start : start + 20]])

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
        for key in self.keys:
            data = os.urandom(1000)
            stat = await put(remote, key, data)
            assert stat.size == 1000
            assert (await remote.stat(key)).size == 1000
            assert await get(remote, key) == data
        found = await everything(remote)
        assert {key: entry.size for key, entry in found.items()} == dict.fromkeys(self.keys, 1000)

    @pytest_twisted.ensureDeferred
    async def test_odd_names(self, remote: IRemote) -> None:
        """Each name is itself and none other, in every method."""
        stored = {f"{name}/config": name.encode() for name in self.odd_names}
        for key, data in stored.items():
            await put(remote, key, data)
        for key, data in stored.items():
            assert await get(remote, key) == data
            assert set(await everything(remote, key.removesuffix("config"))) == {key}
        assert set(await everything(remote)) == set(stored)
        await remote.delete(f"{self.odd_names[0]}/config")
        assert len(await everything(remote)) == len(stored) - 1

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
        await self.fill(remote, names)
        assert set(await everything(remote)) == set(names)
        assert set(await everything(remote, "data/")) == set(names[:-2])
        assert set(await everything(remote, "data/00/")) == {name for name in names if name.startswith("data/00/")}
        assert set(await everything(remote, "keys/")) == {"keys/k"}

    @pytest_twisted.ensureDeferred
    async def test_a_prefix_ends_with_its_slash(self, remote: IRemote) -> None:
        """What begins alike but lies elsewhere is not listed, and a prefix is not an object."""
        for key in ("a/data/x", "a/data2/x", "a/dat", "a2/data/x"):
            await put(remote, key, b"x")
        assert set(await everything(remote, "a/data/")) == {"a/data/x"}
        assert set(await everything(remote, "a/")) == {"a/data/x", "a/data2/x", "a/dat"}
        for key in ("a", "a/data"):
            with pytest.raises((NotFound, StorageError)):
                await remote.stat(key)
            with pytest.raises((NotFound, StorageError)):
                await remote.open(key)

    @pytest_twisted.ensureDeferred
    async def test_directories(self, remote: IRemote) -> None:
        """Those directly below a prefix, each once, whether the remote can tell them or everything is listed."""
        for key in ("a/b/x", "a/b/y", "a/file", "c d/ünï/x", "c+d/x", "file"):
            await put(remote, key, b"x")

        async def found(prefix: str) -> list[str]:
            async with aclosing(directories(remote, prefix)) as pages:
                return sorted([name async for page in pages for name in page])

        assert await found("") == ["a", "c d", "c+d"]
        assert await found("a/") == ["b"]
        assert await found("c d/") == ["ünï"]
        assert await found("a/b/") == await found("z/") == []

    @pytest_twisted.ensureDeferred
    async def test_times(self, remote: IRemote) -> None:
        """An object's time is that of its upload, within what clocks differ by, or is not known."""
        stored = await put(remote, "a", b"x")
        stat = await remote.stat("a")
        entry = (await everything(remote))["a"]
        for modified in (stored.modified, stat.modified, entry.modified):
            assert modified is None or abs(modified - time.time()) < 3600

    @pytest_twisted.ensureDeferred
    async def test_usage(self, remote: IRemote) -> None:
        """The room on the remote, where the remote says that it knows."""
        if not remote.capabilities.reports_usage:
            with pytest.raises(Unsupported):
                await remote.usage()
            return
        usage = await remote.usage()
        assert all(value is None or value >= 0 for value in (usage.used, usage.free, usage.total))
        assert usage.used is not None or usage.free is not None

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
    async def test_a_source_of_too_much_is_stopped(self, remote: IRemote) -> None:
        """Who announced little is not let to send much."""
        upload = await remote.begin("a", 1000, None)
        source = Source(upload, bytes(64 * 1024 * 1024))
        await source.start()
        assert source.stopped
        assert source.written <= 1000 + self.flight
        with pytest.raises(Corrupt):
            await upload.commit()
        await nothing_is_left(remote)

    @pytest_twisted.ensureDeferred
    async def test_a_refused_upload_needs_no_abort(self, remote: IRemote) -> None:
        """When commit has failed nothing is left, whether the caller aborts or not."""
        await put(remote, "taken", b"x")
        for key, data, error in (("a", b"short", Corrupt), ("taken", b"0123456789", AlreadyExists)):
            upload = await remote.begin(key, 10, None)
            await Source(upload, data).start()
            with pytest.raises(error):
                await upload.commit()
        assert await get(remote, "taken") == b"x"
        assert set(await everything(remote)) == {"taken"}

    @pytest_twisted.ensureDeferred
    async def test_wrong_hash(self, remote: IRemote) -> None:
        assert remote.capabilities.verifies_hash
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
    async def test_a_late_failure_leaves_a_retry_alone(self, remote: IRemote) -> None:
        """Upload A stalls, B of the same name finishes, A is cut short or comes too late: B is intact."""
        data = os.urandom(200_000)
        short = await remote.begin("a", len(data), sha256(data))
        late = await remote.begin("a", len(data), sha256(data))
        await Source(short, data[:100_000]).start()
        await put(remote, "a", data)
        with pytest.raises(Corrupt):
            await short.commit()
        await Source(late, data).start()
        with pytest.raises(AlreadyExists):
            await late.commit()
        await short.abort()
        await late.abort()
        assert await get(remote, "a") == data
        assert set(await everything(remote)) == {"a"}

    @pytest_twisted.ensureDeferred
    async def test_abort_after_commit_does_nothing(self, remote: IRemote) -> None:
        upload = await remote.begin("a", 1, None)
        upload.write(b"x")
        await upload.commit()
        await upload.abort()
        await upload.abort()
        assert await get(remote, "a") == b"x"

    @pytest_twisted.ensureDeferred
    async def test_abort_during_commit(self, remote: IRemote) -> None:
        """Both Deferreds fire; what commit says is true."""
        data = os.urandom(2_000_000)
        for number in range(5):
            upload = await remote.begin(f"{number}", len(data), sha256(data))
            source = Source(upload, data)
            await source.start()
            committed = upload.commit()
            await upload.abort()
            await upload.abort()
            try:
                await committed
            except (CancelledError, StorageError):
                assert str(number) not in await everything(remote)
            else:
                assert await get(remote, f"{number}") == data

    @pytest_twisted.ensureDeferred
    async def test_cancelled_commit(self, remote: IRemote) -> None:
        """The object is there whole or not at all, and is neither later; the name can be used."""
        data = os.urandom(2_000_000)
        for number in range(5):
            upload = await remote.begin(f"{number}", len(data), sha256(data))
            await Source(upload, data).start()
            committed = upload.commit()
            committed.cancel()
            with suppress(CancelledError):
                await committed
            await upload.abort()
            there = str(number) in await everything(remote)
            try:
                await put(remote, f"{number}", data)
                assert not there
            except AlreadyExists:
                assert there
            assert await get(remote, f"{number}") == data

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
            await put(remote, "a", old[:-1], overwrite=True, size=len(old))
        assert await get(remote, "a") == new

    @pytest_twisted.ensureDeferred
    async def test_readers_see_one_object(self, remote: IRemote) -> None:
        """While an object is overwritten again and again every read is one of its versions, or a fault."""
        versions = [bytes([number]) * 200_000 for number in range(6)]
        await put(remote, "config", versions[0])

        async def write() -> None:
            for version in versions[1:]:
                await put(remote, "config", version, overwrite=True)

        writing = Deferred.fromCoroutine(write())
        read = set()
        while not writing.called:
            with suppress(StorageError):
                read.add(await get(remote, "config"))
        await writing
        read.add(await get(remote, "config"))
        assert read <= set(versions)
        assert versions[-1] in read

    @pytest_twisted.ensureDeferred
    async def test_a_body_is_of_one_object(self, remote: IRemote) -> None:
        """A body that was opened before its object was replaced, or deleted, is the old one, the new one or a fault."""
        old, new = os.urandom(self.large), os.urandom(self.large)
        await put(remote, "a", old)
        for change in (lambda: put(remote, "a", new, overwrite=True), lambda: remote.delete("a")):
            sink = Sink(pause_at=100_000)
            delivered = (await remote.open("a")).deliver(sink)
            await until(lambda sink=sink: len(sink.data) >= 100_000)
            await change()
            sink.resume()
            try:
                await delivered
            except (StorageError, NotFound):
                continue
            assert bytes(sink.data) in (old, new)

    @pytest_twisted.ensureDeferred
    async def test_two_uploads_at_once(self, remote: IRemote) -> None:
        """Exactly one of many parallel uploads of a name through one daemon is stored, whole."""
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
    async def test_cancelled_calls(self, remote: IRemote) -> None:
        """A call that is cancelled fires at once, and the remote serves on."""
        await put(remote, "a", b"x")
        for _ in range(10):
            for call in (remote.stat("a"), remote.open("a"), remote.delete("b"), remote.make("c/"), remote.tidy("c/")):
                call.cancel()
                try:
                    result = await call
                except CancelledError:
                    continue
                if IBody.providedBy(result):
                    result.close()
        listing = Deferred.fromCoroutine(everything(remote))
        listing.cancel()
        with suppress(CancelledError):
            await listing
        assert await get(remote, "a") == b"x"
        assert set(await everything(remote)) == {"a"}

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
        await until(lambda: len(sink.data) >= 100_000)
        for _ in range(20):  # time enough to send the rest, if somebody did
            assert (await remote.stat("a")).size == len(data)
        assert len(sink.data) <= 100_000 + self.flight
        assert not delivered.called
        sink.resume()
        await delivered
        assert bytes(sink.data) == data
        assert sink.producer is None

    @pytest.mark.parametrize("stop_at", [0, 1, 100_000])
    @pytest_twisted.ensureDeferred
    async def test_a_consumer_that_stops(self, remote: IRemote, stop_at: int) -> None:
        """Right at the start, as a connection that is closed already does, or later: the delivery ends there."""
        await put(remote, "a", os.urandom(self.large))
        for _ in range(3):
            sink = Sink(stop_at=stop_at)
            with pytest.raises(ClientGone):
                await (await remote.open("a")).deliver(sink)
            assert sink.producer is None
            assert len(sink.data) <= stop_at + self.flight

    @pytest.mark.parametrize("pause_at", [None, 100_000])
    @pytest_twisted.ensureDeferred
    async def test_cancelled_delivery(self, remote: IRemote, pause_at: int | None) -> None:
        """Nothing is written after a delivery was cancelled, whether it stood still or not."""
        await put(remote, "a", os.urandom(self.large))
        sink = Sink(pause_at=pause_at)
        delivered = (await remote.open("a")).deliver(sink)
        await until(lambda: delivered.called or len(sink.data) >= 100_000)
        if not delivered.called:
            delivered.cancel()
            with pytest.raises(CancelledError):
                await delivered
        assert sink.producer is None
        assert len(await get(remote, "a")) == self.large

    @pytest_twisted.ensureDeferred
    async def test_a_body_may_be_closed_unread(self, remote: IRemote) -> None:
        """Closing releases what is held; closing again, or after the delivery, does nothing."""
        await put(remote, "a", os.urandom(1000))
        for _ in range(10):
            body = await remote.open("a")
            body.close()
            body.close()
        body = await remote.open("a")
        await body.deliver(Sink())
        body.close()

    @pytest_twisted.ensureDeferred
    async def test_a_source_is_held_back(self, remote: IRemote) -> None:
        """A source that is faster than the remote waits, and in the end everything arrives."""
        data = os.urandom(self.large)
        upload = await remote.begin("a", len(data), sha256(data))
        source = Source(upload, data, chunk=1000)
        sent = source.start()
        if self.holds_back:  # nothing came off the reactor thread since: what was taken is in memory
            assert source.written <= self.flight
            assert source.paused
        await sent
        await upload.commit()
        assert await get(remote, "a") == data


class DirectWays:
    """Inherit this too for a driver that offers ways around the reactor."""

    large = Conformance.large

    @pytest_twisted.ensureDeferred
    async def test_bytes_from_a_worker(self, remote: IRemote) -> None:
        """An upload takes its bytes from a worker too, and checks them as well."""
        data = os.urandom(self.large)
        for key, digest, error in (("a", sha256(data), None), ("b", sha256(b"other"), Corrupt)):
            upload = await remote.begin(key, len(data), digest)
            verifyObject(IBlockingSink, upload)
            view = memoryview(data)
            await deferToThread(upload.consume, [data[:10], data[10:20]])
            await deferToThread(upload.consume, [view[start : start + 1000] for start in range(20, 5_000_020, 1000)])
            await deferToThread(upload.consume, [view[5_000_020:], b""])
            if error is None:
                assert (await upload.commit()).size == len(data)
                assert await get(remote, key) == data
            else:
                with pytest.raises(error):
                    await upload.commit()
        assert set(await everything(remote)) == {"a"}

    @pytest_twisted.ensureDeferred
    async def test_a_worker_that_goes_on_after_an_abort(self, remote: IRemote) -> None:
        """It is told so, and nothing is left."""
        upload = await remote.begin("a", self.large, None)
        await upload.abort()
        with pytest.raises(ResticdError):
            await deferToThread(upload.consume, [b"x"])
        await nothing_is_left(remote)

    @pytest_twisted.ensureDeferred
    async def test_bodies_that_are_files(self, remote: IRemote) -> None:
        """The kernel finds the bytes where the body says."""
        data = os.urandom(100_000)
        await put(remote, "a", data)
        body = await remote.open("a", Span(1000, 50_999))
        try:
            verifyObject(IFileBody, body)
            assert os.pread(body.fileno(), body.length, body.offset) == data[1000:51_000]
        finally:
            body.close()
