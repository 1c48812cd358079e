"""What the WebDAV driver makes of broken connections, refusals and servers that lose things, before a real Apache."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_twisted
from conformance import Sink, Source, everything, get, put, sha256
from support.dav_servers import DavServer
from support.fault_proxy import Fault, FaultProxy
from support.waiting import until
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from resticd.errors import AlreadyExists, NotFound, OutOfSpace, RemoteTimeout, ResticdError, StorageError, Unavailable
from resticd.remotes.webdav import WebDavRemote, make_webdav
from resticd.streams import Span
from resticd.transport.settings import ClientSettings

pytestmark = pytest.mark.xdist_group("apache")

LARGE = os.urandom(3_000_000)
TRIES = 3
MONTH = 30 * 24 * 3600

Make = Callable[..., WebDavRemote]


@pytest.fixture
def proxy(apache: DavServer) -> Iterator[FaultProxy]:
    with FaultProxy(apache.port) as running:
        yield running


@pytest.fixture
def place(apache: DavServer) -> str:
    """A fresh path below the URL."""
    return f"faults-{uuid4()}/repo"


@pytest.fixture
def make(proxy: FaultProxy, apache: DavServer, place: str) -> Iterator[Make]:
    """Makes remotes over the same place, through the proxy."""
    made = []

    def start(timeout: float = 20, tries: int = TRIES, **options: str) -> WebDavRemote:
        settings = ClientSettings(timeout=timeout, low_level_retries=tries)
        through = apache.options() | {"url": f"{proxy.url}/basic/"} | options
        made.append(make_webdav(through, place, reactor, settings))
        return made[-1]

    yield start
    for remote in made:
        pytest_twisted.blockon(remote.stop())


@pytest.fixture
def remote(make: Make, proxy: FaultProxy) -> WebDavRemote:
    """A remote that knows its server already, with one object."""
    made = make()
    pytest_twisted.blockon(Deferred.fromCoroutine(put(made, "first", b"x")))
    proxy.seen.clear()
    return made


async def keys(remote: WebDavRemote) -> set[str]:
    return set(await everything(remote)) - {"first"}


def files(apache: DavServer, place: str) -> set[str]:
    """Names of all files of the place, unfinished ones too."""
    return {path.name for path in (apache.folder / place).rglob("*") if path.is_file()} - {"first"}


# Uploads.


@pytest_twisted.ensureDeferred
async def test_connection_cut_in_the_body(
    remote: WebDavRemote, proxy: FaultProxy, apache: DavServer, place: str
) -> None:
    """An upload whose connection breaks in the middle is a passing fault, nothing is stored, and a retry succeeds."""
    proxy.inject(Fault(on="PUT", cut_request=1_000_000))
    with pytest.raises(StorageError):
        await put(remote, "a", LARGE)
    assert await keys(remote) == set()
    await put(remote, "a", LARGE)
    assert await get(remote, "a") == LARGE
    assert files(apache, place) == {"a"}


@pytest.mark.parametrize("method", ["PUT", "PROPFIND", "MOVE"])
@pytest_twisted.ensureDeferred
async def test_lost_answers(
    remote: WebDavRemote, proxy: FaultProxy, apache: DavServer, place: str, method: str
) -> None:
    """Whatever answer is lost on the way, a small upload succeeds, once; somebody else's object stays."""
    proxy.inject(Fault(on=method, cut_answer=0))
    await put(remote, "a", b"mine")
    assert await get(remote, "a") == b"mine"
    proxy.inject(Fault(on=method, cut_answer=0))
    with pytest.raises(AlreadyExists):
        await put(remote, "a", b"their")
    assert await get(remote, "a") == b"mine"
    assert files(apache, place) == {"a"}


@pytest_twisted.ensureDeferred
async def test_lost_answer_of_a_streamed_upload(
    remote: WebDavRemote, proxy: FaultProxy, apache: DavServer, place: str
) -> None:
    """It is not called a success, and nothing is visible: what arrived was never moved."""
    proxy.inject(Fault(on="PUT", cut_answer=0))
    with pytest.raises(StorageError):
        await put(remote, "a", LARGE)
    assert files(apache, place) == set()


@pytest_twisted.ensureDeferred
async def test_move_fails(remote: WebDavRemote, proxy: FaultProxy, apache: DavServer, place: str) -> None:
    """A MOVE that is refused for good leaves nothing; one that is refused twice only is repeated."""
    for status in (403, 405, 409, 423, 500, 507):
        proxy.inject(Fault(on="MOVE", status=status, times=TRIES))
        with pytest.raises((StorageError, OutOfSpace)):
            await put(remote, "a", LARGE)
        proxy.clear()
        assert files(apache, place) == set()
    proxy.inject(Fault(on="MOVE", status=423, times=TRIES - 1))
    await put(remote, "a", LARGE)
    assert files(apache, place) == {"a"}


@pytest_twisted.ensureDeferred
async def test_full_before_the_body_was_sent(remote: WebDavRemote, proxy: FaultProxy) -> None:
    """A server that refuses early is believed: the source is stopped and the reason comes out."""
    proxy.inject(Fault(on="PUT", status=507, early=True))
    data = os.urandom(32 << 20)
    upload = await remote.begin("a", len(data), sha256(data))
    source = Source(upload, data)
    await source.start()
    assert source.stopped
    with pytest.raises(OutOfSpace):
        await upload.commit()
    assert await keys(remote) == set()


@pytest.mark.parametrize("data", [b"four", LARGE], ids=["small", "large"])
@pytest_twisted.ensureDeferred
async def test_wrong_size_is_noticed(
    remote: WebDavRemote, proxy: FaultProxy, apache: DavServer, place: str, data: bytes
) -> None:
    """A server that has stored less than was sent is found out before anything is visible."""

    def shorter(body: bytes) -> bytes:
        return re.sub(rb"(getcontentlength>)\d+", rb"\g<1>3", body)

    proxy.inject(Fault(on="PROPFIND", target=".tmp", edit=shorter, times=TRIES))
    with pytest.raises(StorageError, match="are stored"):
        await put(remote, "a", data)
    assert files(apache, place) == set()


@pytest.mark.parametrize(
    ("sums", "stored"), [("MD5:00 SHA1:", True), ("SHA1:0000 ADLER32:00", False), ("ADLER32:00", True)]
)
@pytest_twisted.ensureDeferred
async def test_checksums_of_the_server(
    make: Make, proxy: FaultProxy, apache: DavServer, place: str, sums: str, stored: bool
) -> None:
    """Where a vendor tells checksums, what it has stored is compared with what was sent, small or large."""
    remote = make(vendor="owncloud")
    await put(remote, "first", b"x")
    for key, data in (("a", b"four"), ("b", LARGE)):
        ours = hashlib.sha1(data).hexdigest() if sums.endswith(":") else ""
        element = f'<o:checksum xmlns:o="http://owncloud.org/ns">{sums}{ours.upper()}</o:checksum></D:prop>'
        edit = Fault(
            target=".tmp", on="PROPFIND", edit=lambda body, e=element: body.replace(b"</D:prop>", e.encode(), 1)
        )
        proxy.inject(edit)
        if stored:
            await put(remote, key, data)
        else:
            with pytest.raises(StorageError, match="other bytes"):
                await put(remote, key, data)
        proxy.clear()
    assert files(apache, place) == ({"a", "b"} if stored else set())


@pytest_twisted.ensureDeferred
async def test_a_server_that_ignores_overwrite(make: Make, proxy: FaultProxy) -> None:
    """It is found out, and what is there is looked for before each MOVE: nothing is replaced by this daemon."""
    proxy.inject(Fault(on="MOVE", drop=("overwrite",), times=1000))
    remote = make()
    await put(remote, "first", b"x")
    assert not remote.capabilities.conditional_create
    for data in (b"small", LARGE):
        with pytest.raises(AlreadyExists):
            await put(remote, "first", data)
    datas = [os.urandom(50_000) for _ in range(6)]
    outcomes = await gatherResults(
        [Deferred.fromCoroutine(put(remote, "a", data)).addCallbacks(lambda _: True, _refused) for data in datas]
    )
    assert outcomes.count(True) == 1
    assert await get(remote, "a") == datas[outcomes.index(True)]
    assert await get(remote, "first") == b"x"


def _refused(failure: Any) -> bool:
    failure.trap(AlreadyExists)
    return False


@pytest_twisted.ensureDeferred
async def test_look_up_fails_before_an_upload(make: Make, proxy: FaultProxy) -> None:
    """Where the server would replace things, an upload is refused when the key cannot be looked at."""
    proxy.inject(Fault(on="MOVE", drop=("overwrite",), times=1000))
    remote = make()
    await put(remote, "first", b"x")
    for status in (401, 403, 503):
        for data in (b"small", LARGE):
            fault = proxy.inject(Fault(on="PROPFIND", target="/repo/a", status=status, times=TRIES + 1))
            with pytest.raises(StorageError):
                await put(remote, "a", data)
            fault.times = 0
    assert await keys(remote) == set()


@pytest_twisted.ensureDeferred
async def test_a_directory_that_vanished(remote: WebDavRemote, apache: DavServer, place: str) -> None:
    """A folder that was there is made again by the upload after the one that failed."""
    await put(remote, "data/00/x", LARGE)
    (apache.folder / place / "data/00/x").unlink()
    (apache.folder / place / "data/00").rmdir()
    with pytest.raises(StorageError):
        await put(remote, "data/00/y", LARGE)
    await put(remote, "data/00/y", LARGE)
    assert files(apache, place) == {"y"}


# Looking and reading.


@pytest_twisted.ensureDeferred
async def test_busy_server(remote: WebDavRemote, proxy: FaultProxy) -> None:
    """503 is repeated, and comes out as Unavailable when it does not pass."""
    proxy.inject(Fault(status=503, times=TRIES - 1))
    assert (await remote.stat("first")).size == 1
    proxy.inject(Fault(status=503, times=TRIES))
    with pytest.raises(Unavailable):
        await remote.stat("first")
    assert len(proxy.seen) == 2 * TRIES


@pytest_twisted.ensureDeferred
async def test_long_retry_after(remote: WebDavRemote, proxy: FaultProxy) -> None:
    """A server that wants a long pause gets it: the client is told for how long."""
    proxy.inject(Fault(status=429, headers=(("Retry-After", "120"),)))
    with pytest.raises(Unavailable) as caught:
        await remote.stat("first")
    assert caught.value.retry_after == 120
    assert len(proxy.seen) == 1


NOTHING = b'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:"></D:multistatus>'


@pytest.mark.parametrize(
    ("status", "body"),
    [
        *((status, b"") for status in (302, 400, 401, 403, 405, 409, 410, 416, 423, 424, 429, 500, 502, 503, 504, 509)),
        (404, b"<html>not found</html>"),
        (207, b"<html>"),
        (207, NOTHING),
        (200, b""),
    ],
)
@pytest_twisted.ensureDeferred
async def test_never_missing(make: Make, proxy: FaultProxy, status: int, body: bytes) -> None:
    """No refusal and no fault makes an object look missing, nor a list empty."""
    remote = make(tries=1)
    proxy.inject(Fault(status=status, body=body, times=1000))
    for operation in (
        lambda: remote.stat("nope"),
        lambda: everything(remote),
        lambda: everything(remote, "data/"),
        remote.usage,
    ):
        with pytest.raises(StorageError):
            await operation()
    if status not in (200, 207):
        for operation in (
            lambda: remote.open("nope"),
            lambda: remote.open("nope", Span(0, 5)),
            lambda: remote.delete("0" * 64),
            lambda: remote.delete("config"),
            lambda: put(remote, "a", b"x"),
        ):
            with pytest.raises(StorageError):
                await operation()


@pytest_twisted.ensureDeferred
async def test_the_root_is_gone(make: Make, proxy: FaultProxy) -> None:
    """A URL that leads nowhere is a fault, not an empty place; below one that is there what is missing is missing."""
    lost = make(url=f"{proxy.url}/basic/nowhere/", tries=1)
    for operation in (lambda: lost.stat("a"), lambda: lost.delete("0" * 64), lambda: everything(lost)):
        with pytest.raises(StorageError, match="has no directory at"):
            await operation()
    with pytest.raises(StorageError):
        await put(lost, "a", b"x")
    fresh = make()
    with pytest.raises(NotFound):
        await fresh.stat("a")
    await fresh.delete("0" * 64)
    assert await everything(fresh) == {}


@pytest_twisted.ensureDeferred
async def test_silent_server(make: Make, proxy: FaultProxy) -> None:
    """A server that does not answer is RemoteTimeout."""
    remote = make(timeout=0.2)
    proxy.inject(Fault(hold=True, times=TRIES + 1))
    with pytest.raises(RemoteTimeout):
        await remote.stat("first")


@pytest_twisted.ensureDeferred
async def test_download_goes_on(remote: WebDavRemote, proxy: FaultProxy) -> None:
    """A download whose connection breaks is taken up where it was, twice; a part of an object, too."""
    await put(remote, "a", LARGE)
    for span in (None, Span(500_000, 2_900_000)):
        proxy.inject(Fault(on="GET", cut_answer=1_000_000, times=2))
        assert await get(remote, "a", span) == (LARGE if span is None else LARGE[500_000:2_900_001])
        proxy.clear()


@pytest_twisted.ensureDeferred
async def test_a_server_without_ranges(remote: WebDavRemote, proxy: FaultProxy) -> None:
    """One that answers 200 with everything: the part that was asked for is cut out of it, after a break too."""
    await put(remote, "a", LARGE)
    await put(remote, "empty", b"")
    proxy.inject(Fault(on="GET", drop=("range",), cut_answer=1_500_000))
    proxy.inject(Fault(on="GET", drop=("range",), times=1000))
    for span in (Span(1_000_000, 2_000_000), Span(0, 0), Span(None, 7), Span(2_999_999, None), Span(None, 10**9)):
        offset, length = span.resolve(len(LARGE))
        assert await get(remote, "a", span) == LARGE[offset : offset + length]
    with pytest.raises(ResticdError, match="outside"):
        await remote.open("a", Span(3_000_000, None))
    with pytest.raises(ResticdError, match="outside"):
        await remote.open("empty", Span(0, None))


@pytest_twisted.ensureDeferred
async def test_another_part(remote: WebDavRemote, proxy: FaultProxy) -> None:
    """A part that is not the one that was asked for is never passed on."""
    await put(remote, "a", LARGE)
    for given in ("bytes 0-2/3000000", "bytes 10-12/3000000", "bytes */3000000", ""):
        headers = (("Content-Range", given),) if given else ()
        proxy.inject(Fault(on="GET", status=206, body=b"123", headers=headers))
        with pytest.raises(StorageError):
            await remote.open("a", Span(5, 7))


@pytest_twisted.ensureDeferred
async def test_download_breaks_for_good(remote: WebDavRemote, proxy: FaultProxy) -> None:
    """A download that cannot be finished is a fault, after what was tried."""
    await put(remote, "a", LARGE)
    proxy.inject(Fault(on="GET", cut_answer=1000, times=1000))
    sink = Sink()
    with pytest.raises(StorageError):
        await (await remote.open("a")).deliver(sink)
    assert bytes(sink.data) == LARGE[: TRIES * 1000]
    assert sink.producer is None


@pytest_twisted.ensureDeferred
async def test_object_changes_in_a_break(remote: WebDavRemote, proxy: FaultProxy) -> None:
    """Two objects are never glued together."""
    await put(remote, "a", LARGE)
    proxy.inject(Fault(on="GET", cut_answer=1_000_000))
    body = await remote.open("a")
    await put(remote, "a", LARGE[::-1], overwrite=True)
    with pytest.raises(StorageError):
        await body.deliver(Sink())


# Lists.


@pytest.fixture
def filled(remote: WebDavRemote) -> set[str]:
    """Objects in four folders."""
    names = {f"data/{number % 4:02x}/{number:064d}" for number in range(24)}
    pytest_twisted.blockon(gatherResults([Deferred.fromCoroutine(put(remote, name, b"x")) for name in names]))
    return names


def once(pattern: bytes, replacement: bytes = b"") -> Callable[[bytes], bytes]:
    return lambda body: re.sub(pattern, replacement, body, count=1, flags=re.DOTALL)


#: the second response of a multistatus, the first one being about the collection
MEMBER = rb"(</D:response>\n<D:response[^>]*>\n<D:href>[^<]*</D:href>\n).*?</D:response>"

BROKEN = {
    "cut": Fault(cut_answer=700),
    "middle": Fault(edit=lambda body: body[: len(body) // 3] + body[len(body) // 2 :]),
    "empty": Fault(edit=lambda _: b""),
    "nothing": Fault(edit=lambda _: NOTHING),
    "itself": Fault(edit=once(rb"<D:response.*?</D:response>")),
    "no end": Fault(edit=once(rb"</D:multistatus>")),
    "size": Fault(edit=once(rb"<lp1:getcontentlength>.*?</lp1:getcontentlength>")),
    "refused member": Fault(edit=once(MEMBER, rb"\1<D:status>HTTP/1.1 403 Forbidden</D:status></D:response>")),
    "no href": Fault(edit=once(rb"(</D:response>\n<D:response[^>]*>\n)<D:href>.*?</D:href>", rb"\1")),
    "elsewhere": Fault(edit=lambda body: body.replace(b"/basic/", b"/inner/")),
    "too many": Fault(edit=once(rb"<D:propstat>.*?</D:propstat>", b"<D:status>HTTP/1.1 507 x</D:status>")),
    "entities": Fault(edit=lambda body: body.replace(b"?>", b'?><!DOCTYPE x [<!ENTITY a "b">]>', 1)),
    "403": Fault(status=403),
    "404": Fault(status=404),
    "500": Fault(status=500),
    "200": Fault(status=200, body=b"<html></html>"),
    "silent": Fault(hold=True),
}


@pytest.mark.parametrize("fault", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("target", ["/data/", "/data/02/"])
@pytest_twisted.ensureDeferred
async def test_a_list_that_is_not_whole(
    make: Make, proxy: FaultProxy, filled: set[str], fault: Fault, target: str, request: pytest.FixtureRequest
) -> None:
    """A folder whose list is broken: an error, never a shorter list."""
    if target == "/data/" and request.node.callspec.id.endswith(("size", "refused member")):
        target = "/data/02/"  # folders have no size
    remote = make(timeout=2, tries=1)
    proxy.inject(_for(fault, f"/repo{target}", 1000))
    with pytest.raises(StorageError):
        await everything(remote, "data/")
    proxy.clear()
    proxy.release()
    assert set(await everything(remote, "data/")) == filled


def _for(fault: Fault, target: str, times: int) -> Fault:
    """The same fault for some lists."""
    return Fault(
        on="PROPFIND",
        target=target,
        times=times,
        status=fault.status,
        body=fault.body,
        cut_answer=fault.cut_answer,
        edit=fault.edit,
        hold=fault.hold,
    )


@pytest_twisted.ensureDeferred
async def test_a_list_is_asked_for_again(remote: WebDavRemote, proxy: FaultProxy, filled: set[str]) -> None:
    """A fault that passes is not seen."""
    for name in ("middle", "cut", "500"):
        proxy.inject(_for(BROKEN[name], "/data/01/", 1))
        proxy.inject(_for(BROKEN[name], "/data/03/", 1))
        assert set(await everything(remote)) == filled | {"first"}


@pytest_twisted.ensureDeferred
async def test_members_that_come_and_go(remote: WebDavRemote, proxy: FaultProxy, filled: set[str]) -> None:
    """What the server says is gone meanwhile is left out."""
    gone = once(MEMBER, rb"\1<D:status>HTTP/1.1 404 Not Found</D:status></D:response>")
    proxy.inject(_for(Fault(edit=gone), "/data/02/", 1))
    assert len(await everything(remote, "data/02/")) == 5


@pytest_twisted.ensureDeferred
async def test_other_ways_to_write_a_path(remote: WebDavRemote, proxy: FaultProxy, filled: set[str]) -> None:
    """Whole URLs, other escapes, no slash behind a folder: it is the same path."""

    def edit(body: bytes) -> bytes:
        body = body.replace(b"<D:href>/basic/", b"<D:href>HTTP://dav.example.com:8080//%62asic/")
        return re.sub(rb"/</D:href>", b"</D:href>", body)

    proxy.inject(Fault(on="PROPFIND", edit=edit, times=1000))
    assert set(await everything(remote, "data/")) == filled


# Deleting and tidying.


@pytest_twisted.ensureDeferred
async def test_directories_are_not_deleted(remote: WebDavRemote, rclone_dav: DavServer) -> None:
    """A folder in the place of an object stays, with all that it holds, on a server that heeds no Depth too."""
    deaf = make_webdav(rclone_dav.options(), f"{uuid4()}", reactor, ClientSettings(low_level_retries=1))
    for each in (remote, deaf):
        await put(each, "config/file", b"x")
        with pytest.raises(StorageError, match="is a directory"):
            await each.delete("config")
        assert await get(each, "config/file") == b"x"
    await deaf.stop()


@pytest_twisted.ensureDeferred
async def test_tidying_loses_nothing(remote: WebDavRemote, proxy: FaultProxy) -> None:
    """A folder that was empty when it was looked at, and is not any more when it is removed, is put back."""
    await put(remote, "a/b/late", b"x")
    proxy.inject(Fault(on="PROPFIND", target="/a/b/", times=2, edit=once(MEMBER, b"</D:response>")))
    await remote.tidy("a/")
    assert [method for method, _ in proxy.seen].count("DELETE") == 0
    assert [method for method, target in proxy.seen if "/a/" in target].count("MOVE") >= 2
    assert await get(remote, "a/b/late") == b"x"
    assert await keys(remote) == {"a/b/late"}


@pytest_twisted.ensureDeferred
async def test_tidying_removes_what_is_empty(remote: WebDavRemote, apache: DavServer, place: str) -> None:
    """Empty folders go, all others and the place itself stay."""
    for prefix in ("a/b/c/", "a/d/", "e/"):
        await remote.make(prefix)
    await put(remote, "a/d/x", b"x")
    await remote.tidy("")
    folders = {
        str(path.relative_to(apache.folder / place)) for path in (apache.folder / place).rglob("*") if path.is_dir()
    }
    assert {name for name in folders if ".DAV" not in name} == {"a", "a/d"}


# Leftovers.


def leftover(apache: DavServer, place: str, age: float) -> str:
    name = f".resticd-{uuid4().hex}.tmp"
    path = apache.folder / place / "data/02" / name
    path.write_bytes(b"half")
    path.chmod(0o666)
    os.utime(path, (time.time() - age, time.time() - age))
    return name


@pytest_twisted.ensureDeferred
async def test_leftovers_of_dead_writers(
    make: Make, remote: WebDavRemote, filled: set[str], apache: DavServer, place: str
) -> None:
    """Those of a month ago are removed at the start and by lists, young ones are not; none is ever listed."""
    old, young = leftover(apache, place, MONTH), leftover(apache, place, 60)
    assert set(await everything(remote, "data/")) == filled
    await until(lambda: old not in files(apache, place), 30)
    old = leftover(apache, place, MONTH)
    starting = make()
    await starting.start()
    await until(lambda: old not in files(apache, place), 30)
    assert young in files(apache, place)
    assert len(files(apache, place)) == len(filled) + 1


@pytest_twisted.ensureDeferred
async def test_our_own_uploads_are_no_leftovers(
    remote: WebDavRemote, apache: DavServer, place: str, proxy: FaultProxy
) -> None:
    """An upload that takes long is not swept away by the daemon that runs it."""
    upload = await remote.begin("a", len(LARGE), sha256(LARGE))
    await Source(upload, LARGE[:2_000_000]).start()

    def age(body: bytes) -> bytes:
        return re.sub(rb"(getlastmodified>)[^<]*", rb"\g<1>Tue, 01 Jan 2019 00:00:00 GMT", body)

    proxy.inject(Fault(on="PROPFIND", edit=age, times=1000))
    assert await keys(remote) == set()
    proxy.clear()
    await Source(upload, LARGE[2_000_000:]).start()
    await upload.commit()
    assert await get(remote, "a") == LARGE
