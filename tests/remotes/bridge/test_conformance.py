"""The suite of ``conformance`` through rclone, over storage of several kinds."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
import pytest_twisted
from conformance import KEYS, ODD_NAMES, Conformance, get, put
from support.prefixed import PrefixedRemote
from twisted.internet.defer import Deferred

from resticd.errors import NotFound, StorageError
from resticd.interfaces import IRemote
from resticd.remotes.bridge import BridgeRemote
from resticd.remotes.wrappers.verifying import VerifyingRemote
from resticd.workers import Workers


class BridgeConformance(Conformance):
    """Gives each test a directory of its own."""

    kind: str
    #: uploads are several calls each
    many = 150
    #: what the kernel's buffers, those of Twisted and our own may hold in all
    flight = 16 * 1024 * 1024

    @pytest_twisted.async_yield_fixture
    async def remote(self, bridge: BridgeRemote, workers: Workers) -> Any:
        remote = PrefixedRemote(VerifyingRemote(bridge, workers), f"{uuid4()}/dépôt/")
        await remote.make("")
        yield remote


@pytest.mark.xdist_group("bridge-sftp")
class TestSftp(BridgeConformance):
    """OpenSSH's server."""

    kind = "sftp"


@pytest.mark.xdist_group("bridge-ftp")
class TestFtp(BridgeConformance):
    """pyftpdlib's server."""

    kind = "ftp"


@pytest.mark.xdist_group("bridge-crypt")
class TestCrypt(BridgeConformance):
    """rclone's encryption over a directory; it makes names half as long again."""

    kind = "crypt"
    keys = [key for key in KEYS if "s" * 200 not in key]
    odd_names = [name for name in ODD_NAMES if len(name) < 255]


@pytest.mark.xdist_group("bridge-union")
class TestUnion(BridgeConformance):
    """Two directories as one."""

    kind = "union"

    @pytest_twisted.ensureDeferred
    async def test_readers_see_one_object(self, remote: IRemote) -> None:
        """What is overwritten is one of its versions or, for a moment, missing: the two may be in two directories."""
        versions = [bytes([number]) * 200_000 for number in range(6)]
        await put(remote, "config", versions[0])

        async def write() -> None:
            for version in versions[1:]:
                await put(remote, "config", version, overwrite=True)

        writing = Deferred.fromCoroutine(write())
        while not writing.called:
            with suppress(StorageError, NotFound):
                assert await get(remote, "config") in versions
        await writing
        assert await get(remote, "config") == versions[-1]


@pytest.mark.xdist_group("bridge-memory")
class TestMemory(BridgeConformance):
    """rclone's own memory, where there are no directories and nothing can be renamed."""

    kind = "memory"

    @pytest_twisted.ensureDeferred
    async def test_nothing_is_renamed(self, bridge: BridgeRemote, remote: IRemote) -> None:
        """So this is what uploads to their own names are tested with."""
        features = (await bridge.rclone.ready()).features
        assert not features.moves
        assert not features.partial
