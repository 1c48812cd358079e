from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resticd.observe.escapes import field, printable, quoted, shown_uri, token

anything = st.text(st.characters())  # lone surrogates too


@settings(deadline=None)
@given(anything)
def test_a_message_has_no_control_characters_but_line_feeds_and_tabs(text: str) -> None:
    assert printable(text).replace("\n", "").replace("\t", "").isprintable()


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("C", "Z"))))
def test_a_message_of_ordinary_characters_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("text", ["\x1b[31m", "\r", "\x00", "\x9b", "\u202e", "\u2028", "\ud800"])
def test_what_moves_a_terminal_is_escaped(text: str) -> None:
    assert "\\" in printable(text)
    assert text not in printable(text)


@settings(deadline=None)
@given(anything)
def test_a_quoted_text_is_one_line_that_can_be_read_back(text: str) -> None:
    shown = quoted(text)
    assert shown.isprintable()
    assert ast.literal_eval(shown) == text


@settings(deadline=None)
@given(anything)
def test_a_token_is_one_word_of_ascii(text: str) -> None:
    shown = token(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert shown
    assert not set(' "') & set(shown)


@settings(deadline=None)
@given(anything, anything)
def test_two_users_never_look_alike(one: str, other: str) -> None:
    assert one == other or token(one) != token(other)


def test_a_user_called_dash_is_told_from_none() -> None:
    assert token("") == "-"
    assert token("-") == r"\x2d"


@settings(deadline=None)
@given(anything)
def test_a_field_never_ends_its_quotes(text: str) -> None:
    shown = field(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert '"' not in shown.replace("\\\\", "").replace('\\"', "")
    assert not shown.replace("\\\\", "").endswith("\\")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("/laptop/config", "/laptop/config"),
        ("/laptop/?create=true", "/laptop/?create=true"),
        ("/laptop/?create=true&X-Amz-Signature=abc", "/laptop/?create=true&X-Amz-Signature=***"),
        ("/?user=bob&&pass=", "/?user=***&&pass=***"),
        ("/?dXNlcjpwYXNz", "/?***"),
        ("/?a=b?c=d", "/?a=***"),
        ("/?", "/?"),
    ],
)
def test_a_query_is_shown_without_its_values(uri: str, shown: str) -> None:
    assert shown_uri(uri) == shown
