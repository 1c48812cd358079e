"""What the tests of several drivers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.s3_fixtures import rclone, swift, weed
from twisted.internet import reactor

from resticd.workers import Workers

__all__ = ["rclone", "swift", "weed", "workers"]


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    pool = Workers(reactor)
    pool.start()
    yield pool
    pool.stop()
