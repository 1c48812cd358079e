"""Unfinished uploads of writers that are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from resticd.errors import ResticdError

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from resticd.remotes.webdav_api import WebDavApi

#: Seconds since the last change after which nobody works on an upload any more.
_OLD = 24 * 3600.0


class Leftovers:
    """Removes them where they are seen. Those of this process's own uploads are left alone."""

    _log = Logger(namespace="resticd.remotes.webdav")

    def __init__(self, api: WebDavApi) -> None:
        self._api = api
        self._ours: set[str] = set()
        self._removing: dict[str, Deferred[None]] = {}

    def begin(self, key: str) -> None:
        """An upload to this temporary name begins."""
        self._ours.add(key)

    def end(self, key: str) -> None:
        """It is over."""
        self._ours.discard(key)

    def found(self, key: str, modified: float | None, now: float) -> None:
        """A temporary file was listed.

        :param modified: when it was changed, and ``now``, both by the server's clock, in seconds.
        """
        if modified is None or now - modified < _OLD or key in self._ours or key in self._removing:
            return
        removing = self._removing[key] = Deferred.fromCoroutine(self._remove(key))
        removing.addErrback(self._failed, key).addBoth(self._over, key)

    def stop(self) -> None:
        """Remove no more."""
        for removing in list(self._removing.values()):
            removing.cancel()

    async def remove_own(self, key: str) -> None:
        """Remove what is left of an upload of ours. Never fails: what stays is never listed, and removed when old."""
        try:
            await (await self._api.call("DELETE", key, allowed=(404,))).discard()
        except ResticdError as error:
            self._log.debug("{key} stays: {reason}", key=key, reason=str(error))

    async def _remove(self, key: str) -> None:
        await (await self._api.call("DELETE", key, allowed=(404,))).discard()
        self._log.info("removed {key}, which a dead writer left behind", key=key)

    def _failed(self, failure: Failure, key: str) -> None:
        if failure.check(ResticdError):
            self._log.debug("{key} stays: {reason}", key=key, reason=str(failure.value))
        elif not failure.check(CancelledError):
            self._log.failure("removing {key}", failure, key=key)

    def _over(self, _: None, key: str) -> None:
        self._removing.pop(key, None)
