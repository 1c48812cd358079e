"""Waiting for something: ``until`` in a test that runs on the reactor, ``wait_until`` in any other."""

from __future__ import annotations

import time
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


def wait_until(ready: Callable[[], Any], seconds: float = 60) -> Any:
    """Return what ``ready()`` returns once it is true; fails the test after a time."""
    deadline = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value
