"""A local remote over an empty directory, and the threads for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from resticd.remotes.local import LocalRemote
from resticd.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Few threads, so that what must not wait for others is found out."""
    made = Workers(reactor, 4)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The directory of ``local``."""
    return tmp_path / "store"


@pytest.fixture
def without() -> tuple[str, ...]:
    """The techniques that ``local`` does without."""
    return ()


@pytest_twisted.async_yield_fixture
async def local(store: Path, workers: Workers, without: tuple[str, ...]) -> AsyncGenerator[LocalRemote, None]:
    """A started remote."""
    made = LocalRemote(store, workers, without)
    await made.start()
    # Its sweep could take what a test writes for a leftover, as it is one.
    await made._swept()
    yield made
    await made.stop()
