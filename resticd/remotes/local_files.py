"""System calls of the local driver: errors as ours, renaming without replacing, and what must be on disk."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.logger import Logger

from resticd.errors import AlreadyExists, NotFound, OutOfSpace, StorageError, TooLarge

_log = Logger(namespace="resticd.remotes.local")

#: Linux's ``renameat2(2)``: fail with EEXIST where the new name is taken.
_RENAME_NOREPLACE = 1
_AT_FDCWD = -100

_NOT_SUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
#: ``link(2)`` says EPERM on file systems without hard links, EMLINK where a file has no room for one more.
_NO_LINKS = (*_NOT_SUPPORTED, errno.EPERM, errno.EMLINK)

_FINAL = {
    errno.ENOSPC: OutOfSpace("no space is left on the server's disk"),
    errno.EDQUOT: OutOfSpace("the server's disk quota is used up"),
    errno.EFBIG: TooLarge("the file is larger than the server's file system allows"),
}


@contextmanager
def our_errors(what: str, missing: str | None = None) -> Iterator[None]:
    """Raise an ``OSError`` from within as an error of ``resticd.errors``.

    :param what: begins the sentence, such as ``"reading data/21/21…"``.
    :param missing: the sentence of ``NotFound`` where the object itself may be missing; without it ENOENT is a fault
        as well.
        An object that cannot be read is never missing.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT and missing is not None:
            raise NotFound(missing) from None
        final = _FINAL.get(error.errno or 0)
        if final is not None:
            raise type(final)(*final.args) from error
        raise StorageError(f"{what}: {error.strerror or error}") from error


def publish(temporary: Path, target: Path, overwrite: bool) -> None:
    """Give ``temporary`` the name ``target``. Raises ``AlreadyExists`` where that is taken, unless ``overwrite``."""
    if overwrite:
        temporary.replace(target)
        return
    try:
        _rename_without_replacing(temporary, target)
    except FileExistsError:
        raise AlreadyExists("a file is stored under this name") from None


def _rename_without_replacing(temporary: Path, target: Path) -> None:
    if _renameat2(temporary, target):
        return
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        temporary.unlink()
        return
    _warn_once(
        "rename",
        "{path}: the file system can neither rename without replacing nor link: two daemons that write the same name "
        "at once could replace each other's file",
        path=target.parent,
    )
    with _locks[str(target)]:
        if os.path.lexists(target):
            raise FileExistsError
        temporary.rename(target)


def _renameat2(temporary: Path, target: Path) -> bool:
    """Whether the kernel and the file system could do it."""
    if _libc_renameat2 is None:
        return False
    status = _libc_renameat2(_AT_FDCWD, os.fsencode(temporary), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE)
    if status == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_SUPPORTED:
        return False
    raise OSError(code, os.strerror(code))


#: Absent before glibc 2.28 and in other C libraries.
_libc_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)

#: One lock a target, for file systems that cannot refuse by themselves; few, so they are kept.
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def sync_directory(path: Path) -> None:
    """Put the names in a directory on disk. A file system that cannot is warned of once."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        _warn_once(
            "fsync",
            "{path}: the file system cannot sync directories: a file may lose its name in a power failure",
            path=path,
        )
    finally:
        os.close(fd)


def make_directories(root: Path, path: Path) -> None:
    """Make ``path`` and its missing parents below ``root``, durably. A missing ``root`` is an error: it may be a
    mount point.
    """
    missing = []
    while path != root and not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            continue
        sync_directory(directory.parent)


_warned: set[str] = set()


def _warn_once(kind: str, text: str, path: Path) -> None:
    if kind not in _warned:
        _warned.add(kind)
        _log.warn(text, path=path)
