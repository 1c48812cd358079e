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


class _Items(NamedTuple):
    """The objects of a page in columns, as the page describes them."""

    keys: list[str]
    sizes: list[str]
    #: when they were modified
    times: list[str]


_NOTHING = _Items([], [], [])
_EMPTY: list[str] = []


def parse_page(data: bytes, version: int, prefix: str) -> Page:
    """One answer of ListObjects. Raises ``ValueError`` for whatever could be a page that is not whole."""
    items, rest = _cut_items(data)
    root = parse_xml(rest, "ListBucketResult")
    if child_text(root, "Contents") is not None:  # written in a way that was not seen
        root = parse_xml(data, "ListBucketResult")
        items = _items(root)
    encoded = child_text(root, "EncodingType") == "url"

    def text(element_text: str | None) -> str:
        return unquote_plus(element_text or "") if encoded else element_text or ""

    truncated = child_text(root, "IsTruncated")
    if truncated not in ("true", "false"):
        raise ValueError("it does not say whether it is the last one")
    echoed = child_text(root, "Prefix")
    if echoed is not None and text(echoed) != prefix:
        raise ValueError("it is for another prefix")
    keys = list(map(unquote_plus, items.keys)) if encoded else items.keys
    if not all(key.startswith(prefix) for key in keys) or not all(map(str.isdecimal, items.sizes)):
        raise ValueError("an object of it has no proper key or size")
    entries = list(map(Entry, keys, map(int, items.sizes), map(_modified, items.times)))
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


def _cut_items(data: bytes) -> tuple[_Items, bytes]:
    """The objects of a page, and the page without them. The page is left as it is where they are not written plainly.

    A tree of the whole page takes several times as long, which is what lists of far-away servers would wait for. In a
    well-formed document without comments, CDATA and DTD, a ``<`` begins a tag wherever it stands.
    """
    if b"<!" in data or not _UTF_8.match(data):
        return _NOTHING, data
    try:
        expat.ParserCreate().Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"not well-formed XML: {error}") from None
    return _cut_columns(data) or _cut_blocks(data)


def _cut_columns(data: bytes) -> tuple[_Items, bytes] | None:
    """As ``_cut_items`` where all objects are described by the same elements in the same order; otherwise None.

    Twice as fast as one object after the other. Where the closing tags of all objects are the same and the
    document is well-formed, the opening ones are.
    """
    pieces = data.split(b"<")
    count = pieces.count(b"Contents>")
    if not count:
        return None
    start = pieces.index(b"Contents>")
    try:
        period = pieces.index(b"/Contents>", start) + 1 - start
    except ValueError:
        return None
    end = start + count * period
    columns = {b"Key>": _EMPTY, b"Size>": _EMPTY, b"LastModified>": _EMPTY}
    depth = 0
    for number, piece in enumerate(pieces[start : start + period], start):
        if piece.startswith(b"?"):
            return None
        closing, alone = piece.startswith(b"/"), b"/>" in piece
        if (closing or alone or number == start) and pieces[number:end:period].count(piece) != count:
            return None
        tag = piece[: piece.find(b">") + 1]
        if depth == 1 and columns.get(tag) is _EMPTY:
            found = _column(pieces[number:end:period], tag)
            if found is None or not pieces[number + 1].startswith(b"/"):
                return None
            columns[tag] = found
        depth += -1 if closing else not alone
    keys, sizes, times = columns.values()
    if keys is _EMPTY or sizes is _EMPTY:
        return None
    return _Items(keys, sizes, [""] * count if times is _EMPTY else times), b"<".join(pieces[:start] + pieces[end:])


def _column(pieces: list[bytes], tag: bytes) -> list[str] | None:
    """The texts behind a tag; None where there is another tag before one, or one is not plain."""
    text = b"<".join(pieces)
    if b"&" in text or b"\r" in text:
        return None
    length, name = len(tag), tag.decode()
    values = [piece[length:] for piece in text.decode().split("<") if piece.startswith(name)]
    return values if len(values) == len(pieces) else None


def _cut_blocks(data: bytes) -> tuple[_Items, bytes]:
    """As ``_cut_items``, one object after the other."""
    first, *parts = data.split(b"<Contents>")
    items, rest = _Items([], [], []), [first]
    for part in parts:
        block, _, behind = part.partition(b"</Contents>")
        key, size = _field(block, b"<Key>", b"</Key>"), _field(block, b"<Size>", b"</Size>")
        if key is None or size is None:
            return _NOTHING, data
        items.keys.append(key)
        items.sizes.append(size)
        items.times.append(_field(block, b"<LastModified>", b"</LastModified>") or "")
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


def _items(root: Element) -> _Items:
    items = list(children(root, "Contents"))
    return _Items(*([child_text(item, name) or "" for item in items] for name in ("Key", "Size", "LastModified")))


def _modified(value: str) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp() if value else None
    except ValueError:
        return None
