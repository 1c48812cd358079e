"""The parts of the WebDAV driver by themselves: options, XML, long lists, quotas, sockets."""

from __future__ import annotations

from contextlib import aclosing

import pytest
import pytest_twisted
from conformance import everything, get, put
from support.dav_peer import DavPeer, multistatus, response
from support.dav_servers import Room
from support.http_peer import Connection, Received
from support.peers import peer
from twisted.internet import reactor

from bench.processes import Daemon
from resticd.errors import ConfigurationError, StorageError, Unsupported
from resticd.interfaces import Usage
from resticd.remotes.drivers import REGISTRY
from resticd.remotes.registry import Loan, RemoteSpec
from resticd.remotes.webdav import WebDavRemote, make_webdav
from resticd.remotes.webdav_options import WebDavOptions
from resticd.remotes.webdav_xml import MultistatusParser, Resource, parse_date, segments_of
from resticd.transport.settings import ClientSettings

URL = "https://dav.example.com"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (URL, f"{URL}/"),
        (f"{URL}:8443/a b/%63//", f"{URL}:8443/a%20b/c/"),
        ("http://[::1]:80/x/", "http://[::1]:80/x/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        (f"{URL}/~me/100%25/é", f"{URL}/~me/100%25/%C3%A9/"),
    ],
)
def test_urls(given: str, url: str) -> None:
    """Written in one way, whatever the user's was."""
    assert WebDavOptions.parse({"url": given}).url == url


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "webdav: url is missing"),
        ({"url": "dav.example.com"}, "is not a URL"),
        ({"url": "ftp://dav.example.com"}, "is not a URL"),
        ({"url": "https://dav.example.com:port/"}, "is not a URL"),
        ({"url": "https://me:secret@dav.example.com/"}, "has a login in it"),
        ({"url": f"{URL}/?a=b"}, "has a query"),
        ({"url": f"{URL}/a/../b"}, "dot segments"),
        ({"url": URL, "vendor": "sharepoint"}, "vendor = sharepoint: it wants cookies"),
        ({"url": URL, "vendor": "sharepoint-ntlm"}, "NTLM"),
        ({"url": URL, "headers": "Cookie"}, "headers is not a list of names and values"),
        ({"url": URL, "headers": "Coo kie,x"}, "no header can have"),
        ({"url": URL, "headers": "Cookie,secret,Host,x"}, "has Host"),
        ({"url": URL, "headers": 'Cookie,"secret'}, "is not CSV"),
        ({"url": URL, "bearer_token": "secret\nsecret"}, "line break"),
        ({"url": URL, "bearer_token_command": 'get "secret'}, "is not CSV"),
        ({"url": URL, "auth_redirect": "perhaps"}, "neither true nor false"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, str], message: str) -> None:
    """They are refused by name, and no secret is shown."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        WebDavOptions.parse(options)
    assert "secret" not in str(caught.value)


def test_no_secret_is_shown() -> None:
    """Neither in the options' repr nor in a spec's."""
    secrets = {name: f"hunter-{name}" for name in ("user", "pass", "bearer_token", "bearer_token_command")}
    assert "hunter" not in repr(WebDavOptions.parse({"url": URL, "headers": "Cookie,hunter", **secrets}))


def test_the_driver_is_in_the_table() -> None:
    """``type = webdav`` makes one; a path with dot segments does not."""
    loan = Loan(reactor, None, ClientSettings())  # type: ignore[arg-type]
    assert isinstance(REGISTRY.open(RemoteSpec("webdav", "x", "a/b", {"url": URL}), loan), WebDavRemote)
    with pytest.raises(ConfigurationError, match="dot segments"):
        REGISTRY.open(RemoteSpec("webdav", "x", "a/../b", {"url": URL}), loan)


@pytest.mark.parametrize(
    ("href", "segments"),
    [
        ("/a/b", ("a", "b")),
        ("/a/b/", ("a", "b")),
        ("//a//b", ("a", "b")),
        ("http://host:1/a/b", ("a", "b")),
        ("HTTPS://user@host/a%2Fb/%c3%a9", ("a/b", "é")),
        ("/a?b#c;d", ("a?b#c;d",)),
        ("/a%3Fb%23c%25", ("a?b#c%",)),
        ("/a+b c", ("a+b c",)),
        ("/", ()),
        ("/%ff", None),
    ],
)
def test_hrefs(href: str, segments: tuple[str, ...] | None) -> None:
    """However a server writes it, a path is its decoded segments."""
    assert segments_of(href) == segments


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Wed, 27 Sep 2017 14:28:34 GMT", 1506522514.0),
        ("Fri, 05 Jan 2018 14:14:38 +0000", 1515161678.0),
        ("Fri, 7 Sep 2018 08:49:58 GMT", 1536310198.0),
        ("2018-09-07T08:49:58Z", 1536310198.0),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_dates(text: str | None, seconds: float | None) -> None:
    """What rclone has met (``timeFormats`` in its ``backend/webdav/api/types.go``)."""
    assert parse_date(text) == seconds


def test_what_servers_write() -> None:
    """Other prefixes, several propstats, properties that were not asked for, no status: it is understood."""
    parser = MultistatusParser()
    text = """<?xml version="1.0"?>
    <x:multistatus xmlns:x="DAV:" xmlns:n="urn:n"><x:response><x:href> /a/ </x:href>
      <x:propstat><x:prop><x:getcontentlength/></x:prop><x:status>HTTP/1.1 404 Not Found</x:status></x:propstat>
      <x:propstat><x:prop><x:resourcetype><n:calendar/><x:collection/></x:resourcetype>
        <x:lockdiscovery><x:lockroot><x:href>/other</x:href></x:lockroot></x:lockdiscovery>
        <x:quota-available-bytes>-3</x:quota-available-bytes><n:getcontentlength>7</n:getcontentlength>
        </x:prop><x:status>HTTP/2 200</x:status></x:propstat></x:response>
      <x:response><x:href>/a/b</x:href><x:propstat><x:prop><x:getcontentlength>5</x:getcontentlength>
        <x:collection/></x:prop></x:propstat></x:response>
      <x:response><x:href>/a/c</x:href><x:propstat><x:prop><x:resourcetype/></x:prop>
        <x:status>HTTP/1.1 403 Forbidden</x:status></x:propstat></x:response>
    </x:multistatus>"""
    found = [resource for byte in text.encode() for resource in parser.feed(bytes([byte]))]
    parser.finish()
    assert [(each.path, each.status, each.is_collection, each.size) for each in found] == [
        (("a",), 200, True, None),
        (("a", "b"), 200, False, 5),
        (("a", "c"), 403, False, None),
    ]
    assert found[0].number("quota-available-bytes") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "<html/>",
        "<multistatus/>",
        '<multistatus xmlns="DAV:">',
        '<multistatus xmlns="DAV:"><response/></multistatus>',
        '<multistatus xmlns="DAV:"/><multistatus xmlns="DAV:"/>',
        '<!DOCTYPE x [<!ENTITY a "b">]><multistatus xmlns="DAV:">&a;</multistatus>',
        '<multistatus xmlns="DAV:">' + "<a>" * 100,
        f'<multistatus xmlns="DAV:"><response><href>{"a" * 100_000}</href></response></multistatus>',
        '<multistatus xmlns="DAV:"><response><href>/</href><status>fine</status></response></multistatus>',
    ],
)
def test_no_multistatus(text: str) -> None:
    """Whatever is not one, not whole, or made to hurt raises ``ValueError``."""
    parser = MultistatusParser()
    with pytest.raises(ValueError):
        parser.feed(text.encode())
        parser.finish()


class LongList:
    """A folder with more files than anybody wants to keep in memory.

    :param cut: the connection breaks in the middle of the list.
    """

    def __init__(self, files: int, cut: bool = False) -> None:
        part = "".join(response(f"/dir/{number:064d}", 1) for number in range(files))
        self.body = multistatus(response("/dir/", None), part)
        self.cut = cut

    def __call__(self, connection: Connection, request: Received) -> bool:
        if request.headers.get("depth") != "1":
            return False
        if self.cut:
            connection.send(f"HTTP/1.1 207 x\r\nContent-Length: {len(self.body)}\r\n\r\n".encode())
            connection.send(self.body[: len(self.body) - 1000])
            connection.close()
        else:
            connection.answer(207, self.body)
        return True


@pytest_twisted.ensureDeferred
async def test_a_long_list_waits_for_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads slowly holds the server up: not much more is taken than was read. In the end all of it comes."""
    taken = 0
    feed = MultistatusParser.feed

    def counting(self: MultistatusParser, data: bytes) -> list[Resource]:
        nonlocal taken
        taken += len(data)
        return feed(self, data)

    monkeypatch.setattr(MultistatusParser, "feed", counting)
    guard = LongList(60_000)
    server = DavPeer(guard)
    remote = make_webdav({"url": server.url}, "dir", reactor, ClientSettings())
    seen = 0
    async with aclosing(remote.list("")) as pages:
        async for page in pages:
            seen += len(page)
            if seen == 1000:
                for _ in range(50):  # time enough to send the rest, if somebody took it
                    await remote._api.properties("")
                assert taken < len(guard.body) / 2
    assert seen == 60_000
    await remote.stop()
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_long_list_that_breaks() -> None:
    """It is not asked for again once something was handed out, and never ends as if it were whole."""
    server = DavPeer(LongList(20_000, cut=True))
    remote = make_webdav({"url": server.url}, "dir", reactor, ClientSettings(low_level_retries=3))
    seen: list[str] = []
    with pytest.raises(StorageError, match="in the middle of a list"):
        async with aclosing(remote.list("")) as pages:
            async for page in pages:
                seen += [entry.key for entry in page]
    assert len(seen) == len(set(seen)) > 4000
    assert [request.headers.get("depth") for request in server.seen] == ["1"]
    await remote.stop()
    await server.stop()


@pytest.mark.parametrize(
    ("used", "free", "usage"),
    [
        ("100", "900", Usage(100, 900, 1000)),
        ("100", "-3", Usage(100, None, None)),
        ("", "900", Usage(None, 900, None)),
        ("", "", None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_quota(used: str, free: str, usage: Usage | None) -> None:
    """What the server says of its room (RFC 4331), some of it perhaps; -3 is ownCloud's word for no limit."""

    def guard(connection: Connection, request: Received) -> bool:
        properties = f"<quota-used-bytes>{used}</quota-used-bytes><quota-available-bytes>{free}</quota-available-bytes>"
        body = multistatus(response("/dir/", None)).replace(b"</prop>", f"{properties}</prop>".encode())
        connection.answer(207, body)
        return True

    server = DavPeer(guard)
    remote = make_webdav({"url": server.url}, "dir", reactor, ClientSettings())
    await remote.start()
    assert remote.capabilities.reports_usage is (usage is not None)
    if usage is None:
        with pytest.raises(Unsupported):
            await remote.usage()
    else:
        assert await remote.usage() == usage
    await remote.stop()
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_not_there_yet() -> None:
    """It does not keep the daemon from starting."""
    server = DavPeer(lambda connection, _: connection.abort() or True)
    remote = make_webdav({"url": server.url}, "dir", reactor, ClientSettings(low_level_retries=1))
    await remote.start()
    assert not remote.capabilities.reports_usage
    await remote.stop()
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_checksums_are_sent() -> None:
    """A vendor that compares them gets the SHA-1 of what is small enough to be read before it is sent."""
    server = DavPeer()
    remote = make_webdav({"url": server.url, "vendor": "nextcloud"}, "dir", reactor, ClientSettings())
    await put(remote, "a", b"four")
    sums = [request.headers.get("oc-checksum") for request in server.seen if request.body == b"four"]
    assert sums == ["SHA1:9f8f7eec5dea5ac43738721939c120318cbff1df"]
    await remote.stop()
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_unix_socket() -> None:
    """``rclone serve webdav`` on a socket, with a host in the URL that is nowhere."""
    room = Room()
    socket = room.path / "socket"
    arguments = [peer("rclone"), "serve", "webdav", "--config", "/dev/null", "--addr", f"unix://{socket}"]
    with Daemon([*arguments, room.folder("data")], room.path / "log") as server:
        server.wait_until(socket.exists)
        options = {"url": "http://nowhere.invalid/", "unix_socket": str(socket)}
        remote = make_webdav(options, "dir", reactor, ClientSettings())
        await put(remote, "a", b"x")
        assert await get(remote, "a") == b"x"
        assert set(await everything(remote)) == {"a"}
        await remote.stop()
    room.remove()
