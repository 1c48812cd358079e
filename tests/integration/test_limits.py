"""Bandwidth limits with real restic: what goes through is what was sent, and no faster than told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from support.daemons import Server
from support.restic import Restic
from support.sequences import restore_and_compare

Start = Callable[..., Server]
SIZE = 3 * 1024 * 1024


def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "noise").write_bytes(os.urandom(SIZE))
    return folder


def test_a_limited_backup_and_restore(start_resticd: Start, tmp_path: Path) -> None:
    """At 1 MiB/s neither can take less than three seconds, whatever the machine."""
    server = start_resticd(tmp_path / "store", "--bwlimit", "1M")
    restic = Restic(server.repository(), tmp_path, options=("--no-cache",))
    restic("init")
    folder = files(tmp_path)
    begin = time.monotonic()
    restic("backup", folder)
    assert time.monotonic() - begin > SIZE / (1024 * 1024) * 0.9
    begin = time.monotonic()
    restore_and_compare(restic, folder, tmp_path / "restored")
    assert time.monotonic() - begin > SIZE / (1024 * 1024) * 0.9
    restic("check", "--read-data")


def test_one_direction_and_the_toggle(start_resticd: Start, tmp_path: Path) -> None:
    """``off:1M`` leaves uploads alone, and SIGUSR2 takes the limit away from a restore that runs."""
    server = start_resticd(tmp_path / "store", "--bwlimit", "off:1k")
    restic = Restic(server.repository(), tmp_path, options=("--no-cache",))
    os.kill(server.pid, signal.SIGUSR2)
    restic("init")
    folder = files(tmp_path)
    restic("backup", folder)
    restore_and_compare(restic, folder, tmp_path / "restored")
