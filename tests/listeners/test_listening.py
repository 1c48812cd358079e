"""All listeners together."""

from __future__ import annotations

import contextlib
import socket

import pytest
import pytest_twisted
from listeners.exchange import Client, ask
from support.certificates import client_context
from support.ports import free_port
from twisted.internet.threads import deferToThread

from resticd.errors import ConfigurationError
from resticd.listeners.tls import configure_tls


@pytest.fixture
def tls(authority):
    pair = authority.server()
    return configure_tls(str(pair.cert), str(pair.key))


def quoted(path):
    """A path inside an endpoint's description."""
    return str(path).replace(":", "\\:")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("address", "url", "kind"),
    [
        ("127.0.0.1:0", "http://127.0.0.1:{port}/", "IPv4Address"),
        ("localhost:0", "http://127.0.0.1:{port}/", "IPv4Address"),
        ("[::1]:0", "http://[::1]:{port}/", "IPv6Address"),
        ("0.0.0.0:0", "http://0.0.0.0:{port}/", "IPv4Address"),
        ("tcp:0:interface=127.0.0.1", "http://127.0.0.1:{port}/", "IPv4Address"),
        ("tcp6:0:interface=\\:\\:1", "http://[::1]:{port}/", "IPv6Address"),
    ],
)
async def test_tcp(listeners, log, address, url, kind):
    """Each kind of TCP address answers, and the log says where, the chosen port included."""
    made = listeners(address)
    await made.start()
    (listening,) = made.ports
    assert listening.url == url.format(port=listening.port.getHost().port)
    assert log == [f"warn: listening on {listening.url}"]
    seen = (await ask(listening.url)).seen
    assert (seen["host"], seen["peer"], seen["secure"]) == (kind, kind, False)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("address", [":0", "[::]:0"])
async def test_all_addresses(listeners, address):
    """All addresses are IPv4 and IPv6 under one port, and clients keep the spelling of their address."""
    made = listeners(address)
    await made.start()
    port = made.ports[0].port.getHost().port
    assert [listening.url for listening in made.ports] == [f"http://0.0.0.0:{port}/", f"http://[::]:{port}/"]
    assert (await ask(f"http://127.0.0.1:{port}/")).seen["address"] == "127.0.0.1"
    assert (await ask(f"http://[::1]:{port}/")).seen["address"] == "::1"


@pytest_twisted.ensureDeferred
async def test_backlog(listeners):
    """Many connections can wait to be accepted."""
    made = listeners("127.0.0.1:0")
    await made.start()
    address = ("127.0.0.1", made.ports[0].port.getHost().port)
    # Nothing is accepted meanwhile: the reactor does not run.
    with contextlib.ExitStack() as clients:
        for _ in range(300):
            clients.enter_context(socket.create_connection(address, timeout=1))


@pytest_twisted.ensureDeferred
async def test_unix(listeners, tmp_path, log):
    """A unix socket answers with the mode that was asked for, by URL and by path, and its file goes when it stops."""
    made = listeners(f"unix://{tmp_path / 'a'}", str(tmp_path / "b"), unix_mode=0o660)
    await made.start()
    assert log == [f"warn: listening on unix://{tmp_path / 'a'}", f"warn: listening on unix://{tmp_path / 'b'}"]
    for listening in made.ports:
        seen = (await ask(listening.url)).seen
        assert (seen["host"], seen["peer"], seen["secure"]) == ("UNIXAddress", "UNIXAddress", False)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o660
    await made.stop()
    assert list(tmp_path.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_unix_endpoint(listeners, tmp_path):
    """Twisted's own unix sockets are not open to everybody either, unless they say so."""
    made = listeners(f"unix:{quoted(tmp_path / 'a')}", f"unix:{quoted(tmp_path / 'b')}:mode=666")
    await made.start()
    assert (await ask(made.ports[0].url)).seen["host"] == "UNIXAddress"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o666


@pytest_twisted.ensureDeferred
async def test_tls_everywhere(listeners, authority, tls, tmp_path):
    """With a certificate all listeners have TLS but unix sockets and those that say http://, however many there are."""
    addresses = [
        "127.0.0.1:0",
        "tls://127.0.0.1:0",
        "https://localhost:0",
        "[::1]:0",
        "tcp:0:interface=127.0.0.1",
        "tls://tcp:0:interface=127.0.0.1",
        "http://127.0.0.1:0",
        "http://tcp:0:interface=127.0.0.1",
        f"unix://{tmp_path / 'a'}",
        f"unix:{quoted(tmp_path / 'b')}",
    ]
    made = listeners(*addresses, tls=tls)
    await made.start()
    schemes = [listening.url.partition(":")[0] for listening in made.ports]
    assert schemes == ["https"] * 6 + ["http"] * 2 + ["unix"] * 2
    for listening in made.ports:
        answer = await ask(listening.url, client_context(authority.file))
        assert answer.seen["secure"] == listening.url.startswith("https")


@pytest_twisted.ensureDeferred
async def test_plain_text_on_tls(listeners, tls):
    """A listener with TLS answers no plain request."""
    made = listeners("127.0.0.1:0", "127.0.0.1:0", tls=tls)
    await made.start()
    for listening in made.ports:
        with pytest.raises((ConnectionError, OSError)):
            await ask(listening.url.replace("https", "http"))


@pytest_twisted.ensureDeferred
async def test_ssl_endpoint(listeners, authority, tls):
    """An ssl: endpoint uses its own certificate, once, with --cert and without."""
    own = authority.server("own")
    address = f"ssl:0:interface=127.0.0.1:privateKey={quoted(own.key)}:certKey={quoted(own.cert)}"
    for keywords in ({}, {"tls": tls}):
        made = listeners(address, f"tls://{address}", **keywords)
        await made.start()
        for listening in made.ports:
            assert listening.url.startswith("https://127.0.0.1:")
            assert (await ask(listening.url, client_context(authority.file))).serial == own.serial


@pytest.mark.parametrize("address", ["tls://127.0.0.1:0", "https://127.0.0.1:0", "tls://tcp:0"])
def test_tls_without_certificate(listeners, address):
    """A listener that insists on TLS is refused without a certificate, before anything listens."""
    with pytest.raises(ConfigurationError) as caught:
        listeners("127.0.0.1:0", address)
    assert str(caught.value) == f"--addr: {address.replace('https', 'tls')}: TLS needs --cert and --key"


@pytest.mark.parametrize(
    "address",
    ["tcp:x", "tcp:80:nonsense=1", "tcp:", "systemd:domain=INET:index=0", "systemd:domain=X:index=0", "ssl:443"],
)
def test_endpoints_that_cannot_be_made(listeners, address):
    """An endpoint that Twisted does not understand is one line that names it."""
    with pytest.raises(ConfigurationError) as caught:
        listeners(address)
    reason = "cannot listen: No such file or directory" if address == "ssl:443" else "Twisted cannot make this endpoint"
    assert str(caught.value) == f"--addr: {address}: {reason}"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("kind", ["tcp", "all", "endpoint", "unix"])
async def test_all_or_nothing(listeners, tmp_path, log, kind, place):
    """When one address is taken nothing listens, no file is left, and one line names the address."""
    with contextlib.ExitStack() as taken:
        if kind == "unix":
            blocker = taken.enter_context(socket.socket(socket.AF_UNIX))
            blocker.bind(str(tmp_path / "taken"))
            address, reason = f"unix://{tmp_path / 'taken'}", "another server listens there"
        else:
            blocker = taken.enter_context(socket.socket(socket.AF_INET6 if kind == "all" else socket.AF_INET))
            blocker.bind(("::1" if kind == "all" else "127.0.0.1", 0))
            port = blocker.getsockname()[1]
            address = {"tcp": f"127.0.0.1:{port}", "all": f":{port}", "endpoint": f"tcp:{port}"}[kind]
            reason = "Address already in use"
        blocker.listen()
        free = free_port()
        addresses = [f"127.0.0.1:{free}", f"unix://{tmp_path / 'free'}"]
        addresses.insert(place, address)
        made = listeners(*addresses)
        with pytest.raises(ConfigurationError) as caught:
            await made.start()
        assert str(caught.value) == f"--addr: {address}: cannot listen: {reason}"
        assert made.ports == []
        assert log == []
        assert [left.name for left in tmp_path.iterdir()] == (["taken"] if kind == "unix" else [])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", free))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("no-such-host.invalid:0", ""),
        ("999.1.1.1:0", ""),
        ("a..b:0", ""),
        ("192.0.2.1:0", "Cannot assign requested address"),
        ("unix:///no/such/directory/s", "No such file or directory"),
        (f"unix:///tmp/{'x' * 200}", "AF_UNIX path too long"),
    ],
)
async def test_places_that_do_not_exist(listeners, address, reason):
    """An address that this machine does not have is one line that names it."""
    with pytest.raises(ConfigurationError) as caught:
        await listeners(address).start()
    assert str(caught.value).startswith(f"--addr: {address}: cannot listen: {reason}")
    assert "\n" not in str(caught.value)


@pytest_twisted.ensureDeferred
async def test_stop(listeners, authority, tls):
    """After stop nothing is accepted; connections that are open go on."""
    made = listeners("127.0.0.1:0", "http://127.0.0.1:0", tls=tls)
    await made.start()
    context = client_context(authority.file)
    urls = [listening.url for listening in made.ports]
    clients = [await deferToThread(Client, url, context) for url in urls]
    for client in clients:
        await deferToThread(client.get)  # one that still waits to be accepted goes with its socket
    await made.stop()
    assert made.ports == []
    for client in clients:
        assert (await deferToThread(client.get)).seen["host"] == "IPv4Address"
        client.close()
    for url in urls:
        with pytest.raises(ConnectionRefusedError):
            await ask(url, context)


@pytest_twisted.ensureDeferred
async def test_handshake_timeout(listeners, tls):
    """A connection that begins no handshake is closed."""
    made = listeners("127.0.0.1:0", tls=tls, handshake_seconds=0.05)
    await made.start()
    address = ("127.0.0.1", made.ports[0].port.getHost().port)
    with socket.create_connection(address, timeout=20) as client, pytest.raises(ConnectionResetError):
        await deferToThread(client.recv, 1)
