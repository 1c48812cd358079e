"""A directory as a server keeps it, with a small and a large blob."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

SMALL = b"0123456789" * 10
LARGE = os.urandom(300_000)
SMALL_NAME, LARGE_NAME, MISSING = (hashlib.sha256(data).hexdigest() for data in (SMALL, LARGE, b"missing"))


def fill(store: Path) -> None:
    """Make the repository ``r`` in ``store``, with a lock, and a directory in the place of a key."""
    for name, data in ((SMALL_NAME, SMALL), (LARGE_NAME, LARGE)):
        path = store / "r/data" / name[:2] / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    (store / "r/config").write_bytes(b"config")
    (store / "r/locks").mkdir()
    (store / "r/locks" / SMALL_NAME).touch()
    (store / "r/keys").mkdir()
    (store / "r/keys" / SMALL_NAME).mkdir()
