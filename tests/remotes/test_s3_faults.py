"""What the S3 driver makes of broken connections, refusals and servers that lose things, before a real SeaweedFS."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_twisted
from attrs import evolve
from conformance import Sink, Source, everything, get, put, sha256
from support.fault_proxy import Fault, FaultProxy
from support.s3_servers import S3Server
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from resticd.errors import AlreadyExists, NotFound, OutOfSpace, RemoteTimeout, StorageError, Unavailable
from resticd.remotes.s3 import S3Remote, make_s3
from resticd.streams import Span
from resticd.transport.settings import ClientSettings
from resticd.workers import Workers

pytestmark = pytest.mark.xdist_group("seaweedfs")

LARGE = os.urandom(3_000_000)
TRIES = 3


def xml_error(code: str, more: str = "") -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>said so</Message>{more}</Error>'.encode()


@pytest.fixture
def proxy(weed: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(weed.port) as running:
        yield running


@pytest.fixture
def make(proxy: FaultProxy, weed: S3Server, workers: Workers) -> Any:
    """Makes remotes over one fresh prefix, or ``place``, all through the proxy."""
    fresh = f"faults/{uuid4()}"
    made = []

    def start(place: str = fresh, timeout: float = 20, **options: str) -> S3Remote:
        settings = ClientSettings(timeout=timeout, low_level_retries=TRIES)
        through = weed.options("SeaweedFS", **options) | {"endpoint": proxy.url}
        made.append(make_s3(through, place, reactor, workers, settings))
        return made[-1]

    yield start
    for remote in made:
        pytest_twisted.blockon(remote.stop())


@pytest_twisted.async_yield_fixture
async def remote(make: Any, proxy: FaultProxy) -> Any:
    """A remote that knows its server already."""
    made = make()
    await made.make("")
    await put(made, "first", b"x")
    proxy.seen.clear()
    yield made


async def keys(remote: S3Remote) -> set[str]:
    return set(await everything(remote)) - {"first"}


# Uploads.


@pytest_twisted.ensureDeferred
async def test_connection_cut_in_the_body(remote: S3Remote, proxy: FaultProxy) -> None:
    """An upload whose connection breaks in the middle is a passing fault, nothing is stored, and a retry succeeds."""
    proxy.inject(Fault(on="PUT", cut_request=1_000_000))
    with pytest.raises(StorageError):
        await put(remote, "a", LARGE)
    assert await keys(remote) == set()
    await put(remote, "a", LARGE)
    assert await get(remote, "a") == LARGE


class HastySource(Source):
    """Is done in the moment in which it is stopped, as a request's body is."""

    def stopProducing(self) -> None:
        self.stopped = True
        self.upload.unregisterProducer()
        self.done.callback(None)


@pytest_twisted.ensureDeferred
async def test_a_cut_is_not_the_clients_fault(remote: S3Remote, proxy: FaultProxy) -> None:
    """An upload that is committed while its connection still breaks is a passing fault, and no short body."""
    data = os.urandom(32 << 20)
    proxy.inject(Fault(on="PUT", cut_request=1_000_000))
    upload = await remote.begin("a", len(data), sha256(data))
    source = HastySource(upload, data)
    await source.start()
    assert source.stopped
    with pytest.raises(StorageError):
        await upload.commit()


@pytest_twisted.ensureDeferred
async def test_lost_answer_of_a_small_upload(remote: S3Remote, proxy: FaultProxy) -> None:
    """The repeated PUT finds its own object and is a success; somebody else's object is not."""
    proxy.inject(Fault(on="PUT", cut_answer=0))
    await put(remote, "a", b"mine")
    assert [method for method, _ in proxy.seen] == ["PUT", "PUT", "GET"]
    proxy.inject(Fault(on="PUT", cut_answer=0))
    with pytest.raises(AlreadyExists):
        await put(remote, "a", b"their")
    assert await get(remote, "a") == b"mine"


@pytest_twisted.ensureDeferred
async def test_lost_answer_of_a_streamed_upload(remote: S3Remote, proxy: FaultProxy) -> None:
    """It is not called a success; the client's retry is told that the object is there."""
    proxy.inject(Fault(on="PUT", cut_answer=0))
    with pytest.raises(StorageError):
        await put(remote, "a", LARGE)
    with pytest.raises(AlreadyExists):
        await put(remote, "a", LARGE)


@pytest.mark.parametrize("code", ["QuotaExceeded", "XMinioStorageFull"])
@pytest_twisted.ensureDeferred
async def test_full_before_the_body_was_sent(remote: S3Remote, proxy: FaultProxy, code: str) -> None:
    """A server that refuses early is believed: the source is stopped and the reason comes out."""
    proxy.inject(Fault(on="PUT", status=507, body=xml_error(code), early=True))
    data = os.urandom(32 << 20)
    upload = await remote.begin("a", len(data), sha256(data))
    source = Source(upload, data)
    await source.start()
    assert source.stopped
    with pytest.raises(OutOfSpace):
        await upload.commit()
    assert await keys(remote) == set()


@pytest_twisted.ensureDeferred
async def test_stalled_upload_leaves_the_retry_alone(remote: S3Remote, proxy: FaultProxy) -> None:
    """Upload A stalls on the network, B stores the name, A's connection breaks: B is intact."""
    first = await remote.begin("a", len(LARGE), sha256(LARGE))
    await Source(first, LARGE[:2_000_000]).start()
    await put(remote, "a", LARGE)
    await Source(first, LARGE[2_000_000:]).start()
    with pytest.raises(AlreadyExists):
        await first.commit()
    assert await get(remote, "a") == LARGE


@pytest_twisted.ensureDeferred
async def test_wrong_size_is_noticed(make: Any, rclone: S3Server, workers: Workers) -> None:
    """A server that proves nothing is asked for the size; another one is a fault and what was stored is removed."""
    with FaultProxy(rclone.port) as proxy:
        options = rclone.options("Rclone") | {"endpoint": proxy.url}
        remote = make_s3(options, f"wrong/{uuid4()}", reactor, workers, ClientSettings(low_level_retries=TRIES))
        await remote.make("")
        await put(remote, "first", b"x")
        ours = hashlib.md5(b"four").hexdigest()
        for key, etag in (("a", ours), ("b", "of somebody else")):
            proxy.inject(Fault(on="HEAD", target=f"/{key}", status=404))
            proxy.inject(Fault(on="HEAD", target=f"/{key}", status=200, headers=(("ETag", f'"{etag}"'),), body=b"123"))
            with pytest.raises(StorageError):
                await put(remote, key, b"four")
        # The one that may be somebody else's stays.
        assert await keys(remote) == {"b"}
        await remote.stop()


@pytest_twisted.ensureDeferred
async def test_look_up_fails_before_an_upload(rclone: S3Server, workers: Workers) -> None:
    """Without conditions on the server, an upload is refused when the key cannot be looked at."""
    with FaultProxy(rclone.port) as proxy:
        options = rclone.options("Rclone") | {"endpoint": proxy.url}
        remote = make_s3(options, f"look/{uuid4()}", reactor, workers, ClientSettings(low_level_retries=TRIES))
        await remote.make("")
        await put(remote, "first", b"x")
        for status in (403, 503):
            for data in (b"small", LARGE):
                proxy.clear()
                proxy.inject(Fault(on="HEAD", target="/a", status=status, times=TRIES))
                with pytest.raises(StorageError):
                    await put(remote, "a", data)
        proxy.clear()
        assert await keys(remote) == set()
        await remote.stop()


# Looking and reading.


@pytest_twisted.ensureDeferred
async def test_busy_server(remote: S3Remote, proxy: FaultProxy) -> None:
    """503 is repeated, and comes out as Unavailable when it does not pass."""
    proxy.inject(Fault(status=503, body=xml_error("SlowDown"), times=TRIES - 1))
    assert (await remote.stat("first")).size == 1
    proxy.inject(Fault(status=503, body=xml_error("SlowDown"), times=TRIES))
    with pytest.raises(Unavailable):
        await remote.stat("first")
    assert len(proxy.seen) == 2 * TRIES


@pytest_twisted.ensureDeferred
async def test_long_retry_after(remote: S3Remote, proxy: FaultProxy) -> None:
    """A server that wants a long pause gets it: the client is told for how long."""
    proxy.inject(Fault(status=503, headers=(("Retry-After", "120"),)))
    with pytest.raises(Unavailable) as caught:
        await remote.stat("first")
    assert caught.value.retry_after == 120
    assert len(proxy.seen) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, xml_error("AccessDenied")),
        (403, b""),
        (404, xml_error("NoSuchBucket")),
        (404, b"<html>not found</html>"),
        (401, b""),
        (500, xml_error("InternalError")),
        (400, xml_error("InvalidRequest")),
        (302, b""),
    ],
)
@pytest_twisted.ensureDeferred
async def test_never_missing(remote: S3Remote, proxy: FaultProxy, status: int, body: bytes) -> None:
    """No refusal and no fault makes an object look missing, nor a list empty, nor a deletion done."""
    proxy.inject(Fault(status=status, body=body, times=1000))
    for operation in (
        lambda: remote.stat("nope"),
        lambda: remote.open("nope"),
        lambda: remote.open("nope", Span(0, 5)),
        lambda: remote.delete("nope"),
        lambda: everything(remote),
    ):
        with pytest.raises(StorageError):
            await operation()


@pytest_twisted.ensureDeferred
async def test_clock(remote: S3Remote, proxy: FaultProxy) -> None:
    """A clock that is wrong is named, with the offset."""
    date = ("Date", "Tue, 01 Jan 2019 00:00:00 GMT")
    proxy.inject(Fault(on="GET", status=403, body=xml_error("RequestTimeTooSkewed"), headers=(date,)))
    with pytest.raises(StorageError, match=r"clock is \d{8,} s ahead of the server's"):
        await remote.open("first")


@pytest_twisted.ensureDeferred
async def test_another_region(remote: S3Remote, proxy: FaultProxy) -> None:
    """The bucket's region is learnt from the refusal."""
    proxy.inject(Fault(on="HEAD", status=400, headers=(("x-amz-bucket-region", "eu-north-1"),)))
    assert (await remote.stat("first")).size == 1
    assert len(proxy.seen) == 2


@pytest_twisted.ensureDeferred
async def test_silent_server(make: Any, proxy: FaultProxy) -> None:
    """A server that does not answer is RemoteTimeout."""
    remote = make(timeout=0.2)
    proxy.inject(Fault(hold=True, times=TRIES))
    with pytest.raises(RemoteTimeout):
        await remote.stat("first")


@pytest_twisted.ensureDeferred
async def test_download_goes_on(remote: S3Remote, proxy: FaultProxy) -> None:
    """A download whose connection breaks is taken up where it was, twice; a part of an object, too."""
    await put(remote, "a", LARGE)
    for span in (None, Span(500_000, 2_900_000)):
        proxy.inject(Fault(on="GET", cut_answer=1_000_000, times=2))
        assert await get(remote, "a", span) == (LARGE if span is None else LARGE[500_000:2_900_001])
        proxy.clear()


@pytest_twisted.ensureDeferred
async def test_download_breaks_for_good(remote: S3Remote, proxy: FaultProxy) -> None:
    """A download that cannot be finished is a fault, after what was tried."""
    await put(remote, "a", LARGE)
    proxy.inject(Fault(on="GET", cut_answer=1000, times=1000))
    sink = Sink()
    with pytest.raises(StorageError):
        await (await remote.open("a")).deliver(sink)
    assert bytes(sink.data) == LARGE[: TRIES * 1000]
    assert sink.producer is None


@pytest_twisted.ensureDeferred
async def test_object_changes_in_a_break(remote: S3Remote, proxy: FaultProxy, make: Any) -> None:
    """Two objects are never glued together."""
    await put(remote, "a", LARGE)
    proxy.inject(Fault(on="GET", cut_answer=1_000_000))
    body = await remote.open("a")
    await put(remote, "a", LARGE[::-1], overwrite=True)
    with pytest.raises(StorageError):
        await body.deliver(Sink())


# Lists.


def names(count: int) -> list[str]:
    hashes = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(count)]
    return [f"data/{name[:2]}/{name}" for name in hashes]


FULL = f"faults/{uuid4()}"


@pytest.fixture(scope="module")
def filled(weed: S3Server, workers: Workers) -> set[str]:
    """450 objects as restic names them, in the place ``FULL``."""

    async def fill() -> None:
        remote = make_s3(weed.options("SeaweedFS"), FULL, reactor, workers, ClientSettings())
        await remote.make("")
        for start in range(0, len(listed), 30):
            some = listed[start : start + 30]
            await gatherResults([Deferred.fromCoroutine(put(remote, key, b"x")) for key in some])
        await remote.stop()

    listed = names(450)
    pytest_twisted.blockon(Deferred.fromCoroutine(fill()))
    return set(listed)


@pytest.mark.parametrize("version", ["1", "2"])
@pytest_twisted.ensureDeferred
async def test_ranges_side_by_side(make: Any, proxy: FaultProxy, filled: set[str], version: str) -> None:
    """A list of several pages is complete, and does not take more requests than one by one, give or take."""
    remote = make(FULL, list_chunk="100", list_version=version)
    proxy.seen.clear()
    assert set(await everything(remote, "data/")) == filled
    assert 5 <= len(proxy.seen) <= 9
    assert sum("marker" in target or "start-after" in target for _, target in proxy.seen) >= 3


@pytest.mark.parametrize("total", [150, 450, 3000])
@pytest_twisted.ensureDeferred
async def test_a_length_that_is_remembered(make: Any, proxy: FaultProxy, filled: set[str], total: int) -> None:
    """The next list begins with all ranges, is whole whatever was remembered, and learns from it."""
    remote = make(FULL, list_chunk="100", list_version="2")
    prefix = f"{FULL.partition('/')[2]}/data/"
    await everything(remote, "data/")
    known = remote._listing._known[prefix]
    assert (known.total, known.length, known.nested) == (450, 100, True)
    remote._listing._known[prefix] = evolve(known, total=total)
    proxy.seen.clear()
    assert sorted(await everything(remote, "data/")) == sorted(filled)
    assert len(proxy.seen) <= (10 if total <= 450 else 40)
    assert remote._listing._known[prefix] == known
    proxy.inject(Fault(target="start-after", edit=drop_the_middle, times=1000))
    with pytest.raises(StorageError):
        await everything(remote, "data/")


@pytest_twisted.ensureDeferred
async def test_lists_that_change(make: Any, proxy: FaultProxy) -> None:
    """What comes and goes between two lists is seen, all of it gone included."""
    remote = make(list_chunk="10", list_version="2")
    await remote.make("")
    stored = set(names(60))
    await gatherResults([Deferred.fromCoroutine(put(remote, key, b"x")) for key in stored])
    assert set(await everything(remote, "data/")) == stored
    await gatherResults([Deferred.fromCoroutine(put(remote, key, b"x")) for key in set(names(150)) - stored])
    await put(remote, "data/readme", b"x")
    assert sorted(await everything(remote, "data/")) == sorted([*names(150), "data/readme"])
    await gatherResults([remote.delete(key) for key in names(150)[5:]])
    assert sorted(await everything(remote, "data/")) == sorted([*names(5), "data/readme"])
    await gatherResults([remote.delete(key) for key in [*names(5), "data/readme"]])
    assert await everything(remote, "data/") == {}
    proxy.seen.clear()
    assert await everything(remote, "data/") == {}
    assert len(proxy.seen) == 1


def drop_the_middle(body: bytes) -> bytes:
    return body[: len(body) // 3] + body[len(body) // 2 :]


def drop_one(body: bytes) -> bytes:
    return re.sub(rb"<Contents>.*?</Contents>", b"", body, count=1)


def drop_the_token(body: bytes) -> bytes:
    return re.sub(rb"<NextContinuationToken>.*?</NextContinuationToken>", b"", body)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(target="list-type", edit=drop_the_middle),
        Fault(target="list-type", edit=drop_one),
        Fault(target="list-type", edit=drop_the_token),
        Fault(target="list-type", edit=lambda body: body.replace(b"IsTruncated", b"IsShort")),
        Fault(target="list-type", edit=lambda _: b""),
        Fault(target="list-type", edit=lambda _: xml_error("InternalError")),
        Fault(target="list-type", cut_answer=2000),
        Fault(target="list-type", status=403, body=xml_error("AccessDenied")),
        Fault(target="list-type", status=500, body=xml_error("InternalError")),
        Fault(target="list-type", status=404, body=xml_error("NoSuchKey")),
        Fault(target="list-type", hold=True),
    ],
    ids=lambda fault: "",
)
@pytest.mark.parametrize("page", [0, 2])
@pytest_twisted.ensureDeferred
async def test_a_page_that_is_not_whole(
    make: Any, proxy: FaultProxy, filled: set[str], fault: Fault, page: int
) -> None:
    """The first page or a later one broken: an error after what was tried, never a shorter list."""
    remote = make(FULL, list_chunk="100", list_version="2", timeout=0.5)
    proxy.inject(Fault(target="list-type", times=page))
    fault.hits, fault.times = 0, 1000
    proxy.inject(fault)
    with pytest.raises((StorageError, NotFound)):
        await everything(remote, "data/")
    proxy.clear()
    proxy.release()
    assert set(await everything(remote, "data/")) == filled


@pytest_twisted.ensureDeferred
async def test_a_page_is_asked_for_again(make: Any, proxy: FaultProxy, filled: set[str]) -> None:
    """A fault that passes is not seen."""
    remote = make(FULL, list_chunk="100", list_version="2")
    proxy.inject(Fault(target="list-type", edit=drop_the_middle))
    proxy.inject(Fault(target="start-after", cut_answer=2000))
    assert set(await everything(remote, "data/")) == filled


@pytest_twisted.ensureDeferred
async def test_keys_lost_at_a_cut(make: Any, proxy: FaultProxy, filled: set[str]) -> None:
    """A server that skips keys when it begins in the middle is found out, and then listed from the beginning."""
    remote = make(FULL, list_chunk="100", list_version="2")

    def lose_the_first(body: bytes) -> bytes:
        count = int(re.search(rb"<KeyCount>(\d+)<", body)[1]) - 1
        return re.sub(rb"<KeyCount>\d+<", b"<KeyCount>%d<" % count, drop_one(body))

    proxy.inject(Fault(target="start-after", edit=lose_the_first, times=1000))
    with pytest.raises(StorageError):
        await everything(remote, "data/")
    assert set(await everything(remote, "data/")) == filled


# Uploads in parts.


async def parts_left(remote: S3Remote) -> bytes:
    return await remote._api.fetch(query=(("uploads", ""), ("prefix", remote._root)))


@pytest.mark.parametrize("known", [True, False])
@pytest_twisted.ensureDeferred
async def test_parts(make: Any, remote: S3Remote, proxy: FaultProxy, known: bool) -> None:
    """A body above the cutoff, or of unknown size, goes in parts; a part that fails is repeated."""
    data = os.urandom(12_000_000)
    through_parts = make(upload_cutoff="2M")
    proxy.inject(Fault(on="PUT", target="partNumber=2", status=503))
    proxy.inject(Fault(on="PUT", target="partNumber=1", cut_answer=0))
    await put(through_parts, "a", data, **({} if known else {"size": None}))
    assert await get(remote, "a") == data
    with pytest.raises(AlreadyExists):
        await put(through_parts, "a", data)
    assert b"<Upload>" not in await parts_left(remote)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(on="PUT", target="partNumber=2", status=500, times=TRIES),
        Fault(on="PUT", target="partNumber=3", status=403),
        Fault(on="POST", target="uploadId", edit=lambda _: xml_error("InternalError"), times=TRIES, status=200),
        Fault(on="POST", target="uploads", status=503, times=TRIES),
        Fault(on="PUT", target="partNumber=1", status=507, body=xml_error("QuotaExceeded")),
    ],
    ids=["part", "refused", "complete", "create", "full"],
)
@pytest_twisted.ensureDeferred
async def test_parts_that_fail(make: Any, remote: S3Remote, proxy: FaultProxy, fault: Fault) -> None:
    """Nothing is left of an upload in parts that fails: no object, no parts."""
    through_parts = make()
    fault.hits = 0
    if fault.edit is not None:
        fault.body, fault.edit = fault.edit(b""), None
    proxy.inject(fault)
    with pytest.raises((StorageError, OutOfSpace)):
        await put(through_parts, "a", os.urandom(12_000_000), size=None)
    assert await keys(remote) == set()
    assert b"<Upload>" not in await parts_left(remote)


@pytest_twisted.ensureDeferred
async def test_abandoned_parts(make: Any, remote: S3Remote) -> None:
    """Aborting an upload in parts aborts it on the server."""
    upload = await make().begin("a", None, None)
    data = os.urandom(12_000_000)
    await Source(upload, data).start()
    await upload.abort()
    assert b"<Upload>" not in await parts_left(remote)


@pytest_twisted.ensureDeferred
async def test_lost_answer_of_the_last_step(make: Any, remote: S3Remote, proxy: FaultProxy) -> None:
    """Parts that were put together are not put together twice: what is found is our own."""
    data = os.urandom(12_000_000)
    proxy.inject(Fault(on="POST", target="uploadId", cut_answer=0))
    await put(make(), "a", data, size=None)
    assert await get(remote, "a") == data


@pytest_twisted.ensureDeferred
async def test_sweep(make: Any, remote: S3Remote, proxy: FaultProxy) -> None:
    """At start, uploads in parts of more than a day ago are aborted; younger ones stay."""
    key = "data/00/" + "0" * 64
    upload = await make().begin(key, None, None)
    await Source(upload, os.urandom(12_000_000)).start()

    async def swept(times: int) -> None:
        starting = make()
        await starting.start()
        await starting._sweeping

    await swept(1)
    assert b"<Upload>" in await parts_left(remote)

    def age(body: bytes) -> bytes:
        return re.sub(rb"<Initiated>.*?</Initiated>", b"<Initiated>2020-01-01T00:00:00.000Z</Initiated>", body)

    proxy.inject(Fault(on="GET", target="uploads", edit=age))
    await swept(2)
    assert b"<Upload>" not in await parts_left(remote)
    await upload.abort()
