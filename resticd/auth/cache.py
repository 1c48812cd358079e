"""Passwords that were found right, so that a slow hash is worked out once and not at every request."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resticd.auth.basic import Credentials


class VerifiedPasswords:
    """The last passwords that were right, as digests under a key that no other process has.

    What is stored for the user is a part of what is digested: once it is changed or removed, nothing here is ever found
    again. Failures are not kept, so that guesses cannot push out what is right. The network that a login came from
    is a part too: a guess that is known at once to be right, because somebody else has logged in, could not be slowed
    down.

    :param capacity: how many are kept; the least recently used go first.
    """

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._key = os.urandom(32)
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._digests)

    def holds(self, network: str, credentials: Credentials, stored: str) -> bool:
        """Whether the password came from ``network`` before and matched ``stored``."""
        digest = self._digest(network, credentials, stored)
        if digest not in self._digests:
            return False
        self._digests.move_to_end(digest)
        return True

    def add(self, network: str, credentials: Credentials, stored: str) -> None:
        """The password came from ``network`` and matches ``stored``."""
        self._digests[self._digest(network, credentials, stored)] = None
        if len(self._digests) > self._capacity:
            self._digests.popitem(last=False)

    def _digest(self, network: str, credentials: Credentials, stored: str) -> bytes:
        # None of them can have a NUL: RFC 7617 forbids it in logins, the others are made by us or match a pattern.
        text = "\0".join((network, credentials.user, credentials.password, stored))
        return hashlib.blake2b(text.encode(), key=self._key, digest_size=32).digest()
