"""What every test may use. Helpers with arguments are in ``tests/support``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemons import Server, resticd


@pytest.fixture
def start_resticd(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A function ``start_resticd(path, *flags, **keywords)`` that starts ``support.daemons.resticd``.

    All that it started are stopped after the test.
    """
    with contextlib.ExitStack() as running:
        yield lambda path, *flags, **keywords: running.enter_context(resticd(path, tmp_path, *flags, **keywords))
