"""The directory tree that a local remote serves: is it still there, and is what was written to it on disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.logger import Logger

from resticd.errors import AlreadyExists, ConfigurationError, StorageError
from resticd.remotes.local_errors import our_errors
from resticd.remotes.local_rename import NOT_SUPPORTED, rename_without_replacing


class Place:
    """The tree below ``root``. All methods may block; they are for workers."""

    _log = Logger(namespace="resticd.remotes.local")

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        #: The device below the mount point on which the root lies, None where that is the topmost one.
        self._underlying: int | None = None
        self._warned: set[str] = set()

    def prepare(self) -> None:
        """Make the root, and the directory above it, where they are missing. Raises ``ConfigurationError``.

        Only these two: a longer missing path is rather a typing error or a disk that is not mounted.
        """
        try:
            for path in (self.root.parent, self.root):
                if not path.is_dir():
                    path.mkdir(mode=0o700, exist_ok=True)
                    self.sync_directory(path.parent)
            os.listdir(self.root)  # noqa: PTH208 - whether it can be read
            self._underlying = _underlying_device(self.root)
        except OSError as error:
            raise ConfigurationError(f"{self.root}: {error.strerror}") from None

    def check(self) -> None:
        """Raise ``StorageError`` where the root is gone or the disk under it is not mounted any more.

        A root that is gone is not an empty one: restic's ``prune`` would believe it.
        """
        with our_errors("the served directory is gone"):
            about = self.root.stat()
        if not self.is_root(about):
            raise StorageError("the served directory is gone: the disk is not mounted")

    def is_root(self, about: os.stat_result) -> bool:
        """Whether what is found at the root's path is the root. Never blocks."""
        return stat.S_ISDIR(about.st_mode) and about.st_dev != self._underlying

    def confirm_missing(self, path: Path) -> None:
        """Return where ``path`` is certainly missing. Raises ``StorageError`` where a link on the way to it, or the
        root, leads nowhere: then nobody knows.
        """
        self.check()
        while path != self.root:
            if path.is_symlink() and not path.exists():
                raise StorageError(f"{path.relative_to(self.root)} is a link to what is not there")
            path = path.parent

    def publish(self, temporary: Path, target: Path, overwrite: bool) -> None:
        """Give ``temporary`` the name ``target``. Raises ``AlreadyExists`` where that is taken, unless ``overwrite``.

        The name is on disk only after ``sync_directory``.
        """
        if overwrite:
            temporary.replace(target)
            return

        def warn() -> None:
            self._warn_once(
                "{path}: the file system can neither rename without replacing nor link: two daemons that write the "
                "same name at once could replace each other's file"
            )

        try:
            rename_without_replacing(temporary, target, warn)
        except FileExistsError:
            # The other writer may not have come that far yet, and its file may be called stored by whoever hears this.
            self.sync_directory(target.parent)
            raise AlreadyExists("a file is stored under this name") from None

    def make_directories(self, path: Path) -> None:
        """Make ``path`` and its missing parents below the root, durably."""
        missing = []
        while path != self.root and not path.is_dir():
            missing.append(path)
            path = path.parent
        for directory in reversed(missing):
            try:
                directory.mkdir(mode=0o700)
            except FileExistsError:
                continue
            self.sync_directory(directory.parent)

    def sync_directory(self, path: Path) -> None:
        """Put the names in a directory on disk. A file system that cannot is warned of once."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in NOT_SUPPORTED:
                raise
            self._warn_once(
                "{path}: the file system cannot sync directories: a file may lose its name in a power failure"
            )
        finally:
            os.close(fd)

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._log.warn(text, path=self.root)


def _underlying_device(path: Path) -> int | None:
    """The device of the nearest directory above ``path`` that lies on another one: what shows after an unmount."""
    path = path.resolve()
    device = path.stat().st_dev
    above = (parent.stat().st_dev for parent in path.parents)
    return next((other for other in above if other != device), None)
