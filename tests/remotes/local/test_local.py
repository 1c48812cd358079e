"""The local directory: the suite of all remotes, and what is this one's own."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from conformance import CHUNK, Conformance, DirectWays, Source, everything, get, put, sha256
from support.disk import open_files, temporary
from support.waiting import until
from twisted.internet.defer import Deferred, gatherResults

from resticd.errors import AlreadyExists, ConfigurationError, StorageError
from resticd.interfaces import IBlockingSink, IFileBody, Piece
from resticd.remotes import local_prompt
from resticd.remotes.local import TECHNIQUES, LocalRemote
from resticd.remotes.local_place import Place
from resticd.remotes.local_upload import RunningUploads, TemporaryFile
from resticd.streams import Span
from resticd.workers import Workers

#: linux/magic.h
NFS, EXT4 = 0x6969, 0xEF53


class TestLocal(Conformance, DirectWays):
    """The suite; whatever its tests do, no temporary file and no open file stays."""

    flight = 2 * 1024 * 1024

    @pytest.fixture
    def remote(self, local: LocalRemote, store: Path) -> Iterator[LocalRemote]:
        yield local
        for clean in (lambda: not temporary(store), lambda: not open_files(store)):
            pytest_twisted.blockon(Deferred.fromCoroutine(until(clean)))

    @pytest.fixture(autouse=True)
    def _place(self, store: Path) -> None:
        self.store = store

    async def fill(self, remote: LocalRemote, keys: list[str]) -> None:
        """As another program would write them."""
        for key in keys:
            path = self.store / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")


class TestLocalPlain(TestLocal):
    """The suite without what is done for speed alone, which many of its tests would not come past."""

    @pytest.fixture
    def without(self) -> tuple[str, ...]:
        return TECHNIQUES


@pytest_twisted.ensureDeferred
async def test_the_ways_around_the_reactor(local: LocalRemote) -> None:
    """They are offered, and the suite has tried them."""
    upload = await local.begin("a", None, None)
    assert IBlockingSink.providedBy(upload)
    await upload.commit()
    body = await local.open("a")
    assert IFileBody.providedBy(body)
    body.close()


@pytest_twisted.ensureDeferred
async def test_permissions(local: LocalRemote, store: Path) -> None:
    """Nobody else can read what is stored."""
    await put(local, "a/b/c", b"x")
    await local.make("d/e/")
    assert (store / "a/b/c").stat().st_mode & 0o777 == 0o600
    for directory in (".", "a", "a/b", "d", "d/e"):
        assert (store / directory).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("network", [False, True])
@pytest_twisted.ensureDeferred
async def test_the_reactor_never_waits_for_the_disk(
    store: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch, network: bool
) -> None:
    """Every system call for files runs in a worker, but for two of a local disk: fstat(2) and close(2) ask nobody."""
    monkeypatch.setattr(local_prompt, "_file_system", lambda _: NFS if network else EXT4)
    local = LocalRemote(store, workers)
    await local.start()
    here = threading.get_ident()
    calls: list[str] = []
    for name in (
        *("open", "close", "stat", "lstat", "fstat", "writev", "fsync", "pread", "listdir", "scandir", "statvfs"),
        *("rename", "replace", "link", "unlink", "mkdir", "rmdir"),
    ):
        real = getattr(os, name)

        def watched(*arguments: object, _real=real, _name=name, **more: object) -> object:
            if threading.get_ident() == here:
                calls.append(_name)
            return _real(*arguments, **more)

        monkeypatch.setattr(os, name, watched)
    await put(local, "a/b", os.urandom(3 * CHUNK))
    await put(local, "a/b", b"x", overwrite=True)
    with pytest.raises(AlreadyExists):
        await put(local, "a/b", b"x")
    await get(local, "a/b")
    (await local.open("a/b")).close()
    await everything(local)
    await local.stat("a/b")
    await local.delete("a/b")
    await local.make("c/")
    await local.tidy("")
    await local.usage()
    late = await local.begin("x", None, None)
    late.write(b"x")
    await late.abort()
    await local.stop()
    assert set(calls) == (set() if network else {"close", "fstat"})


@pytest_twisted.ensureDeferred
async def test_prompt_answers(local: LocalRemote, store: Path) -> None:
    """What lies in memory is told at once, and as the other way would tell it."""
    data = os.urandom(CHUNK)
    await put(local, "data/aa/x", data)
    assert local.prompt_stat("data/aa/x") == await local.stat("data/aa/x")
    assert local.prompt_read("data/aa/x", None, CHUNK) == Piece(CHUNK, 0, data)
    assert local.prompt_read("data/aa/x", Span(10, 19), CHUNK) == Piece(CHUNK, 10, data[10:20])
    assert local.prompt_read("data/aa/x", Span(None, 5), CHUNK) == Piece(CHUNK, CHUNK - 5, data[-5:])
    (store / "empty").touch()
    assert local.prompt_read("empty", None, CHUNK) == Piece(0, 0, b"")


@pytest_twisted.ensureDeferred
async def test_what_is_not_told_promptly(local: LocalRemote, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing, no file, too long, out of range, unreadable, cold or cut short is left to a worker."""
    await put(local, "a/x", b"0123456789")
    os.mkfifo(store / "pipe")
    for key in ("missing", "missing/x", "a", "pipe", "a/x/y"):
        assert local.prompt_stat(key) is None
        assert local.prompt_read(key, None, CHUNK) is None
    assert local.prompt_read("a/x", None, 9) is None
    assert local.prompt_read("a/x", Span(10, None), CHUNK) is None

    def cold(*_: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "not in memory")

    for behaviour in (cold, lambda *_: 5):
        monkeypatch.setattr(os, "preadv", behaviour)
        assert local.prompt_read("a/x", None, CHUNK) is None
    local._prompt.close()
    assert not open_files(store)


@pytest_twisted.ensureDeferred
async def test_network_file_systems_are_not_asked_promptly(
    store: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may wait for a server wherever they like."""
    monkeypatch.setattr(local_prompt, "_file_system", lambda _: NFS)
    local = LocalRemote(store, workers)
    await local.start()
    await put(local, "x", b"x")
    await get(local, "x")
    assert local.prompt_stat("x") is None
    assert local.prompt_read("x", None, CHUNK) is None
    await local.stop()


@pytest_twisted.ensureDeferred
async def test_memory_while_the_disk_stands_still(local: LocalRemote, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source waits for a disk that does not answer, with no more than two buffers full."""
    answers = threading.Event()
    write = os.write

    def slow(fd: int, data: bytes | memoryview) -> int:
        if isinstance(data, memoryview):  # all others write bytes
            answers.wait(20)
        return write(fd, data)

    monkeypatch.setattr(os, "write", slow)
    data = os.urandom(20 * 1024 * 1024)
    upload = await local.begin("a", len(data), sha256(data))
    try:
        source = Source(upload, data)
        sent = source.start()
        await until(lambda: source.paused)
        for _ in range(10):
            with pytest.raises(StorageError):
                await local.stat("")  # the others go on
        assert source.paused
        assert source.written <= 2.5 * 1024 * 1024
    finally:
        answers.set()
    await sent
    await upload.commit()
    assert await get(local, "a") == data


@pytest.mark.parametrize("most", [1, 7, 70_000])
@pytest_twisted.ensureDeferred
async def test_short_writes(local: LocalRemote, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A disk that takes less than it is given gets the rest later."""
    writev = os.writev

    def short(fd: int, views: list[memoryview]) -> int:
        return writev(fd, [b"".join(views)[:most]])

    monkeypatch.setattr(os, "writev", short)
    data = os.urandom(300 * most)
    await put(local, "a", data)
    assert await get(local, "a") == data


@pytest_twisted.ensureDeferred
async def test_a_thousand_refused_uploads(local: LocalRemote, store: Path) -> None:
    """The number of open files and the directory are what they were."""
    await put(local, "keys/a", b"x")
    before = len(list(Path("/proc/self/fd").iterdir()))

    async def refused() -> None:
        with pytest.raises(AlreadyExists):
            await put(local, "keys/a", b"y")

    for _ in range(50):
        await gatherResults([Deferred.fromCoroutine(refused()) for _ in range(20)])
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert [path.name for path in (store / "keys").iterdir()] == ["a"]


def test_no_call_after_an_abort_touches_the_descriptor(tmp_path: Path) -> None:
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
async def test_stop_throws_running_uploads_away(store: Path, workers: Workers) -> None:
    """After the end nothing of them is left, none can begin, and what is stored stays."""
    remote = LocalRemote(store, workers)
    await remote.start()
    await put(remote, "stored", b"x")
    running = await remote.begin("a/b", None, None)
    running.write(b"x")
    beginning = remote.begin("c/d", None, None)
    await remote.stop()
    assert not temporary(store)
    with pytest.raises(StorageError):
        await running.commit()
    try:
        upload = await beginning
    except StorageError:
        pass
    else:
        with pytest.raises(StorageError):
            await upload.commit()
    with pytest.raises(StorageError):
        await remote.begin("e", None, None)
    assert not temporary(store)
    assert [path.name for path in store.rglob("*") if path.is_file()] == ["stored"]


@pytest_twisted.ensureDeferred
async def test_the_root_is_made(tmp_path: Path, workers: Workers) -> None:
    """It and the directory above it, readable by nobody else; a longer way is more likely a mistake."""
    await LocalRemote(tmp_path / "a/b", workers).start()
    await LocalRemote(tmp_path / "a/b", workers).start()
    for path in ("a", "a/b"):
        assert (tmp_path / path).stat().st_mode & 0o777 == 0o700
    with pytest.raises(ConfigurationError, match="c/d/e"):
        await LocalRemote(tmp_path / "c/d/e", workers).start()
    assert not (tmp_path / "c").exists()


@pytest_twisted.ensureDeferred
async def test_a_root_that_cannot_be(tmp_path: Path, workers: Workers) -> None:
    """A file is not a directory to serve."""
    (tmp_path / "file").write_text("")
    for path in ("file", "file/below"):
        with pytest.raises(ConfigurationError):
            await LocalRemote(tmp_path / path, workers).start()


@pytest_twisted.ensureDeferred
async def test_links(local: LocalRemote, store: Path, tmp_path: Path) -> None:
    """data/ may be a link to another disk; tidying keeps the link."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (store / "data").symlink_to(elsewhere)
    await put(local, "data/00/x", b"x")
    assert (elsewhere / "00/x").read_bytes() == b"x"
    assert set(await everything(local)) == {"data/00/x"}
    await local.delete("data/00/x")
    await local.tidy("")
    assert (store / "data").is_symlink()


@pytest_twisted.ensureDeferred
async def test_links_that_lead_back(local: LocalRemote, store: Path, tmp_path: Path) -> None:
    """A link to a directory above is listed once more at most, and a list ends."""
    await put(local, "a/data/00/x", b"x")
    await put(local, "config", b"x")
    (store / "a/data/loop").symlink_to(store / "a")
    (store / "a/data/00/loop").symlink_to(store)
    assert set(await everything(local)) == {"config", "a/data/00/x"}
    assert set(await everything(local, "a/data/")) >= {"a/data/00/x"}


@pytest_twisted.ensureDeferred
async def test_tidy_keeps_what_is_not_empty(local: LocalRemote, store: Path) -> None:
    """Only empty directories go, and only at and under the prefix."""
    await put(local, "r/data/00/x", b"x")
    for directory in ("r/keys", "r2/keys", "r/data/01"):
        (store / directory).mkdir(parents=True)
    (store / "r/note").write_text("mine")
    await local.tidy("r/")
    assert not (store / "r/keys").exists()
    assert not (store / "r/data/01").exists()
    assert (store / "r2/keys").exists()
    assert (store / "r/note").read_text() == "mine"
    await local.delete("r/data/00/x")
    (store / "r/note").unlink()
    await local.tidy("")
    assert list(store.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_tidy_beside_uploads(local: LocalRemote, store: Path) -> None:
    """Directories that are removed while uploads begin in them are made again."""

    async def upload(number: int) -> None:
        await put(local, f"r/data/{number % 3}/{number}", b"x")
        await local.delete(f"r/data/{number % 3}/{number}")

    for start in range(0, 60, 10):
        uploads = [Deferred.fromCoroutine(upload(number)) for number in range(start, start + 10)]
        await gatherResults([*uploads, *(local.tidy("r/") for _ in range(10))])
    await local.tidy("r/")
    assert not (store / "r").exists()
