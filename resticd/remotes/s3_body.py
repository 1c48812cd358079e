"""Downloads: an object or a part of it, taken up again where the connection broke."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from resticd.errors import AlreadyExists, BadGateway, ClientGone, NotFound, StorageError
from resticd.interfaces import IBody
from resticd.remotes.s3_api import S3Api, key_headers
from resticd.streams import Span
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer

    from resticd.remotes.s3_objects import ObjectLookup
    from resticd.transport.response import Response
    from resticd.transport.retries import Retries

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)\Z")


async def open_object(api: S3Api, lookup: ObjectLookup, key: str, span: Span | None) -> S3Body:
    """The object, or the part that ``span`` names. Raises ``NotFound``, ``RangeNotSatisfiable``, ``StorageError``."""
    response = await _get(api, lookup, key, span)
    try:
        size, offset, length = _extent(response, span)
    except BaseException:
        response.discard()
        raise
    etag = response.header("ETag")

    async def resume(at: int) -> Response:
        rest = ("Range", f"bytes={at}-{offset + length - 1}")
        same = (("If-Match", etag),) if etag else ()
        try:
            again = await api.attempt("GET", key, headers=(rest, *same, *key_headers(api.options)))
        except (AlreadyExists, NotFound):  # 412, or gone
            raise Refused(f"s3: {key} has changed during its download") from None
        if _extent(again, Span(at, offset + length - 1)) != (size, at, offset + length - at):
            again.discard()
            raise Refused(f"s3: {key} has changed during its download")
        return again

    return S3Body(response, (size, offset, length), resume, api.client.retries)


async def _get(api: S3Api, lookup: ObjectLookup, key: str, span: Span | None) -> Response:
    headers = key_headers(api.options)
    if span is None:
        return await api.call("GET", key, headers=headers)
    if span.first is not None or span.last:  # no header can ask for no bytes
        ranged = (*headers, ("Range", _range_header(span)))
        response = await api.call("GET", key, headers=ranged, allowed=(416,))
        if response.status != 416:
            return response
        response.discard()
    offset, length = span.resolve((await lookup.head(key)).stat.size)
    # Some servers refuse the last n bytes of an object that has less.
    return await api.call("GET", key, headers=(*headers, ("Range", _range_header(Span(offset, offset + length - 1)))))


def _range_header(span: Span) -> str:
    first = "" if span.first is None else span.first
    last = "" if span.last is None else span.last
    return f"bytes={first}-{last}"


def _extent(response: Response, span: Span | None) -> tuple[int, int, int]:
    """Size of the object, offset and length of what is sent of it. Raises ``StorageError`` where it is not what was
    asked for.

    ``rclone serve s3`` sends a part with status 200, so the header decides, not the status.
    """
    encoding = response.header("Content-Encoding")
    if encoding not in (None, "", "identity", "aws-chunked"):
        raise BadGateway(f"s3: the server has encoded the object ({encoding})")
    if response.length is None:
        raise BadGateway("s3: the server does not say how long the answer is")
    match = _CONTENT_RANGE.match(response.header("Content-Range") or "")
    if match is None:
        size, sent = response.length, (0, response.length)
    else:
        first, last, size = map(int, match.groups())
        sent = (first, last - first + 1)
    wanted = (0, size) if span is None else span.resolve(size)
    if sent != wanted or sent[1] != response.length:
        raise BadGateway("s3: the server sends another part of the object than was asked for")
    return size, *sent


@implementer(IBody, IConsumer, IPushProducer)
class S3Body:
    """See ``IBody``. It stands between the connections to the server and the consumer.

    :param extent: size of the object, offset and length of this body.
    :param resume: gives a new answer that begins at an offset of the object.
    """

    def __init__(
        self,
        response: Response,
        extent: tuple[int, int, int],
        resume: Callable[[int], Awaitable[Response]],
        retries: Retries,
    ) -> None:
        self.size, self.offset, self.length = extent
        self._response = response
        self._resume = resume
        self._retries = retries
        self._delivered = 0
        self._consumer: IConsumer | None = None
        self._source: IPushProducer | None = None
        self._paused = False
        self._gone = False
        self._running: Deferred[None] | None = None

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``."""
        self._consumer = consumer
        consumer.registerProducer(self, True)
        running = Deferred.fromCoroutine(self._retries.run(self._attempt))
        if not running.called:
            self._running = running

        def ended(result: Failure | None) -> Failure | None:
            self._running = None
            self._consumer = None
            consumer.unregisterProducer()
            if self._gone and result is not None:
                return Failure(ClientGone("the connection ended during the download"))
            return result

        return running.addBoth(ended)

    def close(self) -> None:
        """See ``IBody``."""
        self._response.discard()  # nothing where it was delivered

    async def _attempt(self, number: int) -> None:
        if number:
            self._response = await self._resume(self.offset + self._delivered)
        await self._response.deliver(self)
        if self._delivered != self.length:
            raise StorageError("s3: the download fell short")

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``: a connection begins to deliver."""
        self._source = cast(IPushProducer, producer)
        if self._paused:
            self._source.pauseProducing()

    def unregisterProducer(self) -> None:
        """See ``IConsumer``: the connection is done with."""
        self._source = None

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self._delivered += len(data)
        if self._consumer is not None:
            self._consumer.write(data)

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = True
        if self._source is not None:
            self._source.pauseProducing()

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False
        if self._source is not None:
            self._source.resumeProducing()

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self._gone = True
        if self._source is not None:
            self._source.stopProducing()
        elif self._running is not None:
            self._running.cancel()
