"""Logins and claims of several workers, as the supervisor settles them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from resticd.auth.throttle import FIRST_DELAY, LONGEST_LINE, Throttle
from resticd.errors import TooManyLogins
from resticd.processes.channel import Channel
from resticd.processes.claims import REMEMBERED, ClaimBook, ClaimDesk, SharedClaims
from resticd.processes.logins import LoginDesk, SharedThrottle


class Line:
    """A worker's channel to the desks of a supervisor, which delivers at once."""

    def __init__(self, *desks: Any) -> None:
        handlers = {name: call for desk in desks for name, call in desk.handlers.items()}
        self.desks = desks
        self.worker = Channel({}, lambda: None)
        self.supervisor = Channel(handlers, lambda: None)
        self.worker.makeConnection(Direct(self.supervisor.dataReceived))
        self.supervisor.makeConnection(Direct(self.worker.dataReceived))

    def cut(self) -> None:
        """The worker dies."""
        for desk in self.desks:
            desk.close()


class Direct(StringTransport):
    def __init__(self, deliver: Callable[[bytes], object]) -> None:
        super().__init__()
        self.deliver = deliver

    def write(self, data: bytes) -> None:
        self.deliver(data)


def run(coroutine: Any) -> list[Any]:
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    return results


class Check:
    """A password that is being looked at."""

    def __init__(self) -> None:
        self.asked = 0
        self.verdict: Deferred[bool] = Deferred()

    async def __call__(self) -> bool:
        self.asked += 1
        return await self.verdict


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttles(clock: Clock) -> Iterator[list[SharedThrottle]]:
    throttle = Throttle(clock)
    lines = [Line(LoginDesk(throttle)) for _ in range(2)]
    yield [SharedThrottle(line.worker) for line in lines]
    # Attempts that still wait would be ended by the garbage collector, in any order and in the middle of another test.
    for line in lines:
        line.cut()


def test_one_attempt_at_a_time(throttles: list[SharedThrottle], clock: Clock) -> None:
    """… of one network, and a failure holds up the next at whichever process."""
    first, second, other = Check(), Check(), Check()
    results = run(throttles[0].attempt("net", first)), run(throttles[1].attempt("net", second))
    run(throttles[1].attempt("other", other))
    assert (first.asked, second.asked, other.asked) == (1, 0, 1)
    first.verdict.callback(False)
    assert results[0] == [False]
    assert second.asked == 0
    clock.advance(FIRST_DELAY)
    assert second.asked == 1
    second.verdict.callback(True)
    assert results[1] == [True]


def test_too_many(throttles: list[SharedThrottle]) -> None:
    checks = [Check() for _ in range(LONGEST_LINE + 2)]
    results = [run(throttles[number % 2].attempt("net", check)) for number, check in enumerate(checks)]
    assert results[-1][0].check(TooManyLogins)
    assert not any(results[:-1])


def test_a_worker_dies_with_a_login(clock: Clock) -> None:
    """One that is checked, and one that waits: the next has its turn, and nothing counts as a failure."""
    throttle = Throttle(clock)
    lines = [Line(LoginDesk(throttle)) for _ in range(2)]
    dead, waiting, alive = Check(), Check(), Check()
    run(SharedThrottle(lines[0].worker).attempt("net", dead))
    run(SharedThrottle(lines[0].worker).attempt("net", waiting))
    run(SharedThrottle(lines[1].worker).attempt("net", alive))
    assert (dead.asked, alive.asked) == (1, 0)
    lines[0].cut()
    assert (waiting.asked, alive.asked) == (0, 1)
    lines[1].cut()


def test_a_client_goes_while_it_waits(throttles: list[SharedThrottle]) -> None:
    first, second, third = Check(), Check(), Check()
    run(throttles[0].attempt("net", first))
    waiting = Deferred.fromCoroutine(throttles[0].attempt("net", second))
    waiting.addErrback(lambda _: None)
    run(throttles[1].attempt("net", third))
    waiting.cancel()
    first.verdict.callback(True)
    assert (second.asked, third.asked) == (0, 1)


def test_a_check_that_fails_is_no_failed_login(throttles: list[SharedThrottle]) -> None:
    first, second = Check(), Check()
    result = run(throttles[0].attempt("net", first))
    first.verdict.errback(TooManyLogins("busy"))
    assert result[0].check(TooManyLogins)
    run(throttles[1].attempt("net", second))
    assert second.asked == 1


@pytest.fixture
def claims() -> list[SharedClaims]:
    book = ClaimBook()
    return [SharedClaims(Line(ClaimDesk(book)).worker, "scope") for _ in range(2)]


def test_who_stores_first_wins(claims: list[SharedClaims]) -> None:
    a, b = claims[0].begin("key"), claims[1].begin("key")
    other = claims[1].begin("other")
    held = run(enter(a))
    assert held == [False]
    waiting = run(enter(b))
    assert waiting == []
    assert run(enter(other)) == [False]
    a.won()
    run(a.turn.__aexit__(None, None, None))
    assert waiting == [True]
    assert b.lost
    run(b.turn.__aexit__(None, None, None))
    for claim in (a, b, other, b):
        claim.leave()
    later = claims[1].begin("key")
    assert run(enter(later)) == [False]


def test_a_deleted_key_is_free(claims: list[SharedClaims]) -> None:
    a, b = claims[0].begin("key"), claims[1].begin("key")
    run(enter(a))
    a.won()
    run(a.turn.__aexit__(None, None, None))
    claims[0].removed("key")
    assert run(enter(b)) == [False]


def test_remotes_have_keys_of_their_own() -> None:
    book = ClaimBook()
    line = Line(ClaimDesk(book))
    first, second = (SharedClaims(line.worker, scope).begin("key") for scope in ("a", "b"))
    assert run(enter(first)) == [False]
    assert run(enter(second)) == [False]


def test_a_worker_dies_with_a_turn() -> None:
    book = ClaimBook()
    lines = [Line(ClaimDesk(book)) for _ in range(2)]
    claims = [SharedClaims(line.worker, "s") for line in lines]
    a, a2, b = claims[0].begin("key"), claims[0].begin("key"), claims[1].begin("key")
    run(enter(a))
    run(enter(a2))
    waiting = run(enter(b))
    assert waiting == []
    lines[0].cut()
    assert waiting == [False]
    lines[1].cut()
    assert not book.turns
    assert not book.uploads


def test_an_upload_whose_message_is_late() -> None:
    """It began before another one stored the key, though the supervisor hears of it afterwards."""
    now = 100.0
    book = ClaimBook(lambda: now)
    desk = ClaimDesk(book)
    book.stored("key", at=100.0)
    desk.begin(1, "key")
    assert run(awaited(desk.enter(1, began=99.0))) == [True]
    desk.exit(1)
    desk.begin(2, "key")
    assert run(awaited(desk.enter(2, began=101.0))) == [False]


def test_what_nobody_needs_is_forgotten() -> None:
    now = 0.0
    book = ClaimBook(lambda: now)
    book.begin("slow")
    for key in ("slow", "a", "b"):
        book.stored(key, at=now)
    now = REMEMBERED + 1
    book.stored("c", at=now)
    assert book.stored_since("slow", -1)
    assert not book.stored_since("a", -1)
    assert book.stored_since("c", -1)


async def enter(claim: Any) -> bool:
    await claim.turn.__aenter__()
    return claim.lost


async def awaited(deferred: Deferred[Any]) -> Any:
    return await deferred
