"""Who of several uploads of one key may store it, among those that this server knows."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

from twisted.internet.defer import DeferredLock


class ITurn(Protocol):
    """Something that one upload at a time can hold, by ``async with``."""

    def __aenter__(self) -> Awaitable[object]: ...

    def __aexit__(self, kind: Any, error: Any, traceback: Any, /) -> Awaitable[Any]: ...


class IClaim(Protocol):
    """One upload's part in a key. ``leave`` it in every case."""

    @property
    def turn(self) -> ITurn:
        """Held while the end of an upload is decided, never while a client sends."""

    @property
    def lost(self) -> bool:
        """Whether another upload has stored the key since this one began. Only true to look at with the turn held."""

    def won(self) -> None:
        """The key was stored by this upload."""

    def leave(self) -> None:
        """The upload is over. Does nothing the second time."""


class Claim:
    """A claim among the uploads of one process; see ``IClaim``."""

    def __init__(self, claims: Claims, key: str) -> None:
        self._claims = claims
        self._key = key
        self._shared = claims.enter(key)
        self._left = False

    @property
    def turn(self) -> DeferredLock:
        """Held while the end of an upload is decided, never while a client sends."""
        return self._shared.turn

    @property
    def lost(self) -> bool:
        """Whether another upload has stored the key since this one began."""
        return self._shared.stored

    def won(self) -> None:
        """The key was stored by this upload."""
        self._shared.stored = True

    def leave(self) -> None:
        """The upload is over. Does nothing the second time."""
        if not self._left:
            self._left = True
            self._claims.leave(self._key)


class _Shared:
    """What the uploads of one key share."""

    def __init__(self) -> None:
        self.turn = DeferredLock()
        self.uploads = 0
        self.stored = False


class Claims:
    """All keys that are being uploaded. Servers judge conditions when a request begins or when it ends, as they like;
    this settles for our own uploads that run side by side what they leave open. ``processes.claims`` does the same for
    several processes.
    """

    def __init__(self) -> None:
        self._shared: dict[str, _Shared] = {}

    def begin(self, key: str) -> IClaim:
        """An upload of ``key`` begins."""
        return Claim(self, key)

    def removed(self, key: str) -> None:
        """The object was deleted: the key is free again."""
        if key in self._shared:
            self._shared[key].stored = False

    def enter(self, key: str) -> _Shared:
        """For ``Claim``."""
        shared = self._shared.setdefault(key, _Shared())
        shared.uploads += 1
        return shared

    def leave(self, key: str) -> None:
        """For ``Claim``."""
        shared = self._shared[key]
        shared.uploads -= 1
        if shared.uploads == 0:
            del self._shared[key]
