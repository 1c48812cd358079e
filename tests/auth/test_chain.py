from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from resticd.auth.chain import make_authenticator
from resticd.auth.login import ILogin
from resticd.auth.proxies import TrustedProxies
from resticd.errors import ConfigurationError, Unauthorized
from resticd.interfaces import Caller, IAuthenticator
from resticd.workers import Workers


@pytest.fixture
def make(workers: Workers) -> Callable[..., IAuthenticator]:
    def build(**flags) -> IAuthenticator:
        authenticator = make_authenticator(workers=workers, clock=Clock(), **flags)
        verifyObject(IAuthenticator, authenticator)
        verifyObject(ILogin, authenticator._login)
        return authenticator

    return build


async def refusal(authenticator: IAuthenticator, introduction) -> Unauthorized:
    with pytest.raises(Unauthorized) as caught:
        await authenticator.authenticate(introduction)
    return caught.value


@pytest_twisted.ensureDeferred
async def test_everybody_may_come_where_nothing_is_asked_for(make, introduce) -> None:
    authenticator = make()
    assert authenticator.challenge is None
    nobody = Caller(None, "192.0.2.1")
    assert await authenticator.authenticate(introduce()) == nobody
    assert await authenticator.authenticate(introduce("a", "b", header_user="c", common_name="d")) == nobody


@pytest_twisted.ensureDeferred
async def test_a_password_file_asks_for_its_users(make, introduce, password_file: Path) -> None:
    authenticator = make(htpasswd=str(password_file), realm="backups")
    assert authenticator.challenge == 'Basic realm="backups", charset="UTF-8"'
    for user in ("alice", "bob"):
        assert await authenticator.authenticate(introduce(user, "myPassword")) == Caller(user, "192.0.2.1")
    assert str(await refusal(authenticator, introduce("alice", "wrong"))) == "wrong user or password"
    assert str(await refusal(authenticator, introduce())) == "no login"


@pytest_twisted.ensureDeferred
async def test_one_user_with_one_password(make, introduce) -> None:
    authenticator = make(user="alice", password="secret", salt="x")
    assert authenticator.challenge == 'Basic realm="resticd", charset="UTF-8"'
    assert await authenticator.authenticate(introduce("alice", "secret")) == Caller("alice", "192.0.2.1")
    await refusal(authenticator, introduce("alice", "wrong"))


@pytest_twisted.ensureDeferred
async def test_the_password_file_comes_before_the_one_user(make, introduce, password_file: Path) -> None:
    authenticator = make(htpasswd=str(password_file), user="carol", password="secret")
    assert (await authenticator.authenticate(introduce("alice", "myPassword"))).user == "alice"
    await refusal(authenticator, introduce("carol", "secret"))


@pytest_twisted.ensureDeferred
async def test_a_header_or_a_certificate_is_no_way_around_a_password(make, introduce) -> None:
    authenticator = make(user="alice", password="secret", user_from_header="X-User", client_ca=True)
    await refusal(authenticator, introduce(peer="127.0.0.1", header_user="alice", common_name="alice"))


@pytest_twisted.ensureDeferred
async def test_a_header_is_believed_from_trusted_peers_alone(make, introduce) -> None:
    authenticator = make(user_from_header="X-User", trusted_proxies=TrustedProxies.parse(["10.0.0.0/8"]))
    assert authenticator.challenge is None
    assert await authenticator.authenticate(introduce(peer="10.0.0.1", header_user=" älice@x ")) == Caller(
        "älice@x", "10.0.0.1"
    )
    for peer in ("192.0.2.1", "127.0.0.1", "::1"):
        refused = await refusal(authenticator, introduce(peer=peer, header_user="alice"))
        assert (refused.user, refused.address) == ("alice", peer)


@pytest.mark.parametrize("user", [None, "", " ", "a/b", "a b", "a\nb", "a:b", "a" * 256, "²"])
@pytest_twisted.ensureDeferred
async def test_a_header_without_a_proper_user_is_refused(user: str | None, make, introduce) -> None:
    authenticator = make(user_from_header="X-User", client_ca=True)
    keywords = {} if user is None else {"header_user": user}
    refused = await refusal(authenticator, introduce(peer="127.0.0.1", common_name="alice", **keywords))
    assert refused.user.isprintable()


@pytest_twisted.ensureDeferred
async def test_the_certificate_names_the_user_where_nothing_else_does(make, introduce) -> None:
    authenticator = make(client_ca=True)
    assert authenticator.challenge is None
    assert await authenticator.authenticate(introduce(common_name="Älice B")) == Caller("Älice B", "192.0.2.1")
    for introduction in (introduce(), introduce(common_name=""), introduce(common_name="a\0b")):
        await refusal(authenticator, introduction)


@pytest.mark.parametrize("flags", [{"user": "alice", "password": "secret"}, {"client_ca": True}, {}])
@pytest_twisted.ensureDeferred
async def test_a_unix_socket_needs_no_login(flags: dict, make, introduce) -> None:
    authenticator = make(**flags)
    assert await authenticator.authenticate(introduce(peer="unix", header_user="bob")) == Caller(None, "unix")


@pytest_twisted.ensureDeferred
async def test_a_proxy_behind_a_unix_socket_names_the_user_or_is_refused(make, introduce) -> None:
    for flags in ({}, {"client_ca": True}):
        authenticator = make(user_from_header="X-User", **flags)
        caller = await authenticator.authenticate(introduce(peer="unix", header_user="bob", forwarded_for="192.0.2.9"))
        assert caller == Caller("bob", "192.0.2.9")
        await refusal(authenticator, introduce(peer="unix", header_user="a/b"))
        await refusal(authenticator, introduce(peer="unix"))
    distrustful = make(user_from_header="X-User", trusted_proxies=TrustedProxies.parse(["loopback"]))
    await refusal(distrustful, introduce(peer="unix", header_user="bob"))


@pytest_twisted.ensureDeferred
async def test_beside_a_password_the_header_counts_nowhere(make, introduce, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr("resticd.auth.chain._log.warn", warnings.append)
    authenticator = make(user="alice", password="secret", user_from_header="X-User")
    assert await authenticator.authenticate(introduce(peer="unix", header_user="bob")) == Caller(None, "unix")
    await refusal(authenticator, introduce(peer="127.0.0.1", header_user="bob"))
    assert warnings == ["--user-from-header is not used: there is a login by password"]


@pytest_twisted.ensureDeferred
async def test_a_trusted_proxy_tells_the_client_s_address(make, introduce) -> None:
    authenticator = make(user="alice", password="secret")
    login = ("alice", "secret")
    assert (await authenticator.authenticate(introduce(*login, "127.0.0.1", forwarded_for="192.0.2.9"))).address == (
        "192.0.2.9"
    )
    assert (await authenticator.authenticate(introduce(*login, "127.0.0.1", forwarded="for=192.0.2.9"))).address == (
        "192.0.2.9"
    )
    assert (await authenticator.authenticate(introduce(*login, "192.0.2.1", forwarded_for="192.0.2.9"))).address == (
        "192.0.2.1"
    )
    assert (await refusal(authenticator, introduce("alice", "x", "::1", forwarded_for="192.0.2.9"))).address == (
        "192.0.2.9"
    )


@pytest_twisted.ensureDeferred
async def test_failures_slow_down_other_failures_from_there_and_nobody_s_success(introduce, workers: Workers) -> None:
    clock = Clock()
    authenticator = make_authenticator(workers=workers, clock=clock, user="alice", password="secret")
    assert (await authenticator.authenticate(introduce("alice", "secret"))).user == "alice"
    guesses: list[Deferred] = [authenticator.authenticate(introduce("alice", "x")) for _ in range(3)]
    refused: list[object] = []
    for guess in guesses:
        guess.addErrback(lambda failure: refused.append(failure.check(Unauthorized)))
    assert len(refused) == 1
    await refusal(authenticator, introduce("alice", "x", peer="192.0.2.2"))
    assert (await authenticator.authenticate(introduce("alice", "secret"))).user == "alice"
    clock.pump([0.5] * 20)
    assert refused == [Unauthorized] * 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"user": "alice"}, "--user: needs --pass"),
        ({"password": "secret"}, "--pass: needs --user"),
        ({"user": "", "password": "secret"}, "--user: the value is empty"),
        ({"user": "alice", "password": ""}, "--pass: the value is empty"),
        ({"htpasswd": ""}, "--htpasswd: the value is empty"),
        ({"htpasswd": "/nonexistent/file"}, "--htpasswd: /nonexistent/file: No such file or directory"),
        ({"user_from_header": ""}, "--user-from-header: '' cannot be the name of a header"),
        ({"user_from_header": "X User"}, "--user-from-header: 'X User' cannot be the name of a header"),
        ({"user": "a", "password": "b", "realm": "a\nb"}, "--realm: 'a\\nb': only printable ASCII"),
        ({"realm": "büro"}, "--realm: 'büro': only printable ASCII"),
        (
            {"user_from_header": "X-User", "trusted_proxies": TrustedProxies.parse(["none"])},
            "--user-from-header: --trusted-proxy trusts nobody",
        ),
    ],
)
def test_what_would_open_the_server_by_accident_ends_the_start(flags: dict, message: str, make) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make(**flags)
    assert str(caught.value).startswith(message)
    assert "secret" not in str(caught.value)
