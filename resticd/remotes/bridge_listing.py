"""Lists through rclone: a call a directory, several at once, read as they come."""

from __future__ import annotations

import codecs
import json
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from resticd.errors import BadGateway, NotFound
from resticd.interfaces import Entry
from resticd.remotes.bridge_files import is_temporary, parse_time
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from resticd.remotes.bridge_child import Rclone
    from resticd.remotes.bridge_files import Files
    from resticd.transport.response import Response
    from resticd.transport.retries import Retries

PAGE = 1000
#: Bytes of an answer that wait to be read.
_HIGH_WATER = 256 * 1024
#: One file's entry is shorter.
_LONGEST_ITEM = 1024 * 1024

_BEGIN = re.compile(r'\s*\{\s*"list"\s*:\s*\[')
_NEXT = re.compile(r"[\s,]*")
_END = re.compile(r"\]\s*\}\s*\Z")


class Listing:
    """Lists below prefixes.

    rclone answers when it has the whole of a directory: what it sends is complete, or an error. A directory is listed
    on its own, so that neither side holds more than a few of them, but where the remote lists all at once as cheaply.

    :param at_once: how many directories are asked for at once.
    :param left: called with each temporary file that is found, and its time.
    """

    def __init__(
        self,
        rclone: Rclone,
        files: Files,
        retries: Retries,
        *,
        at_once: int,
        left: Callable[[str, float | None], object],
    ) -> None:
        self._rclone = rclone
        self._files = files
        self._retries = retries
        self._at_once = at_once
        self._left = left

    async def pages(self, prefix: str) -> AsyncGenerator[list[Entry], None]:
        """See ``IRemote.list``."""
        features = (await self._rclone.ready()).features
        options = {"noMimeType": True, "noModTime": features.slow_times, "recurse": features.lists_all}
        todo = deque([prefix.rstrip("/")])
        asked: deque[Deferred[Response | None]] = deque()
        try:
            while todo or asked:
                while todo and len(asked) < self._at_once:
                    asked.append(Deferred.fromCoroutine(self._ask(todo.popleft(), options)))
                response = await asked.popleft()
                if response is None:
                    continue
                async with aclosing(self._read(response, None if features.lists_all else todo)) as pages:
                    async for page in pages:
                        yield page
        finally:
            for each in asked:
                each.addCallbacks(lambda response: response and response.discard(), lambda _: None)
                each.cancel()

    async def directories(self, prefix: str) -> AsyncGenerator[list[str], None]:
        """The names of the directories right below ``prefix``, as pages."""
        response = await self._ask(prefix.rstrip("/"), {"noMimeType": True, "noModTime": True, "dirsOnly": True})
        if response is None:
            return
        async with aclosing(_items(response)) as pages:
            async for items in pages:
                yield [str(item.get("Name")) for item in items if item.get("IsDir")]

    async def _ask(self, directory: str, options: dict[str, Any]) -> Response | None:
        """The list of a directory, None where there is no such directory, or not any more."""

        async def attempt(_: int) -> Response:
            running = await self._rclone.ready()
            return await running.api.ask("operations/list", remote=directory, opt=options)

        try:
            return await self._retries.run(attempt)
        except NotFound:
            return None
        except Refused:
            if await self._files.is_missing(directory):
                return None
            raise

    async def _read(self, response: Response, todo: deque[str] | None) -> AsyncGenerator[list[Entry], None]:
        page: list[Entry] = []
        async with aclosing(_items(response)) as pages:
            async for items in pages:
                page += self._entries(items, todo)
                while len(page) >= PAGE:
                    yield page[:PAGE]
                    del page[:PAGE]
        if page:
            yield page

    def _entries(self, items: list[dict[str, Any]], todo: deque[str] | None) -> Iterator[Entry]:
        """Files, but no temporary ones; directories go to ``todo``."""
        for item in items:
            try:
                path, size, is_directory = str(item["Path"]), int(item["Size"]), item["IsDir"]
            except (KeyError, TypeError, ValueError):
                raise BadGateway("rclone: operations/list: the answer is not what it should be") from None
            if is_directory:
                if todo is not None:
                    todo.append(path)
                continue
            modified = parse_time(item.get("ModTime"))
            if is_temporary(path):
                self._left(path, modified)
            else:
                yield Entry(path, max(size, 0), modified)


async def _items(response: Response) -> AsyncGenerator[list[dict[str, Any]], None]:
    """The items of an answer, some at a time. Raises ``StorageError`` unless the answer is whole."""
    parser = ItemParser()
    chunks = _Chunks(response)
    try:
        while (data := await chunks.next()) is not None:
            if items := parser.feed(data):
                yield items
        parser.close()
    finally:
        chunks.stop()


class ItemParser:
    """Takes ``{"list": [{…}, …]}`` apart while it comes. Raises ``BadGateway`` for anything else."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._json = json.JSONDecoder()
        self._text = ""
        self._begun = False

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The items that are complete now."""
        self._text += self._decoder.decode(data)
        position = 0
        if not self._begun:
            match = _BEGIN.match(self._text)
            if match is None:
                self._bound()
                return []
            self._begun = True
            position = match.end()
        items = []
        while True:
            position = _NEXT.match(self._text, position).end()  # type: ignore[union-attr]  # matches nothing too
            if not self._text.startswith("{", position):
                break
            try:
                item, position = self._json.raw_decode(self._text, position)
            except ValueError:
                break  # the rest comes later
            items.append(item)
        self._text = self._text[position:]
        self._bound()
        return items

    def close(self) -> None:
        """There is no more."""
        if not self._begun or _END.match(self._text) is None:
            raise BadGateway("rclone: operations/list: the answer is not a list")

    def _bound(self) -> None:
        if len(self._text) > _LONGEST_ITEM:
            raise BadGateway("rclone: operations/list: the answer is not a list of files")


@implementer(IConsumer)
class _Chunks:
    """An answer's body as something to wait for, piece by piece; the connection is held back meanwhile."""

    def __init__(self, response: Response) -> None:
        self._chunks: list[bytes] = []
        self._size = 0
        self._producer: IPushProducer | None = None
        self._paused = False
        self._waiting: Deferred[None] | None = None
        self._outcome: list[Failure | None] = []
        self._done = response.deliver(self)
        self._done.addBoth(self._ended)

    async def next(self) -> bytes | None:
        """The next bytes, None at the end. Raises what the delivery failed with."""
        if not self._chunks and not self._outcome:
            self._resume()
        if not self._chunks and not self._outcome:
            waiting: Deferred[None] = Deferred(self._forget)
            self._waiting = waiting
            await waiting
        if self._chunks:
            data = b"".join(self._chunks)
            self._chunks, self._size = [], 0
            return data
        if self._outcome[0] is not None:
            self._outcome[0].raiseException()
        return None

    def stop(self) -> None:
        """Close the connection, unless all of the body has come."""
        if not self._outcome:
            self._done.cancel()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        self._producer = producer  # type: ignore[assignment]  # a push producer

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self._chunks.append(data)
        self._size += len(data)
        if self._size >= _HIGH_WATER and not self._paused and self._producer is not None:
            self._paused = True
            self._producer.pauseProducing()
        self._wake()

    def _resume(self) -> None:
        if self._paused and self._producer is not None:
            self._paused = False
            self._producer.resumeProducing()

    def _ended(self, result: Failure | None) -> None:
        self._outcome.append(result)
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _forget(self, _: Deferred[None]) -> None:
        self._waiting = None
