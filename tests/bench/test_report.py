"""Medians and ratios."""

from __future__ import annotations

from bench import report
from bench.servers import Peer
from bench.work import Sample


def test_the_table_shows_medians_and_speeds_relative_to_the_peers() -> None:
    """More MB/s and fewer seconds both give a ratio above one."""
    results: report.Results = {}
    for name, speeds, seconds in (("rest-server", (100, 300, 200), 2.0), ("resticd", (350, 300, 10), 0.5)):
        peer = Peer(name, name)
        for speed in speeds:
            report.collect(results, peer, [Sample("PUT", "MB/s", speed, 1.5, 20, 0.1)])
        report.collect(results, peer, [Sample("list", "s", seconds, 1, 20, 0.1)])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.table(results).splitlines()]
    assert rows[2:] == [
        ["PUT", "rest-server", "200 MB/s", "(100–300)", "1.00", "", "1.50 s/GiB", "20 MiB", "10%"],
        ["", "resticd", "300 MB/s", "(10–350)", "1.50", "", "1.50 s/GiB", "20 MiB", "10%"],
        ["list", "rest-server", "2 s", "(2–2)", "1.00", "", "1.00 s", "20 MiB", "10%"],
        ["", "resticd", "0.5 s", "(0.5–0.5)", "4.00", "", "1.00 s", "20 MiB", "10%"],
    ]


def test_peers_are_told_apart_by_their_flags(monkeypatch) -> None:
    """A variant keeps its whole name; flags from the environment go to resticd alone."""
    monkeypatch.setenv("RESTICD_FLAGS", "-v --realm 'a b'")
    assert Peer.parse("resticd:--workers 2") == Peer(
        "resticd:--workers 2", "resticd", ("--workers", "2", "-v", "--realm", "a b")
    )
    assert Peer.parse(" rclone") == Peer("rclone", "rclone")
