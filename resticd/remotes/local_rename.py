"""Giving a file its name without taking it from another file.

``renameat2(2)`` does it in one step. Where the kernel or the file system has no such flag (NFS, some FUSE) ``link(2)``
refuses too, and leaves the old name to be removed. Where there are no hard links either (FAT, some FUSE) a look before
the rename must do, which keeps the writers of this process apart but not those of others.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

RENAME_NOREPLACE = 1
_AT_FDCWD = -100

#: What a kernel or file system says to a call or flag that it does not have.
NOT_SUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
#: ``link(2)`` says EPERM on file systems without hard links, EMLINK where a file has no room for one more.
_NO_LINKS = (*NOT_SUPPORTED, errno.EPERM, errno.EMLINK)

#: Absent before glibc 2.28 and in other C libraries.
_libc_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)

#: Some locks for all names; two names that share one only wait for each other.
_locks = tuple(threading.Lock() for _ in range(64))


def rename_without_replacing(old: Path, new: Path, not_atomic: Callable[[], None]) -> None:
    """Rename ``old`` to ``new``. Raises ``FileExistsError`` where ``new`` is taken.

    :param not_atomic: called where another process could replace the file between the look and the rename.
    """
    if _renameat2(old, new):
        return
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        # The new name stands whatever becomes of the old one, which the next sweep removes.
        with suppress(OSError):
            old.unlink()
        return
    not_atomic()
    with _locks[hash(new) % len(_locks)]:
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        old.rename(new)


def _renameat2(old: Path, new: Path) -> bool:
    """Whether the kernel and the file system could do it."""
    if _libc_renameat2 is None:
        return False
    if _libc_renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in NOT_SUPPORTED:
        return False
    raise OSError(code, os.strerror(code))
