"""Lists of objects: complete, or an error.

A list of more than one page whose names are hashes, as restic's are, is cut into ranges that are listed side by side.
The hashes are spread evenly, so that the first page tells how many there are and where to cut for
ranges of about a page each. Every range but the last is listed until a key behind its end is
seen, which must be the next range's first: a server that loses keys at a cut is found out and listed in
one go from then on.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from attrs import define
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.logger import Logger
from twisted.python.failure import Failure

from resticd.errors import BadGateway, NotFound
from resticd.interfaces import Entry
from resticd.remotes.s3_manners import PROBE
from resticd.remotes.s3_page import Page, parse_page

if TYPE_CHECKING:
    from resticd.remotes.s3_api import S3Api
    from resticd.remotes.s3_objects import ObjectLookup
    from resticd.workers import Workers

#: The longest page that is read, in bytes: 1000 keys take some 400 KB.
_LONGEST_PAGE = 64 * 1024 * 1024
#: How much of a page a range is meant to fill: even spread leaves it room for chance.
_FILL = 0.88
_MOST_RANGES = 4096
#: How restic's layout names files, behind the prefix of their type.
_FLAT = re.compile(r"[0-9a-f]{64}\Z")
_NESTED = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}\Z")
_log = Logger(namespace="resticd.remotes.s3")


@define
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

    async def pages(self, prefix: str) -> AsyncGenerator[list[Entry], None]:
        """See ``IRemote.list``."""
        whole = self._root + prefix
        page = await self._page(whole)
        ranges = split(page, whole) if self._in_order else []
        if entries := self._relative(page.entries):
            yield entries
        if not ranges:
            while page.following is not None:
                page = await self._page(whole, page.following)
                if entries := self._relative(page.entries):
                    yield entries
            return
        finished: DeferredQueue[tuple[int, Page | Failure]] = DeferredQueue()
        running: dict[int, Deferred[Any]] = {}  # a range's number: the request for its next page

        def start(number: int) -> None:
            part = ranges[number]
            running[number] = Deferred.fromCoroutine(self._page(whole, part.token, part.after))
            running[number].addBoth(lambda result: finished.put((number, result)))

        waiting = list(reversed(range(len(ranges))))
        try:
            while waiting or running:
                while waiting and len(running) < self._checkers:
                    start(waiting.pop())
                number, result = await finished.get()
                del running[number]
                part = ranges[number]
                if isinstance(result, Failure):
                    result.raiseException()
                entries = self._relative(self._take(part, result, whole))
                if part.token is not None:
                    start(number)
                if entries:
                    yield entries
        finally:
            for fetching in running.values():
                fetching.cancel()
        await self._check_seams(ranges)

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

    async def _page(self, prefix: str, following: str | None = None, after: str = "") -> Page:
        options = self._api.options
        query = [("prefix", prefix), ("max-keys", str(options.list_chunk))]
        if options.list_url_encode:
            query.append(("encoding-type", "url"))
        if options.list_version == 2:
            query.append(("list-type", "2"))
            if following is not None:
                query.append(("continuation-token", following))
            elif after:
                query.append(("start-after", after))
        elif following is not None or after:
            query.append(("marker", following or after))

        async def attempt(_: int) -> Page:
            response = await self._api.attempt("GET", query=query)
            data = await response.read(_LONGEST_PAGE)
            try:
                page = await self._workers.run(parse_page, data, options.list_version, prefix)
                if page.following is not None and page.following == following:
                    raise ValueError("it goes on where it began")
            except ValueError as error:
                raise BadGateway(f"s3: a page of the list of {prefix} cannot be used: {error}") from None
            return page

        return await self._api.client.retries.run(attempt)

    def _relative(self, entries: list[Entry]) -> list[Entry]:
        start = len(self._root)
        return [
            Entry(key, entry.size, entry.modified)
            for entry in entries
            # Keys that end with a slash are what some programs take for directories.
            if (key := entry.key[start:]) != PROBE and not key.endswith("/") and key
        ]


def split(page: Page, prefix: str) -> list[_Range]:
    """The ranges that follow the first page of a list; none where its names do not show where to cut."""
    if page.following is None or not page.entries:
        return []
    keys = [entry.key for entry in page.entries]
    flat, nested = (all(pattern.match(key, len(prefix)) for key in keys) for pattern in (_FLAT, _NESTED))
    if not (flat or nested) or keys != sorted(set(keys)):
        return []
    name = keys[-1].rpartition("/")[2]
    done = (int(name[:12], 16) + 1) / 16**12
    expected = len(keys) * (1 - done) / done
    count = min(max(math.ceil(expected / (len(keys) * _FILL)), 1), _MOST_RANGES)
    cuts = []
    for number in range(1, count):
        name = f"{int((done + (1 - done) * number / count) * 16**12):012x}"
        cuts.append(f"{prefix}{name[:2]}/{name}" if nested else prefix + name)
    ranges = [_Range(after, end) for after, end in zip([keys[-1], *cuts], [*cuts, None], strict=True)]
    ranges[0].token = page.following
    return ranges
