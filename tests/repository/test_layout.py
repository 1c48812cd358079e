"""Where restic's files lie."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resticd.repository.layout import all_blobs, blob_key, blob_name, directory_prefix, repository_prefix
from resticd.repository.names import TYPES, Blob, Directory, Repository

NAME = "2159dd48f8a24f33c307b750592773f8b71ff8d11452132a7b2e2a6a01611be1"
REPOSITORIES = st.lists(st.sampled_from(["a", "b c", "ü", "21"]), max_size=3).map(
    lambda segments: Repository(tuple(segments))
)
HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)


def test_keys() -> None:
    """Data in 256 directories, everything else flat, as in restic's default layout."""
    root, deep = Repository(), Repository(("a", "b"))
    assert repository_prefix(root) == ""
    assert repository_prefix(deep) == "a/b/"
    assert directory_prefix(Directory(root, "data")) == "data/"
    assert directory_prefix(Directory(deep, "locks")) == "a/b/locks/"
    assert blob_key(Blob(root, "config", "")) == "config"
    assert blob_key(Blob(root, "data", NAME)) == f"data/21/{NAME}"
    assert blob_key(Blob(deep, "snapshots", NAME)) == f"a/b/snapshots/{NAME}"


@settings(deadline=None)
@given(REPOSITORIES, st.sampled_from(TYPES), HASHES)
def test_a_listed_key_is_its_name(repository: Repository, kind: str, name: str) -> None:
    """What is stored under a key is listed under its name, and lies below its directory."""
    directory = Directory(repository, kind)
    key = blob_key(Blob(repository, kind, name))
    assert key.startswith(directory_prefix(directory))
    assert blob_name(directory, key) == name


@pytest.mark.parametrize(
    ("kind", "rest"),
    [
        ("data", NAME),
        ("data", f"22/{NAME}"),
        ("data", f"21/{NAME}.tmp"),
        ("data", f"21/{NAME}\n"),
        ("data", f"21/{NAME.upper()}"),
        ("data", f"21/{NAME}/x"),
        ("data", f"x/21/{NAME}"),
        ("data", f"21/{NAME[:-1]}"),
        ("keys", f"21/{NAME}"),
        ("keys", f"{NAME}-tmp-123"),
        ("keys", f"{NAME}\n"),
        ("keys", ".resticd-00.tmp"),
        ("keys", ""),
    ],
)
def test_what_is_not_restics_is_not_shown(kind: str, rest: str) -> None:
    """Foreign files, other servers' temporary files and misplaced ones have no name."""
    directory = Directory(Repository(("a",)), kind)
    assert blob_name(directory, directory_prefix(directory) + rest) is None


@pytest.mark.parametrize(
    ("kind", "rest", "name"),
    [
        ("data", "21/", NAME),
        ("data", "22/", NAME),
        ("data", "", NAME),
        ("data", "x/21/", NAME),
        ("data", "2/", NAME),
        ("keys", "", NAME),
        ("keys", "21/", NAME),
        ("keys", "", NAME.upper()),
        ("keys", "", NAME[:-1] + "\n"),
        ("keys", "", NAME[:-1] + " "),
        ("keys", "", NAME[:-2]),
        ("keys", "", NAME + "00"),
        ("keys", "", NAME[:-1] + "\udcff"),
        ("keys", "", NAME[:-1] + "é"),
    ],
)
def test_whole_directories_are_judged_as_their_files(kind: str, rest: str, name: str) -> None:
    """One by one or all at once makes no difference."""
    directory = Directory(Repository(("a",)), kind)
    prefix = directory_prefix(directory) + rest
    good = [number + NAME[2:] if kind == "keys" else NAME[:2] + number + NAME[4:] for number in ("00", "01", "ff")]
    one_by_one = all(blob_name(directory, prefix + each) == each for each in (*good, name))
    assert all_blobs(directory, prefix, [*good, name]) == one_by_one
