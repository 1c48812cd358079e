"""Uploads around the page cache: the file is the same, and whatever is unfit for it goes the usual way."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import pytest

from resticd.errors import OutOfSpace
from resticd.remotes import local_direct
from resticd.remotes.local_direct import BLOCK, PAUSE, SLOW, WORTH_IT, DirectWrites
from resticd.remotes.local_place import Place
from resticd.remotes.local_prompt import PromptReader
from resticd.remotes.local_upload import RunningUploads, TemporaryFile

MIB = 1024 * 1024
EXT4 = 0xEF53


class Scene:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 0.0
        self.prompt = PromptReader(root)
        self.writes = DirectWrites(self.prompt, lambda: self.now)
        place = Place(root)
        place.prepare()
        self.make = lambda key, size: TemporaryFile(
            place, RunningUploads(), key, size, None, overwrite=False, direct=self.writes
        )


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Any file system is one that can be written to directly."""
    monkeypatch.setattr(PromptReader, "file_system", lambda *_: EXT4)
    return Scene(tmp_path)


@pytest.fixture
def flags(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each write whether it went around the page cache."""
    seen: list[bool] = []
    writev = os.writev

    def watched(fd: int, views: list[memoryview]) -> int:
        flags = int(Path(f"/proc/self/fdinfo/{fd}").read_text().split("flags:")[1].split()[0], 8)
        seen.append(bool(flags & os.O_DIRECT))
        return writev(fd, views)

    monkeypatch.setattr(os, "writev", watched)
    return seen


def aligned(data: bytes) -> memoryview:
    """``data`` where a receiver would have it."""
    view = memoryview(mmap.mmap(-1, max(1, len(data))))[: len(data)]
    view[:] = data
    return view


def store(scene: Scene, pieces: list[bytes | memoryview], size: int | None = None) -> bytes:
    total = sum(map(len, pieces)) if size is None else size
    file = scene.make("a", total)
    for piece in pieces:
        file.write([piece])
    file.commit()
    return (scene.root / "a").read_bytes()


@pytest.mark.parametrize("rest", [0, 1, BLOCK, BLOCK + 1, 200_000])
def test_whole_pieces_and_a_rest(scene: Scene, flags: list[bool], rest: int) -> None:
    """What is no multiple of a block goes through the page cache, at the end."""
    data = os.urandom(2 * MIB + rest)
    pieces = [aligned(data[at : at + 256 * 1024]) for at in range(0, len(data), 256 * 1024)]
    assert store(scene, pieces) == data
    whole = [len(piece) % BLOCK == 0 for piece in pieces]
    assert flags == whole


def test_what_lies_anywhere(scene: Scene, flags: list[bool]) -> None:
    """Bytes that lie or end where they like are stored all the same, from then on through the page cache."""
    data = os.urandom(3 * MIB)
    pieces: list[bytes | memoryview] = [aligned(data[:MIB]), memoryview(data)[MIB : MIB + 1001]]
    pieces += [aligned(data[MIB + 1001 : 2 * MIB + 1001]), data[2 * MIB + 1001 :]]
    assert store(scene, pieces) == data
    assert flags == [True, False, False, False]


def test_an_address_that_does_not_fit(scene: Scene, flags: list[bool]) -> None:
    """The kernel refuses it, and the page cache takes it."""
    data = os.urandom(2 * MIB)
    odd = memoryview(mmap.mmap(-1, 2 * MIB + BLOCK))[1 : 1 + 2 * MIB]
    odd[:] = data
    assert store(scene, [odd]) == data
    assert flags == [True, False]


def test_short_writes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that writes a part, in whole blocks or not, is given the rest."""
    writev = os.writev
    for most in (BLOCK, 3 * BLOCK, 1000):
        monkeypatch.setattr(os, "writev", lambda fd, views, most=most: writev(fd, [views[0][:most]]))
        data = os.urandom(WORTH_IT)
        assert store(scene, [aligned(data)]) == data
        (scene.root / "a").unlink()


def test_a_full_disk(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """… is one here too."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    file = scene.make("a", WORTH_IT)
    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(OutOfSpace):
        file.write([aligned(bytes(WORTH_IT))])
    assert list(scene.root.iterdir()) == []


@pytest.mark.parametrize("size", [None, BLOCK, WORTH_IT - 1])
def test_not_worth_it(scene: Scene, flags: list[bool], size: int | None) -> None:
    """What is short, or may be, is no case for it."""
    file = scene.make("a", size)
    file.write([aligned(bytes(size or BLOCK))])
    file.commit()
    assert not any(flags)


def test_other_file_systems(scene: Scene, flags: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is known of it, and where the kernel refuses the flag."""
    monkeypatch.setattr(PromptReader, "file_system", lambda *_: 0x6969)
    assert store(scene, [aligned(bytes(WORTH_IT))]) == bytes(WORTH_IT)
    (scene.root / "a").unlink()
    monkeypatch.setattr(PromptReader, "file_system", lambda *_: EXT4)

    def refuse(_fd: int, command: int, *_: int) -> int:
        if command == local_direct.fcntl.F_SETFL:
            raise OSError(errno.EINVAL, "no")
        return 0

    monkeypatch.setattr(local_direct.fcntl, "fcntl", refuse)
    assert store(scene, [aligned(bytes(WORTH_IT))]) == bytes(WORTH_IT)
    assert not any(flags)


def test_a_slow_disk(scene: Scene) -> None:
    """It is left to the page cache for a while, once it was slow for some time and not for a moment."""

    def direct() -> bool:
        file = scene.make("a", WORTH_IT)
        begun = file._direct is not None
        file.abort()
        return begun

    scene.writes.took(10 * SLOW, MIB)
    assert direct()
    for _ in range(20):
        scene.writes.took(2 * SLOW / 4, MIB // 4)
    assert not direct()
    scene.now += PAUSE - 1
    assert not direct()
    scene.now += 2
    assert direct()
    for _ in range(100):
        scene.writes.took(SLOW / 5, MIB)
    assert direct()
