"""Limited remotes pass the suite of every remote."""

from __future__ import annotations

import pytest_twisted
from conformance import Conformance
from twisted.internet import reactor

from resticd.bandwidth import Bandwidth
from resticd.config.bwlimit import parse_bwlimit
from resticd.remotes.local import LocalRemote
from resticd.remotes.memory import MemoryRemote
from resticd.remotes.wrappers.throttle import ThrottledRemote


class TestLimitedLocal(Conformance):
    """With limits that make bytes wait, of each transfer and of all together."""

    many = 1100

    @pytest_twisted.async_yield_fixture
    async def remote(self, workers, tmp_path):
        bandwidth = Bandwidth(reactor, parse_bwlimit("100M:200M"))
        inner = LocalRemote(tmp_path / "store", workers)
        remote = ThrottledRemote(inner, reactor, bandwidth, parse_bwlimit("80M"))
        await remote.start()
        yield remote
        await remote.stop()


class TestSuspendedLimit(Conformance):
    """With a limit that is switched off for now."""

    holds_back = False

    @pytest_twisted.async_yield_fixture
    async def remote(self):
        bandwidth = Bandwidth(reactor, parse_bwlimit("1k"))
        bandwidth.toggle()
        remote = ThrottledRemote(MemoryRemote(), reactor, bandwidth)
        await remote.start()
        yield remote
        await remote.stop()
