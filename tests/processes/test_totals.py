"""The numbers of several processes."""

from __future__ import annotations

import json

from attrs import evolve

from resticd.observe.report import Running, Snapshot
from resticd.processes.totals import NOTHING, closed, packed, total, unpacked

ROW = Running("/a/data/x", 100, 40, 10.0, True)
ONE = Snapshot(5.0, 140, 50, 10.0, 7, 1, 2, 3, 1, (ROW,))


def test_through_a_channel() -> None:
    assert unpacked(json.loads(json.dumps(packed(ONE)))) == ONE


def test_added_up() -> None:
    both = total([ONE, evolve(ONE, running=(ROW, ROW))], 9.0)
    assert both == Snapshot(9.0, 280, 100, 20.0, 14, 2, 4, 6, 2, (ROW, ROW, ROW))
    assert total([], 1.0) == evolve(NOTHING, elapsed=1.0)


def test_of_a_process_that_died() -> None:
    """What it was moving has failed; nothing is forgotten."""
    left = closed(ONE)
    assert (left.failed, left.running, left.speed) == (2, (), 0.0)
    assert left.moved == ONE.moved
