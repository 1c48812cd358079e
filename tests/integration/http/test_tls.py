"""TLS: authorities, client certificates, several listeners, certificates that are replaced."""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path

import pytest
from cryptography import x509
from support.asking import ask, blob, connect
from support.certificates import Authority, Pair, client_context
from support.daemons import Server
from support.ports import free_port
from support.restic import Restic
from support.sequences import make_files, restore_and_compare, whole_life
from support.waiting import wait_until

Start = Callable[..., Server]


def pair_flags(pair: Pair) -> tuple[str, ...]:
    return "--cert", str(pair.cert), "--key", str(pair.key)


def secure(port: int, path: str = "") -> str:
    return f"rest:https://localhost:{port}/{path}"


def serial(port: int, authority: Authority) -> int:
    """Of the certificate that a new connection is shown."""
    with connect(port, client_context(authority.file)) as wire:
        return x509.load_der_x509_certificate(wire.getpeercert(binary_form=True)).serial_number


@pytest.mark.parametrize("program", ["restic-old", "restic-new"])
def test_a_private_authority_with_a_chain(start_resticd: Start, tmp_path: Path, program: str) -> None:
    """The client knows the root alone: the certificate between comes from the server."""
    root = Authority(tmp_path)
    server = start_resticd(tmp_path / "store", *pair_flags(root.intermediate().server()))
    files = make_files(tmp_path / "files", count=5)
    restic = Restic(secure(server.port, "laptop/"), tmp_path, program, options=("--cacert", str(root.file)))
    restic("init")
    restic("backup", files)
    restore_and_compare(restic, files, tmp_path / "restored")
    with pytest.raises(ssl.SSLCertVerificationError), connect(server.port, ssl.create_default_context()):
        pass


@pytest.mark.parametrize("flags", [(), ("--workers", "2"), ("--without", "direct-tls"), ("--bwlimit", "200M")])
def test_whole_life(start_resticd: Start, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """By HTTP/1.1, which restic prefers as we do: bodies by workers, and by the portable way."""
    root = Authority(tmp_path)
    server = start_resticd(tmp_path / "store", *pair_flags(root.server()), "-v", *flags)
    options = ("--cacert", str(root.file))
    restic = Restic(secure(server.port, "laptop/"), tmp_path, options=options)
    whole_life(restic, make_files(tmp_path / "files", big=40 * 1024 * 1024), tmp_path)
    assert "HTTP/1.1" in server.output()
    assert "HTTP/2" not in server.output()
    assert "Traceback" not in server.output()


def test_http2_over_tls(start_resticd: Start, tmp_path: Path) -> None:
    """A client that offers HTTP/2 alone gets it by ALPN, unless it is switched off."""
    root = Authority(tmp_path)
    flags = pair_flags(root.server())
    for more, expected in (((), "h2"), (("--http2=off",), None)):
        server = start_resticd(":memory:", *flags, *more)
        with connect(server.port, client_context(root.file, alpn=("h2",))) as wire:
            assert wire.selected_alpn_protocol() == expected
        with connect(server.port, client_context(root.file, alpn=("h2", "http/1.1"))) as wire:
            assert wire.selected_alpn_protocol() == "http/1.1"


def test_the_common_name_of_a_client_s_certificate_is_the_user(start_resticd: Start, tmp_path: Path) -> None:
    root = Authority(tmp_path)
    clients = Authority(tmp_path, "clients")
    flags = (*pair_flags(root.server()), "--client-ca", str(clients.file), "--private-repos", "-v")
    server = start_resticd(tmp_path / "store", *flags)
    laptop = clients.client("laptop")
    options = ("--cacert", str(root.file), "--tls-client-cert", str(laptop.combined))
    files = make_files(tmp_path / "files", count=5)
    restic = Restic(secure(server.port, "laptop/home/"), tmp_path, options=options)
    restic("init")
    restic("backup", files)
    restore_and_compare(restic, files, tmp_path / "restored")
    other = Restic(secure(server.port, "desktop/"), tmp_path, options=options)
    assert "403" in other("init", status=1).stderr
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["laptop"]
    wait_until(lambda: re.search(r'127\.0\.0\.1 - laptop \[.*\] "POST /laptop/home/config ', server.output()))


def test_without_a_certificate_of_the_authority_nobody_gets_in(start_resticd: Start, tmp_path: Path) -> None:
    root = Authority(tmp_path)
    clients = Authority(tmp_path, "clients")
    server = start_resticd(":memory:", *pair_flags(root.server()), "--client-ca", str(clients.file))
    stranger = Authority(tmp_path, "strangers").client("laptop", file="stranger")
    for pair in (None, stranger):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(server.port, "GET", "/keys/", context=client_context(root.file, pair))
    known = client_context(root.file, clients.client("laptop"))
    assert ask(server.port, "GET", "/keys/", context=known).status == 200


def test_every_listener_has_tls_unless_it_says_http(start_resticd: Start, tmp_path: Path) -> None:
    """A second listener never loses it."""
    root = Authority(tmp_path)
    second, plain, explicit = free_port(), free_port(), free_port()
    addresses = (f"127.0.0.1:{second}", f"http://127.0.0.1:{plain}", f"tls://127.0.0.1:{explicit}")
    flags = [word for address in addresses for word in ("--addr", address)]
    server = start_resticd(tmp_path / "store", *pair_flags(root.server()), *flags)
    options = ("--cacert", str(root.file))
    Restic(secure(server.port, "a/"), tmp_path, options=options)("init")
    Restic(secure(second, "a/"), tmp_path, options=options)("cat", "config")
    Restic(secure(explicit, "a/"), tmp_path, options=options)("cat", "config")
    Restic(f"rest:http://127.0.0.1:{plain}/a/", tmp_path)("cat", "config")
    for port in (server.port, second, explicit):
        with connect(port) as wire:
            wire.sendall(b"GET /a/config HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not wire.recv(100).startswith(b"HTTP/")
    with pytest.raises((ssl.SSLError, ConnectionError)), connect(plain, client_context(root.file)):
        pass


def test_certificates_are_replaced_beside_a_running_download(start_resticd: Start, tmp_path: Path) -> None:
    """The running download goes on to its last byte; new connections get the new certificate; a bad one is not taken
    and the log says so.
    """
    root = Authority(tmp_path)
    pair, fresh = root.server(), root.server("fresh")
    server = start_resticd(tmp_path / "store", *pair_flags(pair))
    context = client_context(root.file)
    body = os.urandom(32 * 1024 * 1024)
    assert ask(server.port, "POST", blob(body), body, context=context).status == 200
    with connect(server.port, context) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        wire.sendall(f"GET {blob(body)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        response = HTTPResponse(wire)
        response.begin()
        assert serial(server.port, root) == pair.serial
        pair.replace_with(fresh)
        assert serial(server.port, root) == fresh.serial
        pair.cert.write_text("no certificate")
        assert serial(server.port, root) == fresh.serial
        assert response.read() == body
    assert server.output().count("the old certificate stays in use: --cert: ") == 1
    assert "Traceback" not in server.output()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
def test_old_versions_are_refused(start_resticd: Start, tmp_path: Path) -> None:
    root = Authority(tmp_path)
    pair = root.server()
    for flags, oldest in (((), ssl.TLSVersion.TLSv1_2), (("--min-tls-version", "tls1.3"), ssl.TLSVersion.TLSv1_3)):
        server = start_resticd(":memory:", *pair_flags(pair), *flags)
        context = client_context(root.file)
        context.maximum_version = oldest
        assert ask(server.port, "GET", "/keys/", context=context).status == 200
        context = client_context(root.file)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.maximum_version = ssl.TLSVersion(oldest - 1)
        with pytest.raises((ssl.SSLError, ConnectionError)), connect(server.port, context):
            pass
