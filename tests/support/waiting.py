"""Waiting for something in a test that runs on the reactor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater


async def until(ready: Callable[[], Any], seconds: float = 10) -> Any:
    """Return what ``ready()`` returns once it is true; fails the test after a time."""
    deadline = reactor.seconds() + seconds
    while not (value := ready()):
        assert reactor.seconds() < deadline, "it did not happen in time"
        await deferLater(reactor, 0.005)
    return value
