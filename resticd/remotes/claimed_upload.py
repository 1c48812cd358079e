"""Uploads that are decided under a claim on their key (``remotes.claims``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail, succeed

from resticd.errors import StorageError

if TYPE_CHECKING:
    from resticd.interfaces import Stat
    from resticd.remotes.claims import IClaim


class ClaimedUpload:
    """What such uploads have in common: one commit, cleaned up after; the claim is left in every case.

    :param claim: its turn is held while ``_store`` runs.
    """

    def __init__(self, claim: IClaim) -> None:
        self._claim = claim
        self._over = False

    def commit(self) -> Deferred[Stat]:
        """See ``IUpload``."""
        if self._over:
            return fail(StorageError("the upload was given up"))
        self._over = True
        return Deferred.fromCoroutine(self._commit())

    def abort(self) -> Deferred[None]:
        """See ``IUpload``."""
        if self._over:
            return succeed(None)
        self._over = True
        return Deferred.fromCoroutine(self._abort())

    async def _commit(self) -> Stat:
        try:
            async with self._claim.turn:
                stat = await self._store()
                self._claim.won()
                return stat
        except BaseException:
            await self._discard()
            raise
        finally:
            self._claim.leave()

    async def _abort(self) -> None:
        try:
            await self._discard()
        finally:
            self._claim.leave()

    async def _store(self) -> Stat:
        """Make the object visible; the turn is held."""
        raise NotImplementedError

    async def _discard(self) -> None:
        """Leave nothing behind. Never raises."""
        raise NotImplementedError
