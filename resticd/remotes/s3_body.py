"""Downloads: an object or a part of it, taken up again where the connection broke."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from resticd.errors import AlreadyExists, BadGateway, NotFound
from resticd.remotes.resuming import ResumingBody
from resticd.remotes.s3_api import S3Api, key_headers
from resticd.streams import Span
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from resticd.remotes.s3_objects import ObjectLookup
    from resticd.transport.response import Response

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)\Z")


async def open_object(api: S3Api, lookup: ObjectLookup, key: str, span: Span | None) -> ResumingBody:
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

    return ResumingBody(response, (size, offset, length), resume, api.client.retries)


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
