"""``--tpslimit`` around a remote."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from conformance import Conformance, everything, put
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from resticd.interfaces import IRemote
from resticd.remotes.memory import MemoryRemote
from resticd.remotes.wrappers.limiter import LimitedRemote
from resticd.transport.limiter import TokenBucket


class Unlimited:
    def __init__(self) -> None:
        self.count = 0

    def acquire(self) -> Deferred[None]:
        self.count += 1
        return succeed(None)


class TestConformance(Conformance):
    """A limit changes nothing about a remote but its pace."""

    holds_back = False

    @pytest_twisted.async_yield_fixture
    async def remote(self) -> Any:
        yield LimitedRemote(MemoryRemote(), Unlimited())


def test_operations_wait_for_their_turn() -> None:
    """The burst goes at once, the rest in order as tokens come."""
    clock = Clock()
    remote = LimitedRemote(MemoryRemote(), TokenBucket(clock, rate=2, burst=2))
    verifyObject(IRemote, remote)
    calls = [remote.delete("a"), remote.delete("b"), remote.delete("c"), remote.delete("d")]
    assert [call.called for call in calls] == [True, True, False, False]
    clock.advance(0.5)
    assert [call.called for call in calls] == [True, True, True, False]
    clock.advance(0.5)
    assert all(call.called for call in calls)


@pytest_twisted.ensureDeferred
async def test_every_operation_counts() -> None:
    """Uploads, downloads, lists by the page, deletions, all of them."""
    limiter = Unlimited()
    remote = LimitedRemote(MemoryRemote(), limiter)
    await put(remote, "a", b"x")
    assert limiter.count == 1
    await remote.stat("a")
    (await remote.open("a")).close()
    await remote.make("b/")
    await remote.tidy("b/")
    assert limiter.count == 5
    await everything(remote)
    assert limiter.count == 7  # before the page, and before the end could be known
    with pytest.raises(Exception, match="quota"):
        await remote.usage()


@pytest_twisted.ensureDeferred
async def test_cancelled_in_the_queue() -> None:
    """An operation that is given up while it waits is never done, and its turn goes to the next one."""
    clock = Clock()
    inner = MemoryRemote()
    await put(inner, "a", b"x")
    remote = LimitedRemote(inner, TokenBucket(clock, rate=1))
    await remote.stat("a")
    first, second = remote.delete("a"), remote.stat("a")
    first.cancel()
    with pytest.raises(CancelledError):
        await first
    clock.advance(1)
    assert (await second).size == 1
