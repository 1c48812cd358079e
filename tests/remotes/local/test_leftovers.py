"""What dead writers left in a local directory, and what living ones write."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from conformance import everything, get, put
from support.disk import failing, temporary
from support.waiting import until
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from resticd.errors import StorageError
from resticd.remotes import local as local_module
from resticd.remotes.local import LocalRemote
from resticd.workers import Workers

#: Starts an upload and stalls.
STALLED = """
file = TemporaryFile(Place(root), RunningUploads(), "data/00/x", 100, None, overwrite=False)
file.write([b"x"])
print("ready", flush=True)
time.sleep(600)
"""

#: Overwrites config for ever, with one of two texts in turn.
RESTLESS = """
for letter in itertools.cycle([b"a", b"b"]):
    file = TemporaryFile(Place(root), RunningUploads(), "config", 500_000, None, overwrite=True)
    for _ in range(5):
        file.write([letter * 100_000])
    file.commit()
    print(letter, flush=True)
"""

PREAMBLE = """
import itertools, sys, time
from pathlib import Path
from resticd.remotes.local_place import Place
from resticd.remotes.local_upload import RunningUploads, TemporaryFile
root = Path(sys.argv[1])
"""


@pytest.fixture
def without() -> tuple[str, ...]:
    """Files that workers make are locked."""
    return ("ring-uploads",)


@pytest.fixture
def start_writer(store: Path) -> Iterator[Callable[[str], subprocess.Popen]]:
    """Runs a script in a process of its own; returns when it has printed a line."""
    store.mkdir()
    writers = []

    def start(script: str) -> subprocess.Popen:
        writer = subprocess.Popen([sys.executable, "-c", PREAMBLE + script, store], stdout=subprocess.PIPE, text=True)
        writers.append(writer)
        assert writer.stdout.readline()
        return writer

    yield start
    for writer in writers:
        kill(writer)
        writer.stdout.close()


def kill(writer: subprocess.Popen) -> None:
    """As ``kill -9`` does."""
    writer.kill()
    writer.wait()


def leave(store: Path, key: str, age: float = 0) -> Path:
    """Make a temporary file that nobody writes."""
    path = (store / key).with_name(".resticd-00112233.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest_twisted.ensureDeferred
async def test_leftovers_of_killed_writers(store: Path, workers: Workers, start_writer) -> None:
    """What a killed writer left goes at the next start; what a living one writes stays, unless it is a day old."""
    dead, _ = start_writer(STALLED), start_writer(STALLED)
    assert len(temporary(store)) == 2
    kill(dead)
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
    assert await get(remote, "data/00/x") == b"a retry"
    await remote.stop()


@pytest_twisted.ensureDeferred
async def test_a_killed_writer_leaves_config_whole(store: Path, workers: Workers, start_writer) -> None:
    """Killed anywhere in the middle of overwriting, there is the old file or the new one."""
    remote = LocalRemote(store, workers)
    await remote.start()
    for lines in range(4):
        writer = start_writer(RESTLESS)
        for _ in range(lines):
            writer.stdout.readline()
        kill(writer)
        assert await get(remote, "config") in (b"a" * 500_000, b"b" * 500_000)
        assert set(await everything(remote)) == {"config"}
    await remote.stop()


@pytest_twisted.ensureDeferred
async def test_uploads_of_this_process_are_left_alone(local: LocalRemote, store: Path, workers: Workers) -> None:
    """A second remote over the same directory does not sweep the first one's upload away."""
    upload = await local.begin("a/b", None, None)
    other = LocalRemote(store, workers)
    await other.start()
    await other.tidy("")
    await other.stop()
    upload.write(b"x")
    await upload.commit()
    assert await get(local, "a/b") == b"x"


@pytest_twisted.ensureDeferred
async def test_only_temporary_files_are_swept(store: Path, workers: Workers, tmp_path: Path) -> None:
    """Other names, and directories of that name, stay; links to directories are followed, once."""
    keep = [store / "data/.resticd-1", store / "data/x.tmp", store / "a/.resticd-1.tmp/config"]
    for path in keep:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (store / "linked").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(store)
    (store / "nowhere").symlink_to(tmp_path / "nothing")
    gone = [leave(store, "x"), leave(store, "data/00/x"), leave(elsewhere, "x"), leave(store, "a/.resticd-1.tmp/x")]
    infos: list[str] = []

    def observe(event: dict) -> None:
        if event["log_level"] == LogLevel.info:
            infos.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    remote = LocalRemote(store, workers)
    await remote.start()
    await until(lambda: infos)
    globalLogPublisher.removeObserver(observe)
    await remote.stop()
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in keep)
    assert infos == [f"{store}: removed 4 unfinished uploads"]


@pytest_twisted.ensureDeferred
async def test_a_repository_with_the_name_of_a_temporary_file(local: LocalRemote) -> None:
    """It is a repository like others."""
    await put(local, ".resticd-1.tmp/config", b"x")
    assert set(await everything(local)) == {".resticd-1.tmp/config"}
    await local.tidy("")
    assert await get(local, ".resticd-1.tmp/config") == b"x"


@pytest_twisted.ensureDeferred
async def test_the_sweep_delays_nothing(store: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remote serves while it sweeps, and stopping waits for the sweep, which ends early."""
    for number in range(20):
        leave(store, f"data/{number}/x")
    reached, goes_on, removed = threading.Event(), threading.Event(), []

    def slow(path: Path) -> bool:
        removed.append(path)
        reached.set()
        return goes_on.wait(20)

    monkeypatch.setattr(local_module, "remove_leftover", slow)
    remote = LocalRemote(store, workers)
    try:
        await remote.start()
        await until(reached.is_set)
        await put(remote, "a", b"x")
        ended: list[None] = []
        stopped = remote.stop().addCallback(ended.append)
        await until(lambda: remote._uploads._stopped)
        with pytest.raises(StorageError):
            await remote.begin("b", None, None)
        assert not ended
    finally:
        goes_on.set()
    await stopped
    assert len(removed) == 1


@pytest_twisted.ensureDeferred
async def test_tidy_removes_leftovers(local: LocalRemote, store: Path) -> None:
    """Directories that hold nothing but what dead writers left go; those with a living upload stay."""
    leave(store, "r/data/00/x")
    upload = await local.begin("r/data/01/x", None, None)
    await local.tidy("r/")
    assert not (store / "r/data/00").exists()
    upload.write(b"x")
    await upload.commit()
    assert await get(local, "r/data/01/x") == b"x"


@pytest_twisted.ensureDeferred
async def test_a_file_system_without_locks(store: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads work, and leftovers are known by their age alone."""
    young, old = leave(store, "young/x"), leave(store, "old/x", age=90_000)
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    remote = LocalRemote(store, workers)
    await remote.start()
    await until(lambda: not old.exists())
    await put(remote, "a", b"x")
    await remote.stop()
    assert young.exists()


@pytest.mark.parametrize("sweeper", ["has the lock", "was quicker"])
@pytest_twisted.ensureDeferred
async def test_a_sweeper_that_comes_between(local: LocalRemote, store: Path, monkeypatch, sweeper: str) -> None:
    """A new temporary file that a sweeper finds before its lock is made anew."""
    flock, met = fcntl.flock, []

    def between(fd: int, flags: int) -> None:
        if not met:
            met.append(fd)
            for path in temporary(store):
                path.unlink()
            if sweeper == "has the lock":
                raise BlockingIOError(errno.EWOULDBLOCK, "locked")
        flock(fd, flags)

    monkeypatch.setattr(fcntl, "flock", between)
    await put(local, "a", b"x")
    assert met
    assert await get(local, "a") == b"x"
    assert not temporary(store)


@pytest_twisted.ensureDeferred
async def test_an_upload_whose_temporary_file_is_gone(local: LocalRemote, store: Path) -> None:
    """Somebody removed it: the upload fails, and nothing is stored."""
    upload = await local.begin("a", None, None)
    (path,) = temporary(store)
    path.unlink()
    upload.write(b"x")
    with pytest.raises(StorageError):
        await upload.commit()
    assert list(store.iterdir()) == []
