"""Files that stay open for a moment after they were looked at or read."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.disk import open_files
from twisted.internet.task import Clock

from resticd.interfaces import Stat
from resticd.remotes.local_open import MOMENT, MOST, OpenFiles
from resticd.remotes.local_prompt import PromptReader


@pytest.fixture
def store(store: Path) -> Path:
    """It is there."""
    store.mkdir()
    return store


Ask = Callable[[str], bytes | None]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reader(store: Path, clock: Clock) -> Iterator[PromptReader]:
    made = PromptReader(store, OpenFiles(clock.callLater))
    made.look_at_root()
    yield made
    made.close()
    assert not open_files(store)
    assert not clock.getDelayedCalls()


@pytest.fixture(params=["look", "read"])
def ask(request: pytest.FixtureRequest, reader: PromptReader) -> Ask:
    """What a file holds, or only how long it is, as a look tells."""

    def look(key: str) -> bytes | None:
        about = reader.stat(key)
        return None if about is None else b"x" * about.size

    def read(key: str) -> bytes | None:
        piece = reader.read(key, None, 100)
        return None if piece is None else bytes(piece.data)

    return look if request.param == "look" else read


def test_a_moment(ask: Ask, store: Path, clock: Clock) -> None:
    """It is opened once, and closed when the moment is over, however often it was asked for."""
    (store / "a").write_bytes(b"xxx")
    for _ in range(3):
        assert ask("a") == b"xxx"
        clock.advance(MOMENT / 4)
        assert open_files(store) == [str(store / "a")]
    clock.advance(MOMENT / 4)
    assert not open_files(store)
    assert ask("a") == b"xxx"


def test_removed(ask: Ask, store: Path) -> None:
    """It is gone at once, and what takes its place is found."""
    (store / "a").write_bytes(b"xxx")
    assert ask("a") == b"xxx"
    (store / "a").unlink()
    assert ask("a") is None
    assert not open_files(store)
    (store / "a").write_bytes(b"xx")
    assert ask("a") == b"xx"
    (store / "b").write_bytes(b"x")
    (store / "b").rename(store / "a")
    assert ask("a") == b"x"


def test_several_names(ask: Ask, store: Path) -> None:
    """What could lose one without a trace is not kept, and not any more once that is seen."""
    (store / "a").write_bytes(b"xxx")
    (store / "b").hardlink_to(store / "a")
    assert ask("a") == b"xxx"
    assert not open_files(store)
    (store / "b").unlink()
    assert ask("a") == b"xxx"
    assert open_files(store) == [str(store / "a")]
    (store / "b").hardlink_to(store / "a")
    assert ask("a") == b"xxx"
    assert not open_files(store)


@pytest.mark.parametrize("limit", [400, 1_000_000])
def test_many(store: Path, clock: Clock, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a few are open at a time, and the others are told of all the same."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    reader = PromptReader(store, OpenFiles(clock.callLater))
    reader.look_at_root()
    most = min(MOST, limit // 8)
    for number in range(2 * most):
        (store / str(number)).write_bytes(b"x")
        assert reader.stat(str(number)) is not None
        assert len(open_files(store)) <= most
    assert reader.stat("0") is not None
    reader.close()


def test_what_is_no_file(ask: Ask, store: Path) -> None:
    """It is not told of, and not kept; neither is a range that is not there."""
    (store / "directory").mkdir()
    os.mkfifo(store / "pipe")
    for key in ("directory", "pipe", "missing"):
        assert ask(key) is None
    assert not open_files(store)


def test_overlayfs(reader: PromptReader, ask: Ask, store: Path) -> None:
    """There a file that was removed may say that it has its name still."""
    reader._devices[store.stat().st_dev] = 0x794C7630
    (store / "a").write_bytes(b"xxx")
    assert ask("a") == b"xxx"
    assert not open_files(store)


def test_too_long(reader: PromptReader, store: Path) -> None:
    """A file of which nothing is told is kept like others."""
    (store / "a").write_bytes(b"x" * 101)
    for _ in range(2):
        assert reader.read("a", None, 100) is None
        assert open_files(store) == [str(store / "a")]


def test_none_is_kept(store: Path) -> None:
    """Without the technique."""
    reader = PromptReader(store)
    reader.look_at_root()
    (store / "a").write_bytes(b"xxx")
    assert reader.stat("a") == Stat(3, (store / "a").stat().st_mtime)
    assert reader.read("a", None, 3) is not None
    assert not open_files(store)
