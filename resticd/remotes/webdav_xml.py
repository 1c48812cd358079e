"""The XML that WebDAV speaks, read while it arrives."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from defusedxml.ElementTree import DefusedXMLParser

_DAV = "{DAV:}"
_STATUS = re.compile(r"HTTP/[0-9.]+\s+(\d{3})")
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")
#: No text that is looked at is longer, in characters, and no element lies deeper.
_LONGEST_TEXT = 64 * 1024
_DEEPEST = 64

_LISTED = "<D:resourcetype/><D:getcontentlength/><D:getlastmodified/>"


def _propfind(properties: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<D:propfind xmlns:D="DAV:" xmlns:oc="http://owncloud.org/ns">'
        f"<D:prop>{properties}</D:prop></D:propfind>"
    ).encode("ascii")


#: Bodies of PROPFIND: what a list needs, that and the checksums, and the room that is left (RFC 4331).
LISTED = _propfind(_LISTED)
CHECKSUMS = _propfind(_LISTED + "<oc:checksums/>")
QUOTA = _propfind("<D:resourcetype/><D:quota-available-bytes/><D:quota-used-bytes/>")

#: Elements whose text is wanted, and by which name.
_TEXTS = {
    f"{_DAV}href": "href",
    f"{_DAV}status": "status",
    f"{_DAV}getcontentlength": "getcontentlength",
    f"{_DAV}getlastmodified": "getlastmodified",
    f"{_DAV}quota-available-bytes": "quota-available-bytes",
    f"{_DAV}quota-used-bytes": "quota-used-bytes",
    "{http://owncloud.org/ns}checksum": "checksum",
}


class Resource(NamedTuple):
    """One ``response`` of a multistatus (RFC 4918, section 14.24).

    :ivar path: its segments, percent-decoded; None where they are no text in UTF-8.
    :ivar status: 200, or what the server says of the whole resource.
    :ivar properties: texts of the properties that it has.
    """

    path: tuple[str, ...] | None
    status: int
    is_collection: bool
    properties: Mapping[str, str]

    @property
    def size(self) -> int | None:
        """In bytes, where the server says it."""
        return self.number("getcontentlength")

    @property
    def modified(self) -> float | None:
        """Seconds since the epoch, where the server says it."""
        return parse_date(self.properties.get("getlastmodified"))

    def number(self, name: str) -> int | None:
        """A property that is a number and not negative."""
        text = self.properties.get(name, "")
        return int(text) if text.isdecimal() and text.isascii() else None


def parse_date(text: str | None) -> float | None:
    """Seconds since the epoch, from a date of HTTP or of ISO 8601; None where it is neither."""
    if not text:
        return None
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def segments_of(href: str) -> tuple[str, ...] | None:
    """The segments of an absolute URL or path, percent-decoded; None where one is no text in UTF-8.

    Servers that forget to encode a ``?`` or a ``#`` mean them: no resource that is listed has a query.
    """
    path = _ORIGIN.sub("", href, count=1)
    try:
        return tuple(unquote_to_bytes(segment).decode("utf-8") for segment in path.split("/") if segment)
    except UnicodeDecodeError:
        return None


class MultistatusParser:
    """Takes a multistatus bit by bit.

    ``feed`` and ``close`` raise ``ValueError`` for what is not well-formed, is something else, or has a DTD.
    """

    def __init__(self) -> None:
        self._found: list[Resource] = []
        self._parser = DefusedXMLParser(target=self, forbid_dtd=True)
        self._open: list[str] = []
        self._text: list[str] | None = None
        self._length = 0
        self._response: dict[str, str] = {}
        self._propstat: dict[str, str] | None = None
        self._is_collection = False
        self._whole = False

    def feed(self, data: bytes) -> list[Resource]:
        """The resources that are complete with these bytes."""
        self._guarded(self._parser.feed, data)
        found, self._found = self._found, []
        return found

    def finish(self) -> None:
        """There are no more bytes."""
        self._guarded(self._parser.close)
        if not self._whole:
            raise ValueError("it ends too early")

    def _guarded(self, call: object, *arguments: object) -> None:
        try:
            call(*arguments)  # type: ignore[operator]
        except ValueError:  # ours, and what defusedxml forbids
            raise
        except SyntaxError as error:  # ElementTree's ParseError
            raise ValueError(f"not well-formed XML: {error}") from None

    # The target of the parser; see xml.etree.ElementTree.XMLParser.

    def start(self, tag: str, _: object) -> None:
        """An element begins."""
        if not self._open and tag != f"{_DAV}multistatus":
            raise ValueError(f"<{tag}> where <multistatus> was expected")
        self._open.append(tag)
        if len(self._open) > _DEEPEST:
            raise ValueError("its elements are nested too deeply")
        if tag == f"{_DAV}response":
            self._response, self._is_collection = {}, False
        elif tag == f"{_DAV}propstat":
            self._propstat = {}
        elif tag == f"{_DAV}collection" and self._propstat is not None and self._open[-2] == f"{_DAV}resourcetype":
            self._propstat["collection"] = ""
        self._text = [] if tag in _TEXTS else None
        self._length = 0

    def data(self, text: str) -> None:
        """A piece of text."""
        if self._text is not None:
            self._length += len(text)
            if self._length > _LONGEST_TEXT:
                raise ValueError("a text in it is too long")
            self._text.append(text)

    def end(self, tag: str) -> None:
        """An element ends."""
        self._open.pop()
        if self._text is not None:
            into = self._response if self._propstat is None else self._propstat
            into.setdefault(_TEXTS[tag], "".join(self._text).strip())
            self._text = None
        if tag == f"{_DAV}propstat" and self._propstat is not None:
            status = _status(self._propstat.pop("status", ""))
            self._propstat.pop("href", None)  # of a lock, perhaps
            if 200 <= status < 300:
                self._response |= self._propstat
            else:
                self._response.setdefault("refused", str(status))
            self._propstat = None
        elif tag == f"{_DAV}response":
            self._found.append(self._resource())
        elif not self._open:
            self._whole = True

    def close(self) -> None:
        """The document ends."""

    def _resource(self) -> Resource:
        properties = self._response
        href = properties.pop("href", "")
        if not href:
            raise ValueError("a part of it has no href")
        status = _status(properties.pop("status", ""))
        # A resource of which nothing at all may be known says so of its properties.
        refused = int(properties.pop("refused", "0"))
        is_collection = properties.pop("collection", None) is not None
        if status == 200 and not properties and not is_collection and refused not in (0, 404):
            status = refused
        return Resource(segments_of(href), status, is_collection, properties)


def _status(line: str) -> int:
    """Servers leave it out where all is well."""
    if not line:
        return 200
    match = _STATUS.match(line)
    if match is None:
        raise ValueError("it has a status that is none")
    return int(match[1])
