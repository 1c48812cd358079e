"""What is said of a server's memory, CPU time and end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.processes import Daemon, DidNotStart

PARENT = """
import os, sys, time
if os.fork() == 0:
    block = bytearray(os.urandom(50_000_000))
    sum(range(3_000_000))
    print("child ready", flush=True)
time.sleep(600)
"""


def test_children_are_counted_and_ended(tmp_path: Path) -> None:
    """Memory and CPU time include the children, and no child outlives ``stop``."""
    with Daemon([sys.executable, "-c", PARENT], tmp_path / "log") as daemon:
        daemon.wait_until(lambda: "child ready" in daemon.output())
        pids = daemon.pids()
        assert len(pids) == 2
        assert daemon.resident() > 50_000_000
        assert daemon.peak() >= daemon.resident()
        assert daemon.cpu() > 0.02
        assert daemon.stop() == -15
    assert daemon.pids() == []


def test_the_peak_can_be_reset(tmp_path: Path) -> None:
    """After ``reset_peak`` the memory that was given back no longer counts."""
    code = "b = bytearray(80_000_000); b = None; print('ready', flush=True); import time; time.sleep(600)"
    with Daemon([sys.executable, "-c", code], tmp_path / "log") as daemon:
        daemon.wait_until(lambda: "ready" in daemon.output())
        before = daemon.peak()
        daemon.reset_peak()
        assert before > 80_000_000 > daemon.peak()


def test_a_program_that_ends_at_once_says_why(tmp_path: Path) -> None:
    """The error holds the status and what the program wrote."""
    code = "import sys; sys.exit('no such flag')"
    with pytest.raises(DidNotStart, match=r"status 1\nno such flag"):
        Daemon([sys.executable, "-c", code], tmp_path / "log").wait_for_port(1)
