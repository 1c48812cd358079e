from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from resticd.auth.throttle import FORGET_AFTER, LONGEST_LINE, PATIENCE, Throttle, network_of
from resticd.errors import TooManyLogins


class Address:
    """Somebody who tries passwords from one address."""

    def __init__(self, throttle: Throttle, address: str) -> None:
        self._throttle = throttle
        self._network = network_of(address)
        self.heard = 0

    def tries(self, outcome: bool = False) -> Deferred[bool]:
        async def check() -> bool:
            self.heard += 1
            return outcome

        return Deferred.fromCoroutine(self._throttle.attempt(self._network, check))


def waited(clock: Clock, attempt: Deferred[bool]) -> float:
    """How many seconds pass until the attempt is refused."""
    answers: list[bool] = []
    attempt.addCallback(answers.append)
    start = clock.seconds()
    while not answers and clock.seconds() < start + 60:
        clock.advance(0.125)
    assert answers == [False]
    return clock.seconds() - start


def test_each_refusal_takes_longer_up_to_a_few_seconds() -> None:
    clock = Clock()
    guesser = Address(Throttle(clock), "192.0.2.1")
    assert [waited(clock, guesser.tries()) for _ in range(9)] == [0, 0.25, 0.5, 1, 2, 4, 4, 4, 4]


def test_guesses_at_the_same_time_are_taken_one_after_another() -> None:
    clock = Clock()
    guesser = Address(Throttle(clock), "192.0.2.1")
    attempts = [guesser.tries() for _ in range(8)]
    assert waited(clock, attempts[-1]) == 0.25 + 0.5 + 1 + 2 + 4 + 4 + 4


def test_other_addresses_do_not_wait() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    for _ in range(5):
        Address(throttle, "192.0.2.1").tries()
    assert waited(clock, Address(throttle, "192.0.2.2").tries()) == 0


def test_a_success_clears_the_address() -> None:
    clock = Clock()
    guesser = Address(Throttle(clock), "192.0.2.1")
    for _ in range(4):
        waited(clock, guesser.tries())
    success = guesser.tries(True)
    clock.advance(2)
    assert success.result is True
    assert waited(clock, guesser.tries()) == 0


def test_failures_are_forgotten_after_a_while() -> None:
    clock = Clock()
    guesser = Address(Throttle(clock), "192.0.2.1")
    for _ in range(4):
        waited(clock, guesser.tries())
    clock.advance(FORGET_AFTER + 1)
    assert waited(clock, guesser.tries()) == 0


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("unix", "unix", True),
    ],
)
def test_ipv6_addresses_count_by_their_network(first: str, second: str, same: bool) -> None:
    clock = Clock()
    throttle = Throttle(clock)
    waited(clock, Address(throttle, first).tries())
    assert (waited(clock, Address(throttle, second).tries()) > 0) is same


def test_the_table_is_bounded_and_the_oldest_go_first() -> None:
    clock = Clock()
    throttle = Throttle(clock, capacity=3)
    for number in range(5):
        waited(clock, Address(throttle, f"192.0.2.{number}").tries())
    assert len(throttle) == 3
    assert waited(clock, Address(throttle, "192.0.2.4").tries()) > 0
    assert waited(clock, Address(throttle, "192.0.2.0").tries()) == 0


def test_who_logs_in_leaves_nothing_behind() -> None:
    throttle = Throttle(Clock())
    Address(throttle, "192.0.2.1").tries(True)
    assert len(throttle) == 0


def test_a_client_that_goes_away_gives_its_turn_to_the_next() -> None:
    clock = Clock()
    guesser = Address(Throttle(clock), "192.0.2.1")
    waited(clock, guesser.tries())
    gone, waiting, last = guesser.tries(), guesser.tries(), guesser.tries()
    for attempt in (waiting, gone):
        attempt.cancel()
        attempt.addErrback(lambda failure: failure.trap(CancelledError))
    assert waited(clock, last) == 0.25
    assert guesser.heard == 2
    assert clock.getDelayedCalls() == []


def test_a_check_that_breaks_ends_the_turn() -> None:
    throttle = Throttle(Clock())

    async def broken() -> bool:
        raise RuntimeError("broken")

    Deferred.fromCoroutine(throttle.attempt("a", broken)).addErrback(lambda failure: failure.trap(RuntimeError))
    assert Address(throttle, "a").tries(True).result is True
    assert len(throttle) == 0


def test_who_hangs_up_early_gains_nothing() -> None:
    """A guess that is being checked counts although nobody waits for it, and the next one waits as long."""
    clock = Clock()
    throttle = Throttle(clock)
    slow: Deferred[bool] = Deferred()

    async def check() -> bool:
        return await slow

    guess = Deferred.fromCoroutine(throttle.attempt("192.0.2.1", check))
    guess.addErrback(lambda failure: failure.trap(CancelledError))
    guess.cancel()
    guesser = Address(throttle, "192.0.2.1")
    following = guesser.tries()
    assert guesser.heard == 0
    slow.callback(False)
    assert guesser.heard == 0
    assert waited(clock, following) == 0.25


def test_a_crowd_is_sent_away_and_nobody_waits_for_longer_than_his_patience() -> None:
    clock = Clock()
    guesser = Address(Throttle(clock), "192.0.2.1")
    attempts = [
        guesser.tries().addErrback(lambda failure: failure.check(TooManyLogins)) for _ in range(3 * LONGEST_LINE)
    ]
    assert sum(attempt.called for attempt in attempts) == 2 * LONGEST_LINE - 1
    clock.pump([0.25] * round(PATIENCE / 0.25))
    assert all(attempt.called for attempt in attempts)
    results = [attempt.result for attempt in attempts]
    assert results.count(False) == guesser.heard < 15
    assert results.count(TooManyLogins) == len(attempts) - guesser.heard
