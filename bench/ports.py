"""Ports for servers that cannot choose one themselves."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

# Below the range that Linux gives to outgoing connections (32768 up). Port + 10000, which SeaweedFS takes for its
# own talk, lies outside this range too.
FIRST, LAST = 12000, 21999

_held = []


def free_port() -> int:
    """A TCP port on which nothing listens and that no other test process is given while this process lives."""
    locks = Path(tempfile.gettempdir()) / f"resticd-test-ports-{os.getuid()}"
    locks.mkdir(exist_ok=True)
    for port in random.sample(range(FIRST, LAST + 1), 1000):
        lock = (locks / str(port)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for offset in (0, 10000):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port + offset))
        except OSError:
            lock.close()
            continue
        _held.append(lock)
        return port
    raise RuntimeError("no free port found")
