"""The limiter, on a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from resticd.bandwidth import LATE, SAVED, TURN, Bandwidth, BandwidthLimiter, Limits, Timetable, format_rate

KIB, MIB = 1 << 10, 1 << 20
#: a Monday
MIDNIGHT = datetime(2024, 1, 1)


def always(rate: int | None) -> Timetable:
    return Timetable(((0, rate),))


class Sender:
    """Wants to send ``wanted`` bytes and notes when it did."""

    def __init__(self, clock: Clock, wanted: int = 1 << 60) -> None:
        self.wanted = wanted
        self.sent = 0
        self.grants: list[tuple[float, int]] = []
        self._clock = clock

    def grant(self, size: int) -> int:
        size = min(size, self.wanted)
        self.wanted -= size
        self.sent += size
        self.grants.append((self._clock.seconds(), size))
        return size


def run(clock: Clock, seconds: float, step: float = 0.001) -> None:
    for _ in range(round(seconds / step)):
        clock.advance(step)


@pytest.mark.parametrize("rate", [5 * KIB, 64 * KIB, MIB, 20 * MIB, 200 * MIB])
@pytest.mark.parametrize("senders", [1, 7])
def test_rate(rate: int, senders: int) -> None:
    """Over 10 seconds what passes is the rate, within one percent."""
    clock = Clock()
    limiter = BandwidthLimiter(clock, always(rate))
    sending = [Sender(clock) for _ in range(senders)]
    for sender in sending:
        limiter.wait(sender)
    run(clock, 10)
    assert sum(sender.sent for sender in sending) == pytest.approx(10 * rate, rel=0.01)


def test_no_burst_at_the_start() -> None:
    """Nothing passes at the start, and within any time no more than its worth and what may be saved up."""
    clock = Clock()
    limiter = BandwidthLimiter(clock, always(64 * KIB))
    sender = Sender(clock)
    limiter.wait(sender)
    assert sender.sent == 0
    run(clock, 0.5)
    for time, _ in sender.grants:
        passed = sum(size for when, size in sender.grants if when <= time)
        assert passed <= 64 * KIB * (time + SAVED)


def test_little_is_saved_up() -> None:
    """After a long rest no more than a few hundredths of a second's worth passes at once."""
    clock = Clock()
    limiter = BandwidthLimiter(clock, always(MIB))
    clock.advance(3600)
    assert not limiter.take(int(SAVED * MIB) + 1)
    assert limiter.take(int(SAVED * MIB))
    assert not limiter.take(1)


def test_a_late_reactor_is_made_up_for() -> None:
    """What waited while the reactor was held up passes then, within bounds."""
    clock = Clock()
    limiter = BandwidthLimiter(clock, always(MIB))
    sender = Sender(clock)
    limiter.wait(sender)
    clock.advance(0.2)
    assert sender.sent == pytest.approx(0.2 * MIB, abs=TURN * MIB)
    before = sender.sent
    clock.advance(100)
    assert sender.sent - before <= LATE * MIB + TURN * MIB


def test_a_gap_is_made_up_for() -> None:
    """When all who waited are busy elsewhere for a moment their average is kept; after a rest it begins anew."""
    clock = Clock()
    limiter = BandwidthLimiter(clock, always(MIB))
    sender = Sender(clock, 100 * KIB)
    limiter.wait(sender)
    run(clock, 0.2)
    assert sender.wanted == 0
    clock.advance(0.1)
    assert limiter.take(int(0.2 * MIB - 100 * KIB))
    clock.advance(0.6)
    assert limiter.take(int(LATE * MIB))
    assert not limiter.take(int(SAVED * MIB))
    clock.advance(1)
    assert not limiter.take(int(SAVED * MIB) + 1)


def test_equal_shares() -> None:
    """Everybody who waits gets the same."""
    clock = Clock()
    limiter = BandwidthLimiter(clock, always(MIB))
    sending = [Sender(clock) for _ in range(20)]
    for sender in sending:
        limiter.wait(sender)
    run(clock, 10)
    shares = [sender.sent for sender in sending]
    assert max(shares) - min(shares) <= TURN * MIB + 1


@pytest.mark.parametrize("rate", [16 * KIB, MIB, 200 * MIB])
def test_a_small_one_among_many(rate: int) -> None:
    """200 bytes beside 20 who want everything wait for about one turn of each of them."""
    clock = Clock()
    limiter = BandwidthLimiter(clock, always(rate))
    for _ in range(20):
        limiter.wait(Sender(clock))
    run(clock, 1)
    small = Sender(clock, 200)
    limiter.wait(small)
    run(clock, 0.5)
    assert small.wanted == 0


def test_no_overtaking() -> None:
    """While somebody waits nobody else takes anything at once."""
    clock = Clock()
    limiter = BandwidthLimiter(clock, always(MIB))
    limiter.wait(Sender(clock))
    clock.advance(0.008)
    assert not limiter.take(1)


def test_large_grants_at_high_rates() -> None:
    """At 200 MiB/s a read of 256 KiB passes in one piece."""
    clock = Clock()
    limiter = BandwidthLimiter(clock, always(200 * MIB))
    sender = Sender(clock, 256 * KIB)
    limiter.wait(sender)
    run(clock, 0.02)
    assert [size for _, size in sender.grants] == [256 * KIB]


def test_off_is_no_limit() -> None:
    """With no limit everything may be taken, and nothing is scheduled."""
    clock = Clock()
    limiter = BandwidthLimiter(clock, always(None))
    assert limiter.take(1 << 40)
    sender = Sender(clock, 1 << 30)
    limiter.wait(sender)
    assert sender.wanted == 0
    assert clock.getDelayedCalls() == []


def test_leaving() -> None:
    """Who left gets nothing more, and with nobody left nothing is scheduled."""
    clock = Clock()
    limiter = BandwidthLimiter(clock, always(MIB))
    sender = Sender(clock)
    limiter.wait(sender)
    limiter.leave(sender)
    limiter.leave(sender)
    assert clock.getDelayedCalls() == []
    run(clock, 1)
    assert sender.sent == 0


def local(clock: Clock, start: datetime) -> Callable[[], datetime]:
    return lambda: start + timedelta(seconds=clock.seconds())


def test_switch_under_way() -> None:
    """A timetable changes the rate of those who are under way, as its minute begins."""
    clock = Clock()
    table = Timetable(((0, 64 * KIB), (1, 256 * KIB), (2, None)))
    limiter = BandwidthLimiter(clock, table, wall=local(clock, MIDNIGHT + timedelta(seconds=50)))
    sender = Sender(clock)
    limiter.wait(sender)
    run(clock, 10)
    assert sender.sent == pytest.approx(10 * 64 * KIB, rel=0.02)
    before = sender.sent
    run(clock, 59)
    assert sender.sent - before == pytest.approx(59 * 256 * KIB, rel=0.02)
    run(clock, 1.1)
    assert sender.wanted == 0
    assert limiter.rate is None


def test_switch_from_off() -> None:
    """When a limit begins it begins without a burst."""
    clock = Clock()
    limiter = BandwidthLimiter(clock, Timetable(((0, None), (1, MIB))), wall=local(clock, MIDNIGHT))
    assert limiter.take(1 << 30)
    clock.advance(60)
    assert not limiter.take(200)


def test_a_very_low_rate_does_not_hide_a_switch() -> None:
    """Somebody who would have to wait for hours at the present rate goes on when the next one begins."""
    clock = Clock()
    limiter = BandwidthLimiter(clock, Timetable(((0, 1), (1, MIB))), wall=local(clock, MIDNIGHT))
    sender = Sender(clock, 10 * KIB)
    limiter.wait(sender)
    run(clock, 61, step=0.01)
    assert sender.wanted == 0


@pytest.mark.parametrize("jump", [3600, -3600])
def test_summer_time(jump: int) -> None:
    """When the local time jumps the rate is the one of the new local time, at once."""
    clock = Clock()

    def wall() -> datetime:
        seconds = clock.seconds() + (jump if clock.seconds() >= 30 else 0)
        return MIDNIGHT.replace(hour=2, minute=59, second=30) + timedelta(seconds=seconds)

    # 02:59:30 is followed by 04:00:00 or by 02:00:00.
    limiter = BandwidthLimiter(clock, Timetable(((0, 1), (120, 2), (121, 3), (180, 4), (240, 5))), wall=wall)
    clock.advance(29)
    assert limiter.rate == 3
    clock.advance(1)
    assert limiter.rate == (5 if jump > 0 else 2)


def test_a_clock_set_back() -> None:
    """A clock that is set back does not keep the next switch from happening."""
    clock = Clock()
    clock.advance(7200)
    limiter = BandwidthLimiter(clock, Timetable(((0, 1), (60, MIB), (120, 2))), wall=local(clock, MIDNIGHT))
    assert limiter.rate == 2
    clock.rightNow -= 1
    assert limiter.rate == MIB
    clock.advance(1)
    assert limiter.rate == 2


def test_another_timetable() -> None:
    """A new timetable counts at once for those who wait."""
    clock = Clock()
    limiter = BandwidthLimiter(clock, always(1))
    sender = Sender(clock)
    limiter.wait(sender)
    run(clock, 1)
    limiter.set_timetable(always(MIB))
    before = sender.sent
    run(clock, 10)
    assert sender.sent - before == pytest.approx(10 * MIB, rel=0.01)
    limiter.set_timetable(always(None))
    assert sender.wanted == 0


def test_toggle() -> None:
    """The limits are suspended and put back by turns, both directions together; those who wait go on at once."""
    clock = Clock()
    bandwidth = Bandwidth(clock, Limits(always(MIB), always(None)))
    sender = Sender(clock)
    bandwidth.up.wait(sender)
    assert bandwidth.toggle() is False
    assert sender.wanted == 0
    assert bandwidth.up.rate is None
    assert bandwidth.toggle() is True
    assert bandwidth.up.rate == MIB
    assert bandwidth.down.rate is None


def test_toggle_with_nothing_to_suspend() -> None:
    """At a time without limits nothing is suspended, so that the next limit comes into force."""
    clock = Clock()
    tables = Timetable(((0, None), (1, MIB)))
    bandwidth = Bandwidth(clock, Limits(tables, tables), wall=local(clock, MIDNIGHT))
    assert bandwidth.toggle() is True
    clock.advance(60)
    assert bandwidth.up.rate == MIB


def test_a_switch_while_suspended() -> None:
    """Suspended limits stay so over a switch and a reload, and come back as they are by then."""
    clock = Clock()
    tables = Timetable(((0, KIB), (1, MIB)))
    bandwidth = Bandwidth(clock, Limits(tables, tables), wall=local(clock, MIDNIGHT))
    bandwidth.toggle()
    clock.advance(60)
    assert bandwidth.up.rate is None
    bandwidth.toggle()
    assert bandwidth.up.rate == MIB
    bandwidth.toggle()
    bandwidth.set_limits(Limits(always(2 * MIB), always(3 * MIB)))
    assert bandwidth.up.rate is None
    bandwidth.toggle()
    assert (bandwidth.up.rate, bandwidth.down.rate) == (2 * MIB, 3 * MIB)


def test_changes_are_logged() -> None:
    """The log says what is in force, and more loudly when that changes."""
    clock = Clock()
    tables = Timetable(((0, 512 * KIB), (1, None)))
    with capturedLogs() as events:
        bandwidth = Bandwidth(clock, Limits(tables), wall=local(clock, MIDNIGHT))
        clock.advance(59)
        assert bandwidth.up.take(1)
        clock.advance(1)
        assert bandwidth.up.take(1)
    lines = [f"{event['log_level'].name}: {formatEvent(event)}" for event in events]
    assert lines == ["info: bandwidth limit for uploads: 512 KiB/s", "warn: bandwidth limit for uploads: off"]


@pytest.mark.parametrize(
    ("rate", "text"),
    [(None, "off"), (100, "100 B/s"), (1536, "1.5 KiB/s"), (10 * MIB, "10 MiB/s"), (5 << 50, "5120 TiB/s")],
)
def test_rates_as_text(rate: int | None, text: str) -> None:
    """Rates are shown with a unit."""
    assert format_rate(rate) == text
