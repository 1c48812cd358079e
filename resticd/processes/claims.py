"""Claims on keys among the uploads of all processes, for remotes that do not decide by themselves who stores a key.

See ``remotes.claims``. The supervisor keeps, for each key, whose turn it is and when it was stored last; the clock is
the machine's monotonic one, so that "since this upload began" means the same in every process, whichever message comes
first.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, DeferredLock

from resticd.remotes.claims import Claims

if TYPE_CHECKING:
    from resticd.processes.channel import Channel, Handlers
    from resticd.remotes.claims import IClaim, ITurn

#: How long it is remembered that a key was stored, in seconds, where no upload of it runs: longer than the message of
#: one that began before is on its way.
REMEMBERED = 60.0


class SharedClaims(Claims):
    """A worker's side.

    :param scope: tells the keys of one remote from those of others.
    """

    def __init__(self, channel: Channel, scope: str) -> None:
        super().__init__()
        self._channel = channel
        self._scope = scope

    def begin(self, key: str) -> IClaim:
        """See ``Claims``."""
        return _SharedClaim(self._channel, f"{self._scope}/{key}")

    def removed(self, key: str) -> None:
        """See ``Claims``."""
        self._channel.tell("claim.removed", key=f"{self._scope}/{key}")


class _SharedClaim:
    """An upload's part in a key; see ``IClaim``."""

    def __init__(self, channel: Channel, key: str) -> None:
        self._channel = channel
        self._number = number = channel.unique()
        self._key = key
        self._began = time.monotonic()
        self._left = False
        self.lost = False
        channel.tell("claim.begin", number=number, key=key)

    @property
    def turn(self) -> ITurn:
        """See ``IClaim``."""
        return self

    def won(self) -> None:
        """See ``IClaim``."""
        self._channel.tell("claim.won", key=self._key, at=time.monotonic())

    def leave(self) -> None:
        """See ``IClaim``."""
        if not self._left:
            self._left = True
            self._channel.tell("claim.leave", number=self._number)

    async def __aenter__(self) -> None:
        try:
            self.lost = await self._channel.call("claim.enter", number=self._number, began=self._began)
        except BaseException:
            self._channel.tell("claim.exit", number=self._number)
            raise

    async def __aexit__(self, kind: Any, error: Any, traceback: Any, /) -> None:
        self._channel.tell("claim.exit", number=self._number)


class ClaimBook:
    """What the supervisor knows of keys, for all workers.

    :param seconds: the monotonic clock.
    :ivar turns: of the keys of uploads that run.
    :ivar uploads: how many of them each key has.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self.turns: dict[str, DeferredLock] = {}
        self.uploads: Counter[str] = Counter()
        self._seconds = seconds
        #: when keys were stored, the oldest first
        self._stored: dict[str, float] = {}

    def begin(self, key: str) -> None:
        """An upload of the key begins."""
        self.uploads[key] += 1
        self.turns.setdefault(key, DeferredLock())

    def leave(self, key: str) -> None:
        """One is over."""
        self.uploads[key] -= 1
        if not self.uploads[key]:
            del self.uploads[key], self.turns[key]

    def stored(self, key: str, at: float) -> None:
        """The key was stored at a time."""
        self._stored.pop(key, None)
        self._stored[key] = at
        oldest = self._seconds() - REMEMBERED
        for known, when in list(islice(self._stored.items(), 16)):
            if when < oldest and known not in self.uploads:
                del self._stored[known]

    def removed(self, key: str) -> None:
        """The object was deleted: the key is free again."""
        self._stored.pop(key, None)

    def stored_since(self, key: str, began: float) -> bool:
        """Whether somebody stored it after a time."""
        return self._stored.get(key, began) > began


class ClaimDesk:
    """The supervisor's side, for one worker."""

    def __init__(self, book: ClaimBook) -> None:
        self._book = book
        #: the keys of uploads
        self._keys: dict[int, str] = {}
        #: turns that are held or waited for
        self._turns: dict[int, Deferred[DeferredLock]] = {}

    @property
    def handlers(self) -> Handlers:
        """What the worker asks for and tells."""
        return {
            "claim.begin": self.begin,
            "claim.enter": self.enter,
            "claim.exit": self.exit,
            "claim.leave": self.leave,
            "claim.won": self._book.stored,
            "claim.removed": self._book.removed,
        }

    def begin(self, number: int, key: str) -> None:
        """Upload ``number`` begins."""
        self._keys[number] = key
        self._book.begin(key)

    def enter(self, number: int, began: float) -> Deferred[bool]:
        """Fires when it is the turn of an upload, with whether another one stored the key since it ``began``."""
        key = self._keys[number]
        turn = self._turns[number] = self._book.turns[key].acquire()
        answer: Deferred[bool] = Deferred()
        turn.addCallbacks(
            lambda _: answer.callback(self._book.stored_since(key, began)),
            # Who gave up waits for no answer.
            lambda failure: failure.trap(CancelledError) and None,
        )
        return answer

    def exit(self, number: int) -> None:
        """The upload needs its turn no longer, or waits for it no longer."""
        turn = self._turns.pop(number, None)
        if turn is None:
            return
        if turn.called:
            self._book.turns[self._keys[number]].release()
        else:
            turn.cancel()

    def leave(self, number: int) -> None:
        """The upload is over."""
        self.exit(number)
        self._book.leave(self._keys.pop(number))

    def close(self) -> None:
        """The worker is gone: others have their turn."""
        for number in list(self._keys):
            self.leave(number)
