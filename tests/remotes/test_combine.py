"""Several remotes under one root."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_twisted
from conformance import Conformance, everything, get, put
from twisted.internet.defer import fail

from resticd.errors import Forbidden, NotFound, StorageError, Unsupported
from resticd.interfaces import IRemote
from resticd.remotes.combine import CombineRemote
from resticd.remotes.local import LocalRemote
from resticd.remotes.memory import MemoryRemote
from resticd.workers import Workers


class Below(CombineRemote):
    """A combination seen from one of its directories, two deep."""

    def __init__(self, inner: IRemote) -> None:
        super().__init__({"": CombineRemote({"in": inner})})

    def _find(self, path):
        return self._upstreams[""], "", f"in/{path}"

    async def list(self, prefix):
        async for page in super().list(prefix):
            yield [entry._replace(key=entry.key.removeprefix("/in/")) for entry in page]


class TestCombine(Conformance):
    """A remote two combinations deep is what it is without."""

    many = 100

    @pytest_twisted.async_yield_fixture
    async def remote(self, tmp_path: Path, workers: Workers) -> AsyncGenerator[IRemote, None]:
        remote = Below(LocalRemote(tmp_path / "store", workers))
        await remote.start()
        yield remote
        await remote.stop()


@pytest_twisted.ensureDeferred
async def test_each_directory_is_a_remote() -> None:
    one, two = MemoryRemote(), MemoryRemote()
    both = CombineRemote({"one": one, "two": two})
    await both.start()
    await put(both, "one/config", b"1")
    await put(both, "two/a/config", b"2")
    assert set(one.objects) == {"config"}
    assert set(two.objects) == {"a/config"}
    assert set(await everything(both)) == {"one/config", "two/a/config"}
    assert set(await everything(both, "two/")) == {"two/a/config"}
    assert set(await everything(both, "two/a/")) == {"two/a/config"}
    assert await get(both, "two/a/config") == b"2"
    await both.delete("one/config")
    await both.tidy("one/")
    await both.tidy("")
    assert set(await everything(both)) == {"two/a/config"}
    with pytest.raises(Unsupported):
        await both.usage()
    await both.stop()


@pytest_twisted.ensureDeferred
async def test_nothing_lies_beside_the_directories() -> None:
    """It is not found there, and is refused there; the root can be made."""
    both = CombineRemote({"one": MemoryRemote()})
    for key in ("config", "three/config", "one"):
        with pytest.raises(NotFound):
            await both.stat(key)
        with pytest.raises(NotFound):
            await both.open(key)
        with pytest.raises(Forbidden):
            await both.begin(key, 1, None)
        await both.delete(key)
    assert await everything(both, "three/") == {}
    await both.make("")
    with pytest.raises(Forbidden, match="three"):
        await both.make("three/")


@pytest_twisted.ensureDeferred
async def test_a_list_is_of_all_or_an_error() -> None:
    """Where one of the remotes cannot be listed, there is no list of the others."""

    class Broken(MemoryRemote):
        async def list(self, prefix):
            raise StorageError("broken")
            yield

    both = CombineRemote({"one": MemoryRemote(), "two": Broken()})
    await put(both, "one/config", b"1")
    with pytest.raises(StorageError):
        await everything(both)


@pytest_twisted.ensureDeferred
async def test_one_that_cannot_start(tmp_path: Path, workers: Workers) -> None:
    class Broken(MemoryRemote):
        def start(self):
            return fail(StorageError("broken"))

    with pytest.raises(StorageError):
        await CombineRemote({"one": MemoryRemote(), "two": Broken()}).start()


@pytest_twisted.ensureDeferred
async def test_usage_is_the_sum(tmp_path: Path, workers: Workers) -> None:
    one, two = LocalRemote(tmp_path / "one", workers), LocalRemote(tmp_path / "two", workers)
    both = CombineRemote({"one": one, "two": two})
    await both.start()
    total = (await one.usage()).total
    assert total
    assert (await both.usage()).total == 2 * total
    await both.stop()
