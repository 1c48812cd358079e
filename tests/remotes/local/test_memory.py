"""Lists of directories that have not changed: fast, and never another answer than the disk's."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_twisted
from conformance import everything, put

from resticd.errors import StorageError
from resticd.remotes import local_memory, local_tree
from resticd.remotes.local import LocalRemote
from resticd.workers import Workers

NAMES = [f"{number:064x}" for number in range(100)]
PREFIX = "data/00/"


@pytest_twisted.async_yield_fixture
async def full(local: LocalRemote, store: Path) -> AsyncGenerator[LocalRemote, None]:
    """A remote with a directory that was filled long ago and is remembered."""
    (store / PREFIX).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        (store / PREFIX / name).write_bytes(b"x" * number)
    age(store / PREFIX)
    await leaves(local)
    yield local


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories that are read from disk, as they are."""
    prefixes: list[str] = []
    real = local_tree._read

    def recorded(fd: int, prefix: str, way: local_tree.Way) -> object:
        prefixes.append(prefix)
        return real(fd, prefix, way)

    monkeypatch.setattr(local_tree, "_read", recorded)
    return prefixes


def age(directory: Path) -> None:
    """Let a directory look as if it was changed long ago; its ctime cannot be set."""
    os.utime(directory, (1_000_000_000, 1_000_000_000))


@pytest.fixture(autouse=True)
def _later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written just now was written long enough ago."""
    monkeypatch.setattr(local_memory, "RACY", -3600.0)


async def leaves(remote: LocalRemote, prefix: str = "data/") -> dict[str, int]:
    """All keys with their sizes, as both ways to list say."""
    listed = {
        page.prefix + name: size
        async for page in remote.list_leaves(prefix)
        for name, size in zip(*page[1:], strict=True)
    }
    assert listed == {key: entry.size for key, entry in (await everything(remote, prefix)).items()}
    return listed


@pytest_twisted.ensureDeferred
async def test_what_has_not_changed_is_remembered(full: LocalRemote, read: list[str]) -> None:
    """The same list comes twice, and the second time nothing but the directory above is read."""
    expected = {PREFIX + name: number for number, name in enumerate(NAMES)}
    pages = [page async for page in full.list_leaves("data/")]
    assert read == ["data/"]
    assert {page.prefix + name: size for page in pages for name, size in zip(*page[1:], strict=True)} == expected
    assert await leaves(full) == expected


@pytest_twisted.ensureDeferred
async def test_every_change_is_seen(full: LocalRemote, store: Path) -> None:
    """Files that come, go or are replaced, by us or by others, and directories that do."""
    before = await leaves(full)
    await put(full, PREFIX + "f" * 64, b"new")
    assert await leaves(full) == {**before, PREFIX + "f" * 64: 3}
    await full.delete(PREFIX + "f" * 64)
    assert await leaves(full) == before
    (store / "other").write_bytes(b"12345")
    (store / "other").rename(store / PREFIX / NAMES[0])
    assert await leaves(full) == {**before, PREFIX + NAMES[0]: 5}
    (store / PREFIX / "inner").mkdir()
    (store / PREFIX / "inner" / "x").touch()
    assert PREFIX + "inner/x" in await leaves(full)
    assert PREFIX + "inner/x" in await leaves(full)
    (store / PREFIX).rename(store / "data/away")
    assert not any(key.startswith(PREFIX) for key in await leaves(full))


@pytest_twisted.ensureDeferred
async def test_another_directory_in_its_place(full: LocalRemote, store: Path) -> None:
    """It is another one, even where its times and names are the same."""
    (store / PREFIX).rename(store / "away")
    (store / PREFIX).mkdir()
    for name in NAMES:
        (store / PREFIX / name).touch()
    age(store / PREFIX)
    assert set((await leaves(full)).values()) == {0}


@pytest_twisted.ensureDeferred
async def test_links_are_looked_at_every_time(full: LocalRemote, store: Path) -> None:
    """What a link leads to changes without the directory's knowledge, or is not there any more."""
    target = store / "target"
    target.write_bytes(b"1")
    (store / PREFIX / ("e" * 64)).symlink_to(target)
    assert (await leaves(full))[PREFIX + "e" * 64] == 1
    target.write_bytes(b"12")
    assert (await leaves(full))[PREFIX + "e" * 64] == 2
    target.unlink()
    with pytest.raises(StorageError):
        [page async for page in full.list_leaves("data/")]


@pytest.mark.parametrize("reason", ["just changed", "few", "odd name", "upper case", "network", "full"])
@pytest_twisted.ensureDeferred
async def test_what_is_not_remembered(
    store: Path, workers: Workers, read: list[str], monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """Directories that may still change within a tick of the clock, that do not fit, or whose clock is another."""
    names = list(NAMES)
    if reason == "just changed":
        monkeypatch.setattr(local_memory, "RACY", 3600.0)
    elif reason == "few":
        names = names[:3]
    elif reason == "odd name":
        names.append("odd")
    elif reason == "upper case":
        names.append("A" * 64)
    elif reason == "full":
        monkeypatch.setattr(local_memory, "CAPACITY", 10)
    elif reason == "network":
        monkeypatch.setattr("resticd.remotes.local_prompt._file_system", lambda _: 0x6969)
    (store / PREFIX).mkdir(parents=True)
    for name in names:
        (store / PREFIX / name).touch()
    remote = LocalRemote(store, workers)
    await remote.start()
    for _ in range(2):
        assert set(await leaves(remote)) == {PREFIX + name for name in names}
    await remote.stop()
    assert read.count(PREFIX) == 4


@pytest_twisted.ensureDeferred
async def test_large_sizes_and_forgetting(full: LocalRemote, store: Path) -> None:
    """Sizes above 4 GiB come back; what is forgotten makes room."""
    with (store / PREFIX / NAMES[0]).open("r+b") as file:
        file.truncate(1 << 40)
    (store / PREFIX / "x").touch()
    (store / PREFIX / "x").unlink()
    for _ in range(2):
        assert (await leaves(full))[PREFIX + NAMES[0]] == 1 << 40
    memory = full._memory
    assert memory is not None
    assert memory._weight == len(NAMES) * 40
    (store / PREFIX / "x").touch()
    await leaves(full)
    assert memory._weight == 0
