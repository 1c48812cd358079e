"""Passwords that were found right, so that a slow hash is worked out once and not at every request."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from resticd.auth.basic import Credentials


class VerifiedPasswords:
    """The last passwords that matched their stored hash, as digests under a key that no other process has.

    The stored hash is a part of what is digested: once it is changed or removed, nothing here is ever found again.
    Failures are not kept, so that guesses cannot push out what is right.

    :param verify: starts a check of a password against a stored hash.
    :param capacity: how many are kept; the least recently used go first.
    """

    def __init__(self, verify: Callable[[str, str], Deferred[bool]], capacity: int = 1024) -> None:
        self._verify = verify
        self._capacity = capacity
        self._key = os.urandom(32)
        self._verified: OrderedDict[bytes, None] = OrderedDict()
        self._running: dict[bytes, list[Deferred[bool]]] = {}

    def __len__(self) -> int:
        return len(self._verified)

    def holds(self, credentials: Credentials, stored: str) -> bool:
        """Whether the password was found to match ``stored`` before."""
        digest = self._digest(credentials, stored)
        if digest not in self._verified:
            return False
        self._verified.move_to_end(digest)
        return True

    def check(self, credentials: Credentials, stored: str) -> Deferred[bool]:
        """Fires with whether the password matches ``stored``. Equal checks at the same time share one computation.

        Cancelling it leaves the computation to the others; nobody else's result is touched.
        """
        digest = self._digest(credentials, stored)
        waiting = self._running.get(digest)
        started = waiting is None
        if waiting is None:
            waiting = self._running[digest] = []
        result: Deferred[bool] = Deferred(waiting.remove)
        waiting.append(result)
        if started:
            self._verify(credentials.password, stored).addBoth(self._finish, digest)
        return result

    def _finish(self, outcome: bool | Failure, digest: bytes) -> None:
        if outcome is True:
            self._verified[digest] = None
            if len(self._verified) > self._capacity:
                self._verified.popitem(last=False)
        waiting = self._running.pop(digest)
        while waiting:
            waiting.pop(0).callback(outcome)  # a Failure goes down the errback side

    def _digest(self, credentials: Credentials, stored: str) -> bytes:
        # None of the three can have a NUL: RFC 7617 forbids it in logins, and hashes are matched against patterns.
        text = "\0".join((credentials.user, credentials.password, stored))
        return hashlib.blake2b(text.encode(), key=self._key, digest_size=32).digest()
