from __future__ import annotations

import pytest

from resticd.observe.average import PERIOD, Average
from resticd.observe.units import (
    duration_text,
    elapsed_text,
    eta_seconds,
    eta_text,
    percent_text,
    rate_text,
    size_text,
)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.500 KiB"),
        (16 * 2**20, "16 MiB"),
        (2**30 + 1, "1.000 GiB"),
        (5 * 2**40, "5 TiB"),
        (2**50, "1 PiB"),
        (2**60, "1 EiB"),
        (2**72, "4096 EiB"),
        (12.9, "12 B"),
    ],
)
def test_sizes(number: float, text: str) -> None:
    assert size_text(number) == text


def test_rates_in_bytes_and_bits() -> None:
    assert rate_text(2**20, bits=False) == "1 MiB/s"
    assert rate_text(2**20, bits=True) == "8 Mibit/s"


@pytest.mark.parametrize(("part", "whole", "text"), [(1, 3, "33%"), (2, 3, "67%"), (0, 0, "-"), (5, None, "-")])
def test_percentages(part: int, whole: int | None, text: str) -> None:
    assert percent_text(part, whole) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3605, "1h5s"),
        (93784, "1d2h3m"),
        (8 * 86400 + 1, "1w1d1s"),
        (400 * 86400, "1y5w"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0s"), (5.37, "5.3s"), (65.3, "1m5.3s"), (3600, "1h0.0s"), (86461, "1d1m1.0s")]
)
def test_elapsed_times(seconds: float, text: str) -> None:
    assert elapsed_text(seconds) == text


@pytest.mark.parametrize(
    ("moved", "size", "speed", "text"),
    [
        (50, 100, 10, "5s"),
        (100, 100, 10, "0s"),
        (0, 100, 0, "-"),
        (0, None, 10, "-"),
        (0, 0, 10, "-"),
        (200, 100, 10, "-"),
        (0, 10**15, 1e-9, "-"),
    ],
)
def test_estimates(moved: int, size: int | None, speed: float, text: str) -> None:
    assert eta_text(moved, size, speed) == text
    assert (eta_seconds(moved, size, speed) is None) == (text == "-")


def test_a_steady_speed_is_shown_from_the_first_second() -> None:
    average = Average(100, 0)
    for second in range(1, 40):
        average.sample(100 + 50 * second, second)
        assert average.speed == pytest.approx(50)


def test_a_speed_that_changes_is_followed_over_the_period() -> None:
    average = Average(0, 0)
    moved = 0
    for second in range(1, 101):
        moved += 1600
        average.sample(moved, second)
    average.sample(moved, 101)
    assert average.speed == pytest.approx(1600 * (1 - 1 / PERIOD))


def test_a_late_sample_counts_for_the_time_that_passed() -> None:
    average = Average(0, 0)
    average.sample(1000, 4)
    average.sample(1000, 4)
    assert average.speed == 250
