"""One upload to a local directory: a temporary file beside the target, until it is whole and on disk."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from zope.interface import implementer

from resticd.errors import Corrupt, StorageError
from resticd.interfaces import IBlockingSink, IUpload, Stat
from resticd.remotes.local_files import make_directories, our_errors, publish, sync_directory
from resticd.streams import ThreadedWriter

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer

    from resticd.workers import Workers

TEMPORARY_PREFIX = ".resticd-"
TEMPORARY_SUFFIX = ".tmp"

#: Linux's IOV_MAX.
_MAX_VECTORS = 1024


class TemporaryFile:
    """The blocking part of an upload. One lock keeps its calls apart, so that the descriptor is never used once closed.

    :param size: how many bytes are announced, None where that is not known.
    :param sha256: what they hash to, None where that is not known.
    """

    def __init__(self, root: Path, target: Path, size: int | None, sha256: str | None, overwrite: bool) -> None:
        self._root = root
        self._target = target
        self._size = size
        self._sha256 = sha256
        self._overwrite = overwrite
        self._digest = hashlib.sha256() if sha256 is not None else None
        self._written = 0
        self._lock = threading.Lock()
        self._finished = False
        self._path = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(12)}{TEMPORARY_SUFFIX}"
        with our_errors(f"starting {target.name}"):
            self._fd = self._open()

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(self._path, flags, 0o600)
        except FileNotFoundError:
            make_directories(self._root, self._target.parent)
            fd = os.open(self._path, flags, 0o600)
        # Held as long as the descriptor is open: a sweeper that gets it knows that the writer is gone.
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Some network file systems have no locks: there a leftover is known by its age alone.
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                self._path.unlink(missing_ok=True)
                os.close(fd)
                raise
        return fd

    def write(self, chunks: list[bytes] | list[memoryview]) -> None:
        """Hash and write. Raises ``Corrupt`` for more bytes than announced, ``OutOfSpace``, ``StorageError``."""
        with self._lock:
            if self._finished:
                raise StorageError("the upload was given up")
            total = sum(map(len, chunks))
            if self._size is not None and self._written + total > self._size:
                raise Corrupt(f"more than the announced {self._size} bytes arrived")
            if self._digest is not None:
                for chunk in chunks:
                    self._digest.update(chunk)
            with our_errors(f"writing {self._target.name}"):
                self._write_all(chunks)
            self._written += total

    def _write_all(self, chunks: list[bytes] | list[memoryview]) -> None:
        views = [memoryview(chunk) for chunk in chunks if len(chunk)]
        while views:
            written = os.writev(self._fd, views[:_MAX_VECTORS])
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if written:
                views[0] = views[0][written:]

    def commit(self) -> Stat:
        """Check, sync, publish, sync. Whatever goes wrong, nothing of this upload is left."""
        with self._lock:
            if self._finished:
                raise StorageError("the upload was given up")
            try:
                self._check()
                with our_errors(f"storing {self._target.name}"):
                    os.fsync(self._fd)
                    stat = os.fstat(self._fd)
                    publish(self._path, self._target, self._overwrite)
            except BaseException:
                self._discard()
                raise
            self._finished = True
            os.close(self._fd)
            with our_errors(f"storing {self._target.name}"):
                sync_directory(self._target.parent)
            return Stat(stat.st_size, stat.st_mtime)

    def _check(self) -> None:
        if self._size is not None and self._written != self._size:
            raise Corrupt(f"{self._written} bytes arrived, {self._size} were announced")
        if self._digest is not None and self._digest.hexdigest() != self._sha256:
            raise Corrupt("the bytes do not hash to the name")

    def abort(self) -> None:
        """Throw it away, unless it is published. Never raises; what cannot be removed the next sweep removes."""
        with self._lock:
            if not self._finished:
                self._discard()

    def _discard(self) -> None:
        self._finished = True
        # Unlinked before the lock goes with the descriptor: only a file without a writer is ever seen unlocked.
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            pass
        finally:
            os.close(self._fd)


@implementer(IUpload, IBlockingSink)
class LocalUpload:
    """See ``IUpload`` and ``IBlockingSink``."""

    def __init__(self, workers: Workers, file: TemporaryFile) -> None:
        self._workers = workers
        self._file = file
        self._writer = ThreadedWriter(workers, file.write)
        self._committing = False

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        self._writer.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._writer.unregisterProducer()

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self._writer.write(data)

    def consume(self, chunks: list[bytes] | list[memoryview]) -> None:
        """See ``IBlockingSink``."""
        self._file.write(chunks)

    def commit(self) -> Deferred[Stat]:
        """See ``IUpload``."""
        return self._writer.drained().addCallback(lambda _: self._workers.run(self._file.commit))

    def abort(self) -> Deferred[None]:
        """See ``IUpload``."""
        return self._writer.discard().addCallback(lambda _: self._workers.run(self._file.abort))
