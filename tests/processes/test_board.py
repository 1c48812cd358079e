"""What processes see of one another without a message."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys

import pytest
from twisted.internet.task import Clock

from resticd.bandwidth import BandwidthLimiter, Timetable
from resticd.credit import Credit
from resticd.processes.board import UP, Board
from resticd.transport.limiter import TokenBucket

RATE = 1_000_000


@pytest.fixture
def board() -> Board:
    return Board.create(3)


class Endless:
    """Wants more, always."""

    def __init__(self, wanted: int = 64 * 1024) -> None:
        self.wanted = wanted
        self.granted = 0

    def grant(self, size: int) -> int:
        self.granted += size
        return size


def shared(clock: Clock, count: int) -> list[Credit]:
    """What as many processes see of one credit, on a clock of the test."""
    state = [0.0, -math.inf, -math.inf]
    return [Credit(clock.seconds, state, spread=0.5) for _ in range(count)]


def test_the_least_busy_is_next(board: Board) -> None:
    first, second = board.place(0), board.place(1)
    first.present()
    assert first.is_next
    first.opened()
    assert first.is_next  # there is nobody else
    second.present()
    assert second.is_next
    assert not first.is_next
    second.opened()
    assert first.is_next and second.is_next
    first.closed()
    assert not second.is_next
    board.absent(0)
    assert second.is_next


def test_a_connection_before_the_place_is_known(board: Board) -> None:
    """Numbers of one that is absent stay off the board."""
    place = board.place(0)
    place.opened()
    assert board.place(1).is_next
    place.present()
    other = board.place(1)
    other.present()
    assert other.is_next
    assert not place.is_next


@pytest.mark.parametrize("transfers", [(1, 1), (4, 1), (0, 3)])
def test_a_rate_holds_over_all(transfers: tuple[int, int]) -> None:
    """Within 5 % over ten seconds, however the transfers are spread."""
    clock = Clock()
    all_waiters = []
    for credit, count in zip(shared(clock, 2), transfers, strict=True):
        limiter = BandwidthLimiter(clock, Timetable(((0, RATE),)), credit=credit)
        waiters = [Endless() for _ in range(count)]
        all_waiters.append(waiters)
        for waiter in waiters:
            limiter.wait(waiter)
    clock.pump([0.001] * 10_000)
    granted = sum(waiter.granted for waiters in all_waiters for waiter in waiters)
    assert granted == pytest.approx(10 * RATE, rel=0.05)
    if all(transfers):  # nobody starves
        assert all(waiter.granted > RATE for waiters in all_waiters for waiter in waiters)


def test_requests_of_all_are_counted() -> None:
    clock = Clock()
    buckets = [TokenBucket(clock, 10, 2, credit) for credit in shared(clock, 3)]
    gone: list[object] = []
    for _ in range(100):
        for bucket in buckets:
            bucket.acquire().addCallback(gone.append)
    assert len(gone) == 2  # the burst is one of all together
    clock.pump([0.01] * 1000)
    assert len(gone) == pytest.approx(102, abs=3)


def test_a_process_that_is_killed_blocks_nobody(board: Board) -> None:
    """The lock goes with its owner."""
    code = (
        "import fcntl, sys, signal; from resticd.processes.board import Board, UP\n"
        f"board = Board({board.fd}, 3)\n"
        "with board._locked(UP): print('held', flush=True); signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, pass_fds=[board.fd]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
        credit = board.credit(UP)
        assert credit.refill(RATE, 1000) == 1000
        assert credit.take(1000)
        assert not board.credit(UP).take(1)
        credit.put_back(1)
        assert board.credit(UP).take(1)


def test_another_process_sees_the_credit(board: Board) -> None:
    credit = board.credit(UP)
    credit.clear()
    credit.put_back(7)
    code = f"from resticd.processes.board import Board, UP; print(Board({board.fd}, 3).credit(UP).take(7))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, pass_fds=[board.fd], check=True, timeout=60
    )
    assert done.stdout == b"True\n"
    assert not credit.take(1)
