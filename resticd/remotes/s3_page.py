"""One page of a list: whole, or refused."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_plus
from xml.parsers import expat

from attrs import frozen

from resticd.interfaces import Entry
from resticd.remotes.s3_xml import child_text, children, parse_xml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

_UTF_8 = re.compile(rb"\A(?:<\?xml(?![^>]*encoding)[^>]*\?>|<\?xml[^>]*encoding=[\"'](?i:utf-8)[\"'][^>]*\?>)?\s*<[^?]")


@frozen
class Page:
    """One page of a list.

    :ivar entries: with whole keys.
    :ivar following: where the next page begins: a token, for version 1 a key; None behind the last page.
    """

    entries: list[Entry]
    following: str | None


class _Item(NamedTuple):
    """An object as the page describes it."""

    key: str
    size: str
    modified: str


def parse_page(data: bytes, version: int, prefix: str) -> Page:
    """One answer of ListObjects. Raises ``ValueError`` for whatever could be a page that is not whole."""
    items, rest = _cut_items(data)
    root = parse_xml(rest, "ListBucketResult")
    if child_text(root, "Contents") is not None:  # written in a way that was not seen
        root = parse_xml(data, "ListBucketResult")
        items = list(_items(root))
    encoded = child_text(root, "EncodingType") == "url"

    def text(element_text: str | None) -> str:
        return unquote_plus(element_text or "") if encoded else element_text or ""

    truncated = child_text(root, "IsTruncated")
    if truncated not in ("true", "false"):
        raise ValueError("it does not say whether it is the last one")
    echoed = child_text(root, "Prefix")
    if echoed is not None and text(echoed) != prefix:
        raise ValueError("it is for another prefix")
    entries = []
    for item in items:
        key = text(item.key)
        if not key.startswith(prefix) or not item.size.isdecimal():
            raise ValueError("an object of it has no proper key or size")
        entries.append(Entry(key, int(item.size), _modified(item.modified)))
    count = child_text(root, "KeyCount")
    if count and count.isdecimal() and int(count) != len(entries):
        raise ValueError(f"it announces {count} objects and has {len(entries)}")
    if truncated == "false":
        return Page(entries, None)
    if version == 2:
        following = child_text(root, "NextContinuationToken")
    else:
        marker = child_text(root, "NextMarker")
        following = text(marker) if marker else entries[-1].key if entries else None
    if not following:
        raise ValueError("it does not say where it goes on")
    return Page(entries, following)


def _cut_items(data: bytes) -> tuple[list[_Item], bytes]:
    """The objects of a page, and the page without them. The page is left as it is where they are not written plainly.

    A tree of the whole page takes four times as long, which is what lists of far-away servers would wait for. In a
    well-formed document without comments, CDATA and DTD, a ``<`` begins a tag wherever it stands.
    """
    if b"<!" in data or not _UTF_8.match(data):
        return [], data
    try:
        expat.ParserCreate().Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"not well-formed XML: {error}") from None
    first, *parts = data.split(b"<Contents>")
    items, rest = [], [first]
    for part in parts:
        block, _, behind = part.partition(b"</Contents>")
        key, size = _field(block, b"<Key>", b"</Key>"), _field(block, b"<Size>", b"</Size>")
        if key is None or size is None:
            return [], data
        items.append(_Item(key, size, _field(block, b"<LastModified>", b"</LastModified>") or ""))
        rest.append(behind)
    return items, b"".join(rest)


def _field(block: bytes, begin: bytes, end: bytes) -> str | None:
    """The text of an element; None where there is none, or no plain one."""
    start = block.find(begin) + len(begin)
    stop = block.find(end, start)
    value = block[start:stop]
    if start < len(begin) or stop < 0 or b"<" in value:
        return None
    if b"&" in value or b"\r" in value:
        return parse_xml(b"<x>%b</x>" % value, "x").text or ""
    return value.decode()


def _items(root: Element) -> Iterator[_Item]:
    for item in children(root, "Contents"):
        yield _Item(*(child_text(item, name) or "" for name in ("Key", "Size", "LastModified")))


def _modified(value: str) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp() if value else None
    except ValueError:
        return None
