from __future__ import annotations

import base64

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from resticd.auth.basic import BasicLogin, Credentials, Malformed, basic_challenge, parse_authorization
from resticd.auth.login import IAccounts, ILogin
from resticd.auth.singleaccount import SingleAccount
from resticd.auth.throttle import Throttle
from resticd.errors import ConfigurationError, Unauthorized


def basic(text: bytes | str) -> str:
    return "Basic " + base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def printable(exclude: str = "") -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8", exclude_characters=exclude).filter(str.isprintable), max_size=20)


@settings(deadline=None)
@given(printable(":").filter(bool), printable())
def test_every_printable_login_is_read_as_it_was_written(user: str, password: str) -> None:
    assert parse_authorization(basic(f"{user}:{password}")) == Credentials(user, password)


@settings(deadline=None)
@given(st.text() | st.binary().map(basic))
def test_whatever_the_header_holds_it_is_read_or_refused(value: str) -> None:
    try:
        credentials = parse_authorization(value)
    except Malformed:
        return
    assert credentials.user.isprintable()
    assert credentials.user
    assert "\0" not in credentials.password


def test_a_password_may_have_colons_and_the_scheme_may_be_in_any_case() -> None:
    assert parse_authorization(basic("a:b:c").replace("Basic", "bAsIc")) == Credentials("a", "b:c")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Basic",
        "Basic ",
        "Bearer " + base64.b64encode(b"a:b").decode(),
        basic("a:b") + " ",
        basic("a:bc").rstrip("="),
        basic("a:b") + "\nX: y",
        "Basic YTpi, Basic YTpi",
        "Basic YTp-_w==",
        basic("no colon"),
        basic(":password"),
        basic(b"\xff:latin"),
        basic("a\n:b"),
        basic("a\0:b"),
        basic("a\u202e:b"),
        basic("a:b\0"),
        basic("a:b\x7f"),
        basic("a" * 256 + ":b"),
        basic("a:" + "b" * 4097),
    ],
)
def test_a_login_outside_of_the_grammar_is_refused(value: str) -> None:
    with pytest.raises(Malformed):
        parse_authorization(value)


def test_a_password_is_never_shown() -> None:
    assert "secret" not in repr(Credentials("a", "secret"))


def test_the_challenge_names_the_realm_and_asks_for_utf_8() -> None:
    assert basic_challenge(None) == 'Basic realm="resticd", charset="UTF-8"'
    assert basic_challenge('a "b" \\') == 'Basic realm="a \\"b\\" \\\\", charset="UTF-8"'


@pytest.mark.parametrize("realm", ["a\r\nX: y", "ä", "\0"])
def test_a_realm_that_no_header_can_hold_is_a_configuration_error(realm: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--realm: "):
        basic_challenge(realm)


@pytest.mark.parametrize(
    ("user", "password", "flag"),
    [
        ("", "x", "--user"),
        ("a:b", "x", "--user"),
        ("a\nb", "x", "--user"),
        ("a", "", "--pass"),
        ("a", "secret\n", "--pass"),
        ("a", "secret\udcff", "--pass"),
    ],
)
def test_a_pair_that_no_login_can_carry_is_a_configuration_error(user: str, password: str, flag: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{flag}: ") as caught:
        SingleAccount(user, password)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("salt", ["dlPL2MqE", "", "ä" * 100])
def test_one_pair_is_taken_and_no_other(salt: str) -> None:
    account = SingleAccount("Älice", "pässword", salt)
    verifyObject(IAccounts, account)

    def admits(user: str, password: str) -> bool:
        return account.check(Credentials(user, password), account.stored(user)).result

    assert admits("Älice", "pässword")
    for user, password in [("Älice", "passwort"), ("alice", "pässword"), ("Älice", ""), ("Älice", "pässword ")]:
        assert not admits(user, password)
    assert "pässword" not in str(vars(account))


@pytest_twisted.ensureDeferred
async def test_a_refusal_tells_who_tried_from_where_and_why(introduce) -> None:
    login = BasicLogin(SingleAccount("alice", "right"), Throttle(Clock()), "Basic")
    verifyObject(ILogin, login)
    assert await login.identify(introduce("alice", "right"), "192.0.2.1") == "alice"
    for introduction, user, reason in [
        (introduce(), "", "no login"),
        (introduce("alice", "wrong"), "alice", "wrong user or password"),
        (introduce(authorization=basic("al\nice\\:x")), "al\\nice\\\\", "a user name"),
    ]:
        with pytest.raises(Unauthorized, match=f"^{reason}") as caught:
            await login.identify(introduction, f"192.0.2.{len(user)}")
        assert (caught.value.user, caught.value.address) == (user, f"192.0.2.{len(user)}")


@pytest_twisted.ensureDeferred
async def test_guesses_wait_and_who_was_let_in_before_does_not(introduce) -> None:
    clock = Clock()
    login = BasicLogin(SingleAccount("alice", "right"), Throttle(clock), "Basic")
    assert await login.identify(introduce("alice", "right"), "192.0.2.1") == "alice"
    for address in ("192.0.2.1", "192.0.2.66"):
        with pytest.raises(Unauthorized):
            await login.identify(introduce("alice", "wrong"), address)
    assert await login.identify(introduce("alice", "right"), "192.0.2.1") == "alice"
    guess = login.identify(introduce("alice", "right"), "192.0.2.66")
    assert not guess.called
    clock.advance(1)
    assert guess.result == "alice"


@pytest_twisted.ensureDeferred
async def test_who_was_let_in_before_does_not_make_up_for_the_guesses_of_others_there(introduce) -> None:
    """Otherwise a guesser beside a running backup, or with a login of its own, would never be slowed down."""
    clock = Clock()
    login = BasicLogin(SingleAccount("alice", "right"), Throttle(clock), "Basic")
    assert await login.identify(introduce("alice", "right"), "192.0.2.1") == "alice"
    waits = []
    for _ in range(5):
        refused: list[object] = []
        login.identify(introduce("bob", "guess"), "192.0.2.1").addErrback(refused.append)
        start = clock.seconds()
        while not refused:
            assert await login.identify(introduce("alice", "right"), "192.0.2.1") == "alice"
            clock.advance(0.125)
        waits.append(clock.seconds() - start)
    assert waits == [0, 0.25, 0.5, 1, 2]
