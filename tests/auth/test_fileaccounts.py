from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from zope.interface.verify import verifyObject

from resticd.auth import fileaccounts, hashes
from resticd.auth.basic import BasicLogin, Credentials
from resticd.auth.fileaccounts import FileAccounts
from resticd.auth.htpasswd import HtpasswdFile
from resticd.auth.login import IAccounts
from resticd.auth.throttle import Throttle
from resticd.errors import TooManyLogins, Unauthorized
from resticd.workers import Workers

NEW = "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="  # password


@pytest.fixture
def accounts(password_file: Path, aged: Callable[..., HtpasswdFile], workers: Workers) -> FileAccounts:
    return FileAccounts(aged(password_file), workers)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The passwords and hashes that were worked out, which is what takes time."""
    calls: list[tuple[str, str]] = []
    real = hashes.verify

    def verify(password: str, stored: str) -> bool:
        calls.append((password, stored))
        return real(password, stored)

    monkeypatch.setattr(fileaccounts, "verify", verify)
    return calls


@pytest.fixture
def errors():
    """The errors that went to the log."""
    seen: list[str] = []

    def observe(event) -> None:
        if event["log_level"] >= LogLevel.error:
            seen.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


async def admitted(accounts: FileAccounts, user: str, password: str) -> bool:
    """What a request with this login would find out."""
    await accounts.refresh()
    return await accounts.check(Credentials(user, password), accounts.stored(user))


@pytest_twisted.ensureDeferred
async def test_equal_checks_at_the_same_time_are_worked_out_once(computed, accounts: FileAccounts) -> None:
    verifyObject(IAccounts, accounts)
    assert await gatherResults([admitted_later(accounts, "alice", "myPassword") for _ in range(5)]) == [True] * 5
    assert len(computed) == 1


@pytest_twisted.ensureDeferred
async def test_a_login_works_its_password_out_once_until_it_changes(
    computed, password_file: Path, accounts: FileAccounts, introduce
) -> None:
    login = BasicLogin(accounts, Throttle(Clock()), "Basic")
    for _ in range(3):
        assert await login.identify(introduce("alice", "myPassword"), "192.0.2.1") == "alice"
    assert len(computed) == 1
    password_file.write_text(f"alice:{NEW}\n")
    with pytest.raises(Unauthorized):
        await login.identify(introduce("alice", "myPassword"), "192.0.2.1")
    with pytest.raises(Unauthorized):
        await login.identify(introduce("bob", "myPassword"), "192.0.2.9")
    assert len(computed) == 3


@pytest_twisted.ensureDeferred
async def test_a_wrong_password_is_worked_out_each_time(computed, accounts: FileAccounts) -> None:
    for _ in range(2):
        assert not await admitted(accounts, "alice", "wrong")
    assert len(computed) == 2


@pytest_twisted.ensureDeferred
async def test_too_many_checks_at_the_same_time_are_sent_away_for_a_while(
    computed, monkeypatch: pytest.MonkeyPatch, accounts: FileAccounts
) -> None:
    monkeypatch.setattr(fileaccounts, "LONGEST_LINE", 3)
    checks = [admitted_later(accounts, "alice", f"wrong {number}") for number in range(8)]
    results = await DeferredList(checks, consumeErrors=True)
    assert [right for succeeded, right in results if succeeded] == [False] * 5
    assert all(failure.check(TooManyLogins) for succeeded, failure in results if not succeeded)


@pytest_twisted.ensureDeferred
async def test_an_unknown_user_costs_a_check_and_never_gets_in(computed, accounts: FileAccounts, bcrypt_hash) -> None:
    """Not even with the password of the user whose hash is worked out instead."""
    for _ in range(2):
        assert not await admitted(accounts, "mallory", "myPassword")
    assert computed == [("myPassword", bcrypt_hash)] * 2


@pytest_twisted.ensureDeferred
async def test_nobody_gets_in_where_the_file_is_empty(password_file: Path, accounts: FileAccounts) -> None:
    assert await admitted(accounts, "alice", "myPassword")
    password_file.write_text("")
    assert not await admitted(accounts, "alice", "myPassword")
    assert not await admitted(accounts, "", "")


@pytest_twisted.ensureDeferred
async def test_a_changed_or_removed_password_ends_at_the_next_request(
    password_file: Path, accounts: FileAccounts, bcrypt_hash: str
) -> None:
    assert await admitted(accounts, "alice", "myPassword")
    assert await admitted(accounts, "bob", "myPassword")
    password_file.write_text(f"alice:{NEW}\n")
    assert not await admitted(accounts, "alice", "myPassword")
    assert not await admitted(accounts, "bob", "myPassword")
    assert await admitted(accounts, "alice", "password")
    replacement = password_file.with_name("new")
    replacement.write_text(f"carol:{bcrypt_hash}\n")
    replacement.replace(password_file)
    assert not await admitted(accounts, "alice", "password")
    assert await admitted(accounts, "carol", "myPassword")


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_cut_off_keeps_the_users_and_is_logged_once(
    password_file: Path, accounts: FileAccounts, errors: list[str]
) -> None:
    password_file.write_text("alice:$2y$05$c4WoM")
    for _ in range(3):
        assert await admitted(accounts, "alice", "myPassword")
    assert [error for error in errors if f"{password_file}:1: the hash is damaged" in error] == errors
    assert len(errors) == 1
    password_file.write_text(f"alice:{NEW}\n")
    assert not await admitted(accounts, "alice", "myPassword")
    assert len(errors) == 1


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_gone_keeps_the_users_and_is_logged_once_each_time(
    password_file: Path, accounts: FileAccounts, errors: list[str]
) -> None:
    text = password_file.read_text()
    for _ in range(2):
        password_file.unlink()
        for _ in range(3):
            assert await admitted(accounts, "alice", "myPassword")
            assert not await admitted(accounts, "alice", "wrong")
        password_file.write_text(text)
        assert await admitted(accounts, "alice", "myPassword")
    assert len(errors) == 2
    assert all("No such file" in error for error in errors)


@pytest_twisted.ensureDeferred
async def test_requests_that_come_while_the_file_is_read_wait_for_it(
    password_file: Path, accounts: FileAccounts
) -> None:
    password_file.write_text(f"alice:{NEW}\n")
    found = await gatherResults([admitted_later(accounts, "alice", "password") for _ in range(5)])
    assert found == [True] * 5


@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_away_while_the_file_is_read_keeps_nobody_from_it(
    password_file: Path, accounts: FileAccounts
) -> None:
    password_file.write_text(f"alice:{NEW}\n")
    gone, waiting = accounts.refresh(), accounts.refresh()
    gone.cancel()
    with pytest.raises(CancelledError):
        await gone
    await waiting
    assert await admitted(accounts, "alice", "password")


def admitted_later(accounts: FileAccounts, user: str, password: str):
    return Deferred.fromCoroutine(admitted(accounts, user, password))
