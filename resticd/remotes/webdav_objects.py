"""Looking at one object, and reading it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from resticd.errors import BadGateway, ClientGone, NotFound, StorageError, Unavailable
from resticd.interfaces import Stat
from resticd.remotes.resuming import Answer, ResumingBody
from resticd.remotes.webdav_xml import CHECKSUMS, LISTED, parse_date
from resticd.streams import Span
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer

    from resticd.remotes.webdav_api import WebDavApi
    from resticd.remotes.webdav_places import Places
    from resticd.transport.response import Response

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)\Z")
_UNSATISFIED = re.compile(r"bytes \*/(\d+)\Z")


class Found(NamedTuple):
    """What PROPFIND says of an object.

    :ivar checksums: by algorithm, such as ``SHA1``, in hexadecimal and lower case.
    """

    stat: Stat
    checksums: dict[str, str]


class Objects:
    """The objects of a server."""

    def __init__(self, api: WebDavApi, places: Places) -> None:
        self._api = api
        self._places = places
        self._replaced: Counter[str] = Counter()

    @contextmanager
    def replacing(self, key: str) -> Iterator[None]:
        """While this lasts an object is replaced by another one.

        Apache removes the old one first, so that for a moment there is none; nobody is to be told that it is missing.
        """
        self._replaced[key] += 1
        try:
            yield
        finally:
            self._replaced[key] -= 1
            if not self._replaced[key]:
                del self._replaced[key]

    async def look(self, key: str) -> Found:
        """Raises ``NotFound`` where the object is known to be missing."""
        wanted = CHECKSUMS if self._api.options.checksums else LISTED
        replaced = key in self._replaced
        found = await self._api.properties(key, wanted)
        if found is None:
            raise await self._missing(key, replaced)
        self._places.saw()
        if found.is_collection:
            raise Refused(f"webdav: {key} is a directory")
        if found.size is None:
            raise BadGateway(f"webdav: the server does not say how long {key} is")
        pairs = (word.partition(":") for word in found.properties.get("checksum", "").split())
        checksums = {name.upper(): value.lower() for name, _, value in pairs}
        return Found(Stat(found.size, found.modified), checksums)

    async def open(self, key: str, span: Span | None) -> ResumingBody:
        """The object, or the part that ``span`` names. Raises ``NotFound``, ``RangeNotSatisfiable``."""
        response = await self._get(key, span)
        try:
            await self._check_is_object(key, response)
            size, offset, length = await self._extent(key, response, span)
        except BaseException:
            response.discard()
            raise
        version = _version(response)

        async def resume(at: int) -> Answer:
            rest = Span(at, offset + length - 1)
            try:
                again = await self._get(key, rest)
            except NotFound:
                raise Refused(f"webdav: {key} has changed during its download") from None
            if _sent(again, size)[2] != size or _version(again) != version:
                again.discard()
                raise Refused(f"webdav: {key} has changed during its download")
            return _Cut(again, *_cut(again, size, at, offset + length - at))

        first = _Cut(response, *_cut(response, size, offset, length))
        return ResumingBody(first, (size, offset, length), resume, self._api.client.retries)

    async def _missing(self, key: str, replaced: bool) -> NotFound | Unavailable:
        if replaced or key in self._replaced:
            return Unavailable(f"webdav: {key} is being replaced", 1.0)
        return await self._places.confirm_missing(key)

    async def _get(self, key: str, span: Span | None) -> Response:
        if span is not None and span.first is None and not span.last:
            span.resolve((await self.look(key)).stat.size)  # raises: no header can ask for no bytes
        replaced = key in self._replaced
        headers = () if span is None else (("Range", _range_header(span)),)
        response = await self._api.call("GET", key, headers=headers, allowed=(404, 416))
        if response.status == 404:
            response.discard()
            raise await self._missing(key, replaced)
        if response.status == 416 and span is not None:
            total = _UNSATISFIED.match(response.header("Content-Range") or "")
            response.discard()
            size = int(total[1]) if total is not None else (await self.look(key)).stat.size
            offset, length = span.resolve(size)  # raises, unless the server does not know the last n bytes
            return await self._get(key, Span(offset, offset + length - 1)) if span.first is None else _odd()
        self._places.saw()
        return response

    async def _check_is_object(self, key: str, response: Response) -> None:
        """Raises ``StorageError`` for a page that shows a directory."""
        if response.status not in (200, 206):
            raise BadGateway(f"webdav: GET {key}: status {response.status}")
        encoding = response.header("Content-Encoding")
        if encoding not in (None, "", "identity"):
            raise BadGateway(f"webdav: the server has encoded {key} ({encoding})")
        # No object of restic's is a text, but some of them look like one to servers that guess.
        if (response.header("Content-Type") or "").lower().startswith("text/html"):
            await self.look(key)

    async def _extent(self, key: str, response: Response, span: Span | None) -> tuple[int, int, int]:
        """Size of the object, offset and length of what is wanted. Raises ``RangeNotSatisfiable``, ``StorageError``."""
        first, length, size = _sent(response, None)
        if size is None:
            size = (await self.look(key)).stat.size
        wanted = (0, size) if span is None else span.resolve(size)
        if first > wanted[0] or (length is not None and first + length < sum(wanted)):
            raise BadGateway(f"webdav: the server sends another part of {key} than was asked for")
        return size, *wanted


def _odd() -> Response:
    raise BadGateway("webdav: the server refuses a range that lies within the object")


def _range_header(span: Span) -> str:
    first = "" if span.first is None else span.first
    last = "" if span.last is None else span.last
    return f"bytes={first}-{last}"


def _sent(response: Response, size: int | None) -> tuple[int, int | None, int | None]:
    """Offset and length of what an answer brings, and the size of the whole, as far as it says so.

    A server that does not know ranges answers 200 with everything (RFC 9110, section 14.2).

    :param size: of the whole, where it is known and the answer may leave it open.
    """
    if response.status != 206:
        return 0, response.length, size if response.length is None else response.length
    match = _CONTENT_RANGE.match(response.header("Content-Range") or "")
    if match is None:
        raise BadGateway("webdav: the server sends a part and does not say which one")
    first, last, total = map(int, match.groups())
    if response.length not in (None, last - first + 1):
        raise BadGateway("webdav: the server sends more or less than it says")
    return first, last - first + 1, total


def _cut(response: Response, size: int, offset: int, length: int) -> tuple[int, int]:
    """How many bytes of an answer come before those that are wanted, and how many are wanted."""
    first, sent, _ = _sent(response, size)
    if first > offset or (sent is not None and first + sent < offset + length):
        raise BadGateway("webdav: the server sends another part of the object than was asked for")
    return offset - first, length


def _version(response: Response) -> tuple[str | None, float | None]:
    """What differs where an object was replaced. Apache calls the same tag weak for the first second."""
    etag = response.header("ETag")
    return etag and etag.removeprefix("W/"), parse_date(response.header("Last-Modified"))


@implementer(IConsumer)
class _Cut:
    """An answer of which only some bytes are wanted: what comes before and behind them is dropped.

    :param skip: how many come before.
    :param length: how many are wanted.
    """

    def __init__(self, response: Response, skip: int, length: int) -> None:
        self._response = response
        self._skip = skip
        self._left = length
        self._consumer: IConsumer | None = None
        self._producer: IPushProducer | None = None
        self._enough = False

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``Response``."""
        if self._skip == 0 and self._response.length == self._left:
            return self._response.deliver(consumer)
        self._consumer = consumer
        return Deferred.fromCoroutine(self._deliver())

    def discard(self) -> Deferred[None]:
        """See ``Response``."""
        return self._response.discard()

    async def _deliver(self) -> None:
        try:
            await self._response.deliver(self)
        except ClientGone:
            if not self._enough:
                raise
        if self._left:
            raise StorageError("webdav: the download fell short")

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        self._producer = cast(IPushProducer, producer)
        if self._consumer is not None:
            self._consumer.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._producer = None
        if self._consumer is not None:
            self._consumer.unregisterProducer()

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if len(data) > self._left:
            data = data[: self._left]
            self._enough = True
        if data and self._consumer is not None:
            self._left -= len(data)
            self._consumer.write(data)
        if self._enough and self._producer is not None:
            self._producer.stopProducing()
