"""Walking a local directory: lists, empty directories, leftovers of dead writers."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from resticd.interfaces import Entry
from resticd.remotes.local_files import our_errors
from resticd.remotes.local_upload import TEMPORARY_PREFIX, TEMPORARY_SUFFIX

#: Seconds after which a temporary file is a leftover even where its lock cannot be had (a network file system's may
#: lie).
LEFTOVER_AGE = 24 * 3600


def is_temporary(name: str) -> bool:
    """Whether a file is an unfinished upload."""
    return name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX)


def read_directory(path: Path, prefix: str) -> tuple[list[Entry], list[str]]:
    """The files and the names of the directories in ``path``, whose keys begin with ``prefix``.

    Links are followed. A name that is gone before it was looked at is left out; a directory that is gone is empty.
    """
    files: list[Entry] = []
    directories: list[str] = []
    with our_errors(f"listing {prefix}"):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return files, directories
        try:
            # listdir and stat with dir_fd are faster than scandir, whose entries make a path each.
            for name in os.listdir(fd):  # noqa: PTH208 - a descriptor is not a path
                if is_temporary(name):
                    continue
                try:
                    about = os.stat(name, dir_fd=fd)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(about.st_mode):
                    files.append(Entry(prefix + name, about.st_size, about.st_mtime))
                elif stat.S_ISDIR(about.st_mode):
                    directories.append(name)
        finally:
            os.close(fd)
    return files, directories


def remove_empty_directories(path: Path) -> bool:
    """Remove ``path`` and what is below it as far as it is empty but for leftovers. Whether ``path`` is gone."""
    try:
        children = list(path.iterdir())
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False
    empty = True
    for child in children:
        if is_temporary(child.name):
            empty = remove_leftover(child) and empty
        elif child.is_symlink() or not child.is_dir():
            empty = False
        else:
            empty = remove_empty_directories(child) and empty
    if empty:
        try:
            path.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                raise
            empty = False
    return empty


def leftovers(root: Path, stopped: Callable[[], bool]) -> Iterator[Path]:
    """All temporary files below ``root``. Ends early when ``stopped`` says so; directories that cannot be read are
    passed over.
    """
    for path, _, names in os.walk(root):
        if stopped():
            return
        yield from (Path(path, name) for name in names if is_temporary(name))


def remove_leftover(path: Path) -> bool:
    """Remove a temporary file whose writer is gone, or that is old. Whether it is gone."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if time.time() - os.fstat(fd).st_mtime < LEFTOVER_AGE:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
