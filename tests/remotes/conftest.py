"""What the tests of several drivers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.s3_servers import S3Server, rclone_s3, seaweedfs
from support.swift import Swift
from twisted.internet import reactor

from resticd.workers import Workers


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    pool = Workers(reactor)
    pool.start()
    yield pool
    pool.stop()


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS without a bucket."""
    with seaweedfs(tmp_path_factory.mktemp("weed")) as running:
        yield running


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """``rclone serve s3`` without a bucket."""
    with rclone_s3(tmp_path_factory.mktemp("rclone")) as running:
        yield running


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Swift's s3api without a bucket."""
    with Swift(tmp_path_factory.mktemp("swift")) as running:
        yield running
