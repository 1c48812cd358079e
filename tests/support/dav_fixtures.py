"""WebDAV servers that are started once for a test process. A ``conftest.py`` imports the ones it offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from support import dav_servers
from support.dav_servers import DavServer, Room


def _running(make: Callable[[Room], DavServer]) -> Iterator[DavServer]:
    room = Room()
    try:
        with make(room) as server:
            yield server
    finally:
        room.remove()


@pytest.fixture(scope="session")
def apache() -> Iterator[DavServer]:
    """Apache's mod_dav."""
    yield from _running(dav_servers.apache)


@pytest.fixture(scope="session")
def lighttpd() -> Iterator[DavServer]:
    """lighttpd's mod_webdav."""
    yield from _running(dav_servers.lighttpd)


@pytest.fixture(scope="session")
def wsgidav() -> Iterator[DavServer]:
    """WsgiDAV."""
    yield from _running(dav_servers.wsgidav)


@pytest.fixture(scope="session")
def rclone_dav() -> Iterator[DavServer]:
    """``rclone serve webdav``."""
    yield from _running(dav_servers.rclone_webdav)
