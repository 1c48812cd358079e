"""The users of a password file, as those who may log in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore, fail, succeed
from zope.interface import implementer

from resticd.auth.hashes import verify
from resticd.auth.login import IAccounts
from resticd.auth.sharing import SharedCalls
from resticd.errors import ConfigurationError, TooManyLogins

if TYPE_CHECKING:
    from resticd.auth.basic import Credentials
    from resticd.auth.htpasswd import HtpasswdFile
    from resticd.workers import Workers

#: Hashes that are worked out at once: each takes a processor, and a thread away from other people's data.
PLACES = 2
#: Checks that may wait for one of these places.
LONGEST_LINE = 256


@implementer(IAccounts)
class FileAccounts:
    """The users of a password file.

    :param file: what is stored.
    :param workers: where the file is read and hashes are worked out.
    """

    def __init__(self, file: HtpasswdFile, workers: Workers) -> None:
        self._file = file
        self._workers = workers
        self._reading = DeferredLock()
        self._checks: SharedCalls[bool] = SharedCalls()
        self._places = DeferredSemaphore(PLACES)

    def refresh(self) -> Deferred[None]:
        """See ``IAccounts``."""
        if not self._file.stale():
            return succeed(None)
        return Deferred.fromCoroutine(self._refresh())

    async def _refresh(self) -> None:
        # One after another, each of them looks again: a reading that began before this call may have missed a change.
        await self._reading.acquire()
        try:
            if self._file.stale():
                self._file.adopt(await self._workers.run(self._file.read))
        except ConfigurationError as error:
            self._file.keep(error)
        finally:
            self._reading.release()

    def era(self) -> object | None:
        """See ``IAccounts``."""
        return None if self._file.stale() else self._file.contents

    def stored(self, user: str) -> str | None:
        """See ``IAccounts``."""
        return self._file.contents.hashes.get(user)

    def check(self, credentials: Credentials, stored: str | None) -> Deferred[bool]:
        """See ``IAccounts``. Equal checks at the same time share one computation. Cancelling ends the waiting alone."""
        if stored is not None:
            return self._match(credentials.password, stored)
        decoy = self._file.contents.decoy
        if decoy is None:
            return succeed(False)
        # The decoy is the hash of somebody else, so what comes out must not matter.
        return self._match(credentials.password, decoy).addCallback(lambda _: False)

    def _match(self, password: str, stored: str) -> Deferred[bool]:
        if len(self._places.waiting) >= LONGEST_LINE:
            return fail(TooManyLogins("too many logins at the same time"))
        # Hashes have a salt of their own or none, so this tells no more than the computation would.
        key = f"{stored}\0{password}".encode()
        return self._checks.join(key, lambda: self._places.run(self._workers.run, verify, password, stored))
