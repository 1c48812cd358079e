"""Uploads that are one PUT: from memory, or streamed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import alsoProvides, implementer

from resticd.errors import AlreadyExists, Corrupt, NotFound, StorageError
from resticd.interfaces import IUpload, IVerifyingUpload, Stat
from resticd.remotes.claimed_upload import ClaimedUpload
from resticd.remotes.kept_body import KeptBody
from resticd.remotes.s3_api import S3Api, key_headers, object_headers
from resticd.remotes.s3_manners import Manners, checksum_header, confirms
from resticd.transport.bodies import BytesBody, StreamedBody

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer

    from resticd.remotes.claims import IClaim
    from resticd.remotes.s3_objects import ObjectLookup
    from resticd.transport.response import Response
    from resticd.workers import Workers

#: Bodies up to this many bytes are kept in memory, so that their PUT can be repeated.
BUFFERED = 1024 * 1024

_CONDITION = ("If-None-Match", "*")


class Stored(NamedTuple):
    """What the answer to an upload says of the object.

    :ivar etag: empty where it is not known.
    :ivar confirmed: no other hash is told than that of the bytes that were sent.
    """

    etag: str = ""
    confirmed: bool = True

    @classmethod
    def told_by(cls, response: Response, sha256: str) -> Stored:
        """From the answer to a PUT."""
        return cls(response.header("ETag") or "", confirms(response, sha256))


@frozen
class Target:
    """What is uploaded, and where to.

    :ivar key: in the bucket.
    :ivar size: in bytes, None where it is not known.
    :ivar sha256: in hexadecimal, None where it is not known.
    """

    api: S3Api
    lookup: ObjectLookup
    manners: Manners
    workers: Workers
    claim: IClaim
    key: str
    size: int | None
    sha256: str | None
    overwrite: bool

    @property
    def condition(self) -> tuple[tuple[str, str], ...]:
        """The header that lets the server refuse to replace anything, where it would."""
        return (_CONDITION,) if self.manners.conditional and not self.overwrite else ()

    def headers(self, sha256: str) -> list[tuple[str, str]]:
        """Of a PUT of the whole object."""
        checksum = [checksum_header(sha256)] if self.manners.takes_checksum else []
        return [*object_headers(self.api.options), *checksum, *self.condition]

    def check_size(self, received: int) -> None:
        """Raises ``Corrupt`` where another size was announced."""
        if self.size is not None and received != self.size:
            raise Corrupt(f"{received} bytes arrived, {self.size} were announced")

    async def check_free(self, look: bool = False) -> None:
        """Raises ``AlreadyExists`` where the key is taken, as far as this can be told before the server decides.

        Called with the claim's turn held, right before the object becomes visible.

        :param look: even where the server is known to refuse a PUT of a taken key.
        """
        if self.overwrite:
            return
        if self.claim.lost:
            raise AlreadyExists("a file is stored under this name")
        if look or not self.manners.conditional:
            try:
                await self.lookup.head(self.key)
            except NotFound:
                return
            raise AlreadyExists("a file is stored under this name")

    async def confirm(self, size: int, stored: Stored, proven: bool) -> Stat:
        """What was stored; looked at, unless the server has compared the bytes with their hash.

        An object of another size or hash is removed, if it is the one that was uploaded, and a ``StorageError`` raised.
        """
        if proven and stored.confirmed:
            return Stat(size)
        try:
            found = await self.lookup.head(self.key)
        except NotFound:
            raise StorageError(f"s3: {self.key} was sent, and nothing is stored") from None
        if found.stat.size == size and stored.confirmed:
            return found.stat
        if stored.etag and found.etag == stored.etag:
            await self.api.call("DELETE", self.key)
        raise StorageError(f"s3: {size} bytes of {self.key} were sent, and {found.stat.size} or others are stored")


async def put_bytes(target: Target, data: bytes, sha256: str | None) -> Stat:
    """Store an object that is in memory, trying again while that may help.

    :param sha256: of ``data``, computed where it is None.
    """
    if sha256 is None:
        sha256 = await target.workers.run(_hexdigest, data)
    digest = sha256

    async def attempt(number: int) -> Stored:
        try:
            response = await target.api.attempt(
                "PUT", target.key, headers=target.headers(digest), body=BytesBody(data), sha256=digest
            )
        except AlreadyExists:
            # An earlier attempt whose answer was lost may be what is stored.
            if number == 0 or not await _is_stored(target, data):
                raise
            return Stored()
        response.discard()
        return Stored.told_by(response, digest)

    await target.check_free()
    stored = await target.api.client.retries.run(attempt)
    return await target.confirm(len(data), stored, target.manners.checks_checksum)


async def _is_stored(target: Target, data: bytes) -> bool:
    headers = key_headers(target.api.options)
    response = await target.api.attempt("GET", target.key, headers=headers)
    if response.length != len(data):
        response.discard()
        return False
    return await response.read(len(data)) == data


def _hexdigest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class S3Upload(ClaimedUpload):
    """What all uploads to S3 have in common."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.claim)
        self._target = target


@implementer(IUpload)
class BufferedUpload(S3Upload):
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

    async def _store(self) -> Stat:
        self._target.check_size(self._body.received)
        return await put_bytes(self._target, self._body.data, self._target.sha256)

    async def _discard(self) -> None:
        self._body.drop()


@implementer(IUpload)
class StreamedUpload(S3Upload):
    """A body of known size and hash that goes straight to the server; its last byte follows in ``commit``.

    What fails is not repeated here, as the bytes are gone: the client repeats it.
    """

    def __init__(self, target: Target, size: int, sha256: str) -> None:
        super().__init__(target)
        self._sha256 = sha256
        self._size = size
        self._body = StreamedBody(size)
        self._answer: Deferred[Response] | None = None
        if target.manners.checks_checksum:
            alsoProvides(self, IVerifyingUpload)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        self._body.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._body.unregisterProducer()

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        # Not before: a server gives up a request whose body does not come.
        if self._answer is None and not self._over:
            self._answer = Deferred.fromCoroutine(self._send())
        self._body.write(data)

    async def _send(self) -> Response:
        target = self._target
        try:
            return await target.api.attempt(
                "PUT", target.key, headers=target.headers(self._sha256), body=self._body, sha256=self._sha256
            )
        except BaseException:
            self._body.discard()
            raise

    async def _store(self) -> Stat:
        target = self._target
        if self._answer is not None and (self._answer.called or self._body.stopped):
            await self._answer  # raises why the server wants no more
        if self._body.excess:
            raise Corrupt(f"more than the announced {self._size} bytes arrived")
        target.check_size(self._body.received)
        assert self._answer is not None  # something was written
        await target.check_free()
        self._body.release()
        response = await self._answer
        response.discard()
        stored = Stored.told_by(response, self._sha256)
        return await target.confirm(self._size, stored, target.manners.checks_checksum)

    async def _discard(self) -> None:
        self._body.discard()
        if self._answer is not None:
            self._answer.addErrback(lambda _: None)
            self._answer.cancel()
