"""The local directory: the suite of all remotes, and what is this one's own."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import pytest_twisted
from conformance import CHUNK, Conformance, Sink, Source, everything, get, put, sha256
from support.waiting import until
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from resticd.errors import AlreadyExists, ConfigurationError, NotFound, OutOfSpace, StorageError, TooLarge
from resticd.interfaces import IBlockingSink, IFileBody
from resticd.remotes import local_rename
from resticd.remotes.local import LocalRemote
from resticd.remotes.local_place import Place
from resticd.remotes.local_upload import RunningUploads, TemporaryFile
from resticd.workers import Workers


@pytest.fixture
def workers():
    made = Workers(reactor, 4)
    made.start()
    yield made
    made.stop()


@pytest_twisted.async_yield_fixture
async def remote(tmp_path: Path, workers: Workers):
    made = LocalRemote(tmp_path / "store", workers)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def warnings():
    """The warnings that are logged, as they come."""
    texts: list[str] = []

    def observe(event: dict) -> None:
        if event["log_level"] == LogLevel.warn:
            texts.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield texts
    globalLogPublisher.removeObserver(observe)


def link(fd: int) -> Path:
    """What is open there."""
    return Path(f"/proc/self/fd/{fd}").readlink()


def temporary(store: Path) -> list[Path]:
    return list(store.rglob(".resticd-*"))


class TestLocal(Conformance):
    @pytest.fixture
    def remote(self, remote: LocalRemote) -> LocalRemote:
        return remote

    async def fill(self, remote: LocalRemote, keys: list[str]) -> None:
        """As another program would write them."""
        for key in keys:
            path = remote._root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")

    @pytest.fixture(autouse=True)
    def nothing_leaks(self, remote: LocalRemote, store: Path):
        """Whatever a test of the suite does, no temporary file and no open file stays."""
        before = open_files(store)
        yield
        for clean in (lambda: not temporary(store), lambda: open_files(store) <= before):
            pytest_twisted.blockon(Deferred.fromCoroutine(until(clean)))


def open_files(store: Path) -> int:
    """How many files below ``store`` this process has open."""
    links = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return sum(link.startswith(str(store)) for link in links)


@pytest_twisted.ensureDeferred
async def test_direct_interfaces(remote: LocalRemote) -> None:
    """The direct paths are offered."""
    upload = await remote.begin("a", 1, None)
    assert IBlockingSink.providedBy(upload)
    upload.consume([memoryview(b"x")])
    await upload.commit()
    body = await remote.open("a")
    assert IFileBody.providedBy(body)
    assert os.pread(body.fileno(), 10, 0) == b"x"
    body.close()


@pytest_twisted.ensureDeferred
async def test_permissions(remote: LocalRemote, store: Path) -> None:
    await put(remote, "a/b/c", b"x")
    assert (store / "a/b/c").stat().st_mode & 0o777 == 0o600
    for directory in (store, store / "a", store / "a/b"):
        assert directory.stat().st_mode & 0o777 == 0o700


@pytest_twisted.ensureDeferred
async def test_order_of_storing(remote: LocalRemote, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced, then published, then its directory is synced, and only then it is called stored."""
    await put(remote, "keys/a", b"x")
    steps = []
    fsync, publish = os.fsync, Place.publish

    def recorded_fsync(fd: int) -> None:
        steps.append("directory" if link(fd).is_dir() else "file")
        fsync(fd)

    def recorded_publish(*arguments: object) -> None:
        steps.append("publish")
        publish(*arguments)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Place, "publish", recorded_publish)
    await put(remote, "keys/b", b"x")
    assert steps == ["file", "publish", "directory"]


@pytest_twisted.ensureDeferred
async def test_new_directories_are_durable(remote: LocalRemote, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    fsync = os.fsync

    def recorded(fd: int) -> None:
        synced.append(link(fd))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", recorded)
    await put(remote, "a/data/00/x", b"x")
    assert {store, store / "a", store / "a/data"} <= set(synced)


FAULTS = [
    (errno.ENOSPC, OutOfSpace),
    (errno.EDQUOT, OutOfSpace),
    (errno.EFBIG, TooLarge),
    (errno.EIO, StorageError),
    (errno.EROFS, StorageError),
    (errno.ESTALE, StorageError),
]


@pytest.mark.parametrize(("code", "kind"), FAULTS)
@pytest.mark.parametrize("call", ["writev", "fsync"])
@pytest_twisted.ensureDeferred
async def test_faults_of_an_upload(remote, store, monkeypatch, call: str, code: int, kind: type) -> None:
    """Each is what it is, and leaves nothing."""

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(kind):
        await put(remote, "a", os.urandom(5_000_000))
    assert not temporary(store)
    assert not (store / "a").exists()


@pytest_twisted.ensureDeferred
async def test_an_upload_without_space_stops_its_producer(remote: LocalRemote, monkeypatch) -> None:
    """The client is not made to send the rest of a body that cannot be stored."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "writev", fail)
    data = bytes(50 * 1024 * 1024)
    upload = await remote.begin("a", len(data), None)
    source = Source(upload, data)
    await source.start()
    assert source.stopped
    assert source.written < len(data)
    with pytest.raises(OutOfSpace):
        await upload.commit()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ELOOP])
@pytest_twisted.ensureDeferred
async def test_unreadable_is_not_missing(remote: LocalRemote, store: Path, monkeypatch, code: int) -> None:
    await put(remote, "keys/a", b"x")

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", fail)
    monkeypatch.setattr(Path, "stat", fail)
    for attempt in (remote.open("keys/a"), remote.stat("keys/a"), remote.begin("keys/b", 1, None)):
        with pytest.raises(StorageError) as caught:
            await attempt
        assert not isinstance(caught.value, NotFound)
    with pytest.raises(StorageError):
        await everything(remote, "keys/")


@pytest_twisted.ensureDeferred
async def test_an_error_in_the_middle_of_a_list(remote: LocalRemote, monkeypatch) -> None:
    """A directory that cannot be read fails the list; one that vanishes does not."""
    for number in range(20):
        await put(remote, f"data/{number:02x}/x", b"x")
    opened = os.open

    def fail(path: object, *rest: object, **more: object) -> int:
        if str(path).endswith("/0a"):
            raise OSError(errno.EIO, "broken")
        return opened(path, *rest, **more)

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(StorageError):
        await everything(remote, "data/")

    def vanish(path: object, *rest: object, **more: object) -> int:
        if str(path).endswith("/0a"):
            raise FileNotFoundError
        return opened(path, *rest, **more)

    monkeypatch.setattr(os, "open", vanish)
    assert len(await everything(remote, "data/")) == 19


@pytest_twisted.ensureDeferred
async def test_a_root_that_is_gone_is_not_empty(remote: LocalRemote, store: Path) -> None:
    """As when the disk is unmounted: everything is a passing fault."""
    store.rename(store.with_name("away"))
    for attempt in (
        remote.open("a"),
        remote.stat("a"),
        remote.begin("a/b", 1, None),
        remote.delete("a"),
        remote.make("b/"),
    ):
        with pytest.raises(StorageError) as caught:
            await attempt
        assert not isinstance(caught.value, NotFound)
    with pytest.raises(StorageError):
        await everything(remote)
    assert not store.exists()


@pytest_twisted.ensureDeferred
async def test_a_directory_in_a_files_place_is_a_fault(remote: LocalRemote, store: Path) -> None:
    (store / "keys/a").mkdir(parents=True)
    os.mkfifo(store / "keys/pipe")
    for name in ("a", "pipe"):
        for attempt in (remote.open(f"keys/{name}"), remote.stat(f"keys/{name}")):
            with pytest.raises(StorageError):
                await attempt
    assert await everything(remote, "keys/") == {}


@pytest_twisted.ensureDeferred
async def test_a_root_that_cannot_be(tmp_path: Path, workers: Workers) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError):
        await LocalRemote(tmp_path / "file", workers).start()


@pytest_twisted.ensureDeferred
async def test_links(remote: LocalRemote, store: Path, tmp_path: Path) -> None:
    """data/ may be a link to another disk, and a link that leads back to where it came from ends somewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (store / "data").symlink_to(elsewhere)
    await put(remote, "data/00/x", b"x")
    assert (elsewhere / "00/x").read_bytes() == b"x"
    assert set(await everything(remote)) == {"data/00/x"}
    (elsewhere / "loop").symlink_to(elsewhere)
    assert "data/00/x" in await everything(remote)


@pytest.mark.parametrize("lacking", ["renameat2", "renameat2 and links"])
@pytest_twisted.ensureDeferred
async def test_other_file_systems(remote: LocalRemote, store: Path, monkeypatch, lacking: str) -> None:
    """Without renameat2, and without hard links too, nothing is replaced either."""
    monkeypatch.setattr(local_rename, "_libc_renameat2", None)
    if "links" in lacking:

        def no_links(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(os, "link", no_links)
    datas = [os.urandom(1000) for _ in range(8)]
    uploads = [await remote.begin("a", 1000, sha256(data)) for data in datas]
    for upload, data in zip(uploads, datas, strict=True):
        await Source(upload, data).start()
    results = [upload.commit() for upload in uploads]
    stored = 0
    for result in results:
        try:
            await result
            stored += 1
        except AlreadyExists:
            pass
    assert stored == 1
    assert await get(remote, "a") in datas
    assert not temporary(store)


@pytest_twisted.ensureDeferred
async def test_a_file_system_that_cannot_sync_directories(remote: LocalRemote, warnings, monkeypatch) -> None:
    """The file is stored all the same; the warning comes once."""
    fsync = os.fsync

    def only_files(fd: int) -> None:
        if link(fd).is_dir():
            raise OSError(errno.EINVAL, "not here")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", only_files)
    await put(remote, "a", b"x")
    await put(remote, "b", b"x")
    assert len(warnings) == 1
    assert set(await everything(remote)) == {"a", "b"}


@pytest_twisted.ensureDeferred
async def test_a_file_that_becomes_shorter(remote: LocalRemote, store: Path) -> None:
    """A download that ends early fails."""
    await put(remote, "a", os.urandom(5_000_000))
    body = await remote.open("a")
    os.truncate(store / "a", 1_000_000)
    with pytest.raises(StorageError):
        await body.deliver(Sink())


WRITER = """
import sys, time
from pathlib import Path
from resticd.remotes.local_place import Place
from resticd.remotes.local_upload import RunningUploads, TemporaryFile
file = TemporaryFile(Place(Path(sys.argv[1])), RunningUploads(), "data/00/x", 100, None, overwrite=False)
file.write([b"x"])
print("ready", flush=True)
time.sleep(600)
"""


@pytest_twisted.ensureDeferred
async def test_leftovers_of_dead_writers(tmp_path: Path, workers: Workers) -> None:
    """What a killed writer left goes at the next start; what a living one writes stays, unless it is a day old."""
    store = tmp_path / "store"
    store.mkdir()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, store], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        assert len(temporary(store)) == 2
        writers[0].kill()
        writers[0].wait()
        remote = LocalRemote(store, workers)
        await remote.start()
        await until(lambda: len(temporary(store)) == 1)
        assert await everything(remote) == {}
        await put(remote, "data/00/x", b"a retry")
        await remote.stop()
        (left,) = temporary(store)
        os.utime(left, (time.time() - 90_000,) * 2)
        remote = LocalRemote(store, workers)
        await remote.start()
        await until(lambda: not temporary(store))
        await remote.stop()
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()


@pytest_twisted.ensureDeferred
async def test_a_thousand_refused_uploads(remote: LocalRemote, store: Path) -> None:
    """The number of open files and the directory are what they were."""
    await put(remote, "keys/a", b"x")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(1000):
        with pytest.raises(AlreadyExists):
            await put(remote, "keys/a", b"y")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert [path.name for path in (store / "keys").iterdir()] == ["a"]


@pytest_twisted.ensureDeferred
async def test_no_call_after_an_abort_touches_the_descriptor(tmp_path: Path) -> None:
    """Its number may belong to another file by then."""
    file = TemporaryFile(Place(tmp_path), RunningUploads(), "a", 10, None, overwrite=False)
    file.abort()
    stranger = os.open(tmp_path / "stranger", os.O_RDWR | os.O_CREAT)
    try:
        for call in (lambda: file.write([b"x"]), file.commit):
            with pytest.raises(StorageError):
                call()
        file.abort()
        assert os.fstat(stranger).st_size == 0
    finally:
        os.close(stranger)


@pytest_twisted.ensureDeferred
async def test_the_reactor_never_waits_for_the_disk(remote: LocalRemote, monkeypatch) -> None:
    """Calls that may be slow run in workers."""
    here = threading.get_ident()
    calls = []
    for name in ("open", "writev", "fsync", "pread", "listdir", "rename", "mkdir"):
        real = getattr(os, name)

        def watched(*arguments: object, _real=real, _name=name, **more: object) -> object:
            if threading.get_ident() == here:
                calls.append(_name)
            return _real(*arguments, **more)

        monkeypatch.setattr(os, name, watched)
    await put(remote, "a/b", os.urandom(3 * CHUNK))
    await get(remote, "a/b")
    await everything(remote)
    await remote.stat("a/b")
    await remote.delete("a/b")
    await remote.make("c/")
    await remote.tidy("c/")
    assert calls == []


@pytest_twisted.ensureDeferred
async def test_usage(remote: LocalRemote) -> None:
    usage = await remote.usage()
    assert usage.total > 0
    assert 0 <= usage.free <= usage.total


@pytest_twisted.ensureDeferred
async def test_tidy_keeps_what_is_not_empty(remote: LocalRemote, store: Path) -> None:
    await put(remote, "r/data/00/x", b"x")
    (store / "r/keys").mkdir()
    (store / "r/note").write_text("mine")
    await remote.tidy("r/")
    assert not (store / "r/keys").exists()
    assert (store / "r/note").read_text() == "mine"
    await remote.delete("r/data/00/x")
    (store / "r/note").unlink()
    await remote.tidy("r/")
    assert not (store / "r").exists()
    assert store.exists()
