"""What a local directory and this process look like from outside, and disks with faults."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn


def temporary(store: Path) -> list[Path]:
    """The temporary files of uploads below ``store``."""
    return [path for path in store.rglob(".resticd-*.tmp") if path.is_file()]


def opened(fd: int) -> Path:
    """The path behind a descriptor of this process."""
    return Path(f"/proc/self/fd/{fd}").readlink()


def open_files(store: Path) -> list[str]:
    """The paths below ``store`` that this process has open."""
    paths = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of this listing
            paths.append(str(link.readlink()))
    return sorted(path for path in paths if path.startswith(str(store)))


def failing(code: int) -> Callable[..., NoReturn]:
    """A stand-in for a system call, which fails with ``code``."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return fail
