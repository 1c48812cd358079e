"""Uploads through rclone.

Where a remote can rename files, they are uploaded under a temporary name beside their own, and nobody sees them before
they are whole. What cannot rename, such as the storage of buckets, stores a file whole or not at all: there files go to
their own name at once, and the last byte is held back until all is well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from resticd.errors import AlreadyExists, Corrupt, NotFound, OutOfSpace, ResticdError, StorageError
from resticd.interfaces import IUpload, Stat
from resticd.remotes.bridge_files import is_moved, temporary_beside
from resticd.remotes.claimed_upload import ClaimedUpload
from resticd.remotes.outcome import Outcome
from resticd.transport.bodies import BytesBody, StreamedBody
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer

    from resticd.remotes.bridge_api import RcloneApi
    from resticd.remotes.bridge_child import Running
    from resticd.remotes.bridge_files import Files, Found
    from resticd.remotes.claims import IClaim

#: Hashes to compare by, the best first.
_HASHES = ("sha256", "sha1", "md5")

_log = Logger(namespace="resticd.remotes.bridge")


@frozen
class Target:
    """What is uploaded, and where to.

    :ivar size: in bytes.
    :ivar taken: the key was taken when the upload began; then nothing is sent.
    :ivar sha256: in hexadecimal, None where it is not known.
    :ivar several: the remote is made of several (``union``), and a file is on one of them.
    :ivar free: how many bytes there is room for, None where the remote does not say.
    """

    files: Files
    running: Running
    claim: IClaim
    key: str
    size: int
    sha256: str | None
    overwrite: bool
    several: bool
    taken: bool
    free: Callable[[], Awaitable[int | None]]

    @property
    def staged(self) -> bool:
        """Whether the upload goes to a temporary name first."""
        features = self.running.features
        return features.moves or features.partial or is_moved(self.key)

    async def check_free(self) -> None:
        """Raises ``AlreadyExists`` where the key is taken. Called with the claim's turn held.

        rclone has no condition to give to a remote: another program may store the key right after.
        """
        if self.overwrite:
            return
        if self.claim.lost or await self.files.exists(self.key):
            raise AlreadyExists("a file is stored under this name")


@implementer(IUpload)
class BridgeUpload(ClaimedUpload):
    """A body whose size is known. What fails is not repeated here, as the bytes are gone: the client repeats it.

    Once all bytes are under way cancelling ``commit`` changes nothing: it fires with what became of it.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target.claim)
        self._target = target
        self._place = temporary_beside(target.key) if target.staged else target.key
        self._body = StreamedBody(target.size) if target.size else None
        self._excess = False
        self._answer: Outcome[None] | None = None
        self._wrong = False
        hashes = target.running.features.hashes
        self._hash = next((name for name in _HASHES if name in hashes), None)
        known = self._hash == "sha256" and target.sha256 is not None
        self._digest = hashlib.new(self._hash, usedforsecurity=False) if self._hash and not known else None

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        if self._body is not None:
            self._body.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        if self._body is not None:
            self._body.unregisterProducer()

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        if self._over or self._target.taken or not data:
            return
        if self._body is None:
            self._excess = True
            return
        if self._answer is None:
            self._answer = Outcome(Deferred.fromCoroutine(self._send(self._body)))
        if self._digest is not None:
            self._digest.update(data)
        self._body.write(data)

    async def _send(self, body: StreamedBody | BytesBody) -> None:
        try:
            await self._api.post(self._place, body)
        except BaseException:
            if self._body is not None:
                self._body.discard()
            raise

    @property
    def _api(self) -> RcloneApi:
        # Of the rclone that ran when the upload began: no other one has its first bytes.
        return self._target.running.api

    async def _store(self) -> Stat:
        target = self._target
        if target.taken:
            raise AlreadyExists("a file is stored under this name")
        if self._answer is not None and (self._answer.over or (self._body is not None and self._body.stopped)):
            await self._answer.wait()  # raises why rclone wants no more
        self._check_size()
        await target.check_free()
        if self._body is None:
            self._answer = Outcome(Deferred.fromCoroutine(self._send(BytesBody(b""))))
        else:
            self._body.release()
        assert self._answer is not None  # something was written
        try:
            await self._answer.to_the_end()
        except Refused as error:
            raise await self._explained(error) from None
        found = await Outcome(Deferred.fromCoroutine(self._verified())).to_the_end()
        if target.staged:
            await Outcome(Deferred.fromCoroutine(self._rename())).to_the_end()
        return found.stat

    def _check_size(self) -> None:
        size = self._target.size
        if self._excess or (self._body is not None and self._body.excess):
            raise Corrupt(f"more than the announced {size} bytes arrived")
        if self._body is not None and not self._body.complete:
            raise Corrupt(f"{self._body.received} bytes arrived, {size} were announced")

    async def _verified(self) -> Found:
        """Look at what was stored. Raises ``StorageError`` where it is not what was sent."""
        target = self._target
        try:
            found = await target.files.look(self._place, self._hash)
        except NotFound:
            raise StorageError(f"rclone stored {target.key}, but it is not there") from None
        if found.stat.size != target.size:
            self._wrong = True
            raise StorageError(f"rclone: {target.size} bytes of {target.key} were sent, {found.stat.size} are stored")
        expected = target.sha256 if self._digest is None else self._digest.hexdigest()
        stored = found.hashes.get(self._hash or "")
        if stored and expected and stored.lower() != expected:
            self._wrong = True
            raise StorageError(f"rclone: what is stored of {target.key} has another {self._hash} than what was sent")
        return found

    async def _rename(self) -> None:
        """Give the file its name. Where rclone does not say what became of that, look."""
        target = self._target
        await target.check_free()
        # A union renames on the remote where the new file is, and the old one may be on another one.
        look = target.overwrite and target.several
        try:
            await target.files.rename(self._place, target.key, look=look)
        except Refused:
            if not target.overwrite or look:
                raise
            # The remote does not rename over another file.
            await target.files.rename(self._place, target.key, look=True)
        except StorageError:
            if not await self._was_renamed():
                raise

    async def _was_renamed(self) -> bool:
        files = self._target.files
        return not await files.exists(self._place) and await files.exists(self._target.key)

    async def _explained(self, error: Refused) -> ResticdError:
        """It does not say why; a full remote is the one reason that clients must know."""
        try:
            free = await self._target.free()
        except ResticdError:
            return error
        return OutOfSpace("the remote is full") if free is not None and free < self._target.size else error

    async def _discard(self) -> None:
        """Leave nothing behind. Never raises."""
        if self._body is not None:
            self._body.discard()
        if self._answer is None:
            return
        self._answer.cancel()
        try:
            await Outcome(Deferred.fromCoroutine(self._clean_up())).to_the_end()
        except ResticdError as error:
            _log.debug("{key} may have been left behind: {reason}", key=self._place, reason=str(error))

    async def _clean_up(self) -> None:
        if self._target.staged or self._wrong:
            await self._target.files.remove(self._place)
