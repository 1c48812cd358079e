"""The names of remotes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resticd.config.connection import Connection, join_connection, parse_connection
from resticd.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "connection"),
    [
        ("remote:path/to", Connection("remote", "path/to", {}, "remote:")),
        ("/a:b", Connection("", "/a:b")),
        ("./a:b", Connection("", "./a:b")),
        (":s3,a=1,b,c='x:y':d:e", Connection(":s3", "d:e", {"a": "1", "b": "true", "c": "x:y"}, ":s3,a=1,b,c='x:y':")),
        ("r,a='it''s',b=\"''\":", Connection("r", "", {"a": "it's", "b": "''"}, "r,a='it''s',b=\"''\":")),
    ],
)
def test_parts(text: str, connection: Connection) -> None:
    """Name, options and path are found, and the prefix is all before the path."""
    assert parse_connection(text) == connection
    assert connection.prefix + connection.path == text


@given(st.text("ab:,='\"/\\. -", max_size=15))
def test_prefix_and_path_are_the_whole_name(text: str) -> None:
    """Whatever can be parsed is not changed by it, and whatever cannot raises ConfigurationError alone."""
    try:
        connection = parse_connection(text)
    except ConfigurationError:
        return
    assert connection.prefix + connection.path == text
    assert bool(connection.name) == bool(connection.prefix)


@given(st.text("a1_.+@- ä²ⅷ", max_size=8))
def test_names_are_those_of_rclones_pattern(name: str) -> None:
    """Our pattern, which cannot backtrack, takes the same names as the one in rclone's fs/fspath."""
    theirs = re.compile(r"[\w.+@]+(?:[ -]+[\w.+@-]+)*")
    try:
        parse_connection(f"{name}:")
    except ConfigurationError:
        assert not theirs.fullmatch(name)
    else:
        assert theirs.fullmatch(name)


def test_a_name_made_to_backtrack_is_refused_at_once() -> None:
    """A long name of dashes, which is slow to refuse by rclone's pattern in Python, is refused."""
    with pytest.raises(ConfigurationError, match="invalid characters"):
        parse_connection("a" + "-" * 100_000 + "*:")


def test_errors_do_not_show_options() -> None:
    """What stands behind the first comma may be a secret."""
    with pytest.raises(ConfigurationError, match=r'^remote ":s3…": unterminated quoted') as caught:
        parse_connection(":s3,secret_access_key='hunter2:")
    assert "hunter2" not in str(caught.value)
    parsed = parse_connection(":s3,secret_access_key=hunter2:bucket")
    assert "hunter2" not in repr(parsed)
    assert str(parsed) == ":s3,…:bucket"


@pytest.mark.parametrize(
    ("remote", "path", "joined"),
    [
        ("s3:dir", "", "s3:dir"),
        ("s3:", ".", "s3:"),
        ("s3:.", ".", "s3:"),
        ("s3:", "..", "s3:"),
        ("s3:dir", "sub", "s3:dir/sub"),
        ("s3:dir", "/sub", "s3:dir/sub"),
        ("s3:/dir", "/sub/", "s3:/dir/sub"),
        ("s3:dir", "../..", "s3:dir"),
        ("s3:dir/", "a//b/../c", "s3:dir/a/c"),
        ("s3,a='b:c':dir", "sub", "s3,a='b:c':dir/sub"),
        ("/root", "sub", "/root/sub"),
        ("/", "/", "/"),
        ("", "/", "/"),
        ("", ".", ""),
        ("//server", "//path", "//server/path"),
        ("rel", "sub", "rel/sub"),
        ("./a:b", "sub", "./a:b/sub"),
        ("not*valid:x", "y", "not*valid:x/y"),
    ],
)
def test_join(remote: str, path: str, joined: str) -> None:
    """A path is added below a remote's; ``..`` does not lead out of it (the cases of rclone's own test, and more)."""
    assert join_connection(remote, path) == joined
