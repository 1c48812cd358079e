"""Texts of the flags for requests."""

from __future__ import annotations

import pytest

from resticd.config.flags import parse_base, parse_header, parse_origin


@pytest.mark.parametrize(
    ("text", "base"),
    [
        *[(text, "") for text in ("", "/", "//")],
        *[(text, "x") for text in ("x", "/x", "x/", "/x/")],
        ("/a/b/", "a/b"),
        ("my backups", "my%20backups"),
        ("böckups", "b%C3%B6ckups"),
        ("50%", "50%25"),
        ("a?b", "a%3Fb"),
        ("a(1)~!$&'*+,;=:@-_.", "a(1)~!$&'*+,;=:@-_."),
        ("...", "..."),
    ],
)
def test_a_base_is_encoded_as_clients_send_it(text: str, base: str) -> None:
    assert parse_base(text) == base


@pytest.mark.parametrize("text", ["a//b", "..", ".", "a/../b", "a/./b", "a\\b", "a\nb", "a\udcff"])
def test_a_base_that_no_request_can_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"segments|not a path"):
        parse_base(text)


@pytest.mark.parametrize(
    "text", ["*", "null", "https://a.example", "http://127.0.0.1:8080", "http://[::1]:80", "app+x://a"]
)
def test_an_origin_is_taken_as_it_is(text: str) -> None:
    assert parse_origin(text) == text


@pytest.mark.parametrize(
    "text", ["", "a.example", "https://", "https://a/", "https://a/b", "https://a b", "https://a\r\nX: y", "https://ü"]
)
def test_what_no_browser_sends_as_an_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an origin"):
        parse_origin(text)


@pytest.mark.parametrize("text", ["", "X", ": y", "X y: z", "X: a\r\nY: b", "X: ü", "X: a\0"])
def test_what_is_no_header_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a header"):
        parse_header(text)
