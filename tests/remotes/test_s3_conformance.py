"""The suite of ``conformance`` over real S3 servers."""

from __future__ import annotations

import unicodedata
from typing import Any
from uuid import uuid4

import pytest
import pytest_twisted
from conformance import ODD_NAMES, Conformance, put
from support.s3_servers import S3Server
from twisted.internet import reactor

from resticd.remotes.s3 import make_s3
from resticd.remotes.wrappers.verifying import VerifyingRemote
from resticd.transport.settings import ClientSettings
from resticd.workers import Workers


class S3Conformance(Conformance):
    """Gives each test a prefix of its own in one bucket."""

    provider = "Other"
    conditional = True
    #: what the kernel's buffers, those of Twisted and our own may hold in all
    flight = 16 * 1024 * 1024

    @pytest_twisted.async_yield_fixture
    async def remote(self, server: S3Server, workers: Workers) -> Any:
        settings = ClientSettings(timeout=60)
        inner = make_s3(server.options(self.provider), f"bucket/{uuid4()}/dépôt", reactor, workers, settings)
        remote = VerifyingRemote(inner, workers)
        await remote.start()
        await remote.make("")
        # The first upload finds out what the server can do.
        await put(remote, "a", b"x")
        await remote.delete("a")
        assert remote.capabilities.conditional_create is self.conditional
        yield remote
        await remote.stop()


@pytest.mark.xdist_group("seaweedfs")
class TestSeaweedFS(S3Conformance):
    """SeaweedFS honours conditions and checks checksums."""

    provider = "SeaweedFS"

    @pytest.fixture
    def server(self, weed: S3Server) -> S3Server:
        return weed


@pytest.mark.xdist_group("swift")
class TestSwift(S3Conformance):
    """Swift's s3api honours conditions and checks every hash, the signed payload's too."""

    many = 1100

    @pytest.fixture
    def server(self, swift: S3Server) -> S3Server:
        return swift


@pytest.mark.xdist_group("rclone_s3")
class TestRclone(S3Conformance):
    """``rclone serve s3`` does neither.

    Names that differ only in how accents are composed are one to it (``dir.stat`` in its ``vfs``), as they are to
    the file systems that some of its backends stand for.
    """

    provider = "Rclone"
    conditional = False
    #: it walks its directory for every page
    many = 1100
    odd_names = [name for name in ODD_NAMES if name == unicodedata.normalize("NFC", name)]

    @pytest.fixture
    def server(self, rclone: S3Server) -> S3Server:
        return rclone
