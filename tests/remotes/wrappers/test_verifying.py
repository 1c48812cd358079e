"""Hashes are compared in front of remotes that do not compare them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from conformance import Conformance, Source, everything, get, put, sha256
from support.waiting import until
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import deferLater
from zope.interface import implementer
from zope.interface.verify import verifyObject

from resticd.errors import Corrupt, OutOfSpace
from resticd.interfaces import Capabilities, IRemote, IUpload
from resticd.remotes.memory import MemoryRemote
from resticd.remotes.wrappers.verifying import VerifyingRemote
from resticd.workers import Workers


class Careless(MemoryRemote):
    """Stores whatever comes."""

    capabilities = Capabilities(conditional_create=True)

    def begin(self, key: str, size: int | None, sha256: str | None, overwrite: bool = False) -> Deferred[Any]:
        return super().begin(key, size, None, overwrite)

    def open(self, key: str, span: Any = None) -> Deferred[Any]:
        # As any real remote, it answers later, so that workers' results get their turn.
        return deferLater(reactor, 0, super().open, key, span)


class TestConformance(Conformance):
    """With the wrapper a careless remote is as good as any."""

    holds_back = False

    @pytest_twisted.async_yield_fixture
    async def remote(self, workers: Workers) -> Any:
        yield VerifyingRemote(Careless(), workers)


@pytest.fixture
def careless() -> Careless:
    return Careless()


@pytest.fixture
def remote(careless: Careless, workers: Workers) -> Iterator[VerifyingRemote]:
    return VerifyingRemote(careless, workers)


@pytest_twisted.ensureDeferred
async def test_interfaces(remote: VerifyingRemote, careless: Careless) -> None:
    """It says that it verifies, and the rest as the remote inside."""
    verifyObject(IRemote, remote)
    verifyObject(IUpload, await remote.begin("a", 1, sha256(b"a")))
    assert remote.capabilities == Capabilities(conditional_create=True, verifies_hash=True)


@pytest_twisted.ensureDeferred
async def test_wrong_bytes(remote: VerifyingRemote, careless: Careless) -> None:
    """A body that does not hash to what was announced is Corrupt, and never committed inside."""
    with pytest.raises(Corrupt):
        await put(remote, "a", b"x" * 1_000_000, sha256=sha256(b"y"))
    assert careless.objects == {}


@pytest_twisted.ensureDeferred
async def test_nothing_to_compare(remote: VerifyingRemote, workers: Workers) -> None:
    """Without a hash, and around a remote that verifies, the upload is the remote's own."""
    await put(remote, "a", b"x", sha256=None)
    assert await get(remote, "a") == b"x"
    able = MemoryRemote()
    upload = await VerifyingRemote(able, workers).begin("a", 1, sha256(b"x"))
    assert type(upload) is type(await able.begin("a", 1, sha256(b"x")))


@implementer(IUpload)
class Refusing:
    """An upload that wants no more after its first bytes."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.producer.stopProducing()

    def commit(self) -> Deferred[Any]:
        return fail(OutOfSpace("the remote is full"))

    def abort(self) -> Deferred[None]:
        return succeed(None)


@pytest_twisted.ensureDeferred
async def test_the_remotes_reason_comes_out(remote: VerifyingRemote, careless: Careless) -> None:
    """A remote that stops an upload early gives the reason, not the hash of what had come until then."""
    careless.begin = lambda *_: succeed(Refusing())
    upload = await remote.begin("a", 1_000_000, sha256(b"x"))
    source = Source(upload, b"x" * 1_000_000)
    await source.start()
    assert source.stopped
    with pytest.raises(OutOfSpace):
        await upload.commit()
    assert await everything(remote) == {}


@implementer(IUpload)
class Slow(Refusing):
    """An upload that pauses its producer until told."""

    def write(self, data: bytes) -> None:
        self.producer.pauseProducing()


@implementer(IPushProducer)
class Producer:
    paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        raise AssertionError("nobody refuses")


@pytest_twisted.ensureDeferred
async def test_the_slower_one_decides(careless: Careless) -> None:
    """The producer runs only while both the remote and the hashing keep up."""
    idle = Workers(reactor, size=1)  # not started: hashing does not begin
    slow = Slow()
    careless.begin = lambda *_: succeed(slow)
    upload = await VerifyingRemote(careless, idle).begin("a", 1, sha256(b"x"))
    producer = Producer()
    upload.registerProducer(producer, True)
    upload.write(b"x")
    assert producer.paused  # by the remote
    for _ in range(40):
        upload.write(b"x" * 65536)
    slow.producer.resumeProducing()
    assert producer.paused  # by the hashing
    idle.start()
    try:
        await until(lambda: not producer.paused)
    finally:
        idle.stop()
