"""Processes that a server has started, told by their ids."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def children(pid: int) -> list[int]:
    """The living children of a process."""
    return [
        child for child in _pids() if (fields := _fields(child)) and int(fields[1]) == pid and fields[0] not in "ZX"
    ]


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    fields = _fields(pid)
    return bool(fields) and fields[0] not in "ZX"


def wait_until(ready: Callable[[], object], seconds: float = 60) -> None:
    """Return once ``ready()`` is true; fails the test after a time."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _fields(pid: int) -> list[str]:
    """State, parent and what follows in ``/proc/PID/stat`` (proc(5)); empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
