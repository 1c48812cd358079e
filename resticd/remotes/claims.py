"""Who of several uploads of one key may store it, inside this process."""

from __future__ import annotations

from twisted.internet.defer import DeferredLock


class Claim:
    """One upload's part in a key. ``leave`` it in every case."""

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
    this settles for our own uploads that run side by side what they leave open.
    """

    def __init__(self) -> None:
        self._shared: dict[str, _Shared] = {}

    def begin(self, key: str) -> Claim:
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
