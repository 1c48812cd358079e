"""Answers HEAD from what lists and uploads have just said (``--cache-objects``).

What is remembered, and for how long:

- Only that an object *is* there, with its size and time, and only objects that are named by their hash; never locks
  and never ``config``, which come, go and change. A miss always asks the remote, so that another writer's upload is
  seen at once.
- What a list said counts from the list's beginning, what an upload of ours said from its end, for ``LIFETIME`` seconds.
  A new list of a prefix makes everything older under it forgotten when it begins, so that another writer's deletion
  is hidden no longer than until the next list, and never for more than ``LIFETIME``.
- A deletion or upload of ours is known at once, also to lists that run at that time. Where several processes serve, the
  others learn of a deletion a moment later (``Deletions``), and of uploads by asking.

Lists and downloads always ask the remote. Clients rely on no more: restic never looks at what it has just uploaded,
lists before it reads, and checks its locks by lists.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resticd.interfaces import Entry, IRemote, IUpload, Stat
from resticd.remotes.wrappers.passing import PassingRemote, PassingUpload

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

T = TypeVar("T")

#: Seconds.
LIFETIME = 60.0
#: Objects; some 25 MiB of memory.
CAPACITY = 100_000

_REMEMBERED = re.compile(r"(?:\A|/)(?:data/[0-9a-f]{2}|keys|snapshots|index)/[0-9a-f]{64}\Z")
#: The same behind the prefixes of restic's lists, without a search in every key.
_LISTED = re.compile(r"(?:\A|/)(?:(data)|keys|snapshots|index)/\Z")
_IN_DATA = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}\Z")
_FLAT = re.compile(r"[0-9a-f]{64}\Z")


class _Known(NamedTuple):
    size: int
    modified: float | None
    #: when it was true, on the clock
    since: float


class Deletions(Protocol):
    """Tells processes that serve the same remote what the others delete."""

    def add(self, cache: CacheRemote) -> None:
        """Call ``cache.forget`` for what others delete, as long as the cache is in use."""

    def announce(self, key: str) -> None:
        """Tell the others."""


@implementer(IRemote)
class CacheRemote(PassingRemote):
    """See the module.

    :param deletions: where other processes serve the same remote.
    """

    def __init__(
        self,
        inner: IRemote,
        clock: IReactorTime,
        *,
        lifetime: float = LIFETIME,
        capacity: int = CAPACITY,
        deletions: Deletions | None = None,
    ) -> None:
        super().__init__(inner)
        self._deletions = deletions
        if deletions is not None:
            deletions.add(self)
        self._clock = clock
        self._lifetime = lifetime
        self._capacity = capacity
        #: in the order in which they were learnt, more or less that of ``since``
        self._known: dict[str, _Known] = {}
        #: when the last list of a prefix began
        self._listed: dict[str, float] = {}
        #: for every list that runs, what we have changed meanwhile
        self._changes: builtins.list[set[str]] = []

    def stat(self, key: str) -> Deferred[Stat]:
        """See ``IRemote``."""
        known = self._known.get(key)
        if known is not None:
            if self._is_valid(key, known):
                return succeed(Stat(known.size, known.modified))
            del self._known[key]
        return self._inner.stat(key)

    async def list(self, prefix: str) -> AsyncGenerator[builtins.list[Entry], None]:
        """See ``IRemote``."""
        began = self._clock.seconds()
        self._listed[prefix] = began
        self._tidy_up()
        remembered = _remembered_below(prefix)
        changed: set[str] = set()
        self._changes.append(changed)
        try:
            async with aclosing(self._inner.list(prefix)) as pages:
                async for page in pages:
                    self._learn(
                        {
                            entry.key: _Known(entry.size, entry.modified, began)
                            for entry in page
                            if remembered(entry.key) and entry.key not in changed
                        }
                    )
                    yield page
        finally:
            # by identity: two that are empty are equal
            self._changes = [each for each in self._changes if each is not changed]

    def begin(self, key: str, size: int | None, sha256: str | None, overwrite: bool = False) -> Deferred[IUpload]:
        """See ``IRemote``."""
        beginning = self._inner.begin(key, size, sha256, overwrite)
        return beginning.addCallback(lambda upload: cast(IUpload, _CachedUpload(self, key, upload)))

    def delete(self, key: str) -> Deferred[None]:
        """See ``IRemote``."""
        self.forget(key)  # it may be gone even if the answer does not come
        return self._inner.delete(key).addBoth(self._deleted, key)

    def _deleted(self, outcome: T, key: str) -> T:
        self.forget(key)
        if self._deletions is not None:
            self._deletions.announce(key)
        return outcome

    def stored(self, key: str, stat: Stat) -> None:
        """An upload of ours has been committed."""
        self._change(key)
        if _REMEMBERED.search(key):
            self._learn({key: _Known(stat.size, stat.modified, self._clock.seconds())})

    def _is_valid(self, key: str, known: _Known) -> bool:
        if known.since + self._lifetime < self._clock.seconds():
            return False
        return all(self._listed.get(prefix, known.since) <= known.since for prefix in _prefixes(key))

    def _learn(self, found: dict[str, _Known]) -> None:
        """Remember what is found; the oldest make room."""
        for key in found.keys() & self._known.keys():
            del self._known[key]
        if (excess := len(self._known) + len(found) - self._capacity) > 0:
            for key in [*islice(self._known, excess)]:
                del self._known[key]
            found = dict(islice(found.items(), max(len(found) - self._capacity, 0), None))
        self._known.update(found)

    def forget(self, key: str) -> None:
        """The object was deleted, or may have been."""
        self._change(key)
        self._known.pop(key, None)

    def _change(self, key: str) -> None:
        for changed in self._changes:
            changed.add(key)

    def _tidy_up(self) -> None:
        """Drop what nobody can ask for any more."""
        oldest = self._clock.seconds() - self._lifetime
        while self._known and self._known[first := next(iter(self._known))].since < oldest:
            del self._known[first]
        self._listed = {prefix: began for prefix, began in self._listed.items() if began >= oldest}


def _remembered_below(prefix: str) -> Callable[[str], object]:
    """Tells whether a key with the prefix is remembered."""
    listed = _LISTED.search(prefix)
    if listed is None:
        return _REMEMBERED.search
    pattern, start = _IN_DATA if listed[1] else _FLAT, len(prefix)
    return lambda key: pattern.match(key, start)


def _prefixes(key: str) -> Iterator[str]:
    """All prefixes of which a list would show the key."""
    yield ""
    end = key.find("/")
    while end >= 0:
        yield key[: end + 1]
        end = key.find("/", end + 1)


@implementer(IUpload)
class _CachedUpload(PassingUpload):
    """Tells the cache of its commit."""

    def __init__(self, cache: CacheRemote, key: str, inner: IUpload) -> None:
        super().__init__(inner)
        self._cache = cache
        self._key = key

    def commit(self) -> Deferred[Stat]:
        """See ``IUpload``."""

        def stored(stat: Stat) -> Stat:
            self._cache.stored(self._key, stat)
            return stat

        return self._inner.commit().addCallback(stored)
