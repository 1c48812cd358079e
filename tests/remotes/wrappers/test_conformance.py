"""The suite of all remotes over wrapped ones."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest_twisted
from conformance import Conformance
from twisted.internet import reactor

from resticd.bandwidth import Bandwidth, Limits, Timetable
from resticd.interfaces import IRemote
from resticd.remotes.local import LocalRemote
from resticd.remotes.wrappers.throttle import ThrottledRemote
from resticd.workers import Workers

#: Bytes per second: high enough for a test, low enough to hold bytes back.
RATE = 100 * 1024 * 1024


class TestThrottled(Conformance):
    """A limit on both directions changes nothing but the pace."""

    many = 100

    @pytest_twisted.async_yield_fixture
    async def remote(self, tmp_path: Path, workers: Workers) -> AsyncGenerator[IRemote, None]:
        always = Timetable(((0, RATE),))
        limits = Bandwidth(reactor, Limits(always, always))
        remote = ThrottledRemote(LocalRemote(tmp_path / "store", workers), reactor, limits)
        await remote.start()
        yield remote
        await remote.stop()
