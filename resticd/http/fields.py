"""The fields of answers: those that all of them have, and those of blobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resticd import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.web.http_headers import Headers

SERVER = f"resticd/{__version__}".encode()


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


def blob_fields(length: int, part: tuple[int, int] | None = None) -> list[tuple[bytes, bytes]]:
    """The fields of an answer with ``length`` bytes of a file.

    :param part: where they begin, and the size of the file, where a range was asked for.
    """
    fields = [
        (b"Content-Type", b"application/octet-stream"),
        (b"Content-Length", b"%d" % length),
        (b"Accept-Ranges", b"bytes"),
    ]
    if part is not None:
        offset, size = part
        fields.append((b"Content-Range", b"bytes %d-%d/%d" % (offset, offset + length - 1, size)))
    return fields
