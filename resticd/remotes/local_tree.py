"""Walking a local directory: lists, empty directories, leftovers of dead writers. All of it is for workers."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resticd.remotes.local_errors import our_errors
from resticd.remotes.local_place import Place
from resticd.remotes.local_upload import TEMPORARY_PREFIX, TEMPORARY_SUFFIX

if TYPE_CHECKING:
    from resticd.remotes.local_memory import DirectoryMemory

#: Seconds after which a temporary file is a leftover even where its lock cannot be had (a network file system's may
#: lie).
LEFTOVER_AGE = 24 * 3600

#: Device and number of a directory and of those that were passed on the way down to it.
Way = frozenset[tuple[int, int]]


class Listing(NamedTuple):
    """What lies in one directory: the files in columns, and the directories."""

    prefix: str
    names: list[str]
    #: in bytes
    sizes: list[int]
    #: seconds since the epoch; not known of what was remembered (``local_memory``)
    modified: list[float] | None
    #: the prefixes of the directories in it
    directories: list[str]
    way: Way


def is_temporary(name: str) -> bool:
    """Whether a file of this name is an unfinished upload."""
    return name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX)


def read_directory(place: Place, prefix: str, above: Way, memory: DirectoryMemory | None = None) -> Listing:
    """What lies in the directory whose keys begin with ``prefix``.

    Links are followed. A directory that is gone is empty, a name that is gone before it was looked at is left out; a
    link that leads nowhere is an error, as what it led to may be on a disk that is not mounted. A directory that lies
    in itself by a link is empty the second time.

    :param memory: what is remembered of directories that have not changed since; ``modified`` is None then.
    """
    path = place.root / prefix
    with our_errors(f"listing {prefix}"):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            place.confirm_missing(path)
            return Listing(prefix, [], [], [], [], above)
        try:
            about = os.fstat(fd)
            identity = _identity(about)
            if identity in above:
                return Listing(prefix, [], [], [], [], above)
            way = above | {identity}
            remembered = None if memory is None else memory.recall(prefix, about)
            if remembered is not None:
                names, sizes, directories = remembered
                return Listing(prefix, names, sizes, None, [f"{prefix}{name}/" for name in directories], way)
            settled = memory is not None and memory.can_keep(about)
            listing, links = _read(fd, prefix, way)
            if memory is not None and settled and not links:
                memory.keep(about, fd, listing)
            return listing
        finally:
            os.close(fd)


def _read(fd: int, prefix: str, way: Way) -> tuple[Listing, bool]:
    """What lies in an open directory, and whether any of it is a link."""
    names: list[str] = []
    sizes: list[int] = []
    modified: list[float] = []
    directories: list[str] = []
    links = False
    # listdir and stat with dir_fd are faster than scandir, whose entries make a path each.
    for name in os.listdir(fd):
        try:
            about = os.stat(name, dir_fd=fd, follow_symlinks=False)
            mode = about.st_mode
            if stat.S_ISLNK(mode):
                links = True
                about = os.stat(name, dir_fd=fd)
                mode = about.st_mode
        except FileNotFoundError:
            if _is_link(name, fd):
                raise
            continue
        if stat.S_ISREG(mode):
            if name[0] != "." or not is_temporary(name):
                names.append(name)
                sizes.append(about.st_size)
                modified.append(about.st_mtime)
        elif stat.S_ISDIR(mode):
            directories.append(f"{prefix}{name}/")
    return Listing(prefix, names, sizes, modified, directories, way), links


def _is_link(name: str, fd: int) -> bool:
    """Whether ``name`` in an open directory is a link, to nowhere then; False where it is gone."""
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _identity(about: os.stat_result) -> tuple[int, int]:
    return about.st_dev, about.st_ino


def remove_empty_directories(path: Path, keep: Path) -> bool:
    """Remove ``path``, unless it is ``keep``, and what is below it, as far as it is empty but for leftovers. Whether it
    is gone. Links are kept.
    """
    try:
        children = list(path.iterdir())
    except FileNotFoundError:
        return True
    empty = True
    for child in children:
        if child.is_dir() and not child.is_symlink():
            gone = remove_empty_directories(child, keep)
        else:
            gone = is_temporary(child.name) and remove_leftover(child)
        empty = empty and gone
    if not empty or path == keep:
        return False
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        # Something was stored in it meanwhile, or it is a mount point.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
            raise
        return False
    return True


def leftovers(root: Path, stopped: Callable[[], bool]) -> Iterator[Path]:
    """All temporary files below ``root``; links to directories are followed.

    Ends early when ``stopped`` says so. Directories that cannot be read are passed over.
    """
    waiting: list[tuple[str, Way]] = [(os.fspath(root), frozenset())]
    while waiting and not stopped():
        path, above = waiting.pop()
        try:
            way = above | {_identity(os.stat(path))}  # noqa: PTH116 - as scandir gives texts
            with os.scandir(path) as entries:
                for entry in entries:
                    if not entry.is_dir():
                        if is_temporary(entry.name):
                            yield Path(entry.path)
                    elif not (entry.is_symlink() and _identity(entry.stat()) in way):
                        waiting.append((entry.path, way))
        except OSError:
            continue


def remove_leftover(path: Path) -> bool:
    """Remove a temporary file whose writer is gone, or that is old. Whether it is gone."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
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
