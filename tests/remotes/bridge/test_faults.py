"""Storage that fails behind rclone, and an rclone that goes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_twisted
from conformance import Sink, Source, everything, get, put
from support.bridged import union
from support.dav_servers import DavServer
from support.descendants import is_alive
from support.fault_proxy import Fault, FaultProxy
from support.waiting import until
from twisted.internet.defer import Deferred

from resticd.config.obscure import obscure
from resticd.errors import AlreadyExists, NotFound, StorageError
from resticd.remotes.bridge import BridgeRemote
from resticd.streams import Span
from resticd.transport.bodies import BytesBody

pytestmark = pytest.mark.xdist_group("bridge-faults")

DATA = os.urandom(6_000_000)
LATE = 2 * 24 * 3600


@pytest.fixture
def proxy(apache: DavServer) -> Iterator[FaultProxy]:
    with FaultProxy(apache.port) as proxy:
        yield proxy


@pytest_twisted.async_yield_fixture
async def remote(apache: DavServer, proxy: FaultProxy, make_bridge, tmp_path: Path) -> Any:
    """A bridge whose rclone talks WebDAV with Apache through the proxy, in a directory of its own."""
    (config := tmp_path / "rclone.conf").write_text(
        f"[dav]\ntype = webdav\nurl = {proxy.url}{apache.path}\nvendor = other\npacer_min_sleep = 1ms\n"
        f"user = {apache.user}\npass = {obscure(apache.password)}\n"
    )
    remote = make_bridge(f"dav:{uuid4()}", config, "webdav")
    await remote.start()
    await remote.make("")
    yield remote
    proxy.clear()
    await remote.stop()


@pytest_twisted.async_yield_fixture
async def directories(make_bridge, tmp_path: Path) -> Any:
    """A bridge to two directories, and these."""
    with union(tmp_path) as storage:
        remote = make_bridge("there:", storage.file, "union")
        await remote.start()
        yield remote, storage.folders
        await remote.stop()


FAULTS = {
    "500": {"status": 500},
    "403": {"status": 403},
    "503": {"status": 503},
    "cut at once": {"cut_answer": 0},
    "cut": {"cut_answer": 100},
    "short": {"edit": lambda body: body[: len(body) // 2]},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", ["data/", "data/00"])
@pytest_twisted.ensureDeferred
async def test_a_list_is_complete_or_an_error(remote: BridgeRemote, proxy: FaultProxy, fault: str, where: str) -> None:
    """Whatever happens, at the top or further down: never short, never empty, never NotFound."""
    keys = {f"data/{number:02x}/{number}" for number in range(3)}
    for key in keys:
        await put(remote, key, b"x")
    proxy.inject(Fault(on="PROPFIND", target=where, times=1000, **FAULTS[fault]))
    with pytest.raises(StorageError):
        await everything(remote, "data/")
    proxy.clear()
    assert set(await everything(remote, "data/")) == keys


@pytest.mark.parametrize("fault", FAULTS)
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_looked_at_is_not_missing(remote: BridgeRemote, proxy: FaultProxy, fault: str) -> None:
    """stat and open; and no upload replaces what cannot be looked at."""
    await put(remote, "config", b"first")
    proxy.inject(Fault(on="PROPFIND", target="config", times=1000, **FAULTS[fault]))
    with pytest.raises(StorageError):
        await remote.stat("config")
    with pytest.raises(StorageError):
        await remote.open("config")
    with pytest.raises(StorageError):
        await put(remote, "config", b"other")
    proxy.clear()
    assert await get(remote, "config") == b"first"


@pytest.mark.parametrize("status", [403, 404, 500])
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_read_is_not_missing(remote: BridgeRemote, proxy: FaultProxy, status: int) -> None:
    """rclone itself answers 404 for a file that it cannot open."""
    await put(remote, "config", b"first")
    for span in (None, Span(1, 2)):
        proxy.inject(Fault(on="GET", target="config", times=1000, status=status))
        with pytest.raises(StorageError):
            await get(remote, "config", span)
        proxy.clear()
    assert await get(remote, "config", Span(1, 2)) == b"ir"


@pytest_twisted.ensureDeferred
async def test_a_download_that_breaks_is_taken_up_again(remote: BridgeRemote, proxy: FaultProxy) -> None:
    await put(remote, "data/00/x", DATA)
    proxy.inject(Fault(on="GET", target="x", times=2, cut_answer=2_000_000))
    assert await get(remote, "data/00/x") == DATA
    proxy.inject(Fault(on="GET", target="x", times=2, cut_answer=1_000_000))
    assert await get(remote, "data/00/x", Span(1000, None)) == DATA[1000:]


@pytest.mark.parametrize("size", [0, 1000, len(DATA)])
@pytest_twisted.ensureDeferred
async def test_an_upload_that_is_refused(remote: BridgeRemote, proxy: FaultProxy, size: int) -> None:
    """The error is a passing one, nothing is stored, and the client's next attempt succeeds."""
    proxy.inject(Fault(on="PUT", times=1000, status=500))
    with pytest.raises(StorageError):
        await put(remote, "data/00/x", DATA[:size])
    proxy.clear()
    with pytest.raises(NotFound):
        await remote.stat("data/00/x")
    await put(remote, "data/00/x", DATA[:size])
    assert await get(remote, "data/00/x") == DATA[:size]


@pytest_twisted.ensureDeferred
async def test_an_upload_that_is_stored_otherwise(remote: BridgeRemote, proxy: FaultProxy) -> None:
    """What is shorter than what was sent is no success, and does not stay."""

    def shorten(body: bytes) -> bytes:
        return body.replace(b">6000000<", b">5999999<")

    proxy.inject(Fault(on="PROPFIND", target=".tmp", times=1000, edit=shorten))
    with pytest.raises(StorageError):
        await put(remote, "data/00/x", DATA)
    proxy.clear()
    assert await everything(remote) == {}
    assert "DELETE" in {method for method, _ in proxy.seen}


@pytest.mark.parametrize("fault", [{"cut_answer": 0}, {"status": 502}])
@pytest_twisted.ensureDeferred
async def test_a_rename_of_which_nothing_is_heard(remote: BridgeRemote, proxy: FaultProxy, fault: Any) -> None:
    """The file is there whole or not at all, whatever the client is told; its next attempt decides nothing anew."""
    proxy.inject(Fault(on="MOVE", times=1000, **fault))
    with pytest.raises(StorageError):
        await put(remote, "data/00/x", DATA)
    proxy.clear()
    with suppress(AlreadyExists):
        await put(remote, "data/00/x", DATA)
    assert await get(remote, "data/00/x") == DATA
    assert set(await everything(remote)) == {"data/00/x"}


@pytest_twisted.ensureDeferred
async def test_one_of_many_uploads(directories: Any) -> None:
    """Of uploads of one name at once exactly one is stored, whole: rclone has no condition, but this process has."""
    remote, _ = directories
    datas = [os.urandom(50_000) for _ in range(8)]
    uploads = [await remote.begin("a", len(data), None) for data in datas]
    for upload, data in zip(uploads, datas, strict=True):
        await Source(upload, data).start()
    stored = []
    for number, committed in enumerate([upload.commit() for upload in uploads]):
        try:
            await committed
            stored.append(number)
        except AlreadyExists:
            pass
    assert len(stored) == 1
    assert await get(remote, "a") == datas[stored[0]]


@pytest_twisted.ensureDeferred
async def test_directories(directories: Any) -> None:
    """One level, empty ones too, and nothing below what is not there."""
    remote, _ = directories
    await put(remote, "a/data/00/x", b"x")
    await put(remote, "config", b"x")
    await remote.make("b/")

    async def names(prefix: str) -> set[str]:
        return {name async for page in remote.directories(prefix) for name in page}

    assert await names("") == {"a", "b"}
    assert await names("a/") == {"data"}
    assert await names("nowhere/") == set()


@pytest_twisted.ensureDeferred
async def test_leftovers(directories: Any) -> None:
    """Temporary files are never listed; those of dead writers go, those of others stay."""
    remote, folders = directories
    await put(remote, "data/00/x", b"x")
    api = (await remote.rclone.ready()).api
    old, young, foreign = (f"data/00/.resticd-{digit * 24}.tmp" for digit in ("0", "1", "x"))
    for key in (old, young, foreign):
        await api.post(key, BytesBody(b"left"))

    def there(key: str) -> list[Path]:
        return [folder / key for folder in folders if (folder / key).exists()]

    for path in there(old):
        os.utime(path, (time.time() - LATE, time.time() - LATE))
    assert set(await everything(remote)) == {"data/00/x", foreign}
    await until(lambda: not there(old), 60)
    assert there(young)
    assert await get(remote, "data/00/x") == b"x"


@pytest_twisted.ensureDeferred
async def test_an_aborted_upload_leaves_nothing(directories: Any) -> None:
    remote, folders = directories
    upload = await remote.begin("data/00/x", len(DATA), None)
    await Source(upload, DATA[:5_000_000]).start()
    await until(lambda: any(list(folder.rglob(".resticd-*")) for folder in folders), 60)
    await upload.abort()
    await until(lambda: not any(list(folder.rglob(".resticd-*")) for folder in folders), 60)


class TestRcloneGoes:
    """The process is killed, which is more than it does by itself."""

    def kill(self, remote: BridgeRemote) -> int:
        pid = remote.rclone.pid
        os.kill(pid, signal.SIGKILL)
        return pid

    @pytest_twisted.ensureDeferred
    async def test_between_two_calls(self, directories: Any) -> None:
        """The next call has another one."""
        remote, _ = directories
        await put(remote, "a", b"x")
        for _ in range(3):
            killed = self.kill(remote)
            assert (await remote.stat("a")).size == 1
            assert remote.rclone.pid != killed
            assert not is_alive(killed)

    @pytest_twisted.ensureDeferred
    async def test_during_an_upload(self, directories: Any) -> None:
        """It fails with an error that passes; nothing can be seen of it, and the next one succeeds."""
        remote, _ = directories
        upload = await remote.begin("a", len(DATA), None)
        await Source(upload, DATA[:3_000_000]).start()
        self.kill(remote)
        await Source(upload, DATA[3_000_000:]).start()
        with pytest.raises(StorageError):
            await upload.commit()
        assert await everything(remote) == {}
        await put(remote, "a", DATA)
        assert await get(remote, "a") == DATA

    @pytest_twisted.ensureDeferred
    async def test_during_a_commit(self, directories: Any) -> None:
        """The file is there whole or not at all, and what the commit says is true."""
        remote, _ = directories
        for number in range(4):
            upload = await remote.begin(f"{number}", len(DATA), None)
            await Source(upload, DATA).start()
            committing = upload.commit()
            if number:
                await until(lambda: True)
            self.kill(remote)
            try:
                await committing
            except StorageError:
                await upload.abort()
                try:
                    assert await get(remote, f"{number}") == DATA
                except NotFound:
                    await put(remote, f"{number}", DATA)
            assert await get(remote, f"{number}") == DATA

    @pytest_twisted.ensureDeferred
    async def test_during_a_download(self, directories: Any) -> None:
        """It goes on where it was."""
        remote, _ = directories
        data = os.urandom(20_000_000)
        await put(remote, "a", data)
        sink = Sink(pause_at=100_000)
        delivered = (await remote.open("a")).deliver(sink)
        await until(lambda: len(sink.data) >= 100_000)
        self.kill(remote)
        sink.resume()
        await delivered
        assert bytes(sink.data) == data

    @pytest_twisted.ensureDeferred
    async def test_many_ask_at_once(self, directories: Any) -> None:
        """They share one new process."""
        remote, _ = directories
        await put(remote, "a", b"x")
        self.kill(remote)
        await until(lambda: remote.rclone.pid is None)
        asking = [remote.stat("a") for _ in range(20)]
        pids = set()
        for each in asking:
            assert (await each).size == 1
            pids.add(remote.rclone.pid)
        assert len(pids) == 1

    @pytest_twisted.ensureDeferred
    async def test_who_asks_may_go(self, directories: Any) -> None:
        """A call that is cancelled while rclone starts leaves it to the others."""
        remote, _ = directories
        first, second = remote.stat("a"), remote.stat("a")
        first.addErrback(lambda _: None)
        first.cancel()
        with pytest.raises(NotFound):
            await second

    @pytest_twisted.ensureDeferred
    async def test_stopping_while_it_starts(self, make_bridge, tmp_path: Path) -> None:
        remote = make_bridge(str(tmp_path))
        await remote.start()
        asking: Deferred[Any] = remote.stat("a")
        await remote.stop()
        with pytest.raises(StorageError):
            await asking
        with pytest.raises(StorageError):
            await remote.stat("a")
        assert remote.rclone.pid is None

    @pytest_twisted.ensureDeferred
    async def test_one_that_fails_again_and_again(self, make_bridge) -> None:
        """It is not started all the time: who asks meanwhile is told why, and when to come back."""
        remote = make_bridge(":sftp,host=127.0.0.1,port=1,user=x,key_file=/nonexistent:", type="sftp")
        await remote.start()
        errors = []
        for _ in range(4):
            with pytest.raises(StorageError) as caught:
                await remote.rclone.ready()
            errors.append(caught.value)
        assert all("no such file" in str(error) for error in errors)
        assert errors[-1].retry_after >= 1
        await remote.stop()
