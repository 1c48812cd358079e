"""What the tests of the bridge with real clients share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.bridged import Storage
from support.daemons import Server
from support.peers import peer


@pytest.fixture
def serve(start_resticd: Callable[..., Server]) -> Callable[..., Server]:
    """A function that serves a storage's ``there:``, with the rclone of the tests."""

    def start(storage: Storage, *flags: str, path: str = "there:", **keywords: object) -> Server:
        more = ("--rclone", str(peer("rclone")), "--config", str(storage.file), *flags)
        return start_resticd(path, *more, **keywords)

    return start
