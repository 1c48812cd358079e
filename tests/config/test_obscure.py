"""Obscured values, beside rclone's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rclone_cli import rclone

from resticd.config.obscure import obscure, reveal


@given(st.text())
def test_reveal_undoes_obscure(text: str) -> None:
    """Whatever text is obscured comes back, and never looks the same twice."""
    hidden = obscure(text)
    assert reveal(hidden) == text
    assert hidden != obscure(text)


@pytest.mark.parametrize("text", ["x", "pässwörd", "with space, quote \" and '", "x" * 100])
def test_as_rclone(text: str) -> None:
    """What rclone obscured is revealed, and the other way round."""
    assert reveal(rclone("obscure", "--", text).stdout.strip()) == text
    assert rclone("reveal", "--", obscure(text)).stdout == text + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "in clear!",
        "YWJj",  # too short
        "AAAAAAAAAAAAAAAAAAAAA",  # no length that base64 has
        "dGhpcyBpcyBub3Qgb2JzY3VyZWQgYXQgYWxs=",  # padding
        "+/AAAAAAAAAAAAAAAAAAAAAA",  # the other alphabet
        "Zm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFy",  # hides bytes that are no text
    ],
)
def test_what_is_not_obscured_is_refused_without_showing_it(text: str) -> None:
    """A value in clear is an error whose message does not have it."""
    with pytest.raises(ValueError, match="not an obscured value") as caught:
        reveal(text)
    assert text not in str(caught.value)
