"""What the tests of listeners share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from listeners.exchange import mirror_site
from support.certificates import Authority
from twisted.internet import reactor
from twisted.logger import formatEvent, globalLogPublisher

from resticd.listeners.addresses import parse_address
from resticd.listeners.listening import Listeners
from resticd.listeners.tls import ServerTls


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What the listeners log, as ``level: text``."""
    lines: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event.get("log_namespace", "").startswith("resticd.listeners"):
            lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A root that the clients trust."""
    return Authority(tmp_path)


@pytest.fixture
def listeners() -> Iterator[Callable[..., Listeners]]:
    """A function ``listeners(*addresses, tls=None, **keywords)``; what it made is stopped after the test.

    Addresses are texts as for ``--addr``, or sources that were made already.
    """
    made: list[Listeners] = []

    def make(*sources: Any, tls: ServerTls | None = None, **keywords: Any) -> Listeners:
        parsed = [parse_address(source) if isinstance(source, str) else source for source in sources]
        made.append(Listeners(reactor, parsed, mirror_site(), tls, **keywords))
        return made[-1]

    yield make
    for one in made:
        pytest_twisted.blockon(one.stop())
