"""Lists separated by spaces."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resticd.config.spacelist import parse_space_list


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("one", ["one"]),
        ("one two", ["one", "two"]),
        ("one  two ", ["one", "", "two", ""]),
        ('"one word" two', ["one word", "two"]),
        ('"a ""quoted"" word"', ['a "quoted" word']),
        ('""', [""]),
        ("it's", ["it's"]),
        ("a\\ b", ["a\\", "b"]),
        ("one\ntwo", ["one"]),
        ("\none\r\n", ["one"]),
        ('"two\nlines"', ["two\nlines"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    """Words are split at spaces; double quotes hold a word together."""
    assert parse_space_list(text) == words


@pytest.mark.parametrize("text", ['a"b', '"ab', '"a"b', 'a "', '"a""'])
def test_a_quote_that_does_not_fit_is_refused(text: str) -> None:
    """A quote within a word, or one that does not end, is an error that does not show the text."""
    with pytest.raises(ValueError, match="a quote must") as caught:
        parse_space_list(text)
    assert text not in str(caught.value)


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8")), min_size=1))
def test_what_a_csv_writer_writes_is_read_back(words: list[str]) -> None:
    """rclone writes such lists by the rules of CSV; they come back as they were."""
    out = io.StringIO()
    csv.writer(out, delimiter=" ", quoting=csv.QUOTE_ALL).writerow(words)
    assert parse_space_list(out.getvalue()) == words
