"""What the tests of the bridge share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from support.bridged import STORAGES, Storage
from support.dav_fixtures import apache
from support.peers import peer
from twisted.internet import reactor

from resticd.remotes.bridge import BridgeRemote
from resticd.remotes.registry import Loan, RcloneSettings, RemoteSpec
from resticd.transport.settings import ClientSettings
from resticd.workers import Workers

__all__ = ["apache"]

Make = Callable[..., BridgeRemote]


@pytest.fixture(scope="session")
def make_bridge(workers: Workers, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A function that makes a bridge, not started, to what rclone calls ``text``."""
    home = str(tmp_path_factory.mktemp("home"))

    def make(text: str, config: Path | str = "", type: str = "local", **more: Any) -> BridgeRemote:
        settings = {"program": str(peer("rclone")), "config": str(config), "environ": {"HOME": home}, **more}
        client = ClientSettings(timeout=60, low_level_retries=3)
        loan = Loan(reactor, workers, client, rclone=RcloneSettings(**settings))
        return BridgeRemote(RemoteSpec(type, "store", "", text=text), loan)

    return make


@pytest.fixture(scope="class")
def storage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """The storage of the kind that the class names."""
    with STORAGES[request.cls.kind](tmp_path_factory.mktemp(request.cls.kind)) as found:
        yield found


@pytest.fixture(scope="class")
def bridge(request: pytest.FixtureRequest, storage: Storage, make_bridge: Make) -> Iterator[BridgeRemote]:
    """A started bridge to that storage."""
    bridge = make_bridge("there:", storage.file, request.cls.kind)
    pytest_twisted.blockon(bridge.start())
    yield bridge
    pytest_twisted.blockon(bridge.stop())
