"""The grammar of paths: what it takes, what it refuses, and that nothing that it takes leads elsewhere."""

from __future__ import annotations

import os.path
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resticd.errors import InvalidName, NoSuchName, ResticdError
from resticd.repository.layout import blob_key, directory_prefix, repository_prefix
from resticd.repository.names import (
    CONFIG,
    MAX_REPOSITORY,
    MAX_SEGMENT,
    TYPES,
    Blob,
    Directory,
    Repository,
    Target,
    _parse,
    parse,
)

NAME = "2159dd48f8a24f33c307b750592773f8b71ff8d11452132a7b2e2a6a01611be1"
ROOT = Repository()
DEEP = Repository(("a", "b", "c"))

TAKEN = [
    ("/", ROOT),
    ("/config", Blob(ROOT, "config", "")),
    ("/data/", Directory(ROOT, "data")),
    ("/data", Directory(ROOT, "data")),
    (f"/data/{NAME}", Blob(ROOT, "data", NAME)),
    (f"/locks/{NAME}", Blob(ROOT, "locks", NAME)),
    ("/a/b/c/", DEEP),
    ("/a/b/c", DEEP),
    ("/a/b/c/config", Blob(DEEP, "config", "")),
    ("/a/b/c/index/", Directory(DEEP, "index")),
    (f"/a/b/c/keys/{NAME}", Blob(DEEP, "keys", NAME)),
    ("/with%20space/", Repository(("with space",))),
    ("/%C3%BCn%C3%AFcode/", Repository(("ünïcode",))),
    ("/%2541/", Repository(("%41",))),
    ("/a%3Fb%23c/", Repository(("a?b#c",))),
    ("/.../", Repository(("...",))),
    ("/..a/", Repository(("..a",))),
    ("/.hidden/", Repository((".hidden",))),
    ("/Data/", Repository(("Data",))),
    ("/con%66ig", Blob(ROOT, "config", "")),
    (f"/%64ata/{NAME}", Blob(ROOT, "data", NAME)),
    ("/" + "x" * MAX_SEGMENT + "/", Repository(("x" * MAX_SEGMENT,))),
]


@pytest.mark.parametrize(("path", "target"), TAKEN)
def test_paths_that_are_taken(path: str, target: Target) -> None:
    """A well-formed path is the value that it names."""
    assert parse(path) == target


@pytest.mark.parametrize("path", [path for path, _ in TAKEN if not path.endswith("/")] + ["", "/a", "/a/b", "/x%20y"])
def test_blobs_take_a_short_cut(path: str) -> None:
    """What is remembered of a repository's path is what the grammar says of it."""
    for _ in range(2):
        path_of_blob = f"{path}/data/{NAME}"
        try:
            expected = _parse(path_of_blob)
        except (InvalidName, NoSuchName) as error:
            with pytest.raises(type(error)):
                parse(path_of_blob)
        else:
            assert parse(path_of_blob) == expected


INVALID = [
    "",
    "config",
    "*",
    "http://host/config",
    "//",
    "//config",
    "/a//b/",
    "/a//",
    "/./",
    "/../",
    "/a/../b/",
    "/a/..",
    "/%2e/",
    "/%2e%2e/",
    "/.%2E/",
    f"/a/%2e%2E/data/{NAME}",
    "/a%2Fb/",
    "/..%2fetc/",
    "/%2F",
    "/a%5Cb/",
    "/a\\b/",
    "/..\\..\\x/",
    "/a%00b/",
    "/a\x00b/",
    "/a%0Ab/",
    "/a%0D%0Ab/",
    "/%7F/",
    "/%1b[31m/",
    "/%FF/",
    "/%C3/",
    "/%C0%AE%C0%AE/",
    "/%ED%A0%80/",
    "/ü/",
    "/" + "x" * (MAX_SEGMENT + 1) + "/",
    "/" + "%C3%BC" * (MAX_SEGMENT // 2 + 1) + "/",
    "/" + "x/" * (MAX_REPOSITORY // 2 + 1),
]


@pytest.mark.parametrize("path", INVALID)
def test_paths_that_are_mistakes_or_attacks(path: str) -> None:
    """An ill-formed path is refused before anything looks at it."""
    with pytest.raises(InvalidName):
        parse(path)


NO_SUCH_NAME = [
    "/data/readme",
    "/data/21/",
    f"/data/21/{NAME}",
    f"/data/{NAME}/",
    f"/data/{NAME.upper()}",
    f"/data/{NAME[:-1]}",
    f"/data/{NAME}0",
    f"/data/{NAME}.",
    "/config/",
    "/config/x",
    "/config/config",
    "/keys/config",
    "/data/config",
    f"/data/keys/{NAME}",
    "/locks/locks/",
    f"/locks/locks/{NAME}",
    "/a/data/b/",
    "/a/data/b/config",
]


@pytest.mark.parametrize("path", NO_SUCH_NAME)
def test_paths_on_which_nothing_can_lie(path: str) -> None:
    """A harmless path that restic never uses is not found, and is not another name of something."""
    with pytest.raises(NoSuchName):
        parse(path)


def test_texts_of_values() -> None:
    """For logs: a value reads as its path."""
    assert [str(value) for value in (ROOT, DEEP)] == ["/", "/a/b/c"]
    assert [str(Directory(value, "data")) for value in (ROOT, DEEP)] == ["/data/", "/a/b/c/data/"]
    assert str(Blob(DEEP, "keys", NAME)) == f"/a/b/c/keys/{NAME}"
    assert [str(Blob(value, CONFIG, "")) for value in (ROOT, DEEP)] == ["/config", "/a/b/c/config"]


# Pieces that attacks are made of, and those that real paths are made of.
PIECES = st.one_of(
    st.sampled_from(["..", ".", "/", "//", "%2e", "%2E%2e", "%2F", "%5c", "\\", "%00", "\x00", "%0a", "%25", "%252e"]),
    st.sampled_from(["%", "%%", "%2", "%zz", "%FF", "%C3%BC", "ü", " ", "+", ";", "?", "#", "~", ":", "a", "A"]),
    st.sampled_from([*TYPES, CONFIG, NAME, NAME.upper(), "21", "x" * 254, "x" * 255, "x" * 256]),
)
PATHS = st.one_of(
    st.lists(PIECES, max_size=12).map("".join),
    st.lists(PIECES, max_size=6).map(lambda pieces: "/" + "/".join(pieces)),
    st.text(st.characters(max_codepoint=127), max_size=60).map("/".__add__),
    st.binary(max_size=40).map(lambda raw: "/" + quote(raw, safe="/")),
    st.text(max_size=30).map("/".__add__),
)


def key_of(target: Target) -> str:
    if isinstance(target, Blob):
        return blob_key(target)
    return directory_prefix(target) if isinstance(target, Directory) else repository_prefix(target)


@settings(deadline=None)
@given(PATHS)
@example("/..%2f..%2fetc/passwd")
@example("/%2e%2e/%2e%2e/config")
def test_whatever_is_taken_stays_below_the_root(path: str) -> None:
    """Any text is refused with an error of ours, or is a value whose key is a plain path below the root."""
    try:
        target = parse(path)
    except (InvalidName, NoSuchName):
        return
    key = key_of(target)
    assert "\\" not in key
    assert not any(ord(character) < 32 or ord(character) == 127 for character in key)
    assert not key.startswith("/")
    assert "//" not in key
    joined = os.path.normpath(f"/root/{key}")
    assert joined == f"/root/{key}".rstrip("/")
    assert all(len(segment.encode()) <= MAX_SEGMENT for segment in key.split("/"))
    assert len(key.encode()) <= 1024, "S3 takes no longer keys"
    # Nothing was decoded twice or normalised: the value says what the path says.
    assert str(target).rstrip("/").encode() == unquote_to_bytes(path).rstrip(b"/")


@settings(deadline=None)
@given(PATHS)
def test_what_is_taken_is_taken_again(path: str) -> None:
    """A value's own path, percent-encoded, names the same value: there is one value to a name."""
    try:
        target = parse(path)
    except ResticdError:
        return
    assert parse(quote(str(target))) == target
    repository = target if isinstance(target, Repository) else target.repository
    assert not {*TYPES, CONFIG} & set(repository.segments)


@settings(deadline=None)
@given(PATHS, PATHS)
def test_two_values_never_share_a_key(first: str, second: str) -> None:
    """Different values are different places, so what is allowed for one is not done to the other."""
    try:
        left, right = parse(first), parse(second)
    except ResticdError:
        return
    assert (left == right) == (key_of(left) == key_of(right))
