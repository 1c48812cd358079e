"""The Range header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resticd.errors import RangeNotSatisfiable
from resticd.http.ranges import parse_range
from resticd.streams import Span


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", Span(0, 0)),
        ("bytes=2-5", Span(2, 5)),
        ("bytes=2-", Span(2, None)),
        ("bytes=-3", Span(None, 3)),
        ("bytes = 2 - 5 ", Span(2, 5)),
        ("BYTES=2-5", Span(2, 5)),
        (None, None),
        ("", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=5-2", None),
        ("bytes=a-b", None),
        ("bytes=1-2,4-5", None),
        ("bytes=1-2-3", None),
        ("items=1-2", None),
        ("bytes=-1-2", None),
        ("bytes=99999999999999999999-", None),
    ],
)
def test_header(header: str | None, span: Span | None) -> None:
    """A single range is understood; anything else is ignored."""
    assert parse_range(header) == span


@given(st.integers(0, 50), st.one_of(st.none(), st.integers(0, 50)), st.one_of(st.none(), st.integers(0, 50)))
def test_span_is_a_slice(size: int, first: int | None, last: int | None) -> None:
    """What a span resolves to is what Python's slices say, or it is not satisfiable."""
    if first is None and last is None:
        return
    data = bytes(range(size))
    if first is None:
        expected = data[-last:] if last else b""
    else:
        expected = data[first:] if last is None else data[first : last + 1]
    try:
        offset, length = Span(first, last).resolve(size)
    except RangeNotSatisfiable as error:
        assert error.size == size
        assert not expected
    else:
        assert data[offset : offset + length] == expected
        assert length
