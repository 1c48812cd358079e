"""What ``--cache-objects`` remembers, for how long, and what it never hides."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from conformance import Conformance, everything, get, put, sha256
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from resticd.errors import NotFound, StorageError
from resticd.interfaces import IRemote, IUpload
from resticd.remotes.memory import MemoryRemote
from resticd.remotes.wrappers.cache import CacheRemote

A, B, C = (f"repo/data/{digit * 2}/{digit * 64}" for digit in "abc")


class Counting(MemoryRemote):
    """Counts how often it is asked, and may fail in the middle of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.fails = False

    def stat(self, key: str) -> Deferred[Any]:
        self.asked += 1
        return super().stat(key)

    async def list(self, prefix: str) -> Any:
        async for page in super().list(prefix):
            yield page
            if self.fails:
                raise StorageError("the connection was lost")


class TestConformance(Conformance):
    """The cache changes nothing about a remote."""

    holds_back = False

    @pytest_twisted.async_yield_fixture
    async def remote(self) -> Any:
        yield CacheRemote(MemoryRemote(), Clock())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def inner() -> Counting:
    return Counting()


@pytest.fixture
def remote(inner: Counting, clock: Clock) -> CacheRemote:
    return CacheRemote(inner, clock, lifetime=60)


@pytest_twisted.ensureDeferred
async def test_interfaces(remote: CacheRemote) -> None:
    """It is a remote, and its uploads are uploads."""
    verifyObject(IRemote, remote)
    verifyObject(IUpload, await remote.begin(A, 1, None))


@pytest_twisted.ensureDeferred
async def test_listed_objects_are_known(remote: CacheRemote, inner: Counting) -> None:
    """After a list the remote is not asked for what was in it, and is for what was not."""
    await put(inner, A, b"1")
    await put(inner, "repo/keys/" + "b" * 64, b"12")
    await everything(remote, "repo/")
    inner.asked = 0
    assert (await remote.stat(A)).size == 1
    assert (await remote.stat("repo/keys/" + "b" * 64)).size == 2
    assert inner.asked == 0
    with pytest.raises(NotFound):
        await remote.stat(C)
    assert inner.asked == 1


@pytest_twisted.ensureDeferred
async def test_what_changes_is_always_asked_for(remote: CacheRemote, inner: Counting) -> None:
    """Locks, config and what is not restic's are not remembered."""
    keys = ("repo/config", "repo/locks/" + "a" * 64, "repo/readme", "repo/data/ab/short")
    for key in keys:
        await put(remote, key, b"1")
    await everything(remote)
    for key in keys:
        await remote.stat(key)
    assert inner.asked == len(keys)


@pytest_twisted.ensureDeferred
async def test_our_uploads_and_deletions(remote: CacheRemote, inner: Counting) -> None:
    """What we upload is known at once, what we delete is forgotten at once."""
    await put(remote, A, b"123")
    assert (await remote.stat(A)).size == 3
    assert inner.asked == 0
    await remote.delete(A)
    with pytest.raises(NotFound):
        await remote.stat(A)


@pytest_twisted.ensureDeferred
async def test_failed_uploads_are_not_known(remote: CacheRemote) -> None:
    """An upload that is not committed, or fails, is not there."""
    upload = await remote.begin(A, 1, None)
    upload.write(b"x")
    await upload.abort()
    with pytest.raises(Exception, match="hash"):
        await put(remote, B, b"x", sha256=sha256(b"y"))
    for key in (A, B):
        with pytest.raises(NotFound):
            await remote.stat(key)


@pytest_twisted.ensureDeferred
async def test_another_writers_upload_is_never_hidden(remote: CacheRemote, inner: Counting) -> None:
    """A miss is not remembered."""
    await everything(remote, "repo/data/")
    with pytest.raises(NotFound):
        await remote.stat(A)
    await put(inner, A, b"1")
    assert (await remote.stat(A)).size == 1


@pytest.mark.parametrize("prefix", ["", "repo/", "repo/data/"])
@pytest_twisted.ensureDeferred
async def test_another_writers_deletion_is_seen_by_the_next_list(
    remote: CacheRemote, inner: Counting, clock: Clock, prefix: str
) -> None:
    """A list that does not show an object ends what was remembered of it."""
    await put(remote, A, b"1")
    await put(remote, B, b"1")
    await inner.delete(A)
    assert (await remote.stat(A)).size == 1
    clock.advance(1)
    assert set(await everything(remote, prefix)) == {B}
    with pytest.raises(NotFound):
        await remote.stat(A)


@pytest_twisted.ensureDeferred
async def test_a_failed_list_makes_nothing_known_again(remote: CacheRemote, inner: Counting, clock: Clock) -> None:
    """What a broken list did not come to is asked for."""
    await put(remote, A, b"1")
    await inner.delete(A)
    await put(inner, B, b"1")
    clock.advance(1)
    inner.fails = True
    with pytest.raises(StorageError):
        await everything(remote, "repo/data/")
    with pytest.raises(NotFound):
        await remote.stat(A)
    assert (await remote.stat(B)).size == 1


@pytest_twisted.ensureDeferred
async def test_another_writers_deletion_is_seen_after_a_time(
    remote: CacheRemote, inner: Counting, clock: Clock
) -> None:
    """Nothing is remembered for longer than its lifetime."""
    await put(remote, A, b"1")
    await inner.delete(A)
    clock.advance(60)
    assert (await remote.stat(A)).size == 1
    clock.advance(0.1)
    with pytest.raises(NotFound):
        await remote.stat(A)


@pytest_twisted.ensureDeferred
async def test_a_deletion_beside_a_list(remote: CacheRemote, inner: Counting) -> None:
    """A page that was made before our deletion does not bring the object back."""
    await put(inner, A, b"1")
    old = [page async for page in inner.list("repo/data/")]

    async def late_pages(prefix: str) -> Any:
        await remote.delete(A)
        await put(remote, B, b"12")
        for page in old:
            yield [entry._replace(key=key) for entry in page for key in (A, B)]

    inner.list = late_pages
    await everything(remote, "repo/data/")
    with pytest.raises(NotFound):
        await remote.stat(A)
    assert (await remote.stat(B)).size == 2  # not what the old page says


@pytest_twisted.ensureDeferred
async def test_memory_is_bounded(inner: Counting, clock: Clock) -> None:
    """Of more objects than fit the last ones are known; all are there."""
    remote = CacheRemote(inner, clock, capacity=10)
    keys = [f"data/{number:02x}/{number:064x}" for number in range(30)]
    for key in keys:
        await put(remote, key, b"x")
    assert len(remote._known) == 10
    for key in keys:
        assert (await remote.stat(key)).size == 1
    assert inner.asked == 20
    clock.advance(61)
    await everything(remote, "nothing/")
    assert not remote._known
    assert await get(remote, keys[0]) == b"x"


class Others:
    """Two caches of two processes."""

    def __init__(self) -> None:
        self.caches: list[CacheRemote] = []
        self.announced: list[str] = []

    def add(self, cache: CacheRemote) -> None:
        self.caches.append(cache)

    def announce(self, key: str) -> None:
        self.announced.append(key)
        for cache in self.caches:
            cache.forget(key)


@pytest_twisted.ensureDeferred
async def test_what_another_process_deletes_is_forgotten(inner: Counting, clock: Clock) -> None:
    """… and what it uploads is seen, since only presence is remembered."""
    others = Others()
    first, second = (CacheRemote(inner, clock, deletions=others) for _ in range(2))
    with pytest.raises(NotFound):
        await second.stat(A)
    await put(first, A, b"x")
    assert (await second.stat(A)).size == 1
    assert list(await everything(second, "repo/")) == [A]
    asked = inner.asked
    assert (await second.stat(A)).size == 1
    assert inner.asked == asked
    await first.delete(A)
    assert others.announced == [A]
    with pytest.raises(NotFound):
        await second.stat(A)
