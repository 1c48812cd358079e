"""Token buckets, repetitions, idle timers, unix sockets, statuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from support.http_peer import Connection
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from resticd import errors
from resticd.errors import BadGateway, NotFound, StorageError, Unavailable
from resticd.transport.client import HttpClient, Request
from resticd.transport.errors import Busy, Refused, parse_retry_after, status_error
from resticd.transport.idle import IdleTimer
from resticd.transport.limiter import TokenBucket
from resticd.transport.retries import Retries
from resticd.transport.settings import ClientSettings


@given(rate=st.floats(0.5, 100), burst=st.integers(1, 20), pauses=st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_rate_is_kept(rate: float, burst: int, pauses: list[float]) -> None:
    """However requests come, no stretch of time sees more than burst + rate x time of them go, and all go in order."""
    clock = Clock()
    bucket = TokenBucket(clock, rate, burst)
    went: list[tuple[int, float]] = []
    for number, pause in enumerate(pauses):
        bucket.acquire().addCallback(lambda _, number=number: went.append((number, clock.seconds())))
        clock.advance(pause)
    while clock.getDelayedCalls():
        clock.advance(max(0.0, clock.getDelayedCalls()[0].getTime() - clock.seconds()))
    assert [number for number, _ in went] == list(range(len(pauses)))
    times = [time for _, time in went]
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + (times[last] - start) * rate + 1e-6


class Jobs:
    """Attempts that fail as told."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.numbers: list[int] = []

    async def __call__(self, number: int) -> Any:
        self.numbers.append(number)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def retry(jobs: Jobs, tries: int = 4, jitter: float = 1.0) -> tuple[Deferred[Any], Clock]:
    clock = Clock()
    return Deferred.fromCoroutine(Retries(clock, tries, lambda: jitter).run(jobs)), clock


def pauses_of(deferred: Deferred[Any], clock: Clock) -> list[float]:
    """Let the pauses pass, and return how long they were."""
    pauses = []
    while not deferred.called:
        call = clock.getDelayedCalls()[0]
        pauses.append(call.getTime() - clock.seconds())
        clock.advance(pauses[-1])
    return [round(pause, 3) for pause in pauses]


def result_of(deferred: Deferred[Any]) -> Any:
    results: list[Any] = []
    deferred.addBoth(results.append)
    return results[0] if not hasattr(results[0], "value") else results[0].value


def test_passing_faults_are_repeated() -> None:
    """With pauses that double."""
    jobs = Jobs(StorageError(), BadGateway(), Unavailable("x"), "done")
    deferred, clock = retry(jobs)
    assert pauses_of(deferred, clock) == [0.1, 0.2, 0.4]
    assert result_of(deferred) == "done"
    assert jobs.numbers == [0, 1, 2, 3]


def test_the_last_error_comes_out() -> None:
    """After as many tries as are allowed."""
    last = StorageError("last")
    deferred, clock = retry(Jobs(StorageError(), StorageError(), last), tries=3, jitter=0.0)
    assert pauses_of(deferred, clock) == [0.05, 0.1]
    assert result_of(deferred) is last


def test_pauses_are_bounded() -> None:
    """None is longer than five seconds."""
    deferred, clock = retry(Jobs(*[StorageError() for _ in range(10)]), tries=10)
    assert pauses_of(deferred, clock)[-3:] == [5, 5, 5]
    assert isinstance(result_of(deferred), StorageError)


def test_retry_after_is_honoured() -> None:
    """The remote's own pause, if it is bearable; a longer one is left to the client."""
    deferred, clock = retry(Jobs(Busy("x", 7), "done"))
    assert pauses_of(deferred, clock) == [7]
    deferred, clock = retry(Jobs(Busy("x", 16), "done"))
    assert isinstance(result_of(deferred), Busy)


@pytest.mark.parametrize("error", [Refused("no"), NotFound("x"), errors.OutOfSpace("x"), errors.Corrupt("x")])
def test_final_errors_are_not_repeated(error: Exception) -> None:
    """One attempt, one error."""
    deferred, _ = retry(Jobs(error))
    assert result_of(deferred) is error


def test_cancelled_in_a_pause() -> None:
    """No attempt follows, and no call is left behind."""
    jobs = Jobs(StorageError())
    deferred, clock = retry(jobs)
    deferred.cancel()
    assert isinstance(result_of(deferred), CancelledError)
    assert clock.getDelayedCalls() == []
    assert jobs.numbers == [0]


def test_idle_timer() -> None:
    """It goes off once, when nothing happened for so long; a stop holds it, close ends it."""
    clock, gone = Clock(), []
    timer = IdleTimer(clock, 10, lambda: gone.append(clock.seconds()))
    timer.restart()
    clock.advance(9)
    timer.restart()
    clock.advance(9)
    timer.stop()
    clock.advance(100)
    assert gone == []
    timer.restart()
    clock.advance(10)
    assert gone == [128]
    clock.advance(100)
    timer.restart()
    timer.close()
    assert clock.getDelayedCalls() == []
    assert gone == [128]


@pytest_twisted.ensureDeferred
async def test_unix_socket(tmp_path: Path) -> None:
    """All URLs lead to the socket."""

    async def script(connection: Connection) -> None:
        while True:
            request = await connection.whole()
            connection.answer(200, f"{request.headers['host']}{request.target}".encode())

    path = tmp_path / "socket"
    port = reactor.listenUNIX(str(path), Factory.forProtocol(lambda: Connection(script)))
    client = HttpClient(reactor, ClientSettings(unix_socket=str(path)))
    assert await (await client.send(Request("GET", "http://bridge/a/b"))).read() == b"bridge/a/b"
    await client.close()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_limiter_comes_first() -> None:
    """No connection is made before the limiter lets the request go."""
    clock = Clock()
    bucket = TokenBucket(clock, 1)
    await bucket.acquire()
    pending = HttpClient(reactor, ClientSettings(), bucket).send(Request("GET", "http://127.0.0.1:1/"))
    assert not pending.called
    clock.advance(1)
    with pytest.raises(Unavailable):
        await pending


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Refused),
        (401, Refused),
        (403, Refused),
        (404, NotFound),
        (408, errors.RemoteTimeout),
        (410, NotFound),
        (412, Refused),
        (429, Unavailable),
        (500, BadGateway),
        (502, BadGateway),
        (503, Unavailable),
        (504, errors.RemoteTimeout),
        (507, errors.OutOfSpace),
        (301, Refused),
    ],
)
def test_statuses(status: int, kind: type[Exception]) -> None:
    """A remote's refusals are faults to the client, never final answers."""
    error = status_error(status, "x")
    assert isinstance(error, kind)
    assert not isinstance(error, errors.Forbidden)


def test_retry_after() -> None:
    """Seconds or a date; nonsense is no answer."""
    assert parse_retry_after("120") == 120
    assert parse_retry_after("Fri, 31 Dec 1999 23:59:59 GMT", now=946684790.0) == 9
    assert parse_retry_after("Fri, 31 Dec 1999 23:59:59 GMT", now=946684890.0) == 0
    assert parse_retry_after("soon") is None
    assert parse_retry_after(None) is None
    busy = status_error(503, "x", "7")
    assert isinstance(busy, Busy)
    assert busy.retry_after == 7
