"""Directories for sockets that are nobody else's business."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from resticd.errors import StorageError

_PREFIX = "resticd-run-"
_LOCK = "lock"
#: Paths of sockets are short: ``sun_path`` has 108 bytes on Linux and 104 elsewhere, with a NUL at the end.
_LONGEST = 70


class RunDirectory:
    """A directory with mode 0700 that is there as long as its process needs it.

    Its owner holds a lock in it, so that those of processes that were killed can be told, and are removed by the next
    one that makes a directory. Blocks for a moment. Raises ``StorageError`` where there is no place for one.

    :ivar path: of the directory.
    """

    def __init__(self) -> None:
        base = _base()
        _sweep(base)
        try:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
            new = self.path / f"{_LOCK}.new"
            self._lock = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            new.rename(self.path / _LOCK)  # nobody sees the file before it is locked
        except OSError as error:
            raise StorageError(f"cannot make a directory for sockets in {base}: {error.strerror}") from None

    def remove(self) -> None:
        """Remove it, with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _base() -> Path:
    """The service manager's directory for this service, the user's, or the one for temporary files."""
    places = (os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0], os.environ.get("XDG_RUNTIME_DIR", ""))
    for place in (*places, tempfile.gettempdir()):
        if place and len(place) <= _LONGEST and os.access(place, os.W_OK):
            return Path(place)
    return Path("/tmp")  # noqa: S108 - the directory in it is made as mkdtemp does, with a name of its own


def _sweep(base: Path) -> None:
    """Remove our own user's directories whose owners are gone."""
    with suppress(OSError):
        for left in base.glob(f"{_PREFIX}*"):
            with suppress(OSError):
                if left.lstat().st_uid != os.getuid() or left.is_symlink():
                    continue
                lock = os.open(left / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
                finally:
                    os.close(lock)
