"""The Range header (RFC 9110, section 14.2)."""

from __future__ import annotations

import re

from resticd.streams import Span

_SINGLE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*\Z", re.IGNORECASE)


def parse_range(header: str | None) -> Span | None:
    """The one span of bytes that the header asks for; None for the whole object.

    A header that is malformed, names another unit or asks for several ranges is ignored, as section 14.2 lets a
    server do.
    """
    match = _SINGLE.match(header) if header else None
    if match is None:
        return None
    first, last = match.groups()
    if first:
        span = Span(int(first), int(last) if last else None)
        return None if span.last is not None and span.last < int(first) else span
    return Span(None, int(last)) if last else None
