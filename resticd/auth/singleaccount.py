"""The one user of ``--user`` and ``--pass``."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resticd.auth.basic import is_password
from resticd.auth.login import IAccounts
from resticd.auth.names import is_user
from resticd.errors import ConfigurationError

if TYPE_CHECKING:
    from resticd.auth.basic import Credentials

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

    def era(self) -> object:
        """See ``IAccounts``."""
        return self._password

    def stored(self, user: str) -> str | None:
        """See ``IAccounts``."""
        return self._password if hmac.compare_digest(self._digest(user), self._user) else None

    def check(self, credentials: Credentials, stored: str | None) -> Deferred[bool]:
        """See ``IAccounts``."""
        matches = hmac.compare_digest(self._digest(credentials.password), self._password)
        return succeed(matches and stored is not None)

    def _digest(self, text: str) -> str:
        return hmac.digest(self._salt, text.encode(), hashlib.sha256).hex()
