"""The remote in memory."""

from __future__ import annotations

import pytest
import pytest_twisted
from conformance import Conformance

from resticd.errors import Unsupported
from resticd.remotes.memory import MemoryRemote


class TestMemory(Conformance):
    @pytest_twisted.async_yield_fixture
    async def remote(self):
        remote = MemoryRemote()
        await remote.start()
        yield remote
        await remote.stop()

    @pytest_twisted.ensureDeferred
    async def test_usage(self, remote: MemoryRemote) -> None:
        with pytest.raises(Unsupported):
            await remote.usage()
