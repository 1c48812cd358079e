"""Small uploads by a ring: they are what workers would have made of them, and whatever is unusual is left to those."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest
import pytest_twisted
from conformance import get, put, sha256
from support.disk import open_files, temporary
from support.waiting import until
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from resticd.errors import AlreadyExists, Corrupt, StorageError
from resticd.interfaces import Stat
from resticd.remotes import local_ring, local_ring_store
from resticd.remotes.local import LocalRemote
from resticd.remotes.local_ring import CHAINS, CLOSE, FSYNC, OPENAT, WRITE, Call, Ring, address_of
from resticd.remotes.local_ring_store import RingStore


@pytest.fixture
def ring(local: LocalRemote) -> RingStore:
    """The ring of a remote that may have one."""
    assert local._ring is not None
    return local._ring


def nothing_left(store: Path) -> bool:
    return not temporary(store) and not open_files(store)


@pytest_twisted.ensureDeferred
async def test_stored(local: LocalRemote, ring: RingStore, store: Path) -> None:
    """One after the other, and many at a time; more than the ring takes are left to workers."""
    (store / "keys").mkdir()
    data = os.urandom(64 * 1024)
    stored = await ring.store("keys/a", sha256(data), data)
    assert stored == await local.stat("keys/a")
    assert (store / "keys/a").read_bytes() == data
    assert (store / "keys/a").stat().st_mode & 0o777 == 0o600
    assert await ring.store("empty", None, b"") == await local.stat("empty")
    results = await gatherResults(
        [Deferred.fromCoroutine(ring.store(f"keys/{number}", None, b"%d" % number)) for number in range(CHAINS + 2)]
    )
    assert results.count(None) == 2
    for number in range(CHAINS):
        assert (store / f"keys/{number}").read_bytes() == b"%d" % number
    assert nothing_left(store)


@pytest_twisted.ensureDeferred
async def test_left_to_workers(local: LocalRemote, ring: RingStore, store: Path) -> None:
    """What is taken, wrong or has no directory yet; the ring is used again afterwards."""
    await put(local, "a", b"first")
    assert await ring.store("a", None, b"second") is None
    assert await ring.store("b", sha256(b"other"), b"second") is None
    assert await ring.store("data/00/c", None, b"third") is None
    assert [path.name for path in store.iterdir()] == ["a"]
    with pytest.raises(AlreadyExists):
        await put(local, "a", b"second")
    upload = await local.begin("b", 6, sha256(b"other"))
    upload.write(b"second")
    with pytest.raises(Corrupt):
        await upload.commit()
    await put(local, "data/00/c", b"third")
    assert await ring.store("data/00/d", None, b"fourth") is not None
    assert await get(local, "a") == b"first"
    assert await get(local, "data/00/c") == b"third"
    assert nothing_left(store)


@pytest.mark.parametrize("what", ["_RWF_SYNC", "RENAME_NOREPLACE"])
@pytest_twisted.ensureDeferred
async def test_calls_that_fail(local: LocalRemote, store: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A write or a rename that the kernel refuses: workers do it all again, and the ring is not asked any more."""
    (store / "keys").mkdir()
    monkeypatch.setattr(local_ring_store, what, 1 << 30)
    await put(local, "keys/a", b"x")
    assert await get(local, "keys/a") == b"x"
    assert nothing_left(store)
    monkeypatch.undo()
    assert local._ring is not None
    assert await local._ring.store("keys/b", None, b"x") is None
    await put(local, "keys/b", b"y")


@pytest_twisted.ensureDeferred
async def test_a_directory_that_cannot_be_synced(
    local: LocalRemote, ring: RingStore, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker syncs it; where that fails too the file stays and is not called stored."""
    run = Ring.run

    async def broken(*arguments: object) -> dict[int, int]:
        return {**await run(*arguments), local_ring_store._SYNC_DIRECTORY: -errno.EIO}

    monkeypatch.setattr(Ring, "run", lambda *arguments: Deferred.fromCoroutine(broken(*arguments)))
    assert await ring.store("a", None, b"x") == await local.stat("a")

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageError):
        await ring.store("b", None, b"x")
    assert await get(local, "b") == b"x"


@pytest_twisted.ensureDeferred
async def test_a_sweeper_that_comes_between(
    local: LocalRemote, ring: RingStore, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary file has no lock; a rename without it fails, and a worker stores the bytes."""
    run = Ring.run

    def without_file(self: Ring, calls: tuple[Call, ...], keep: object) -> Deferred:
        gone = b"%s/gone" % os.fsencode(store)
        return run(
            self, [call._replace(address=address_of(gone)) if call.told else call for call in calls], (keep, gone)
        )

    monkeypatch.setattr(Ring, "run", without_file)
    assert await ring.store("a", None, b"x") is None
    assert nothing_left(store)
    await put(local, "a", b"x")
    assert await get(local, "a") == b"x"


@pytest_twisted.ensureDeferred
async def test_a_root_that_is_gone(local: LocalRemote, ring: RingStore, store: Path) -> None:
    """Nothing is stored in what shows when a disk is not mounted any more."""
    store.rename(store.with_name("away"))
    assert await ring.store("a", None, b"x") is None
    store.symlink_to("away")
    assert await ring.store("a", None, b"x") == Stat(1, (store / "a").stat().st_mtime)
    store.unlink()
    store.with_name("away").rename(store)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
@pytest_twisted.ensureDeferred
async def test_a_kernel_without_rings(
    local: LocalRemote, store: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It is asked once; everything is stored all the same."""
    asked = []

    def refuse(*arguments: object) -> int:
        asked.append(arguments)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(local_ring, "_call", refuse)
    for key in ("a", "b"):
        await put(local, key, b"x")
    assert len(asked) == 1
    assert sorted(path.name for path in store.iterdir()) == ["a", "b"]


@pytest_twisted.ensureDeferred
async def test_a_kernel_that_takes_no_more(local: LocalRemote, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring that cannot be fed is left; a stop does not wait for it."""
    await put(local, "a", b"x")

    def refuse(*_: object) -> None:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(Ring, "_submit", refuse)
    for key in ("b", "c"):
        await put(local, key, b"x")
    assert sorted(path.name for path in store.iterdir()) == ["a", "b", "c"]


@pytest_twisted.ensureDeferred
async def test_an_abort_meanwhile(local: LocalRemote, store: Path) -> None:
    """It waits until the kernel is done; then the file is there as a whole or not at all."""
    for _ in range(20):
        upload = await local.begin("a", 4, None)
        upload.write(b"data")
        commit = upload.commit()
        commit.addErrback(lambda _: None)
        commit.cancel()
        await upload.abort()
        await until(lambda: nothing_left(store))
        assert [path.read_bytes() for path in store.iterdir()] in ([], [b"data"])
        await local.delete("a")


@pytest_twisted.ensureDeferred
async def test_chains(tmp_path: Path) -> None:
    """A chain ends with the first call that fails, is told what was asked for, and leaves no file open."""
    ring = Ring(reactor)
    path, missing, data = (os.fsencode(tmp_path / "file"), os.fsencode(tmp_path / "x/y"), b"0123")
    creation = {"length": 0o600, "options": os.O_WRONLY | os.O_CREAT, "file": 0}
    write = Call(WRITE, fd=0, of_chain=True, address=address_of(data), length=4)
    sync = Call(FSYNC, fd=0, of_chain=True, told=True)
    for at, expected in ((path, {2: 0}), (missing, {0: -errno.ENOENT})):
        assert await ring.run([Call(OPENAT, address=address_of(at), **creation), write, sync], (at, data)) == expected
        # The chain's file is closed: there is nothing to close any more.
        assert await ring.run([Call(CLOSE, file=0, told=True)], None) == {0: -errno.EBADF}
    assert (tmp_path / "file").read_bytes() == data
    running = ring.run([Call(OPENAT, address=address_of(path), **creation), write, sync], (path, data))
    closed = ring.close()
    assert ring.full
    await closed
    assert await running == {2: 0}


@pytest_twisted.ensureDeferred
async def test_a_short_write(local: LocalRemote, ring: RingStore, store: Path) -> None:
    """Of a file that may not be longer nothing is stored: the kernel makes nothing of what is behind the write."""
    await put(local, "a", b"x")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        assert await ring.store("b", None, bytes(4096)) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in store.iterdir()] == ["a"]
    assert await ring.store("b", None, bytes(4096)) is not None
    assert nothing_left(store)
