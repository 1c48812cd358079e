"""What an upload means when its name is taken, also where the look at what is stored fails."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail

from resticd.errors import AlreadyExists, Corrupt, NotFound, RemoteTimeout, StorageError
from resticd.events import Change
from resticd.http.errors import status_of
from resticd.interfaces import Caller
from resticd.remotes.memory import MemoryRemote
from resticd.repository.names import Blob, Repository
from resticd.repository.operations import Repositories
from resticd.repository.policy import Policy
from resticd.workers import Workers

CALLER = Caller("alice", "192.0.2.1")
BODY = b"the bytes of a pack"
PACK = Blob(Repository(("a",)), "data", hashlib.sha256(BODY).hexdigest())
CONFIG = Blob(Repository(("a",)), "config", "")


class Blind(MemoryRemote):
    """Stores, but cannot look: ``trouble`` is what looks fail with, None for none."""

    trouble: Exception | None = None

    def stat(self, key: str) -> Deferred[Any]:
        return super().stat(key) if self.trouble is None else fail(self.trouble)

    def open(self, key: str, span: Any = None) -> Deferred[Any]:
        return super().open(key, span) if self.trouble is None else fail(self.trouble)


class Room:
    def __init__(self, workers: Workers) -> None:
        self.remote = Blind()
        self.events: list[Change] = []
        self.repositories = Repositories(self.remote, Policy(append_only=True), workers, self)

    def emit(self, event: Change) -> None:
        self.events.append(event)

    async def post(self, blob: Blob, body: bytes) -> None:
        store = await self.repositories.store(CALLER, blob, len(body))
        try:
            store.upload.write(body)
            await store.commit()
        finally:
            await store.abort()

    def replace(self, data: bytes) -> None:
        """Damage what is stored."""
        ((key, held),) = self.remote.objects.items()
        self.remote.objects[key] = evolve(held, data=data)

    @property
    def stored(self) -> list[bytes]:
        return [stored.data for stored in self.remote.objects.values()]


@pytest.fixture
def room() -> Iterator[Room]:
    workers = Workers(reactor)
    workers.start()
    yield Room(workers)
    workers.stop()


@pytest.mark.parametrize("trouble", [StorageError("down"), RemoteTimeout("slow"), OSError("surprise")])
@pytest.mark.parametrize(
    ("stored", "sent"),
    [(BODY, BODY), (b"damaged", BODY), (BODY, b"other bytes"), (b"damaged", b"other bytes")],
    ids=["a retry", "over damage", "other bytes", "other bytes over damage"],
)
@pytest_twisted.ensureDeferred
async def test_nothing_is_replaced_and_nothing_final_said_while_the_look_fails(
    room: Room, trouble: Exception, stored: bytes, sent: bytes
) -> None:
    """An answer that the client takes for final would be a guess, and so would a success."""
    await room.post(PACK, BODY)
    room.replace(stored)
    room.remote.trouble = trouble
    with pytest.raises(type(trouble)) as caught:
        await room.post(PACK, sent)
    assert status_of(caught.value) in (500, 504)
    assert room.stored == [stored]
    assert [event.outcome for event in room.events] == ["done", "failed"]


@pytest_twisted.ensureDeferred
async def test_a_config_is_never_replaced_and_needs_no_look(room: Room) -> None:
    await room.post(CONFIG, b"config")
    room.remote.trouble = StorageError("down")
    for body in (b"config", b"another", b""):
        with pytest.raises(AlreadyExists):
            await room.post(CONFIG, body)
    assert room.stored == [b"config"]
    assert [event.outcome for event in room.events] == ["done", "refused", "refused", "refused"]


@pytest_twisted.ensureDeferred
async def test_a_retry_is_a_success_and_other_bytes_are_refused(room: Room) -> None:
    await room.post(PACK, BODY)
    await room.post(PACK, BODY)
    with pytest.raises(AlreadyExists):
        await room.post(PACK, b"other bytes")
    assert room.stored == [BODY]
    room.replace(b"damaged")
    with pytest.raises(AlreadyExists):
        await room.post(PACK, BODY)
    assert room.stored == [b"damaged"]
    assert [event.outcome for event in room.events] == ["done", "done", "refused", "refused"]


@pytest_twisted.ensureDeferred
async def test_bytes_that_do_not_hash_to_their_name_are_corrupt(room: Room) -> None:
    with pytest.raises(Corrupt):
        await room.post(PACK, b"other bytes")
    assert room.stored == []


@pytest_twisted.ensureDeferred
async def test_what_was_in_the_way_may_be_gone_by_the_time_of_the_look(room: Room) -> None:
    """Then the client is told to come back."""
    await room.post(PACK, BODY)
    room.remote.trouble = NotFound("gone")
    with pytest.raises(StorageError):
        await room.post(PACK, BODY)
