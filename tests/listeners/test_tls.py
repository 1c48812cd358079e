"""Certificates, versions and what a handshake agrees on."""

from __future__ import annotations

import os
import ssl
import threading

import pytest
import pytest_twisted
from cryptography.hazmat.primitives import serialization
from listeners.exchange import Client, ask
from support.certificates import Authority, client_context
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.threads import deferToThread
from zope.interface.verify import verifyObject

from resticd.errors import ConfigurationError
from resticd.listeners.tls import configure_tls

REFUSED = (ssl.SSLError, ConnectionError)


@pytest.fixture
def serve(listeners):
    """A coroutine ``serve(tls)`` that starts a listener with TLS and returns its URL."""

    async def start(tls):
        made = listeners("127.0.0.1:0", tls=tls)
        await made.start()
        return made.ports[0].url

    return start


def configure(pair, **keywords):
    return configure_tls(str(pair.cert), str(pair.key), **keywords)


def test_no_flags():
    """Without flags there is no TLS; empty values are no flags."""
    assert configure_tls(None, None) is None
    assert configure_tls("", "", "") is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("cert", ""), "--cert: --key is missing"),
        (("", "key"), "--key: --cert is missing"),
        (("", "", "ca"), "--client-ca: --cert and --key are missing"),
        (
            ("", "", "", "tls1.4"),
            "--min-tls-version: 'tls1.4': not one of tls1.0, tls1.1, tls1.2, tls1.3",
        ),
    ],
)
def test_flags_that_do_not_go_together(flags, message):
    """Each wrong combination of flags is one line that names the flag."""
    with pytest.raises(ConfigurationError) as caught:
        configure_tls(*flags)
    assert str(caught.value) == message


def test_interface(authority):
    """It is what Twisted's TLS takes."""
    verifyObject(IOpenSSLServerConnectionCreator, configure(authority.server()))


@pytest.mark.parametrize("flag", ["--cert", "--key", "--client-ca"])
@pytest.mark.parametrize("fault", ["missing", "directory", "empty", "nonsense", "cut"])
def test_unusable_files(authority, tmp_path, flag, fault):
    """A file that cannot be used is one line that names flag and file."""
    pair = authority.server()
    path = {"--cert": pair.cert, "--key": pair.key, "--client-ca": authority.file}[flag]
    content = path.read_bytes()
    path.unlink()
    if fault == "directory":
        path.mkdir()
    elif fault != "missing":
        path.write_bytes({"empty": b"", "nonsense": b"hello\n" * 9, "cut": content[: len(content) // 2]}[fault])
    with pytest.raises(ConfigurationError) as caught:
        configure(pair, client_ca=str(authority.file))
    assert str(caught.value).startswith(f"{flag}: {path}: ")
    assert "\n" not in str(caught.value)


def test_key_of_another_certificate(authority):
    """A key that does not fit is refused."""
    pair, other = authority.server(), authority.server("other")
    with pytest.raises(ConfigurationError) as caught:
        configure_tls(str(pair.cert), str(other.key))
    assert str(caught.value) == f"--key: {other.key}: does not fit the certificate in {pair.cert}"


def test_encrypted_key(authority):
    """A key with a passphrase is refused; nobody is asked for it on a terminal."""
    pair = authority.server()
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigurationError, match=r"^--key: .*: is encrypted"):
        configure(pair)


@pytest_twisted.ensureDeferred
async def test_chain(authority, serve):
    """The chain behind the certificate is sent, so that a client needs to know the root alone."""
    pair = authority.intermediate().server()
    url = await serve(configure(pair))
    answer = await ask(url, client_context(authority.file))
    assert answer.seen["secure"]
    assert answer.serial == pair.serial


@pytest_twisted.ensureDeferred
async def test_default_version(authority, serve):
    """By default TLS 1.2 and 1.3 are spoken, and nothing below."""
    url = await serve(configure(authority.server()))
    assert (await ask(url, client_context(authority.file))).version == "TLSv1.3"
    assert (await ask(url, only(authority, ssl.TLSVersion.TLSv1_2))).version == "TLSv1.2"
    with pytest.raises(REFUSED):
        await ask(url, only(authority, ssl.TLSVersion.TLSv1_1))


@pytest_twisted.ensureDeferred
async def test_raised_version(authority, serve):
    """With tls1.3 nothing below is spoken."""
    url = await serve(configure(authority.server(), min_version="tls1.3"))
    assert (await ask(url, client_context(authority.file))).version == "TLSv1.3"
    with pytest.raises(REFUSED):
        await ask(url, only(authority, ssl.TLSVersion.TLSv1_2))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("name", "version"), [("tls1.0", ssl.TLSVersion.TLSv1), ("tls1.1", ssl.TLSVersion.TLSv1_1)])
async def test_lowered_version(authority, serve, name, version):
    """Old versions are spoken on request."""
    url = await serve(configure(authority.server(), min_version=name))
    assert (await ask(url, only(authority, version))).version == version.name.replace("_", ".")[:5] + (
        "" if version is ssl.TLSVersion.TLSv1 else ".1"
    )
    assert (await ask(url, client_context(authority.file))).version == "TLSv1.3"


def only(authority, version):
    """A client that speaks one version, as weak as it needs to be."""
    context = client_context(authority.file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = version
    return context


@pytest_twisted.ensureDeferred
async def test_weak_ciphers(authority, serve):
    """Ciphers without forward secrecy or authentication of the data are refused."""
    url = await serve(configure(authority.server()))
    for ciphers in ("AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA"):
        context = only(authority, ssl.TLSVersion.TLSv1_2)
        context.set_ciphers(ciphers)
        with pytest.raises(REFUSED):
            await ask(url, context)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("protocols", "offered", "chosen"),
    [
        ((b"http/1.1",), ("h2", "http/1.1"), "http/1.1"),
        ((b"http/1.1", b"h2"), ("h2", "http/1.1"), "http/1.1"),
        ((b"h2", b"http/1.1"), ("http/1.1",), "http/1.1"),
        ((b"http/1.1",), (), None),
        ((b"http/1.1",), ("spdy/3",), None),
    ],
)
async def test_alpn(authority, serve, protocols, offered, chosen):
    """The server chooses what it likes best of what both speak, and offers no more than it was told to."""
    url = await serve(configure(authority.server(), protocols=protocols))
    assert (await ask(url, client_context(authority.file, alpn=offered))).alpn == chosen


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_resumption(authority, serve, version):
    """Every connection has a handshake of its own, and a client that wants to resume is served nevertheless."""
    url = await serve(configure(authority.server(), client_ca=str(authority.file)))
    context = client_context(authority.file, authority.client("laptop"))
    context.maximum_version = version

    def twice():
        first = Client(url, context)
        first.get()
        session = first.socket.session
        second = Client(url, context, session)
        answers = first.get(), second.get()
        first.close()
        second.close()
        return answers

    for answer in await deferToThread(twice):
        assert not answer.resumed
        assert answer.seen["common_name"] == "laptop"


@pytest_twisted.ensureDeferred
async def test_client_certificate(authority, serve):
    """The common name of a client's certificate is known; the last one counts."""
    url = await serve(configure(authority.server(), client_ca=str(authority.file)))
    for names, expected in ((("laptop",), "laptop"), (("first", "last"), "last"), ((None,), None)):
        context = client_context(authority.file, authority.client(*names))
        assert (await ask(url, context)).seen["common_name"] == expected


@pytest_twisted.ensureDeferred
async def test_client_certificate_of_an_intermediate(authority, serve):
    """A client's certificate may come with a chain to the authority."""
    url = await serve(configure(authority.server(), client_ca=str(authority.file)))
    context = client_context(authority.file, authority.intermediate().client("laptop"))
    assert (await ask(url, context)).seen["common_name"] == "laptop"


@pytest_twisted.ensureDeferred
async def test_clients_that_are_refused(authority, tmp_path, serve):
    """With --client-ca no certificate, a stranger's, and a server's own are refused."""
    url = await serve(configure(authority.server(), client_ca=str(authority.file)))
    stranger = Authority(tmp_path, "stranger").client("laptop")
    for pair in (None, stranger, authority.server("peer")):
        with pytest.raises(REFUSED):
            await ask(url, client_context(authority.file, pair))


@pytest_twisted.ensureDeferred
async def test_certificates_that_nobody_verified(authority, serve):
    """Without --client-ca a client's certificate is not asked for, and has no name."""
    url = await serve(configure(authority.server()))
    context = client_context(authority.file, authority.client("laptop"))
    assert (await ask(url, context)).seen["common_name"] is None


@pytest_twisted.ensureDeferred
async def test_reload(authority, serve, log):
    """A new certificate is used from the next connection on; a running one goes on with the old."""
    pair = authority.server()
    url = await serve(configure(pair))
    context = client_context(authority.file)
    running = await deferToThread(Client, url, context)
    fresh = authority.server("fresh")
    pair.replace_with(fresh)
    assert (await ask(url, context)).serial == fresh.serial
    assert (await deferToThread(running.get)).serial == pair.serial
    running.close()
    assert log[1:] == [f"info: new certificate from {pair.cert} and {pair.key}"]


@pytest_twisted.ensureDeferred
async def test_reload_of_files_that_keep_their_time(authority, serve):
    """Copies that keep time and size (``cp -p``) are noticed too."""
    pair, fresh = authority.server(), authority.server("fresh")

    def write(source):
        for target, file in ((pair.cert, source.cert), (pair.key, source.key)):
            # Lines behind the end mean nothing in PEM.
            target.write_bytes(file.read_bytes().strip().ljust(2000, b"\n"))
            os.utime(target, (0, 0))

    write(pair)
    url = await serve(configure(pair))
    assert (await ask(url, client_context(authority.file))).serial == pair.serial
    write(fresh)
    assert (await ask(url, client_context(authority.file))).serial == fresh.serial


@pytest_twisted.ensureDeferred
async def test_reload_of_a_half_written_pair(authority, serve, log):
    """While the pair does not fit the old one stays, with one line in the log; the complete pair is taken."""
    pair = authority.server()
    url = await serve(configure(pair))
    context = client_context(authority.file)
    fresh = authority.server("fresh")
    pair.cert.write_bytes(fresh.cert.read_bytes())
    for _ in range(3):
        assert (await ask(url, context)).serial == pair.serial
    pair.key.write_bytes(fresh.key.read_bytes())
    assert (await ask(url, context)).serial == fresh.serial
    assert len(log) == 3
    assert log[1].startswith(f"error: the old certificate stays in use: --key: {pair.key}: does not fit")
    assert log[2].startswith("info: new certificate from")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("fault", ["missing", "cut", "empty"])
async def test_reload_of_a_broken_file(authority, serve, log, fault):
    """A certificate that vanishes or is cut short changes nothing, and the log names the file."""
    pair = authority.server()
    url = await serve(configure(pair))
    content = pair.cert.read_bytes()
    if fault == "missing":
        pair.cert.unlink()
    else:
        pair.cert.write_bytes(content[:100] if fault == "cut" else b"")
    for _ in range(2):
        assert (await ask(url, client_context(authority.file))).serial == pair.serial
    # It changes again, and is no better.
    if fault != "missing":
        os.utime(pair.cert, ns=(0, 0))
        assert (await ask(url, client_context(authority.file))).serial == pair.serial
    assert len(log) == 2
    assert log[1].startswith(f"error: the old certificate stays in use: --cert: {pair.cert}: ")


@pytest_twisted.ensureDeferred
async def test_reload_of_the_client_authority(authority, tmp_path, serve):
    """A changed --client-ca counts from the next connection on."""
    clients = Authority(tmp_path, "clients")
    url = await serve(configure(authority.server(), client_ca=str(clients.file)))
    context = client_context(authority.file, clients.client("laptop"))
    await ask(url, context)
    clients.file.write_bytes(Authority(tmp_path, "others").file.read_bytes())
    with pytest.raises(REFUSED):
        await ask(url, context)


@pytest_twisted.ensureDeferred
async def test_reload_under_load(authority, serve):
    """Certificates change again and again; no connection fails, new or running, and the last certificate is in use."""
    pair = authority.server()
    pairs = [authority.server(f"server-{number}") for number in range(20)]
    url = await serve(configure(pair))
    context = client_context(authority.file)
    done = threading.Event()

    def load():
        """Requests on one connection that lasts, and on many that do not."""
        lasting = Client(url, context)
        first = lasting.get().serial
        count = 0
        while not done.is_set() or not count:
            assert lasting.get().serial == first
            short = Client(url, context)
            short.get()
            short.close()
            count += 1
        lasting.close()
        return count

    def change():
        try:
            for fresh in pairs:
                pair.replace_with(fresh)
                short = Client(url, context)
                assert short.get().serial == fresh.serial
                short.close()
        finally:
            done.set()

    loads = [deferToThread(load) for _ in range(3)]
    await deferToThread(change)
    for one in loads:
        assert await one > 0
