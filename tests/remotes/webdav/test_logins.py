"""Basic, digest and bearer logins of the WebDAV driver, and what a redirection gets to see of them."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from conformance import get, put
from support.certificates import Authority
from support.dav_peer import DavPeer, Guard
from support.http_peer import Connection, Received
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from resticd.errors import StorageError
from resticd.remotes.webdav import WebDavRemote, make_webdav
from resticd.transport.challenges import parse_parameters
from resticd.transport.errors import Refused
from resticd.transport.settings import ClientSettings

USER, PASSWORD = "jürgen", 'pass:"wörd'
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
LARGE = os.urandom(1_500_000)

Serve = Callable[..., DavPeer]
Make = Callable[..., WebDavRemote]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts fakes."""
    running: list[DavPeer] = []

    def start(guard: Guard | None = None, context: Any = None) -> DavPeer:
        running.append(DavPeer(guard, context))
        return running[-1]

    yield start
    for peer in running:
        pytest_twisted.blockon(peer.stop())


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes remotes."""
    made: list[WebDavRemote] = []

    def start(server: DavPeer, path: str = "dir", **options: str) -> WebDavRemote:
        settings = ClientSettings(timeout=20, low_level_retries=3, check_certificate=False)
        made.append(make_webdav({"url": server.url, **options}, path, reactor, settings))
        return made[-1]

    yield start
    for remote in made:
        pytest_twisted.blockon(remote.stop())


LOGIN = {"user": USER, "pass": PASSWORD}


def asks(*challenges: str, accepted: Callable[[Received], bool]) -> Guard:
    """A guard that lets in what is accepted."""

    def guard(connection: Connection, request: Received) -> bool:
        if accepted(request):
            return False
        lines = "".join(f"WWW-Authenticate: {challenge}\r\n" for challenge in challenges)
        connection.send(f"HTTP/1.1 401 No\r\n{lines}Content-Length: 0\r\n\r\n")
        return True

    return guard


@pytest_twisted.ensureDeferred
async def test_basic(serve: Serve, make: Make) -> None:
    """One request finds out what is wanted, all others bring it."""
    server = serve(asks('Basic realm="x"', accepted=lambda request: request.headers.get("authorization") == BASIC))
    remote = make(server, **LOGIN)
    await put(remote, "a", b"x")
    assert await get(remote, "a") == b"x"
    assert server.header("authorization") == [None] + [BASIC] * (len(server.seen) - 1)


@pytest_twisted.ensureDeferred
async def test_a_server_that_asks_for_nothing(serve: Serve, make: Make) -> None:
    """It gets the login all the same, since it may mean more there."""
    server = serve()
    await put(make(server, **LOGIN), "a", b"x")
    assert set(server.header("authorization")[1:]) == {BASIC}


@pytest_twisted.ensureDeferred
async def test_wrong_password(serve: Serve, make: Make) -> None:
    """It is said so, at once; the password is in no message."""
    for challenge in ('Basic realm="x"', 'Digest realm="x", nonce="n", qop="auth"'):
        server = serve(asks(challenge, accepted=lambda _: False))
        with pytest.raises(Refused, match="does not accept the login") as caught:
            await make(server, **LOGIN).stat("a")
        assert PASSWORD not in str(caught.value)
        assert len(server.seen) <= 3


@pytest_twisted.ensureDeferred
async def test_another_scheme(serve: Serve, make: Make) -> None:
    """What is wanted instead is named, and no password is sent."""
    server = serve(asks("Negotiate", "NTLM", accepted=lambda _: False))
    with pytest.raises(Refused, match="negotiate, ntlm"):
        await make(server, **LOGIN).stat("a")
    assert set(server.header("authorization")) == {None}


class DigestGuard:
    """Lets a nonce be used a number of times.

    :param stale: whether it says that a nonce is too old.
    """

    def __init__(self, uses: int, stale: bool = True, **more: str) -> None:
        self.uses = uses
        self.stale = stale
        self.more = "".join(f", {name}={value}" for name, value in more.items())
        self.algorithm = more.get("algorithm", "MD5")
        self.counts: dict[str, int] = {}

    def __call__(self, connection: Connection, request: Received) -> bool:
        fields = parse_parameters(request.headers.get("authorization", "").partition(" ")[2])
        nonce = fields.get("nonce", "")
        if nonce in self.counts and self.counts[nonce] < self.uses and self.right(request, fields):
            self.counts[nonce] += 1
            return False
        fresh = f"nonce-{len(self.counts)}"
        self.counts[fresh] = 0
        stale = ", stale=true" if nonce and self.stale else ""
        challenge = f'Digest realm="a \\"b\\"", nonce="{fresh}", qop="auth,auth-int"{stale}{self.more}'
        connection.answer(401, b"no", www_authenticate=challenge)
        return True

    def right(self, request: Received, fields: dict[str, str]) -> bool:
        def hashed(text: str) -> str:
            return hashlib.new(self.algorithm.partition("-s")[0].replace("-", "").lower(), text.encode()).hexdigest()

        first = hashed(f'{USER}:a "b":{PASSWORD}')
        if self.algorithm.endswith("-sess"):
            first = hashed(f"{first}:{fields['nonce']}:{fields['cnonce']}")
        second = hashed(f"{request.method}:{request.target}")
        nonces = f"{fields['nonce']}:{fields['nc']}:{fields['cnonce']}:auth"
        assert int(fields["nc"], 16) > self.counts[fields["nonce"]]
        return fields["response"] == hashed(f"{first}:{nonces}:{second}")


@pytest.mark.parametrize("algorithm", ["MD5", "MD5-sess", "SHA-256", "SHA-256-sess"])
@pytest_twisted.ensureDeferred
async def test_digest(serve: Serve, make: Make, algorithm: str) -> None:
    """Every request, those with bodies too, proves the password and does not show it."""
    server = serve(DigestGuard(1000, algorithm=algorithm))
    remote = make(server, **LOGIN)
    for data in (b"small", LARGE):
        await put(remote, f"a{len(data)}", data)
        assert await get(remote, f"a{len(data)}") == data
    assert server.header("authorization").count(None) == 1
    assert not any("wörd" in (header or "") for header in server.header("authorization"))


@pytest.mark.parametrize("stale", [True, False])
@pytest_twisted.ensureDeferred
async def test_nonces_that_grow_old(serve: Serve, make: Make, stale: bool) -> None:
    """A nonce that is not taken any more is replaced by the next one, whether the server calls it stale or not."""
    server = serve(DigestGuard(3, stale))
    remote = make(server, **LOGIN)
    for number in range(8):
        await put(remote, f"{number}", b"x")
    if stale:  # otherwise it cannot be told for long from a wrong password
        results = [Deferred.fromCoroutine(get(remote, f"{number}")) for number in range(8)]
        assert await gatherResults(results) == [b"x"] * 8


@pytest_twisted.ensureDeferred
async def test_an_old_nonce_is_not_trusted_with_a_stream(serve: Serve, make: Make) -> None:
    """Before a body that cannot be sent twice, a nonce that is not fresh is replaced."""
    guard = DigestGuard(1000)
    server = serve(guard)
    remote = make(server, **LOGIN)
    await put(remote, "a", b"x")
    guard.counts = dict.fromkeys(guard.counts, 1000)  # the server forgets
    remote._api._login._since -= 31
    server.seen.clear()
    upload = await remote.begin("b", len(LARGE), None)
    guard.counts = dict.fromkeys(guard.counts, 1000)
    remote._api._login._since -= 31
    upload.write(LARGE)
    await upload.commit()
    assert await get(remote, "b") == LARGE
    assert [request.method for request in server.seen].count("PUT") == 1


@pytest_twisted.ensureDeferred
async def test_the_next_nonce(serve: Serve, make: Make) -> None:
    """A server may say with an answer which nonce comes next."""
    digest = DigestGuard(1)

    def guard(connection: Connection, request: Received) -> bool:
        if digest(connection, request):
            return True
        digest.counts["given"] = -1000
        following = 'nextnonce="given"'
        connection.answer(404, authentication_info=following)
        return True

    server = serve(guard)
    remote = make(server, **LOGIN)
    remote._places.saw()
    for _ in range(3):
        with pytest.raises(Exception, match="no such object"):
            await remote.stat("a")
    assert server.header("authorization").count(None) == 1
    assert all('nonce="given"' in header for header in server.header("authorization")[2:])


@pytest_twisted.ensureDeferred
async def test_no_way_back_to_the_password(serve: Serve, make: Make) -> None:
    """Who was asked for a digest once does not send the password later, whoever asks for it."""
    digest = DigestGuard(2)

    def guard(connection: Connection, request: Received) -> bool:
        if len(server.seen) > 2:
            connection.answer(401, www_authenticate='Basic realm="x"')
            return True
        return digest(connection, request)

    server = serve(guard)
    remote = make(server, **LOGIN)
    remote._places.saw()
    for _ in range(3):
        with pytest.raises(Exception, match=r"no such object|does not any more"):
            await remote.stat("a")
    assert not any((header or "").startswith("Basic") for header in server.header("authorization"))


@pytest_twisted.ensureDeferred
async def test_a_token(serve: Serve, make: Make) -> None:
    """It comes with every request, the first one too."""
    server = serve(asks("Bearer", accepted=lambda request: request.headers.get("authorization") == "Bearer secret"))
    await put(make(server, bearer_token="secret"), "a", b"x")
    assert set(server.header("authorization")) == {"Bearer secret"}
    with pytest.raises(Refused, match="does not accept the login"):
        await make(server, bearer_token="other").stat("a")


@pytest_twisted.ensureDeferred
async def test_a_command_for_tokens(serve: Serve, make: Make, tmp_path: Path) -> None:
    """A command prints the token; it is asked again, once for many, when the token has run out."""
    script, valid = tmp_path / "to ken.sh", tmp_path / "valid"
    script.write_text(f'#!/bin/sh\necho run >>"{tmp_path}/runs"\ncat "{valid}"\n')
    script.chmod(0o755)
    valid.write_text("one\n")
    server = serve(
        asks(
            "Bearer",
            accepted=lambda request: request.headers.get("authorization") == f"Bearer {valid.read_text().strip()}",
        )
    )
    remote = make(server, bearer_token_command=f'"{script}" with arguments')
    await put(remote, "a", b"x")
    valid.write_text("two\n")
    results = [Deferred.fromCoroutine(get(remote, "a")) for _ in range(5)]
    assert await gatherResults(results) == [b"x"] * 5
    assert (tmp_path / "runs").read_text() == "run\n" * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("echo pst >&2; exit 3", "ended with status 3"), ("echo a b", "did not print a token"), ("", "did not print")],
)
@pytest_twisted.ensureDeferred
async def test_a_command_that_fails(serve: Serve, make: Make, tmp_path: Path, text: str, message: str) -> None:
    """It is said so, without what it has printed."""
    script = tmp_path / "token"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    with pytest.raises(StorageError, match=message) as caught:
        await make(serve(), bearer_token_command=f"{script}").stat("a")
    assert "pst" not in str(caught.value)


@pytest_twisted.ensureDeferred
async def test_headers(serve: Serve, make: Make) -> None:
    """Configured headers come with every request, and one of them may be the login."""
    server = serve()
    headers = 'Cookie,"a=b, c",X-Other,"say ""x""",Authorization,Own'
    await put(make(server, headers=headers, **LOGIN), "a", b"x")
    assert set(server.header("cookie")) == {"a=b, c"}
    assert set(server.header("x-other")) == {'say "x"'}
    assert set(server.header("authorization")) == {"Own"}


# Redirections.


def redirect(status: int, to: Callable[[], str], *methods: str) -> Guard:
    def guard(connection: Connection, request: Received) -> bool:
        if request.method not in methods:
            return False
        connection.answer(status, location=to() + request.target.removeprefix("/moved"))
        return True

    return guard


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("trusting", [False, True])
@pytest_twisted.ensureDeferred
async def test_downloads_from_another_host(serve: Serve, make: Make, status: int, trusting: bool) -> None:
    """A redirected download is followed; the other host sees a login only where ``auth_redirect`` allows it."""
    other = serve()
    other.files["/dir/a"] = b"there"
    server = serve(redirect(status, lambda: other.url, "GET"))
    remote = make(server, headers="Cookie,secret", auth_redirect=str(trusting).lower(), **LOGIN)
    assert await get(remote, "a") == b"there"
    assert other.header("authorization") == [BASIC if trusting else None]
    assert other.header("cookie") == ["secret" if trusting else None]
    assert other.header("referer") == [f"{server.url}/" if trusting else None]


@pytest.mark.parametrize("method", ["PUT", "MOVE", "DELETE", "MKCOL", "PROPFIND"])
@pytest_twisted.ensureDeferred
async def test_nothing_else_is_followed_to_another_host(serve: Serve, make: Make, method: str) -> None:
    """It is an error that says where the server wants to have it; the other host is not asked."""
    other = serve()
    server = serve(redirect(307, lambda: other.url, method))
    server.files["/dir/config"] = b"x"
    remote = make(server)
    operation = remote.delete("config") if method == "DELETE" else Deferred.fromCoroutine(put(remote, "a", b"x"))
    with pytest.raises(Refused, match=rf"redirects {method} to http://127.0.0.1:\d+/dir/"):
        await operation
    assert other.seen == []


@pytest_twisted.ensureDeferred
async def test_another_place_on_the_same_host(serve: Serve, make: Make) -> None:
    """It is followed for what only reads, with the login; not for ever, and not for what writes."""
    server = serve(redirect(302, lambda: "/elsewhere", "GET"))
    remote = make(server, "a", **LOGIN)
    with pytest.raises(Refused, match="again and again"):
        await get(remote, "b")

    def guard(connection: Connection, request: Received) -> bool:
        if not request.target.startswith("/old/"):
            return False
        connection.answer(301, location=request.target.replace("/old/", "/new/"))
        return True

    server = serve(guard)
    server.files["/new/b"] = b"x"
    remote = make(server, "old", **LOGIN)
    assert await get(remote, "b") == b"x"
    assert (await remote.stat("b")).size == 1
    assert set(server.header("authorization")[1:]) == {BASIC}
    with pytest.raises(Refused, match="set url accordingly"):
        await put(remote, "c", b"x")


@pytest_twisted.ensureDeferred
async def test_no_way_out_of_tls(serve: Serve, make: Make, tmp_path: Path) -> None:
    """A redirection from https to http is not followed, even with ``auth_redirect``."""
    other = serve()
    other.files["/dir/a"] = b"there"
    server = serve(redirect(302, lambda: other.url, "GET"), Authority(tmp_path).server().context)
    with pytest.raises(Refused, match="not encrypted"):
        await get(make(server, auth_redirect="true", **LOGIN), "a")
    assert other.seen == []
