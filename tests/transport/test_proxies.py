"""Proxies from the environment, and requests through real connections to one."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from support.certificates import Authority
from support.http_peer import Connection, HttpPeer, always
from support.waiting import until
from twisted.internet import reactor
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol

from resticd.errors import ConfigurationError, RemoteTimeout, StorageError, Unavailable
from resticd.transport.bodies import BytesBody
from resticd.transport.client import HttpClient, Request
from resticd.transport.errors import Refused
from resticd.transport.proxies import Proxies, Proxy
from resticd.transport.settings import ClientSettings

PLAIN = Proxy("proxy.example", 3128)


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.example:3128", PLAIN),
        ("proxy.example:3128", PLAIN),
        ("http://proxy.example", Proxy("proxy.example", 80)),
        ("https://proxy.example/", Proxy("proxy.example", 443, tls=True)),
        ("http://us%40er:p%3Aw@[::1]:8", Proxy("::1", 8, authorization="Basic dXNAZXI6cDp3")),
    ],
)
def test_url_of_a_proxy(text: str, proxy: Proxy) -> None:
    """With or without scheme, port and login."""
    assert Proxy.parse(text, "HTTP_PROXY") == proxy


@pytest.mark.parametrize("text", ["socks5://proxy:1080", "http://", "http://proxy:port", "http://[::1"])
def test_no_url_of_a_proxy(text: str) -> None:
    """What cannot be used is named by its variable, without its value, which may hold a password."""
    with pytest.raises(ConfigurationError, match=r"^https_proxy: ") as caught:
        Proxies.from_environment({"https_proxy": text.replace("://", "://user:secret@", 1)})
    assert "secret" not in str(caught.value)


def test_variables() -> None:
    """Upper case goes before lower case, an empty one counts as none."""
    environment = {
        "HTTP_PROXY": "a:1",
        "http_proxy": "b:2",
        "HTTPS_PROXY": "",
        "https_proxy": "c:3",
        "no_proxy": "d, E",
    }
    proxies = Proxies.from_environment(environment)
    assert proxies == Proxies(Proxy("a", 1), Proxy("c", 3), ("d", "e"))
    assert Proxies.from_environment({}) == Proxies()


@pytest.mark.parametrize(
    ("exceptions", "host", "port", "direct"),
    [
        ("example.com", "example.com", 80, True),
        ("example.com", "s3.example.com", 80, True),
        ("example.com", "notexample.com", 80, False),
        (".example.com", "example.com", 80, False),
        (".example.com", "S3.Example.COM.", 80, True),
        ("*.example.com", "s3.example.com", 80, True),
        ("example.com:8080", "example.com", 8080, True),
        ("example.com:8080", "example.com", 80, False),
        ("*", "anything", 80, True),
        ("192.0.2.0/24", "192.0.2.77", 80, True),
        ("192.0.2.0/24", "192.0.3.77", 80, False),
        ("192.0.2.7", "192.0.2.7", 80, True),
        ("192.0.2.7:81", "192.0.2.7", 80, False),
        ("2001:db8::1", "2001:db8::1", 80, True),
        ("bad/net", "192.0.2.7", 80, False),
        ("other.com,example.com", "example.com", 80, True),
        ("", "localhost", 80, True),
        ("", "127.0.0.9", 80, True),
        ("", "::1", 80, True),
        ("", "example.com", 80, False),
    ],
)
def test_exceptions(exceptions: str, host: str, port: int, direct: bool) -> None:
    """NO_PROXY as Go reads it; loopback never goes through a proxy."""
    proxies = Proxies.from_environment({"HTTP_PROXY": "proxy.example:3128", "NO_PROXY": exceptions})
    assert proxies.choose("http", host, port) == (None if direct else PLAIN)


class Backwards(Protocol):
    """From the target to the client of the proxy."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def dataReceived(self, data: bytes) -> None:
        self.connection.send(data)


async def tunnel(connection: Connection, port: int) -> None:
    """Passes on between the client of a proxy and a port of this machine."""
    endpoint = HostnameEndpoint(reactor, "127.0.0.1", port)
    other = await endpoint.connect(Factory.forProtocol(lambda: Backwards(connection)))
    connection.send("HTTP/1.1 200 Connection established\r\n\r\n")
    early, connection._data = bytes(connection._data), bytearray()
    other.transport.write(early)
    connection.dataReceived = other.transport.write


@pytest.fixture
def peer() -> Any:
    peers = []

    def start(script: Any, **options: Any) -> HttpPeer:
        peers.append(HttpPeer(script, **options))
        return peers[-1]

    yield start
    for started in peers:
        pytest_twisted.blockon(started.stop())


def client(proxy: HttpPeer, **settings: Any) -> HttpClient:
    url = proxy.url.replace("://", "://user:pass@").replace("127.0.0.1", "localhost")
    proxies = Proxies.from_environment({"HTTP_PROXY": url, "HTTPS_PROXY": url})
    return HttpClient(reactor, ClientSettings(timeout=5, contimeout=5, proxies=proxies, **settings))


@pytest_twisted.ensureDeferred
async def test_plain_request_through_a_proxy(peer: Any) -> None:
    """The proxy is asked for the whole URL, with its login; the connection is kept."""

    def answer(connection: Connection, got: Any) -> None:
        told = f"{got.target} {got.headers['host']} {got.headers['proxy-authorization']}"
        connection.answer(200, told.encode())

    proxy = peer(always(answer))
    through = client(proxy)
    for _ in range(2):
        response = await through.send(Request("PUT", "http://storage.test:81/a?b", body=BytesBody(b"x")))
        told = await response.read()
        assert told == b"http://storage.test:81/a?b storage.test:81 Basic dXNlcjpwYXNz"
    assert len(proxy.connections) == 1
    await through.close()


@pytest.mark.parametrize("proxy_tls", [False, True])
@pytest_twisted.ensureDeferred
async def test_tunnel_through_a_proxy(peer: Any, tmp_path: Any, proxy_tls: bool) -> None:
    """An https URL is reached through CONNECT, and the certificate is the target's; the proxy may want TLS itself."""
    authority = Authority(tmp_path)
    secure = authority.server(hosts=("storage.test",)).context
    target = peer(always(lambda connection, got: connection.answer(200, got.body)), context=secure)
    asked = []

    async def script(connection: Connection) -> None:
        request = await connection.request()
        asked.append((request.method, request.target, request.headers["proxy-authorization"]))
        await tunnel(connection, target.port)

    proxy = peer(script, **({"context": authority.server().context} if proxy_tls else {}))
    through = client(proxy, ca_cert=(authority.file,))
    for _ in range(2):
        response = await through.send(Request("PUT", "https://storage.test/a", body=BytesBody(b"x" * 100_000)))
        assert await response.read() == b"x" * 100_000
    assert asked == [("CONNECT", "storage.test:443", "Basic dXNlcjpwYXNz")]
    await through.close()
    await until(lambda: all(connection.is_lost for connection in proxy.connections))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("HTTP/1.1 407 Login\r\n\r\n", Refused),
        ("HTTP/1.1 403 No\r\n\r\n", Refused),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", Unavailable),
        ("SSH-2.0-x\r\n\r\n", Refused),
        ("x" * 70_000, Refused),
        ("", Unavailable),
    ],
)
@pytest_twisted.ensureDeferred
async def test_tunnel_refused(peer: Any, answer: str, error: type[Exception]) -> None:
    """A proxy that opens no connection is a fault that names it."""

    async def script(connection: Connection) -> None:
        await connection.request()
        connection.send(answer)
        connection.close()

    proxy = peer(script)
    with pytest.raises(error, match="the proxy localhost"):
        await client(proxy).send(Request("GET", "https://storage.test/"))
    await until(lambda: proxy.connections[0].is_lost)


@pytest_twisted.ensureDeferred
async def test_silent_proxy(peer: Any) -> None:
    """A proxy that does not answer is given up after the time for connecting; so is one of a cancelled request."""

    async def script(connection: Connection) -> None:
        await connection.request()

    proxy = peer(script)
    url = f"http://localhost:{proxy.port}"
    proxies = Proxies.from_environment({"HTTPS_PROXY": url})
    hasty = HttpClient(reactor, ClientSettings(contimeout=0.1, proxies=proxies))
    with pytest.raises(RemoteTimeout, match="proxy"):
        await hasty.send(Request("GET", "https://storage.test/"))
    pending = client(proxy).send(Request("GET", "https://storage.test/"))
    await until(lambda: len(proxy.connections) == 2)
    pending.addErrback(lambda failure: None)
    pending.cancel()
    await until(lambda: all(connection.is_lost for connection in proxy.connections))


@pytest_twisted.ensureDeferred
async def test_proxy_that_is_not_there(peer: Any) -> None:
    """It is a passing fault."""
    proxy = peer(always(lambda *_: None))
    await proxy.stop()
    with pytest.raises(StorageError):
        await client(proxy).send(Request("GET", "https://storage.test/"))
