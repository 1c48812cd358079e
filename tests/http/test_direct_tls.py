"""Bodies over TLS in the hands of workers: what is around them stays in order, and every end is noticed."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from support.certificates import Authority, client_context
from support.waiting import until
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from resticd.auth.chain import make_authenticator
from resticd.errors import OutOfSpace
from resticd.http.gate import Gate
from resticd.http.site import Site, SiteSettings
from resticd.listeners.direct_tls import DirectTlsTransport, TlsWire
from resticd.listeners.handshake import over_tls
from resticd.listeners.tls import configure_tls
from resticd.remotes.local import LocalRemote
from resticd.remotes.local_upload import LocalUpload, TemporaryFile
from resticd.repository.operations import Repositories
from resticd.repository.policy import Policy
from resticd.workers import Workers

BODY = os.urandom(9_000_001)
NAME = hashlib.sha256(BODY).hexdigest()
PATH = Path("data") / NAME[:2] / NAME
POST = f"POST /data/{NAME} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
GET = f"GET /data/{NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
HEAD = f"HEAD /data/{NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

#: What workers were asked to do with a connection, in order.
Taken = list[str]


class Sink:
    def emit(self, event: object) -> None: ...


class Served:
    def __init__(self, site: Site, port: int, authority: Authority, store: Path, taken: Taken) -> None:
        self.site = site
        self.port = port
        self.authority = authority
        self.store = store
        self.taken = taken

    def connect(self, buffer: int = 0, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLSocket:
        plain = socket.socket()
        if buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        plain.settimeout(30)
        plain.connect(("127.0.0.1", self.port))
        context = client_context(self.authority.file)
        context.maximum_version = version
        return context.wrap_socket(plain, server_hostname="localhost")

    def put(self, body: bytes = BODY) -> Path:
        path = self.store / PATH
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return path

    @property
    def files(self) -> list[Path]:
        return [path for path in self.store.rglob("*") if path.is_file()]


@pytest.fixture
def serving(tmp_path: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``async with serving() as served``: a site over a directory, with TLS."""
    taken: Taken = []

    def watch(name: str) -> None:
        real = getattr(TlsWire, name)

        def noting(self: TlsWire, *args: Any) -> Any:
            taken.append(name)
            return real(self, *args)

        monkeypatch.setattr(TlsWire, name, noting)

    watch("receive_into")
    watch("send_file")

    @asynccontextmanager
    async def serve(*without: str) -> AsyncIterator[Served]:
        authority = Authority(tmp_path)
        pair = authority.server()
        tls = configure_tls(str(pair.cert), str(pair.key))
        assert tls is not None
        store = tmp_path / "store"
        remote = LocalRemote(store, workers)
        await remote.start()
        repositories = Repositories(remote, Policy(), workers, Sink())
        gate = Gate(repositories, make_authenticator(workers=workers, clock=reactor))
        site = Site(gate.resource(), reactor, workers, Sink(), SiteSettings(without=frozenset(without)))
        port = reactor.listenTCP(0, over_tls(tls, site, reactor), interface="127.0.0.1")
        try:
            yield Served(site, port.getHost().port, authority, store, taken)
        finally:
            await port.stopListening()
            await site.finish(0)
            await remote.stop()

    return serve


def answer(wire: socket.socket, method: str = "GET") -> tuple[int, bytes]:
    """Blocks."""
    # HTTPResponse reads ahead: what it has too much of the next answer would be lost with it.
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = wire.recv(1)
        assert byte, head
        head += byte
    status = int(head.split()[1])
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    body = bytearray()
    while method != "HEAD" and len(body) < length:
        part = wire.recv(length - len(body))
        assert part, f"{length - len(body)} bytes before the end"
        body += part
    return status, bytes(body)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("piece", [len(POST + BODY + HEAD + GET), 20_011])
@pytest_twisted.ensureDeferred
async def test_requests_right_behind_a_body(serving: Callable[..., Any], piece: int, version: ssl.TLSVersion) -> None:
    """They share records with it, and are answered after it."""
    async with serving() as served:

        def talk() -> list[tuple[int, bytes]]:
            with served.connect(version=version) as wire:
                everything = memoryview(POST + BODY + HEAD + GET)
                for start in range(0, len(everything), piece):
                    wire.sendall(everything[start : start + piece])
                return [answer(wire), answer(wire, "HEAD"), answer(wire)]

        assert await deferToThread(talk) == [(200, b""), (200, b""), (200, BODY)]
        assert (served.store / PATH).read_bytes() == BODY
        assert set(served.taken) == {"receive_into", "send_file"}


@pytest.mark.parametrize("without", ["direct-receive", "direct-send"])
@pytest_twisted.ensureDeferred
async def test_the_portable_way_beside_it(serving: Callable[..., Any], without: str) -> None:
    """One direction with workers and the other one without, on one connection, several times."""
    async with serving(without) as served:

        def talk() -> None:
            with served.connect() as wire:
                for _ in range(3):
                    wire.sendall(POST + BODY)
                    assert answer(wire)[0] == 200
                    wire.sendall(GET)
                    assert answer(wire) == (200, BODY)

        await deferToThread(talk)
        assert set(served.taken) == {"send_file" if without == "direct-receive" else "receive_into"}


@pytest_twisted.ensureDeferred
async def test_a_client_that_waits_to_be_asked(serving: Callable[..., Any]) -> None:
    """The interim answer goes out, whoever has the connection."""
    async with serving() as served:

        def talk() -> None:
            with served.connect() as wire:
                wire.sendall(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
                assert answer(wire)[0] == 100
                wire.sendall(BODY)
                assert answer(wire)[0] == 200

        await deferToThread(talk)


@pytest_twisted.ensureDeferred
async def test_a_slow_reader(serving: Callable[..., Any]) -> None:
    """A full socket is waited for; what is sealed already is sent later, in order."""
    async with serving() as served:
        served.put()

        def talk() -> None:
            with served.connect(8192) as wire:
                wire.sendall(GET + HEAD)
                time.sleep(0.3)
                assert answer(wire) == (200, BODY)
                assert answer(wire, "HEAD")[0] == 200

        await deferToThread(talk)


def farewell(wire: ssl.SSLSocket) -> None:
    wire.settimeout(30)
    with suppress(OSError):
        wire.unwrap()
    wire.close()


def half_close(wire: ssl.SSLSocket) -> None:
    with socket.socket(fileno=wire.detach()) as plain:
        plain.settimeout(30)
        plain.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while plain.recv(65536):
                pass


def reset(wire: ssl.SSLSocket) -> None:
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    socket.socket(fileno=wire.detach()).close()


def garbage(wire: ssl.SSLSocket) -> None:
    with socket.socket(fileno=wire.detach()) as plain:
        plain.settimeout(30)
        plain.sendall(b"this is not TLS at all" * 10)
        with suppress(OSError):
            while plain.recv(65536):
                pass


ENDS = [farewell, half_close, reset, garbage]


@pytest.mark.parametrize("end", ENDS)
@pytest_twisted.ensureDeferred
async def test_an_end_in_the_middle_of_an_upload(
    serving: Callable[..., Any], end: Callable[[ssl.SSLSocket], None]
) -> None:
    """Nothing is left of the upload or the connection."""
    async with serving() as served:

        def talk() -> None:
            wire = served.connect()
            wire.sendall(POST + BODY[:3_000_000])
            time.sleep(0.2)
            end(wire)

        await deferToThread(talk)
        await until(lambda: not served.site.connections, 30)
        await until(lambda: not served.files, 30)
        assert not served.site.requests


@pytest.mark.parametrize("end", [farewell, half_close, reset])
@pytest_twisted.ensureDeferred
async def test_an_end_in_the_middle_of_a_download(
    serving: Callable[..., Any], end: Callable[[ssl.SSLSocket], None]
) -> None:
    """A client that only says that it will send no more may read on; all others are gone."""
    async with serving() as served:
        served.put(BODY * 4)

        def talk() -> None:
            wire = served.connect(8192)
            wire.sendall(GET)
            wire.recv(100_000)
            end(wire)

        await deferToThread(talk)
        await until(lambda: not served.site.connections, 30)
        assert not served.site.requests


@pytest_twisted.ensureDeferred
async def test_a_file_that_becomes_shorter(serving: Callable[..., Any]) -> None:
    """The connection breaks: never a short answer that looks whole."""
    async with serving() as served:
        path = served.put(BODY * 4)

        def talk() -> None:
            with served.connect(8192) as wire:
                wire.sendall(GET)
                wire.recv(100_000)
                with path.open("r+b") as file:
                    file.truncate(10_000_000)
                response = HTTPResponse(wire)
                with pytest.raises(OSError), suppress(ssl.SSLEOFError):
                    while wire.recv(65536):
                        pass
                    raise OSError
                response.close()

        await deferToThread(talk)
        await until(lambda: not served.site.connections, 30)


@pytest.mark.parametrize("left", [50_000, 5_000_000])
@pytest_twisted.ensureDeferred
async def test_a_driver_that_refuses(serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    """The client gets the reason. Where little of the body is left the connection goes on, at the right place."""
    real = TemporaryFile.write

    def write(self: TemporaryFile, chunks: Any) -> None:
        real(self, chunks)
        if self._written > len(BODY) - left:
            self._discard(OutOfSpace("full"))
            raise OutOfSpace("full")

    monkeypatch.setattr(TemporaryFile, "write", write)
    async with serving() as served:

        def talk() -> tuple[int, bytes]:
            with served.connect() as wire:
                wire.sendall(POST + BODY[:-left])
                time.sleep(0.2)
                with suppress(OSError):
                    wire.sendall(BODY[-left:])
                    if left < 64 * 1024:
                        wire.sendall(HEAD)
                found = answer(wire)
                if left < 64 * 1024:
                    assert answer(wire, "HEAD")[0] == 404
                return found

        status, _ = await deferToThread(talk)
        assert status == 507
        assert served.taken
        assert not served.files


@pytest_twisted.ensureDeferred
async def test_no_descriptor_is_left(serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport keeps what it could not lend: an upload is refused, and so is the rest of a download."""

    def dup(self: socket.socket) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket.socket, "dup", dup)
    async with serving() as served:

        def talk() -> None:
            with served.connect() as wire:
                wire.sendall(POST + BODY)
                assert answer(wire)[0] == 500
            with served.connect() as wire:
                served.put()
                wire.sendall(GET)
                with pytest.raises((OSError, AssertionError)):
                    answer(wire)

        await deferToThread(talk)
        assert not served.taken
        await until(lambda: not served.site.connections, 30)


@pytest_twisted.ensureDeferred
async def test_broken_off_while_a_worker_has_it(serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is in the middle of it keeps what it has; it is let go of afterwards."""
    real = LocalUpload.consume
    inside: list[bool] = []

    def consume(self: LocalUpload, chunks: Any) -> None:
        inside.append(True)
        time.sleep(0.3)
        real(self, chunks)

    monkeypatch.setattr(LocalUpload, "consume", consume)
    async with serving() as served:

        def talk() -> None:
            with served.connect() as wire, suppress(OSError):
                wire.sendall(POST + BODY)
                answer(wire)
                raise AssertionError("an answer after the end")

        over = deferToThread(talk)
        await until(lambda: len(inside) > 1, 30)
        served.site.abort()
        with suppress(AssertionError):
            await over
        await until(lambda: not served.site.connections, 30)
        await until(lambda: not served.files, 30)


@pytest_twisted.ensureDeferred
async def test_what_is_asked_of_a_lent_transport_waits(
    serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes, pauses and the farewell, in the middle of a body: nothing of OpenSSL is touched meanwhile."""
    transports: list[DirectTlsTransport] = []
    lend = DirectTlsTransport.lend

    def lending(self: DirectTlsTransport) -> Any:
        transports.append(self)
        made = lend(self)
        assert self.wire() is None
        self.pauseProducing()
        self.resumeProducing()
        self.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self._aggregator.flush()
        self.unregisterProducer()
        self.loseConnection()
        return made

    monkeypatch.setattr(DirectTlsTransport, "lend", lending)
    async with serving() as served:

        def talk() -> None:
            with served.connect() as wire:
                wire.sendall(POST + BODY)
                assert answer(wire)[0] == 200
                assert wire.recv(100) == b""  # the farewell, which Python would miss

        await deferToThread(talk)
        assert len(transports) == 1
        await until(lambda: not served.site.connections, 30)
        assert transports[0]._tlsConnection is None


@pytest_twisted.ensureDeferred
async def test_new_keys_in_the_middle_of_bodies(serving: Callable[..., Any]) -> None:
    """TLS 1.3, section 4.6.3, with OpenSSL's own client: K is a new key that asks for one of ours."""
    body = b"x" * 2_000_000
    name = hashlib.sha256(body + b"end").hexdigest()
    async with serving() as served:

        def talk() -> bytes:
            address = f"127.0.0.1:{served.port}"
            command = ["openssl", "s_client", "-quiet", "-no_ign_eof", "-tls1_3", "-connect", address]
            with subprocess.Popen(
                [*command, "-CAfile", str(served.authority.file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            ) as client:
                assert client.stdin and client.stdout and client.stderr

                def say(data: bytes) -> None:
                    assert client.stdin
                    client.stdin.write(data)
                    time.sleep(0.3)  # one read for each, so that the letter is at its beginning

                length = len(body) * 2 + len(b"end")
                say(f"POST /data/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) + 3}\r\n\r\n".encode())
                say(body[:700_000])
                for letter in b"K", b"k", b"K":
                    say(letter + b"\n")
                say(body[700_000:])
                say(b"K\n")
                say(b"end")
                got = bytearray()
                get = f"GET /data/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
                say(get)
                say(b"K\n")
                say(get)
                while len(got) < length and (part := client.stdout.read(65536)):
                    got += part
                while got.count(b"end") < 2:
                    part = client.stdout.read(65536)
                    assert part, client.stderr.read()
                    got += part
                said = client.stderr
                client.kill()
                assert b"KEYUPDATE" in said.read() + bytes(got)
                return bytes(got)

        got = await deferToThread(talk)
        assert got.count(b"HTTP/1.1 200 OK") == 3
        assert got.count(body + b"end") == 2
        assert set(served.taken) == {"receive_into", "send_file"}
