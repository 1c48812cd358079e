"""Uploads around the page cache: the file is the same, and whatever is unfit for it goes the usual way."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import pytest

from resticd.errors import OutOfSpace
from resticd.remotes import local_direct
from resticd.remotes.local_direct import BLOCK, PAUSE, PIECE, SLOW, WORTH_IT, DirectWrites
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
def flags(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """Of each write, whether it went around the page cache, and its size."""
    seen: list[tuple[bool, int]] = []
    write = os.write

    def watched(fd: int, data: memoryview) -> int:
        flags = int(Path(f"/proc/self/fdinfo/{fd}").read_text().split("flags:")[1].split()[0], 8)
        seen.append((bool(flags & os.O_DIRECT), len(data)))
        return write(fd, data)

    monkeypatch.setattr(os, "write", watched)
    return seen


def store(scene: Scene, pieces: list[bytes | memoryview]) -> bytes:
    """What is on the disk when ``pieces`` were written."""
    file = scene.make("a", sum(map(len, pieces)))
    for piece in pieces:
        file.write([piece])
    file.commit()
    data = (scene.root / "a").read_bytes()
    (scene.root / "a").unlink()
    return data


@pytest.mark.parametrize("rest", [0, 1, BLOCK, BLOCK + 1, 200_000])
@pytest.mark.parametrize("step", [1000, 65_536, 300_001, 4 * MIB])
def test_pieces_and_a_rest(scene: Scene, flags: list[tuple[bool, int]], rest: int, step: int) -> None:
    """Whatever sizes the bytes come in, they are written in whole pieces; the rest goes through the page cache."""
    data = os.urandom(2 * MIB + rest)
    assert store(scene, [data[at : at + step] for at in range(0, len(data), step)]) == data
    assert flags == [(True, PIECE)] * 8 + [(False, rest)] * bool(rest)


def test_memory_that_is_fit(scene: Scene, flags: list[tuple[bool, int]]) -> None:
    """Large pieces of page-aligned memory are written as they are, up to the last whole block."""
    data = os.urandom(4 * MIB)
    view = memoryview(mmap.mmap(-1, len(data)))
    view[:] = data
    assert store(scene, [view[:MIB], view[MIB : 3 * MIB + 100], view[3 * MIB + 100 :]]) == data
    assert flags == [(True, MIB), (True, 2 * MIB), *[(True, PIECE)] * 4]


def test_memory_that_looks_fit(scene: Scene, flags: list[tuple[bool, int]]) -> None:
    """The kernel refuses an address that is no multiple of a block, and the page cache takes it."""
    data = os.urandom(2 * MIB)
    odd = memoryview(mmap.mmap(-1, 2 * MIB + BLOCK))[1 : 1 + 2 * MIB]
    odd[:] = data
    assert store(scene, [odd]) == data
    assert flags == [(True, 2 * MIB), (False, 2 * MIB)]


def test_a_kernel_that_finds_it_unfit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page cache takes what was refused, and all that follows."""
    write, tries = os.write, []

    def refuse(fd: int, data: memoryview) -> int:
        flags = int(Path(f"/proc/self/fdinfo/{fd}").read_text().split("flags:")[1].split()[0], 8)
        tries.append(bool(flags & os.O_DIRECT))
        if tries[-1] and len(tries) > 2:
            raise OSError(errno.EINVAL, "no")
        return write(fd, data)

    monkeypatch.setattr(os, "write", refuse)
    data = os.urandom(2 * MIB)
    assert store(scene, [data]) == data
    assert tries == [True] * 3 + [False] * 6


@pytest.mark.parametrize("most", [BLOCK, 3 * BLOCK, 1000])
def test_short_writes(scene: Scene, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A kernel that writes a part, in whole blocks or not, is given the rest."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:most]))
    data = os.urandom(WORTH_IT + 5000)
    assert store(scene, [data]) == data


def test_buffers_are_used_again(scene: Scene) -> None:
    """… whatever became of the upload, and never by two."""
    local_direct._spare.clear()
    files = [scene.make(name, WORTH_IT) for name in "abc"]
    for number, file in enumerate(files):
        file.write([bytes([number]) * 1000])
    files[0].abort()
    files[1].write([bytes([1]) * (WORTH_IT - 1000)])
    files[1].commit()
    assert len(local_direct._spare) == 2
    files[2].write([bytes([2]) * (WORTH_IT - 1000)])
    files[2].commit()
    assert (scene.root / "b").read_bytes() == bytes([1]) * WORTH_IT
    assert (scene.root / "c").read_bytes() == bytes([2]) * WORTH_IT
    assert len(local_direct._spare) == 3


def test_a_full_disk(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """… is one here too."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    file = scene.make("a", WORTH_IT)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutOfSpace):
        file.write([bytes(WORTH_IT)])
    assert list(scene.root.iterdir()) == []


@pytest.mark.parametrize("size", [None, BLOCK, WORTH_IT - 1])
def test_not_worth_it(scene: Scene, size: int | None) -> None:
    """What is short, or may be, is no case for it."""
    file = scene.make("a", size)
    assert file._direct is None
    file.abort()


def test_other_file_systems(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is known of it, and where the kernel refuses the flag."""
    monkeypatch.setattr(PromptReader, "file_system", lambda *_: 0x6969)
    assert scene.make("a", WORTH_IT)._direct is None
    monkeypatch.setattr(PromptReader, "file_system", lambda *_: EXT4)

    def refuse(_fd: int, command: int, *_: int) -> int:
        if command == local_direct.fcntl.F_SETFL:
            raise OSError(errno.EINVAL, "no")
        return 0

    monkeypatch.setattr(local_direct.fcntl, "fcntl", refuse)
    assert scene.make("b", WORTH_IT)._direct is None


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
