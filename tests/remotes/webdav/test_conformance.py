"""The suite of ``conformance`` over real WebDAV servers."""

from __future__ import annotations

import os
import unicodedata
from contextlib import suppress
from typing import Any, cast
from uuid import uuid4

import pytest
import pytest_twisted
from conformance import KEYS, ODD_NAMES, Conformance, Source, everything, get, nothing_is_left, put, sha256
from support.dav_servers import DavServer
from twisted.internet import reactor

from resticd.errors import NotFound, StorageError
from resticd.interfaces import IRemote
from resticd.remotes.webdav import WebDavRemote, make_webdav
from resticd.remotes.wrappers.verifying import VerifyingRemote
from resticd.transport.settings import ClientSettings
from resticd.workers import Workers


class WebDavConformance(Conformance):
    """Gives each test a folder of its own."""

    #: every object takes three requests
    many = 300
    #: what the kernel's buffers, those of Twisted and our own may hold in all
    flight = 16 * 1024 * 1024
    #: of the URL, the server's own where it is None
    path: str | None = None

    @pytest_twisted.async_yield_fixture
    async def remote(self, server: DavServer, workers: Workers) -> Any:
        inner = make_webdav(server.options(self.path), f"{uuid4()}/dépôt", reactor, ClientSettings(timeout=60))
        remote = VerifyingRemote(inner, workers)
        await remote.start()
        await remote.make("")
        # The first upload finds out what the server can do.
        await put(remote, "a", b"x")
        await remote.delete("a")
        assert remote.capabilities.conditional_create
        yield remote
        await remote.stop()


@pytest.mark.xdist_group("apache")
class TestApacheBasic(WebDavConformance):
    """Apache with a basic login."""

    @pytest.fixture
    def server(self, apache: DavServer) -> DavServer:
        return apache


@pytest.mark.xdist_group("apache")
class TestApacheDigest(TestApacheBasic):
    """Apache with a digest login (MD5)."""

    path = "/digest/"


@pytest.mark.xdist_group("lighttpd")
class TestLighttpd(WebDavConformance):
    """lighttpd with a digest login (SHA-256)."""

    @pytest.fixture
    def server(self, lighttpd: DavServer) -> DavServer:
        return lighttpd


@pytest.mark.xdist_group("wsgidav")
class TestWsgiDav(WebDavConformance):
    """WsgiDAV with a digest login (MD5). It cannot move files to all names, so that none with ?, #, ; or % is taken."""

    #: it does one thing at a time
    many = 120
    odd_names = [name for name in ODD_NAMES if not set("?#;%") & set(name)]

    @pytest.fixture
    def server(self, wsgidav: DavServer) -> DavServer:
        return wsgidav

    @pytest_twisted.ensureDeferred
    async def test_what_is_put_is_there(self, remote: IRemote) -> None:
        """What the server would put elsewhere is refused, and the rest is there."""
        for key in KEYS:
            data = os.urandom(1000)
            if "?" in key:
                with pytest.raises(StorageError, match="cannot move files to names such as"):
                    await put(remote, key, data)
            else:
                await put(remote, key, data)
                assert await get(remote, key) == data
        assert set(await everything(remote)) == {key for key in KEYS if "?" not in key}


@pytest.mark.xdist_group("rclone_dav")
class TestRclone(WebDavConformance):
    """``rclone serve webdav`` with a basic login. To it, both ways to write an accented letter are one."""

    odd_names = [name for name in ODD_NAMES if unicodedata.is_normalized("NFC", name)]

    @pytest.fixture
    def server(self, rclone_dav: DavServer) -> DavServer:
        return rclone_dav

    @pytest_twisted.ensureDeferred
    async def test_nothing_is_visible_before_commit(self, remote: IRemote, server: DavServer) -> None:
        """It cannot list a folder into which an upload runs: that is a fault that passes, and no shorter list."""
        inner = cast(WebDavRemote, remote._inner)
        hasty = make_webdav(server.options(), inner._root, reactor, ClientSettings(low_level_retries=1))
        data = os.urandom(2_000_000)
        upload = await remote.begin("a/b", len(data), sha256(data))
        await Source(upload, data[:1_500_000]).start()
        with suppress(StorageError):
            await nothing_is_left(hasty)
        with pytest.raises(NotFound):
            await hasty.stat("a/b")
        await upload.abort()
        await upload.abort()
        await nothing_is_left(remote)
        await hasty.stop()
