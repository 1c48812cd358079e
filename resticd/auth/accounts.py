"""Where users and their passwords come from: a password file, or ``--user`` and ``--pass``."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, DeferredLock, succeed
from zope.interface import implementer

from resticd.auth.basic import is_password
from resticd.auth.cache import VerifiedPasswords
from resticd.auth.login import IAccounts
from resticd.auth.names import is_user
from resticd.errors import ConfigurationError

if TYPE_CHECKING:
    from resticd.auth.basic import Credentials
    from resticd.auth.htpasswd import HtpasswdFile
    from resticd.workers import Workers

#: rclone's default for ``--salt``
DEFAULT_SALT = "dlPL2MqE"


@implementer(IAccounts)
class SingleAccount:
    """One user with one password. Only a salted digest of the two is kept.

    :param user: ``--user``; raises ``ConfigurationError`` where no login could ever carry it.
    :param password: ``--pass``, the same.
    :param salt: ``--salt``
    """

    def __init__(self, user: str, password: str, salt: str = DEFAULT_SALT) -> None:
        if not is_user(user) or ":" in user:
            raise ConfigurationError("--user: empty, too long, or with a colon or unprintable characters")
        if not password or not is_password(password):
            raise ConfigurationError("--pass: empty, too long, or with control characters")
        self._salt = salt.encode(errors="surrogateescape")
        self._user = self._digest(user)
        self._password = self._digest(password)

    def refresh(self) -> Deferred[None]:
        """See ``IAccounts``."""
        return succeed(None)

    def recognises(self, credentials: Credentials) -> bool:
        """See ``IAccounts``. Says all there is: both are compared, in a time that tells nothing."""
        user = hmac.compare_digest(self._digest(credentials.user), self._user)
        password = hmac.compare_digest(self._digest(credentials.password), self._password)
        return user & password

    def check(self, credentials: Credentials) -> Deferred[bool]:
        """See ``IAccounts``."""
        return succeed(self.recognises(credentials))

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._salt, text.encode(), hashlib.sha256)


@implementer(IAccounts)
class FileAccounts:
    """The users of a password file, with the passwords that were found right remembered.

    :param file: what is stored.
    :param workers: where the file is read and hashes are worked out, best a pool of one or two threads for this alone:
        guesses then never keep the threads of the storage busy.
    """

    def __init__(self, file: HtpasswdFile, workers: Workers) -> None:
        from resticd.auth.hashes import verify

        self._file = file
        self._workers = workers
        self._verified = VerifiedPasswords(lambda password, stored: workers.run(verify, password, stored))
        self._reading = DeferredLock()

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

    def recognises(self, credentials: Credentials) -> bool:
        """See ``IAccounts``."""
        stored = self._file.contents.hashes.get(credentials.user)
        return stored is not None and self._verified.holds(credentials, stored)

    def check(self, credentials: Credentials) -> Deferred[bool]:
        """See ``IAccounts``."""
        contents = self._file.contents
        stored = contents.hashes.get(credentials.user)
        if stored is not None:
            if self._verified.holds(credentials, stored):
                return succeed(True)
            return self._verified.check(credentials, stored)
        if contents.decoy is None:
            return succeed(False)
        return Deferred.fromCoroutine(self._pretend(credentials, contents.decoy))

    async def _pretend(self, credentials: Credentials, decoy: str) -> bool:
        """Work as for a user who exists. The decoy is somebody's real hash, so what comes out must not matter."""
        await self._workers.run(_check_in_vain, credentials.password, decoy)
        return False


def _check_in_vain(password: str, decoy: str) -> None:
    from resticd.auth.hashes import verify

    verify(password, decoy)
