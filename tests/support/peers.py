"""The real clients and servers that ``make peers`` brings."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def peer(name: str) -> Path:
    """A program by its name in ``.peers/bin``: ``rclone``, ``restic-old`` (0.14), ``restic-new`` (0.18) and so on.

    One that is missing fails the test: without it nothing would be tested.
    """
    program = ROOT / ".peers" / "bin" / name
    if not os.access(program, os.X_OK):
        raise AssertionError(f"{program} is missing: run `make peers`")
    return program
