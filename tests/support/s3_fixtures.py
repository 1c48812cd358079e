"""S3 servers that are started once for a test process. A ``conftest.py`` imports the ones it offers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from support.s3_servers import S3Server, rclone_s3, seaweedfs
from support.swift import Swift


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


def section(options: Mapping[str, str], name: str = "store", type: str = "s3") -> dict[str, str]:
    """Variables that describe the remote ``name`` to resticd and to rclone."""
    described = {"type": type, **options}
    return {f"RCLONE_CONFIG_{name.upper()}_{option.upper()}": value for option, value in described.items()}
