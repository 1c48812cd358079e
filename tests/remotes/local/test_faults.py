"""The local directory on disks with faults, and in which order things reach a disk."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from conformance import Sink, Source, everything, get, put, sha256
from support.disk import failing, open_files, opened, temporary
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from resticd.errors import AlreadyExists, NotFound, OutOfSpace, StorageError, TooLarge
from resticd.remotes import local_place, local_rename
from resticd.remotes.local import LocalRemote


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """The warnings that are logged, as they come."""
    texts: list[str] = []

    def observe(event: dict) -> None:
        if event["log_level"] == LogLevel.warn:
            texts.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield texts
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def without() -> tuple[str, ...]:
    """The faults are injected between system calls that workers make."""
    return ("ring-uploads", "direct-writes")


async def fails(*attempts: Deferred) -> None:
    """Each is a passing fault, and in particular no certain absence."""
    for attempt in attempts:
        with pytest.raises(StorageError) as caught:
            await attempt
        assert not isinstance(caught.value, NotFound)


async def list_fails(remote: LocalRemote, prefix: str = "") -> None:
    with pytest.raises(StorageError):
        await everything(remote, prefix)


# What is on disk when.


@pytest.fixture
def steps(store: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced, ``sync PATH``, and what was renamed, in order."""
    seen: list[str] = []
    fsync, replace, rename = os.fsync, os.replace, local_rename._libc_renameat2

    def recorded_fsync(fd: int) -> None:
        path = opened(fd)
        name = "a temporary file" if path.suffix == ".tmp" else str(path.relative_to(store))
        seen.append(f"sync {name}")
        fsync(fd)

    def recorded_rename(*arguments: object) -> int:
        seen.append("rename")
        return rename(*arguments)

    def recorded_replace(*arguments: object) -> None:
        seen.append("replace")
        replace(*arguments)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    monkeypatch.setattr(local_rename, "_libc_renameat2", recorded_rename)
    return seen


@pytest_twisted.ensureDeferred
async def test_order_of_storing(local: LocalRemote, store: Path, steps: list[str]) -> None:
    """The file is synced, then it gets its name, then its directory is synced, and only then it is called stored."""
    (store / "keys").mkdir()
    await put(local, "keys/a", b"x")
    assert steps == ["sync a temporary file", "rename", "sync keys"]
    steps.clear()
    await put(local, "keys/a", b"y", overwrite=True)
    assert steps == ["sync a temporary file", "replace", "sync keys"]


@pytest_twisted.ensureDeferred
async def test_new_directories_are_durable(local: LocalRemote, steps: list[str]) -> None:
    """Each directory that is made is synced into the one above it, before anything lies in it."""
    await put(local, "a/data/00/x", b"x")
    assert steps == ["sync .", "sync a", "sync a/data", "sync a temporary file", "rename", "sync a/data/00"]
    steps.clear()
    await local.make("b/c/")
    assert steps == ["sync .", "sync b"]


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_durable_too(local: LocalRemote, steps: list[str]) -> None:
    """The name that was taken is synced: the refusal of a retry is called a success by who compares the bytes."""
    await put(local, "a", b"x")
    steps.clear()
    with pytest.raises(AlreadyExists):
        await put(local, "a", b"x")
    assert steps == ["sync a temporary file", "rename", "sync ."]


# Faults.

FAULTS = [
    (errno.ENOSPC, OutOfSpace),
    (errno.EDQUOT, OutOfSpace),
    (errno.EFBIG, TooLarge),
    (errno.EIO, StorageError),
    (errno.EROFS, StorageError),
    (errno.ESTALE, StorageError),
    (errno.EACCES, StorageError),
]


@pytest.mark.parametrize(("code", "kind"), FAULTS, ids=lambda value: errno.errorcode.get(value, ""))
@pytest.mark.parametrize("call", ["open", "mkdir", "writev", "fsync", "renameat2", "replace"])
@pytest_twisted.ensureDeferred
async def test_faults_of_an_upload(local: LocalRemote, store: Path, monkeypatch, call: str, code: int, kind: type):
    """Each is what it is, and leaves nothing."""
    if call == "renameat2":

        def rename(*_: object) -> int:
            ctypes.set_errno(code)
            return -1

        monkeypatch.setattr(local_rename, "_libc_renameat2", rename)
    else:
        monkeypatch.setattr(os, call, failing(code))
    with pytest.raises(kind) as caught:
        await put(local, "new/a", os.urandom(3_000_000), overwrite=call == "replace")
    assert str(store) not in str(caught.value)
    monkeypatch.undo()
    assert not temporary(store)
    assert not open_files(store)
    assert await everything(local) == {}


@pytest_twisted.ensureDeferred
async def test_a_directory_that_cannot_be_synced(local: LocalRemote, store: Path, monkeypatch) -> None:
    """It is not called stored; what has its name keeps it, as another client may count on it already."""
    fsync = os.fsync

    def broken(fd: int) -> None:
        if opened(fd).is_dir():
            raise OSError(errno.EIO, "broken")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", broken)
    await fails(Deferred.fromCoroutine(put(local, "a", b"x")))
    await fails(Deferred.fromCoroutine(put(local, "a", b"x")))
    monkeypatch.undo()
    assert await get(local, "a") == b"x"
    assert not temporary(store)
    assert not open_files(store)
    with pytest.raises(AlreadyExists):
        await put(local, "a", b"x")


@pytest_twisted.ensureDeferred
async def test_an_upload_without_space_stops_its_producer(local: LocalRemote, store: Path, monkeypatch) -> None:
    """The client is not made to send the rest of a body that cannot be stored, and the space is free at once."""
    monkeypatch.setattr(os, "writev", failing(errno.ENOSPC))
    data = bytes(50 * 1024 * 1024)
    upload = await local.begin("a", len(data), None)
    source = Source(upload, data)
    await source.start()
    assert source.stopped
    assert source.written < len(data)
    assert not temporary(store)
    with pytest.raises(OutOfSpace):
        await upload.commit()


CODES = [errno.EACCES, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ELOOP, errno.ESTALE, errno.ENOTDIR]


@pytest.mark.parametrize("code", CODES, ids=lambda code: errno.errorcode[code])
@pytest_twisted.ensureDeferred
async def test_unreadable_is_not_missing(local: LocalRemote, monkeypatch, code: int) -> None:
    """What cannot be looked at is a fault that may pass, in every method."""
    await put(local, "keys/a", b"x")
    for name in ("open", "stat", "listdir", "unlink", "mkdir", "statvfs", "rmdir"):
        monkeypatch.setattr(os, name, failing(code))
    await fails(
        local.open("keys/a"),
        local.stat("keys/a"),
        local.begin("keys/b", None, None),
        local.delete("keys/a"),
        local.make("b/"),
        local.tidy("keys/"),
        local.usage(),
    )
    await list_fails(local, "keys/")


@pytest.mark.parametrize("call", ["open", "stat", "listdir"])
@pytest_twisted.ensureDeferred
async def test_an_error_in_the_middle_of_a_list(local: LocalRemote, store: Path, monkeypatch, call: str) -> None:
    """What cannot be read fails the list, wherever that happens: it never looks complete."""
    for number in range(20):
        (store / f"data/{number:02x}").mkdir(parents=True)
        (store / f"data/{number:02x}/x").write_bytes(b"x")
    real = getattr(os, call)

    def broken(place: str | int, *rest: object, **more: object) -> object:
        path = opened(place) if isinstance(place, int) else Path(place)
        if "0a" in (path.name, str(opened(more["dir_fd"]).name) if "dir_fd" in more else ""):
            raise OSError(errno.EIO, "broken")
        return real(place, *rest, **more)

    monkeypatch.setattr(os, call, broken)
    await list_fails(local, "data/")
    await list_fails(local)


@pytest_twisted.ensureDeferred
async def test_what_vanishes_during_a_list(local: LocalRemote, store: Path, monkeypatch) -> None:
    """A file or directory that is deleted meanwhile is left out, and the rest is listed."""
    for number in range(20):
        (store / f"data/{number:02x}").mkdir(parents=True)
        (store / f"data/{number:02x}/x").write_bytes(b"x")
    listdir = os.listdir

    def vanishing(fd: int) -> list[str]:
        names = listdir(fd)
        if "0a" in names:
            (store / "data/0a/x").unlink()
            (store / "data/0a").rmdir()
        elif opened(fd).name == "0b":
            (store / "data/0b/x").unlink()
        return names

    monkeypatch.setattr(os, "listdir", vanishing)
    assert len(await everything(local, "data/")) == 18


@pytest_twisted.ensureDeferred
async def test_a_root_that_is_gone_is_not_empty(local: LocalRemote, store: Path) -> None:
    """Everything is a passing fault, nothing is made in its place, and all is well when it is back."""
    await put(local, "a", b"x")
    store.rename(store.with_name("away"))
    await fails(*everything_but_list(local))
    await list_fails(local)
    await list_fails(local, "data/")
    assert not store.exists()
    store.with_name("away").rename(store)
    assert await get(local, "a") == b"x"


@pytest_twisted.ensureDeferred
async def test_an_unmounted_disk_is_not_empty(local: LocalRemote, store: Path, monkeypatch) -> None:
    """The mount point is still there, but it lies on the file system below: nothing is read or written there."""
    monkeypatch.setattr(local._place, "_underlying", store.stat().st_dev)
    await fails(*everything_but_list(local))
    await list_fails(local)
    assert list(store.iterdir()) == []


def everything_but_list(remote: LocalRemote) -> list[Deferred]:
    return [
        remote.open("missing"),
        remote.stat("missing"),
        remote.begin("a/b", None, None),
        remote.delete("missing"),
        remote.make("b/"),
        remote.tidy("b/"),
        remote.usage(),
    ]


def test_what_shows_after_an_unmount() -> None:
    """The file system below the mount point is known, at any depth below the mount point."""
    root = Path("/").stat().st_dev
    assert local_place._underlying_device(Path("/")) is None
    assert local_place._underlying_device(Path("/proc")) == root
    assert local_place._underlying_device(Path("/proc/self/task")) == root


@pytest_twisted.ensureDeferred
async def test_links_that_lead_nowhere(local: LocalRemote, store: Path, tmp_path: Path) -> None:
    """A link to a disk that is not mounted hides what lies there: that is a fault, not an empty directory."""
    await put(local, "config", b"x")
    (store / "data").symlink_to(tmp_path / "not mounted/data")
    await fails(
        local.open("data/00/x"),
        local.stat("data/00/x"),
        local.begin("data/00/x", None, None),
        local.delete("data/00/x"),
    )
    await list_fails(local)
    await list_fails(local, "data/")
    await list_fails(local, "data/00/")
    assert await get(local, "config") == b"x"
    (store / "data").unlink()
    (store / "x").symlink_to(store / "x")
    await list_fails(local)
    await fails(local.stat("x"))


@pytest_twisted.ensureDeferred
async def test_what_is_not_a_file_is_a_fault(local: LocalRemote, store: Path) -> None:
    """A directory or pipe in a file's place is neither missing nor listed, and does not hang."""
    (store / "keys/a").mkdir(parents=True)
    os.mkfifo(store / "keys/pipe")
    for name in ("a", "pipe"):
        await fails(local.open(f"keys/{name}"), local.stat(f"keys/{name}"))
    await fails(local.delete("keys/a"))
    assert await everything(local, "keys/") == {}


@pytest_twisted.ensureDeferred
async def test_a_file_that_becomes_shorter(local: LocalRemote, store: Path) -> None:
    """A download that ends early fails."""
    await put(local, "a", os.urandom(5_000_000))
    body = await local.open("a")
    os.truncate(store / "a", 1_000_000)
    await fails(body.deliver(Sink()))


@pytest_twisted.ensureDeferred
async def test_a_read_that_fails(local: LocalRemote, store: Path, monkeypatch) -> None:
    """So does one from a broken disk, and the file is closed."""
    await put(local, "a", os.urandom(5_000_000))
    body = await local.open("a")
    monkeypatch.setattr(os, "pread", failing(errno.EIO))
    sink = Sink()
    await fails(body.deliver(sink))
    assert sink.producer is None


# File systems that cannot do everything.


@pytest.mark.parametrize("lacking", ["renameat2", "its flag", "hard links"])
@pytest_twisted.ensureDeferred
async def test_other_file_systems(local: LocalRemote, store: Path, warnings, monkeypatch, lacking: str) -> None:
    """Without renameat2, and without hard links too, nothing is replaced either; it warns of what it cannot promise."""

    def without_flag(*_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(local_rename, "_libc_renameat2", None if lacking == "renameat2" else without_flag)
    if lacking == "hard links":
        monkeypatch.setattr(os, "link", failing(errno.EPERM))
    for key in ("a", "b"):
        datas = [os.urandom(1000) for _ in range(8)]
        uploads = [await local.begin(key, 1000, sha256(data)) for data in datas]
        for upload, data in zip(uploads, datas, strict=True):
            await Source(upload, data).start()
        stored = []
        for result, data in zip([upload.commit() for upload in uploads], datas, strict=True):
            try:
                await result
                stored.append(data)
            except AlreadyExists:
                pass
        assert [await get(local, key)] == stored
        await put(local, key, b"new", overwrite=True)
    assert not temporary(store)
    assert (store / "a").stat().st_nlink == 1
    assert len(warnings) == (lacking == "hard links")


@pytest_twisted.ensureDeferred
async def test_a_link_that_fails(local: LocalRemote, store: Path, monkeypatch) -> None:
    """A fault is not taken for a file system without links."""
    monkeypatch.setattr(local_rename, "_libc_renameat2", None)
    monkeypatch.setattr(os, "link", failing(errno.EIO))
    await fails(Deferred.fromCoroutine(put(local, "a", b"x")))
    assert list(store.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_a_file_system_that_cannot_sync_directories(local: LocalRemote, warnings, monkeypatch) -> None:
    """The file is stored all the same; the warning comes once."""
    fsync = os.fsync

    def only_files(fd: int) -> None:
        if opened(fd).is_dir():
            raise OSError(errno.EINVAL, "not here")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", only_files)
    await put(local, "a/a", b"x")
    await put(local, "b", b"x")
    assert len(warnings) == 1
    assert set(await everything(local)) == {"a/a", "b"}
