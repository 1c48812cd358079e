"""Downloads through rclone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from resticd.errors import BadGateway, NotFound
from resticd.remotes.resuming import ResumingBody
from resticd.streams import Span
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from resticd.remotes.bridge_child import Rclone
    from resticd.remotes.bridge_files import Files
    from resticd.transport.response import Response
    from resticd.transport.retries import Retries

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)\Z")


async def open_file(rclone: Rclone, files: Files, retries: Retries, key: str, span: Span | None) -> ResumingBody:
    """The file, or the part that ``span`` names. Raises ``NotFound``, ``RangeNotSatisfiable``, ``StorageError``."""

    async def get(part: Span | None) -> Response:
        running = await rclone.ready()
        try:
            return await running.api.get(key, None if part is None else f"bytes={part.first}-{_last(part)}")
        except NotFound:
            # rclone says this of a file that it cannot open, too.
            await files.look(key)
            raise Refused(f"rclone: {key} is there but cannot be read") from None

    async def begin(_: int) -> Response:
        return await get(wanted)

    wanted = span
    if span is not None and span.first is None:
        # The last so many bytes; of a file that has fewer rclone makes a negative position.
        offset, length = span.resolve((await files.look(key)).stat.size)
        wanted = Span(offset, offset + length - 1)
    response = await retries.run(begin)
    extent = _extent(response, wanted)
    if extent is None:
        response.discard()
        if wanted is not None:
            wanted.resolve((await files.look(key)).stat.size)  # raises where the part lies outside
        raise BadGateway(f"rclone: another part of {key} came than was asked for")
    size, offset, length = extent
    modified = response.header("Last-Modified")

    async def resume(at: int) -> Response:
        rest = Span(at, offset + length - 1)
        try:
            again = await get(rest)
        except NotFound:
            raise Refused(f"rclone: {key} was removed during its download") from None
        if _extent(again, rest) != (size, at, offset + length - at) or again.header("Last-Modified") != modified:
            again.discard()
            raise Refused(f"rclone: {key} has changed during its download")
        return again

    return ResumingBody(response, (size, offset, length), resume, retries)


def _last(span: Span) -> str:
    return "" if span.last is None else str(span.last)


def _extent(response: Response, span: Span | None) -> tuple[int, int, int] | None:
    """Size of the file, offset and length of what comes of it; None where that is not what was asked for."""
    if response.length is None:
        return None
    if span is None:
        return (response.length, 0, response.length) if response.status == 200 else None
    match = _CONTENT_RANGE.match(response.header("Content-Range") or "")
    if match is None:
        return None
    first, last, size = map(int, match.groups())
    if first > last or response.length != last - first + 1 or (first, response.length) != span.resolve(size):
        return None
    return size, first, response.length
