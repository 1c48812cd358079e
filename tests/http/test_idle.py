"""Bodies that make no progress, over real sockets and the ways of a file past the reactor."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.client import HTTPResponse
from pathlib import Path

import pytest
import pytest_twisted
from support.certificates import Authority, client_context
from support.waiting import until
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from resticd.auth.chain import make_authenticator
from resticd.http.gate import Gate
from resticd.http.site import Site, SiteSettings
from resticd.listeners.handshake import over_tls
from resticd.listeners.tls import ServerTls, configure_tls
from resticd.remotes.local import LocalRemote
from resticd.repository.operations import Repositories
from resticd.repository.policy import Policy
from resticd.workers import Workers

#: Seconds; the real one is minutes.
IDLE = 0.5
BODY = os.urandom(10_000)
NAME = hashlib.sha256(BODY).hexdigest()


class Sink:
    def emit(self, event: object) -> None: ...


@asynccontextmanager
async def serving(
    store: Path, workers: Workers, *without: str, tls: ServerTls | None = None
) -> AsyncIterator[tuple[Site, int]]:
    """A site over the directory ``store``, and its port."""
    remote = LocalRemote(store, workers)
    await remote.start()
    repositories = Repositories(remote, Policy(), workers, Sink())
    gate = Gate(repositories, make_authenticator(workers=workers, clock=reactor))
    site = Site(gate.resource(), reactor, workers, Sink(), SiteSettings(without=without))
    site.timeOut = IDLE
    factory = site if tls is None else over_tls(tls, site, reactor)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    try:
        yield site, port.getHost().port
    finally:
        await port.stopListening()
        await site.finish(0)
        await remote.stop()


def connect(port: int) -> socket.socket:
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    wire.settimeout(20)
    wire.connect(("127.0.0.1", port))
    return wire


def post(wire: socket.socket, length: str, body: bytes) -> None:
    wire.sendall(f"POST /data/{NAME} HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode() + body)


def read(wire: socket.socket) -> int:
    """The status of an answer; blocks."""
    response = HTTPResponse(wire)
    response.begin()
    response.read()
    return response.status


@pytest.mark.parametrize("without", [(), ("direct-receive",)], ids=["direct", "portable"])
@pytest_twisted.ensureDeferred
async def test_an_upload_that_stalls_is_given_up(tmp_path: Path, workers: Workers, without: tuple[str, ...]) -> None:
    """The connection ends and nothing is left of it."""
    async with serving(tmp_path, workers, *without) as (site, port):
        with connect(port) as wire:
            post(wire, "Content-Length: 5000000", BODY * 100)
            await until(lambda: site.connections, 30)
            await until(lambda: not site.connections, 30)
            await until(lambda: not [path for path in tmp_path.rglob("*") if path.is_file()], 30)


@pytest.mark.parametrize("without", [(), ("direct-send",)], ids=["direct", "portable"])
@pytest_twisted.ensureDeferred
async def test_a_download_that_nobody_reads_is_given_up(
    tmp_path: Path, workers: Workers, without: tuple[str, ...]
) -> None:
    path = tmp_path / "data" / NAME[:2] / NAME
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    async with serving(tmp_path, workers, *without) as (site, port):
        with connect(port) as wire:
            wire.sendall(f"GET /data/{NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await until(lambda: site.connections, 30)
            await until(lambda: not site.connections, 30)
            assert not site.requests


@pytest.mark.parametrize("without", [(), ("direct-receive", "direct-send")], ids=["direct", "portable"])
@pytest.mark.parametrize("upload", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_body_over_tls_that_stalls_is_given_up(
    tmp_path: Path, workers: Workers, upload: bool, without: tuple[str, ...]
) -> None:
    """A client that does not answer the end of TLS either."""
    authority = Authority(tmp_path)
    pair = authority.server()
    path = tmp_path / "store" / "data" / NAME[:2] / NAME
    if not upload:
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.truncate(64 * 1024 * 1024)
    tls = configure_tls(str(pair.cert), str(pair.key))
    async with serving(tmp_path / "store", workers, *without, tls=tls) as (site, port):
        with connect(port) as plain:
            context = client_context(authority.file)
            wire = await deferToThread(context.wrap_socket, plain, server_hostname="localhost")
            with wire:
                if upload:
                    await deferToThread(post, wire, "Content-Length: 5000000", BODY * 100)
                else:
                    wire.sendall(f"GET /data/{NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                await until(lambda: site.requests, 30)
                await until(lambda: not site.connections, 60)
                await until(lambda: not list(path.parent.glob(".*")), 30)


@pytest.mark.parametrize("without", [(), ("direct-receive",)], ids=["direct", "portable"])
@pytest.mark.parametrize("length", [f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked"])
@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_idle_after_an_upload_ends(
    tmp_path: Path, workers: Workers, length: str, without: tuple[str, ...]
) -> None:
    """The timeout rests while the upload is stored, and is there again for the next request."""
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) if "chunked" in length else BODY
    async with serving(tmp_path, workers, *without) as (site, port):
        with connect(port) as wire:
            for _ in range(2):
                post(wire, length, body)
                assert await deferToThread(read, wire) == 200
            await until(lambda: not site.connections, 30)
