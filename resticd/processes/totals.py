"""The numbers of several processes as those of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import asdict, evolve

from resticd.observe.report import Running, Snapshot

NOTHING = Snapshot(0.0, 0, 0, 0.0, 0, 0, 0, 0, 0, ())


def packed(snapshot: Snapshot) -> dict[str, Any]:
    """For ``Channel``."""
    return asdict(snapshot)


def unpacked(fields: Mapping[str, Any]) -> Snapshot:
    """What ``packed`` made."""
    running = tuple(Running(**row) for row in fields["running"])
    return Snapshot(**{**fields, "running": running})


def closed(snapshot: Snapshot) -> Snapshot:
    """Of a process that is gone: what ran has failed."""
    return evolve(snapshot, speed=0.0, failed=snapshot.failed + len(snapshot.running), running=())


def total(snapshots: Iterable[Snapshot], elapsed: float) -> Snapshot:
    """All of them together; the server has been there for ``elapsed`` seconds."""
    parts = list(snapshots)
    return Snapshot(
        elapsed=elapsed,
        received=sum(part.received for part in parts),
        sent=sum(part.sent for part in parts),
        speed=sum(part.speed for part in parts),
        requests=sum(part.requests for part in parts),
        errors=sum(part.errors for part in parts),
        cut=sum(part.cut for part in parts),
        done=sum(part.done for part in parts),
        failed=sum(part.failed for part in parts),
        running=tuple(row for part in parts for row in part.running),
    )
