"""The real clients and servers that ``make peers`` brings."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def peer(name: str) -> Path:
    """The program ``rclone``, ``weed``, ``rest-server``, ``nginx``, ``restic-old`` (0.14) or ``restic-new`` (0.18).

    One that is missing fails the test: without it nothing would be tested.
    """
    program = ROOT / ".peers" / "bin" / name
    if not os.access(program, os.X_OK):
        raise AssertionError(f"{program} is missing: run `make peers`")
    return program
