"""Lists of objects: complete, or an error.

A list of more than one page whose names are hashes, as restic's are, is cut into ranges that are listed side by side.
The hashes are spread evenly, so that the first page tells how many there are and where to cut for
ranges of about a page each. How many keys there were is remembered, and the next list of the prefix begins with all its
ranges; what holds more than was expected is cut again. Every range but the last is listed until a key behind its end is
seen, which must be the next range's first: a server that loses keys at a cut is found out and listed in
one go from then on.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, frozen
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.python.failure import Failure

from resticd.errors import BadGateway, NotFound
from resticd.interfaces import Entry
from resticd.remotes.s3_manners import PROBE
from resticd.remotes.s3_page import Page, parse_page
from resticd.remotes.s3_query import fetch_page

if TYPE_CHECKING:
    from resticd.remotes.s3_api import S3Api
    from resticd.remotes.s3_objects import ObjectLookup
    from resticd.workers import Workers

#: How much of a page a range is meant to fill: even spread leaves it room for chance.
_FILL = 0.88
_MOST_RANGES = 4096
#: How many prefixes are remembered.
_MOST_KNOWN = 1024
#: How restic's layout names files, behind the prefix of their type.
_FLAT = re.compile(r"[0-9a-f]{64}\Z")
_NESTED = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}\Z")
#: Where restic has more files than anywhere else.
_MANY = re.compile(r"(?:.*/)?data/\Z", re.DOTALL)


@define(eq=False)
class _Range:
    """A part of a list: the keys behind ``after`` up to ``end``.

    :ivar token: where its next page begins.
    :ivar first: the first key that was seen in it or behind it.
    :ivar beyond: the first key that was seen behind its end.
    :ivar last: the last key that was seen.
    """

    after: str
    end: str | None
    token: str | None = None
    first: str | None = None
    beyond: str | None = None
    last: str = ""

    def take(self, page: Page) -> list[Entry]:
        """The page's entries that belong to it. Raises ``ValueError`` where keys are not in order."""
        last = self.last or self.after
        for position, entry in enumerate(page.entries):
            if entry.key <= last:
                raise ValueError("its keys are not in order")
            last = entry.key
            if self.first is None:
                self.first = entry.key
            if self.end is not None and entry.key > self.end:
                self.beyond = entry.key
                self.token = None
                return page.entries[:position]
        self.last = last
        self.token = page.following
        return page.entries


@frozen
class _Known:
    """What the last list of a prefix was like.

    :ivar total: how many keys it had.
    :ivar length: how many a page has.
    :ivar nested: see ``is_nested``.
    """

    total: int
    length: int
    nested: bool | None = None

    @property
    def ranges(self) -> int:
        """Into how many ranges to cut the next one."""
        return 1 if self.nested is None else _ranges(self.total, self.length)

    def cut(self, prefix: str) -> list[_Range]:
        """The whole of the next list."""
        return _between("", _cuts(prefix, bool(self.nested), 0.0, 1.0, self.ranges), None)


class Listing:
    """Lists the objects of one bucket.

    :param root: the prefix that is the remote's root; entries' keys are without it.
    :param checkers: how many requests run at once.
    """

    def __init__(self, api: S3Api, lookup: ObjectLookup, workers: Workers, root: str, checkers: int) -> None:
        self._api = api
        self._lookup = lookup
        self._workers = workers
        self._root = root
        self._checkers = max(checkers, 1)
        self._in_order = True
        self._known: dict[str, _Known] = {}

    async def pages(self, prefix: str) -> AsyncGenerator[list[Entry], None]:
        """See ``IRemote.list``."""
        async with aclosing(self._whole_pages(self._root + prefix)) as pages:
            async for entries in pages:
                if relative := self._relative(entries):
                    yield relative

    async def _whole_pages(self, prefix: str) -> AsyncGenerator[list[Entry], None]:
        known = self._known.get(prefix) if self._in_order else None
        if known is not None and known.ranges > 1:
            ranges, total = known.cut(prefix), 0
        else:
            if known is None and self._in_order and _MANY.match(prefix):
                self._api.warm(self._checkers)
            page = await self._page(prefix)
            yield page.entries
            cuts = find_cuts(page, prefix) if self._in_order else None
            total = len(page.entries)
            if cuts is None:
                if page.following is None:
                    self._learn(prefix, _Known(total, total))
                while page.following is not None:
                    page = await self._page(prefix, page.following)
                    yield page.entries
                return
            ranges = _between(page.entries[-1].key, cuts, None)
            ranges[0].token = page.following
            known = _Known(total, total, is_nested(page, prefix))
        async with aclosing(self._side_by_side(prefix, ranges)) as pages:
            async for entries in pages:
                total += len(entries)
                yield entries
        await self._check_seams(ranges)
        self._learn(prefix, evolve(known, total=total))

    async def _side_by_side(self, prefix: str, ranges: list[_Range]) -> AsyncGenerator[list[Entry], None]:
        """What is in ``ranges``, which may be cut into more."""
        finished: DeferredQueue[tuple[_Range, Page | Failure]] = DeferredQueue()
        # Not answered yet: ``checkers`` at most, but for pages that came damaged and are asked for again.
        asked: set[_Range] = set()
        # These, and pages that wait for us: the server need not be idle while we parse.
        running: dict[_Range, Deferred[Any]] = {}
        waiting = ranges[::-1]

        def start(part: _Range) -> None:
            def received() -> None:
                asked.discard(part)
                fill()

            asked.add(part)
            running[part] = Deferred.fromCoroutine(self._page(prefix, part.token, part.after, received))
            running[part].addBoth(lambda result: finished.put((part, result)))

        def fill() -> None:
            while waiting and len(asked) < self._checkers and len(running) < 2 * self._checkers:
                start(waiting.pop())

        try:
            while waiting or running:
                fill()
                part, result = await finished.get()
                asked.discard(part)
                del running[part]
                if isinstance(result, Failure):
                    result.raiseException()
                entries = self._take(part, result, prefix)
                if part.token is not None:
                    waiting += [*_cut_again(ranges, part, result, prefix)[::-1], part]
                fill()
                yield entries
        finally:
            waiting.clear()
            for fetching in running.values():
                fetching.cancel()

    def _learn(self, prefix: str, known: _Known) -> None:
        self._known.pop(prefix, None)
        self._known[prefix] = known
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def _take(self, part: _Range, page: Page, prefix: str) -> list[Entry]:
        try:
            return part.take(page)
        except ValueError as error:
            self._in_order = False
            raise BadGateway(f"s3: a page of the list of {prefix} cannot be used: {error}") from None

    async def _check_seams(self, ranges: list[_Range]) -> None:
        for part, following in pairwise(ranges):
            seen = part.beyond
            if seen is None or (following.first is not None and following.first <= seen):
                continue
            try:
                await self._lookup.head(seen)
            except NotFound:
                continue  # deleted meanwhile
            self._in_order = False
            raise BadGateway("s3: the server leaves out objects when it lists from the middle")

    async def _page(
        self,
        prefix: str,
        following: str | None = None,
        after: str = "",
        received: Callable[[], None] | None = None,
    ) -> Page:
        return await fetch_page(
            self._api, self._workers, parse_page, prefix, following=following, after=after, received=received
        )

    def _relative(self, entries: list[Entry]) -> list[Entry]:
        start = len(self._root)
        return [
            Entry(key, entry.size, entry.modified)
            for entry in entries
            # Keys that end with a slash are what some programs take for directories.
            if (key := entry.key[start:]) != PROBE and not key.endswith("/") and key
        ]


def _between(after: str, cuts: list[str], end: str | None) -> list[_Range]:
    return [_Range(*each) for each in zip([after, *cuts], [*cuts, end], strict=True)]


def is_nested(page: Page, prefix: str) -> bool | None:
    """Whether the page's names are hashes in directories, and not right below ``prefix``; None if neither is so."""
    for pattern, nested in ((_FLAT, False), (_NESTED, True)):
        if page.entries and all(pattern.match(entry.key, len(prefix)) for entry in page.entries):
            return nested
    return None


def find_cuts(page: Page, prefix: str, part: _Range | None = None) -> list[str] | None:
    """Where to cut what follows a page into ranges of about a page each, which may be nowhere.

    None where nothing follows, or the names do not show how many there are.

    :param part: what the page is of; the whole list, as its first page, without it.
    """
    nested = is_nested(page, prefix)
    keys = [entry.key for entry in page.entries]
    if page.following is None or nested is None or keys != sorted(set(keys)):
        return None
    begin, end = 0.0 if part is None else _place(keys[0]), part.end if part is not None else None
    done, stop = _place(keys[-1]), 1.0 if end is None else _place(end)
    if done <= begin:
        return []
    expected = len(keys) * max(stop - done, 0.0) / (done - begin)
    return _cuts(prefix, nested, done, stop, _ranges(expected, len(keys)))


def _cut_again(ranges: list[_Range], part: _Range, page: Page, prefix: str) -> list[_Range]:
    """Leave of what follows ``page`` no more than another page to ``part``; the ranges that take over the rest."""
    cuts = find_cuts(page, prefix, part)
    if not cuts or len(ranges) + len(cuts) > _MOST_RANGES:
        return []
    more = _between(cuts[0], cuts[1:], part.end)
    part.end = cuts[0]
    place = ranges.index(part) + 1
    ranges[place:place] = more
    return more


def _ranges(expected: float, length: int) -> int:
    """How many ranges so many keys make, with pages of ``length``."""
    return min(max(math.ceil(expected / (length * _FILL)), 1), _MOST_RANGES)


def _cuts(prefix: str, nested: bool, start: float, stop: float, count: int) -> list[str]:
    names = [f"{int((start + (stop - start) * number / count) * 16**12):012x}" for number in range(1, count)]
    return [f"{prefix}{name[:2]}/{name}" if nested else prefix + name for name in names]


def _place(key: str) -> float:
    """Where a hash, or its beginning, lies among all: from 0 to 1."""
    return (int(key.rpartition("/")[2][:12], 16) + 1) / 16**12
