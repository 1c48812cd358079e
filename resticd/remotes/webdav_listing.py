"""Lists of objects: complete, or an error.

A list is one request for each collection (``Depth: infinity`` is refused by most servers), several of them at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from resticd.errors import BadGateway, StorageError
from resticd.interfaces import Entry
from resticd.remotes.webdav_collection import children_of, read_collection
from resticd.remotes.webdav_errors import CollectionMissing
from resticd.remotes.webdav_places import Places, is_temporary, parent_of
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from resticd.remotes.webdav_api import WebDavApi
    from resticd.remotes.webdav_collection import Batch
    from resticd.remotes.webdav_leftovers import Leftovers

#: So many objects of a collection are kept until it is known that all of them came, and can be asked for again.
_HELD = 4000
#: The longest page.
_PAGE = 1000
#: How many pages wait for whoever reads the list.
_AHEAD = 4


class Listing:
    """Lists what lies under the place of one remote.

    :param root: the place, empty or with a slash at its end.
    :param checkers: how many collections are read at once.
    :param leftovers: is told of unfinished uploads.
    """

    def __init__(self, api: WebDavApi, places: Places, leftovers: Leftovers, root: str, checkers: int) -> None:
        self._api = api
        self._places = places
        self._leftovers = leftovers
        self._root = root
        self._checkers = max(checkers, 1)

    async def pages(self, prefix: str, checkers: int | None = None) -> AsyncGenerator[list[Entry], None]:
        """See ``IRemote.list``.

        :param checkers: fewer than usual.
        """
        limit = checkers or self._checkers
        out = _Pages()
        waiting = [self._root + prefix]
        running: dict[str, Deferred[Any]] = {}
        failures: list[Failure] = []

        def done(result: list[str] | Failure, key: str) -> None:
            running.pop(key, None)
            if isinstance(result, Failure):
                failures.append(result)
            else:
                waiting.extend(result)
            out.wake()

        try:
            while True:
                while waiting and len(running) < limit and not failures:
                    key = waiting.pop()
                    reading = running[key] = Deferred.fromCoroutine(self._read(key, out))
                    reading.addBoth(done, key)
                if failures:
                    failures[0].raiseException()
                page = out.take()
                if page is not None:
                    yield page
                elif running:
                    await out.arrival()
                elif not waiting:
                    return
        finally:
            for reading in list(running.values()):
                reading.cancel()

    async def _read(self, key: str, out: _Pages) -> list[str]:
        """Hand out the objects of one collection; returns the collections that lie in it."""
        handed_out = False

        async def attempt(_: int) -> list[str]:
            nonlocal handed_out
            collections: list[str] = []
            held: list[Entry] = []
            try:
                async with aclosing(read_collection(self._api, key)) as batches:
                    async for batch in batches:
                        self._sort(key, batch, collections, held)
                        if len(held) > _HELD:
                            handed_out = True
                            await out.put(held)
                            held = []
            except Refused:
                raise
            except StorageError as error:
                if handed_out:  # what comes again would be in the list twice
                    raise Refused(f"{error}, in the middle of a list") from None
                raise
            self._places.saw()
            await out.put(held)
            return collections

        try:
            return await self._api.retrying(attempt)
        except CollectionMissing:
            await self._confirm_missing(key)
            return []

    def _sort(self, key: str, batch: Batch, collections: list[str], entries: list[Entry]) -> None:
        for name, resource in batch.children:
            if name is None:
                continue
            whole = key + name
            if resource.is_collection:
                collections.append(whole + "/")
            elif is_temporary(name):
                self._leftovers.found(whole, resource.modified, batch.now)
            elif (size := resource.size) is None:
                raise BadGateway(f"webdav: the server does not say how long {whole} is")
            else:
                entries.append(Entry(whole[len(self._root) :], size, resource.modified))

    async def _confirm_missing(self, key: str) -> None:
        """Return where a collection is certainly missing: what it would lie in is there, and does not list it.

        An empty list makes ``prune`` throw everything away, so one answer of 404 is not enough for it.
        """
        while key:
            parent = parent_of(key)
            try:
                found = await children_of(self._api, parent)
            except CollectionMissing:
                key = parent
                continue
            self._places.saw()
            name = key[len(parent) :].rstrip("/")
            if any(child.name == name and child.resource.is_collection for child in found):
                raise BadGateway(f"webdav: the server lists {key} and does not find it")
            return
        raise Refused(f"webdav: the server has no directory at {self._api.options.url}")


class _Pages:
    """Pages on their way from several readers to one list."""

    def __init__(self) -> None:
        self._pages: deque[list[Entry]] = deque()
        self._readers: deque[Deferred[None]] = deque()
        self._taker: Deferred[None] | None = None

    async def put(self, entries: list[Entry]) -> None:
        """Hand over; returns when not too much waits any more."""
        for start in range(0, len(entries), _PAGE):
            self._pages.append(entries[start : start + _PAGE])
        self.wake()
        while len(self._pages) > _AHEAD:
            room: Deferred[None] = Deferred(self._readers.remove)
            self._readers.append(room)
            await room

    def take(self) -> list[Entry] | None:
        """The next page, if there is one."""
        if not self._pages:
            return None
        page = self._pages.popleft()
        if len(self._pages) <= _AHEAD and self._readers:
            self._readers.popleft().callback(None)
        return page

    async def arrival(self) -> None:
        """Returns when something has changed."""
        self._taker = Deferred()
        await self._taker

    def wake(self) -> None:
        """Something has changed."""
        taker, self._taker = self._taker, None
        if taker is not None and not taker.called:
            taker.callback(None)
