"""Small uploads to a local directory without a thread: one chain of system calls for the kernel (``local_ring``).

Made, written, synced, named, its directory synced, as ``local_upload`` does it; 4 KiB take two fifths of the CPU time.
Whatever is unusual is left to ``local_upload``, which then does it from the beginning: a directory that is missing, a
name that is taken, a disk that is full, bytes that are not what was announced. So nothing here is an error, and a
sweep, which takes a temporary file without a lock for a leftover, does no harm.
"""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from resticd.interfaces import Stat
from resticd.remotes.local_errors import our_errors
from resticd.remotes.local_rename import RENAME_NOREPLACE
from resticd.remotes.local_ring import (
    AT_FDCWD,
    CLOSE,
    FSYNC,
    OPENAT,
    RENAMEAT,
    WRITE,
    Call,
    Ring,
    address_of,
)
from resticd.remotes.local_upload import temporary_name

if TYPE_CHECKING:
    from resticd.interfaces import IReactor
    from resticd.remotes.local_place import Place
    from resticd.remotes.local_prompt import PromptReader
    from resticd.workers import Workers

#: What a chain that failed may have found without a fault of the ring: all else ends the use of it.
_USUAL = {-errno.ENOENT, -errno.EEXIST, -errno.ENOSPC, -errno.EDQUOT}
#: uapi/linux/fs.h. A write with it is synced when it returns (pwritev2(2)) and, other than fsync, ends the chain where
#: that fails.
_RWF_SYNC = 4
#: Calls of the chain.
_CREATE, _RENAME, _SYNC_DIRECTORY = 1, 4, 5


class RingStore:
    """Stores files below the root of ``place``. For the reactor thread."""

    _log = Logger(namespace="resticd.remotes.local")

    def __init__(self, place: Place, prompt: PromptReader, workers: Workers) -> None:
        self._place = place
        self._root = os.fsencode(place.root) + b"/"
        self._prompt = prompt
        self._workers = workers
        self._ring: Ring | None = None
        self._over = False

    @property
    def usable(self) -> bool:
        """Whether it is worth trying."""
        return not self._over

    async def store(self, key: str, sha256: str | None, data: bytes) -> Stat | None:
        """As ``put``. Returns what is stored, None where nothing is."""
        if not await self.put(key, sha256, data):
            return None
        about = self._prompt.look(key)
        return Stat(len(data), None if about is None else about.st_mtime)

    async def put(self, key: str, sha256: str | None, data: bytes) -> bool:
        """Store ``data`` under ``key``, if that is free, durably. Not to be cancelled.

        Returns False where it has to be tried the other way; nothing of it is left then. Raises ``StorageError`` where
        the file is visible and stays, but its directory cannot be synced.
        """
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            return False
        ring = self._usable_ring()
        if ring is None:
            return False
        target = self._root + os.fsencode(key)
        directory = target[: target.rindex(b"/")]
        temporary = b"%b/%b" % (directory, temporary_name().encode())
        try:
            results = await ring.run(*_chain(data, directory, temporary, target))
        except OSError as error:
            self._do_without(error)
            return False
        if results.get(_RENAME, -1) < 0:
            failed, result = min(results.items())
            if result < 0 and result not in _USUAL:
                self._do_without(OSError(-result, os.strerror(-result)))
            if failed > _CREATE:
                await self._workers.run(_remove, temporary)
            return False
        if results[_SYNC_DIRECTORY] < 0:
            await self._workers.run(self._sync, key)
        return True

    def stop(self) -> Deferred[None]:
        """Fires when nothing runs any more."""
        self._over = True
        return succeed(None) if self._ring is None else self._ring.close()

    def _usable_ring(self) -> Ring | None:
        """The ring, where one more chain can run and the root is there for certain."""
        root = self._prompt.look("")
        if self._over or root is None or not self._place.is_root(root):
            return None
        if self._ring is None:
            try:
                self._ring = Ring(cast("IReactor", self._workers.reactor))
            except OSError as error:
                self._do_without(error)
                return None
        return None if self._ring.full else self._ring

    def _do_without(self, error: OSError) -> None:
        self._log.debug("io_uring is not used any more: {error}", error=error.strerror)
        self._over = True

    def _sync(self, key: str) -> None:
        with our_errors(f"storing {key}"):
            self._place.sync_directory((self._place.root / key).parent)


def _chain(data: bytes, directory: bytes, temporary: bytes, target: bytes) -> tuple[tuple[Call, ...], bytes]:
    """The calls, and what their addresses lie in: one piece, since every address that is asked for costs a
    microsecond.
    """
    memory = b"\0".join((directory, temporary, target, data))
    directory_at = address_of(memory)
    temporary_at = directory_at + len(directory) + 1
    target_at = temporary_at + len(temporary) + 1
    data_at = target_at + len(target) + 1
    chain = (
        Call(OPENAT, address=directory_at, options=os.O_RDONLY | os.O_DIRECTORY, file=0),
        Call(OPENAT, address=temporary_at, length=0o600, options=os.O_WRONLY | os.O_CREAT | os.O_EXCL, file=1),
        Call(WRITE, fd=1, of_chain=True, address=data_at, length=len(data), options=_RWF_SYNC),
        Call(CLOSE, file=1),
        Call(
            RENAMEAT,
            address=temporary_at,
            length=AT_FDCWD & 0xFFFFFFFF,
            other=target_at,
            options=RENAME_NOREPLACE,
            told=True,
        ),
        Call(FSYNC, fd=0, of_chain=True, told=True),
    )
    return chain, memory


def _remove(path: bytes) -> None:
    """What cannot be removed the next sweep removes."""
    with suppress(OSError):
        os.unlink(path)  # noqa: PTH108 - bytes
