"""Uploads: PUT to a temporary name, a look at what arrived, then MOVE to the key."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from typing import TYPE_CHECKING

from attrs import field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from resticd.errors import AlreadyExists, Corrupt, NotFound, ResticdError, StorageError
from resticd.interfaces import IUpload, Stat
from resticd.remotes.kept_body import KeptBody
from resticd.remotes.webdav_errors import NotUnderstood
from resticd.remotes.webdav_move import move
from resticd.remotes.webdav_places import parent_of, temporary_name
from resticd.transport.bodies import StreamedBody

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer

    from resticd.remotes.claims import IClaim
    from resticd.remotes.webdav_api import WebDavApi
    from resticd.remotes.webdav_leftovers import Leftovers
    from resticd.remotes.webdav_manners import Manners
    from resticd.remotes.webdav_objects import Objects
    from resticd.remotes.webdav_places import Places
    from resticd.transport.response import Response

#: Bodies up to this many bytes are kept in memory, so that their PUT can be repeated.
BUFFERED = 1024 * 1024
_TYPE = ("Content-Type", "application/octet-stream")


@frozen
class Store:
    """What all uploads to one server share."""

    api: WebDavApi
    places: Places
    objects: Objects
    leftovers: Leftovers


@frozen
class Target:
    """What is uploaded, and where to.

    :ivar key: below the URL.
    :ivar size: in bytes, None where it is not known.
    :ivar temporary: the key that the bytes have until they are complete. It is in the same collection, so that the
        server only has to rename what it has.
    """

    store: Store
    manners: Manners
    claim: IClaim
    key: str
    size: int | None
    overwrite: bool
    temporary: str = field(init=False)

    @temporary.default
    def _(self) -> str:
        return parent_of(self.key) + temporary_name()

    async def prepare(self) -> None:
        """Make the collections that it lies in."""
        await self.store.places.ensure(parent_of(self.key))
        self.store.leftovers.begin(self.temporary)

    def leave(self) -> None:
        """The upload is over."""
        self.store.leftovers.end(self.temporary)
        self.claim.leave()

    def check_size(self, received: int) -> None:
        """Raises ``Corrupt`` where another size was announced."""
        if self.size is not None and received != self.size:
            raise Corrupt(f"{received} bytes arrived, {self.size} were announced")

    async def check_arrived(self, size: int, sha1: str | None) -> None:
        """Raises a ``StorageError`` where the server has not stored what was sent.

        :param sha1: of what was sent, where it is worth comparing.
        """
        try:
            found = await self.store.objects.look(self.temporary)
        except NotFound:
            raise StorageError(f"webdav: what was uploaded for {self.key} is gone") from None
        if found.stat.size != size:
            raise StorageError(f"webdav: {size} bytes of {self.key} were sent, {found.stat.size} are stored")
        if sha1 is not None and found.checksums.get("SHA1", sha1) != sha1:
            raise StorageError(f"webdav: other bytes of {self.key} are stored than were sent")

    async def reveal(self, size: int) -> Stat:
        """Give what is stored its name, unless the name is taken. Raises ``AlreadyExists``.

        Called with the claim's turn held. Not to be cancelled: nobody would know what became of the object.
        """
        if not self.overwrite:
            if self.claim.lost:
                raise AlreadyExists("a file is stored under this name")
            if not self.manners.conditional:
                await self._check_free()
        with self.store.objects.replacing(self.key) if self.overwrite else nullcontext():
            try:
                told = await move(self.store.api, self.temporary, self.key, overwrite=self.overwrite)
            except ResticdError:
                # Perhaps the collection is gone. The next upload looks.
                self.store.places.forget(parent_of(self.key))
                raise
        if told:
            return Stat(size)
        found = await self.store.objects.look(self.key)
        if found.stat.size != size:
            raise StorageError(f"webdav: what was uploaded for {self.key} is gone")
        return found.stat

    async def _check_free(self) -> None:
        try:
            await self.store.objects.look(self.key)
        except NotFound:
            return
        raise AlreadyExists("a file is stored under this name")


class WebDavUpload:
    """What all uploads have in common: one commit, cleaned up after; the claim is left in every case."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._over = False
        self._revealing = False
        #: whether the server may have something
        self._sent = False
        self._running: Deferred[Stat] | None = None
        self._gone: list[Deferred[None]] | None = []

    def commit(self) -> Deferred[Stat]:
        """See ``IUpload``. From the moment that MOVE is sent, a cancellation only ends the waiting for it."""
        if self._over:
            return fail(StorageError("the upload was given up"))
        self._over = True
        running = self._running = Deferred.fromCoroutine(self._commit())
        outcome: Deferred[Stat] = Deferred(self._cancel)

        def finished(result: Stat | Failure) -> None:
            self._settle()
            if not outcome.called:
                outcome.callback(result)  # a Failure goes down the errback side

        running.addBoth(finished)
        return outcome

    def abort(self) -> Deferred[None]:
        """See ``IUpload``."""
        if not self._over:
            self._over = True
            Deferred.fromCoroutine(self._abort()).addErrback(lambda _: None).addBoth(lambda _: self._settle())
        if self._gone is None:
            return succeed(None)
        gone: Deferred[None] = Deferred(self._gone.remove)
        self._gone.append(gone)
        return gone

    def _cancel(self, _: Deferred[Stat]) -> None:
        if not self._revealing and self._running is not None:
            self._running.cancel()

    def _settle(self) -> None:
        gone, self._gone = self._gone or [], None
        for each in gone:
            each.callback(None)

    async def _commit(self) -> Stat:
        target = self._target
        try:
            size, sha1 = await self._store()
            await target.check_arrived(size, sha1)
            async with target.claim.turn:
                self._revealing = True
                stat = await target.reveal(size)
                target.claim.won()
                return stat
        except BaseException:
            await self._discard()
            raise
        finally:
            target.leave()

    async def _abort(self) -> None:
        try:
            await self._discard()
        finally:
            self._target.leave()

    async def _discard(self) -> None:
        """Leave nothing behind. Never fails."""
        self._drop()
        if self._sent:
            await self._target.store.leftovers.remove_own(self._target.temporary)

    async def _store(self) -> tuple[int, str | None]:
        """Let the server have all; returns how many bytes that are, and their SHA-1 where it can be compared."""
        raise NotImplementedError

    def _drop(self) -> None:
        """Let go of what is held."""
        raise NotImplementedError


@implementer(IUpload)
class BufferedUpload(WebDavUpload):
    """A body that is small enough to wait in memory."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._body = KeptBody(target.size or 0)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        self._body.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._body.unregisterProducer()

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self._body.write(data)

    async def _store(self) -> tuple[int, str | None]:
        target = self._target
        target.check_size(self._body.received)
        data = self._body.data
        headers, sha1 = [_TYPE], None
        if target.store.api.options.checksums:
            sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
            headers.append(("OC-Checksum", f"SHA1:{sha1}"))
        self._sent = True
        try:
            response = await target.store.api.call("PUT", target.temporary, headers=headers, data=data)
        except NotUnderstood as error:
            if sha1 is None:
                raise
            # It is what ownCloud says of bytes that do not match.
            raise StorageError(str(error)) from None
        await response.discard()
        return len(data), sha1

    def _drop(self) -> None:
        self._body.drop()


@implementer(IUpload)
class StreamedUpload(WebDavUpload):
    """A body that goes straight to the server.

    What fails is not repeated here, as the bytes are gone: the client repeats it.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._body = StreamedBody(target.size)
        self._answer: Deferred[Response] | None = None
        # A piece of it takes some 30 microseconds, less than handing it to a worker.
        self._sha1 = hashlib.sha1(usedforsecurity=False) if target.store.api.options.checksums else None

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        self._body.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._body.unregisterProducer()

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        # Not before: a server gives up a request whose body does not come.
        self._begin()
        if self._sha1 is not None:
            self._sha1.update(data)
        self._body.write(data)

    def _begin(self) -> None:
        if self._answer is None and not self._over:
            self._sent = True
            self._answer = Deferred.fromCoroutine(self._send())

    async def _send(self) -> Response:
        target = self._target
        try:
            return await target.store.api.attempt("PUT", target.temporary, headers=(_TYPE,), stream=self._body)
        except BaseException:
            self._body.discard()
            target.store.places.forget(parent_of(target.key))
            raise

    async def _store(self) -> tuple[int, str | None]:
        target = self._target
        if self._answer is None:  # nothing was written
            target.check_size(0)
            self._sent = True
            self._answer = Deferred.fromCoroutine(self._send())
        elif self._answer.called or self._body.stopped:
            await self._answer  # raises why the server wants no more
        if self._body.excess:
            raise Corrupt(f"more than the announced {target.size} bytes arrived")
        target.check_size(self._body.received)
        self._body.release()
        response = await self._answer
        await response.discard()
        return self._body.received, None if self._sha1 is None else self._sha1.hexdigest()

    def _drop(self) -> None:
        self._body.discard()
        if self._answer is not None:
            self._answer.addErrback(lambda _: None)
            self._answer.cancel()
