"""Pages of lists, as servers write them and as they should not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resticd.interfaces import Entry
from resticd.remotes import s3_page
from resticd.remotes.s3_page import Page, parse_page

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
TAIL = "</ListBucketResult>"
LAST = "<IsTruncated>false</IsTruncated>"


def item(key: str, size: object = 1, modified: str = "2026-01-01T00:00:00Z") -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><ETag>&#34;x&#34;</ETag>"
        f"<Size>{size}</Size><Owner><ID>i</ID></Owner></Contents>"
    )


def page(*parts: str, head: str = HEAD, version: int = 2, prefix: str = "") -> Page:
    return parse_page((head + "".join(parts) + TAIL).encode(), version, prefix)


@pytest.mark.parametrize(
    "written",
    [
        item("a/é"),
        item("a/&#233;"),
        item("a/&#xe9;").replace("<Key>", '<Key xml:space="preserve">'),
        item("a/é").replace("<Contents>", '<Contents a="b">'),
        f"<!-- <Contents> -->{item('a/é')}",
        item("<![CDATA[a/é]]>"),
        item("a/é").replace("<Size>1<", "<Size>\n1\n<").replace("\n", ""),
        item("a/é").replace("Contents>", "Contents >").replace("<Contents >", "<Contents>"),
    ],
)
def test_however_it_is_written(written: str) -> None:
    """The plain way and all others give the same."""
    assert page(LAST, written, item("b", 2)) == Page([Entry("a/é", 1, 1767225600.0), Entry("b", 2, 1767225600.0)], None)


@pytest.mark.parametrize("head", ["<ListBucketResult>", HEAD.replace("UTF-8", "utf-8"), HEAD.replace('"', "'")])
def test_heads(head: str) -> None:
    """With a declaration and a namespace or without."""
    assert page(LAST, item("a"), head=head).entries[0].key == "a"


def test_another_encoding() -> None:
    """A page is decoded as it says, not as we would like it."""
    text = HEAD.replace("UTF-8", "iso-8859-1") + LAST + item("é") + TAIL
    assert parse_page(text.encode("latin-1"), 2, "").entries[0].key == "é"
    assert parse_page(text.replace("iso-8859-1", "utf-16").encode("utf-16"), 2, "").entries[0].key == "é"


def test_keys_may_be_encoded() -> None:
    """Where the page says so."""
    encoded = page(LAST, "<EncodingType>url</EncodingType>", "<Prefix>a%2B/</Prefix>", item("a%2B/x+y"), prefix="a+/")
    assert encoded.entries[0].key == "a+/x y"
    assert page(LAST, item("a%2B")).entries[0].key == "a%2B"


@pytest.mark.parametrize(
    ("version", "parts", "following"),
    [
        (2, ["<NextContinuationToken>t&amp;</NextContinuationToken>"], "t&"),
        (1, ["<NextMarker>m</NextMarker>"], "m"),
        (1, [], "last"),
    ],
)
def test_where_it_goes_on(version: int, parts: list[str], following: str) -> None:
    """By token, by marker, and without one behind the last key."""
    written = page("<IsTruncated>true</IsTruncated>", *parts, item("first"), item("last"), version=version)
    assert written.following == following


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ([], "whether it is the last"),
        (["<IsTruncated>maybe</IsTruncated>"], "whether it is the last"),
        (["<IsTruncated>true</IsTruncated>", item("a")], "where it goes on"),
        ([LAST, "<KeyCount>2</KeyCount>", item("a")], "announces 2 objects and has 1"),
        ([LAST, "<Prefix>other/</Prefix>"], "another prefix"),
        ([LAST, item("a", "")], "no proper key or size"),
        ([LAST, item("a", -1)], "no proper key or size"),
        ([LAST, item("a").replace("<Size>1</Size>", "")], "no proper key or size"),
        (
            [LAST, "<Contents><Key>a</Key><Contents><Key>b</Key><Size>1</Size></Contents></Contents>"],
            "well-formed|proper",
        ),
        ([LAST, item("a")[:-5]], "not well-formed"),
        ([LAST, item("a"), "<Contents>"], "not well-formed"),
        ([LAST, item("&nothing;")], "not well-formed"),
        ([LAST, item("a & b")], "not well-formed"),
    ],
)
def test_pages_that_are_not_whole(parts: list[str], problem: str) -> None:
    """What could be short is refused."""
    with pytest.raises(ValueError, match=problem):
        page(*parts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<Error><Code>InternalError</Code></Error>",
        '<!DOCTYPE x [<!ENTITY a "b">]><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>',
        "<html><body>Contents</body></html>",
    ],
)
def test_other_documents(text: str) -> None:
    """Errors in a success, documents with entities and what is no XML are refused."""
    with pytest.raises(ValueError):  # defusedxml's errors have no message
        parse_page(text.encode(), 2, "")


@given(
    st.lists(
        st.sampled_from(
            [
                *("<Contents>", "</Contents>", "<Key>", "</Key>", "<Size>", "</Size>", "1", "k", "&amp;", "&#65;"),
                *(item("a"), item("b"), "<!-- x -->", "<![CDATA[", "]]>", "\r\n", "<Owner><Key>o</Key></Owner>"),
            ]
        ),
        max_size=12,
    )
)
def test_both_ways_agree(pieces: list[str]) -> None:
    """The quick way reads nothing that the parser of XML does not read, and reads the same."""
    data = (HEAD + LAST + "".join(pieces) + TAIL).encode()

    def outcome() -> Page | None:
        try:
            return parse_page(data, 2, "")
        except ValueError:
            return None

    quick = outcome()
    cut, s3_page._cut_items = s3_page._cut_items, lambda data: (s3_page._NOTHING, data)
    try:
        assert quick in (outcome(), None)
    finally:
        s3_page._cut_items = cut
