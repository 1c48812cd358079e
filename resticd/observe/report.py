"""The texts of a report, in the form of rclone's ``fs/accounting``."""

from __future__ import annotations

import time
from typing import Any

from attrs import frozen

from resticd.observe.escapes import printable
from resticd.observe.units import (
    elapsed_text,
    eta_seconds,
    eta_text,
    percent_text,
    rate_text,
    size_text,
)

#: Longest name in a report, in characters (``--stats-file-name-length``).
NAME_LENGTH = 45
#: How many transfers a report names.
MOST_ROWS = 50


@frozen
class Running:
    """A transfer on its way."""

    name: str
    size: int | None
    moved: int
    #: bytes per second
    speed: float
    upload: bool


@frozen
class Snapshot:
    """All numbers at one time. Bytes, seconds, bytes per second."""

    elapsed: float
    #: towards the remote, and towards the clients
    received: int
    sent: int
    speed: float
    requests: int
    #: requests that failed by our fault or a remote's
    errors: int
    #: requests whose connection ended before the answer was complete
    cut: int
    #: transfers that ended
    done: int
    failed: int
    running: tuple[Running, ...]

    @property
    def moved(self) -> int:
        """All bytes that were moved, both ways."""
        return self.received + self.sent

    @property
    def total(self) -> int:
        """``moved`` and what running transfers have still to move, as far as their sizes are known."""
        return self.moved + sum(max(0, row.size - row.moved) for row in self.running if row.size is not None)


def one_line(snapshot: Snapshot, bits: bool, now: float | None = None) -> str:
    """``--stats-one-line``, with a date before it where ``now`` is given."""
    date = "" if now is None else time.strftime("%Y/%m/%d %H:%M:%S - ", time.localtime(now))
    running = f" (xfr#{snapshot.done}/{snapshot.done + len(snapshot.running)})" if snapshot.running else ""
    return date + _totals(snapshot, bits) + running


def block(snapshot: Snapshot, bits: bool) -> str:
    """The lines of ``--stats``. Names are escaped: no line is a client's."""
    all_transfers = snapshot.done + snapshot.failed + len(snapshot.running)
    lines = ["Transferred:   \t" + _totals(snapshot, bits)]
    if snapshot.received or snapshot.sent:
        lines.append(f"Received:      {size_text(snapshot.received):>13}, sent {size_text(snapshot.sent)}")
    if snapshot.errors:
        lines.append(f"Errors:        {snapshot.errors:>10}")
    cut = f", {snapshot.cut} cut short" if snapshot.cut else ""
    lines.append(f"Requests:      {snapshot.requests:>10}{cut}")
    if all_transfers:
        failed = f", {snapshot.failed} failed" if snapshot.failed else ""
        percent = percent_text(snapshot.done, all_transfers)
        lines.append(f"Transferred:   {snapshot.done:>10} / {all_transfers}, {percent}{failed}")
    lines.append(f"Elapsed time:  {elapsed_text(snapshot.elapsed):>11}")
    if snapshot.running:
        lines.append("Transferring:")
        lines.extend(_row(row, bits) for row in snapshot.running[:MOST_ROWS])
        if len(snapshot.running) > MOST_ROWS:
            lines.append(f" * and {len(snapshot.running) - MOST_ROWS} more")
    return "\n".join(lines)


def fields(snapshot: Snapshot) -> dict[str, Any]:
    """For the JSON form of the log; the names that rclone has too mean the same."""
    return {
        "bytes": snapshot.moved,
        "received": snapshot.received,
        "sent": snapshot.sent,
        "totalBytes": snapshot.total,
        "speed": snapshot.speed,
        "eta": eta_seconds(snapshot.moved, snapshot.total, snapshot.speed),
        "elapsedTime": snapshot.elapsed,
        "requests": snapshot.requests,
        "errors": snapshot.errors,
        "cut": snapshot.cut,
        "transfers": snapshot.done,
        "failedTransfers": snapshot.failed,
        "totalTransfers": snapshot.done + snapshot.failed + len(snapshot.running),
        "transferring": [
            {
                "name": row.name,
                "size": row.size,
                "bytes": row.moved,
                "percentage": int(100 * row.moved / row.size) if row.size else None,
                "speedAvg": row.speed,
                "eta": eta_seconds(row.moved, row.size, row.speed),
                "what": _what(row),
            }
            for row in snapshot.running[:MOST_ROWS]
        ],
    }


def _totals(snapshot: Snapshot, bits: bool) -> str:
    moved, total, speed = snapshot.moved, snapshot.total, snapshot.speed
    return (
        f"{size_text(moved):>13} / {size_text(total)}, {percent_text(moved, total)}, {rate_text(speed, bits)},"
        f" ETA {eta_text(moved, total, speed)}"
    )


def _row(row: Running, bits: bool) -> str:
    percent = f"{int(100 * row.moved / row.size):3d}%" if row.size else "  -"
    size = size_text(row.moved if row.size is None else row.size)
    eta = eta_text(row.moved, row.size, row.speed)
    name = _shortened(printable(row.name).replace("\n", r"\n").replace("\t", r"\t"))
    return f" * {name:>{NAME_LENGTH}}:{percent} / {size}, {rate_text(row.speed, bits)}, {eta}, {_what(row)}"


def _what(row: Running) -> str:
    return "upload" if row.upload else "download"


def _shortened(name: str) -> str:
    """At most ``NAME_LENGTH`` characters, the middle cut out."""
    if len(name) <= NAME_LENGTH:
        return name
    after = (NAME_LENGTH - 1) // 2
    return f"{name[: NAME_LENGTH - 1 - after]}…{name[-after:]}"
