"""The suite of ``conformance`` over real S3 servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_twisted
from conformance import Conformance, put
from support.s3_servers import S3Server, rclone_s3, seaweedfs
from support.swift import Swift
from twisted.internet import reactor

from resticd.remotes.s3 import make_s3
from resticd.remotes.wrappers.verifying import VerifyingRemote
from resticd.transport.settings import ClientSettings
from resticd.workers import Workers


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    pool = Workers(reactor)
    pool.start()
    yield pool
    pool.stop()


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

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
        with seaweedfs(tmp_path_factory.mktemp("weed")) as running:
            yield running


@pytest.mark.xdist_group("swift")
class TestSwift(S3Conformance):
    """Swift's s3api honours conditions and checks every hash, the signed payload's too."""

    many = 1100

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
        with Swift(tmp_path_factory.mktemp("swift")) as running:
            yield running


@pytest.mark.xdist_group("rclone_s3")
class TestRclone(S3Conformance):
    """``rclone serve s3`` does neither."""

    provider = "Rclone"
    conditional = False
    #: it walks its directory for every page
    many = 1100

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
        with rclone_s3(tmp_path_factory.mktemp("rclone")) as running:
            yield running
