"""Whom the client trusts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from support.certificates import Authority
from support.http_peer import Connection, HttpPeer, always
from twisted.internet import reactor

from resticd.errors import ConfigurationError
from resticd.transport.client import HttpClient, Request
from resticd.transport.errors import Refused
from resticd.transport.settings import ClientSettings


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def serve() -> Any:
    peers = []

    def start(context: Any) -> HttpPeer:
        peers.append(HttpPeer(always(lambda connection, _: connection.answer(200, b"x" * 300_000)), context=context))
        return peers[-1]

    yield start
    for started in peers:
        pytest_twisted.blockon(started.stop())


async def fetch(url: str, **settings: Any) -> int:
    client = HttpClient(reactor, ClientSettings(timeout=5, **settings))
    try:
        return len(await (await client.send(Request("GET", url))).read())
    finally:
        await client.close()


@pytest_twisted.ensureDeferred
async def test_own_authority(authority: Authority, serve: Any) -> None:
    """A certificate of an authority from --ca-cert is trusted, for an address too."""
    server = serve(authority.server(hosts=("127.0.0.1",)).context)
    assert await fetch(server.url, ca_cert=(authority.file,)) == 300_000


@pytest_twisted.ensureDeferred
async def test_unknown_authority(authority: Authority, serve: Any, tmp_path: Path) -> None:
    """A certificate of somebody else is refused, whatever is trusted instead."""
    server = serve(authority.server(hosts=("127.0.0.1",)).context)
    with pytest.raises(Refused, match=r"no TLS connection to 127\.0\.0\.1: .*certificate verify failed"):
        await fetch(server.url)
    (tmp_path / "other").mkdir()
    with pytest.raises(Refused):
        await fetch(server.url, ca_cert=(Authority(tmp_path, "other").file,))


@pytest_twisted.ensureDeferred
async def test_another_name(authority: Authority, serve: Any) -> None:
    """A certificate for another name is refused."""
    server = serve(authority.server(hosts=("storage.test",)).context)
    with pytest.raises(Refused, match=r"127\.0\.0\.1"):
        await fetch(server.url, ca_cert=(authority.file,))


@pytest_twisted.ensureDeferred
async def test_nothing_is_checked(authority: Authority, serve: Any) -> None:
    """With --no-check-certificate everything is accepted."""
    server = serve(authority.server(hosts=("storage.test",)).context)
    assert await fetch(server.url, check_certificate=False) == 300_000


@pytest_twisted.ensureDeferred
async def test_plain_server() -> None:
    """A server without TLS under an https URL is a fault that names the host."""

    async def script(connection: Connection) -> None:
        await connection.body(1)
        connection.answer(400)

    server = HttpPeer(script)
    with pytest.raises(Refused, match=r"no TLS connection to 127\.0\.0\.1"):
        await fetch(server.url.replace("http:", "https:"))
    await server.stop()


def test_files_of_authorities(tmp_path: Path, authority: Authority) -> None:
    """A file that is missing, or has no certificate, is named."""
    (tmp_path / "two.pem").write_bytes(authority.file.read_bytes() * 2)
    HttpClient(reactor, ClientSettings(ca_cert=(tmp_path / "two.pem",)))
    for content in (None, b"nothing", b"-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n"):
        path = tmp_path / "bad.pem"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"bad\.pem"):
            HttpClient(reactor, ClientSettings(ca_cert=(path,)))
