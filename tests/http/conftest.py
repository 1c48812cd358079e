"""Threads for bodies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet import reactor

from resticd.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers(reactor)
    made.start()
    yield made
    made.stop()
