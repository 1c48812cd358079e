"""The remote in memory."""

from __future__ import annotations

import pytest_twisted
from conformance import Conformance

from resticd.remotes.memory import MemoryRemote


class TestMemory(Conformance):
    holds_back = False

    @pytest_twisted.async_yield_fixture
    async def remote(self):
        remote = MemoryRemote()
        await remote.start()
        yield remote
        await remote.stop()
