"""The fields of answers: those that all of them have, and those of blobs."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

from twisted.web.http import datetimeToString

from resticd import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.web.http_headers import Headers

SERVER = f"resticd/{__version__}".encode()


def date() -> bytes:
    """The value of Date (RFC 9110, section 6.6.1) now."""
    return _date(int(time.time()))


@lru_cache(maxsize=1)
def _date(seconds: int) -> bytes:
    text: bytes = datetimeToString(seconds)
    return text


def common_fields(headers: Headers, date: bytes, response_headers: Iterable[tuple[str, str]]) -> None:
    """Add to the headers of an answer what every answer has."""
    headers.setRawHeaders(b"server", [SERVER])
    headers.setRawHeaders(b"date", [date])
    for name, value in response_headers:
        headers.setRawHeaders(name, [value])


def allow_origin(headers: Headers, origin: str) -> None:
    """Add CORS (the Fetch standard, section 3.2) to the headers of an answer."""
    headers.setRawHeaders(b"access-control-allow-origin", [origin.encode()])
    headers.setRawHeaders(b"access-control-allow-methods", [b"DELETE, GET, HEAD, OPTIONS, POST"])
    headers.setRawHeaders(b"access-control-allow-headers", [b"Authorization, Content-Type, Range"])
    headers.setRawHeaders(b"access-control-expose-headers", [b"Accept-Ranges, Content-Length, Content-Range"])
    headers.setRawHeaders(b"access-control-max-age", [b"86400"])
    if origin != "*":
        headers.addRawHeader(b"vary", b"Origin")


def blob_lines(length: int, part: tuple[int, int] | None = None) -> bytes:
    """The fields of an answer with ``length`` bytes of a file, as they are sent.

    :param part: where they begin, and the size of the file, where a range was asked for.
    """
    lines = b"Content-Type: application/octet-stream\r\nContent-Length: %d\r\nAccept-Ranges: bytes\r\n" % length
    if part is None:
        return lines
    offset, size = part
    return b"%bContent-Range: bytes %d-%d/%d\r\n" % (lines, offset, offset + length - 1, size)


def blob_fields(length: int, part: tuple[int, int] | None = None) -> list[tuple[bytes, bytes]]:
    """``blob_lines`` as names and values."""
    pairs = (line.partition(b": ") for line in blob_lines(length, part).splitlines())
    return [(name, value) for name, _, value in pairs]
