"""One upload to a local directory: a temporary file beside the target, until it is whole and on disk."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import threading
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resticd.errors import Corrupt, StorageError
from resticd.interfaces import IBlockingSink, IUpload, Stat
from resticd.remotes.local_errors import our_errors
from resticd.streams import ThreadedWriter

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer
    from twisted.python.failure import Failure

    from resticd.remotes.local_direct import DirectWrites
    from resticd.remotes.local_place import Place
    from resticd.workers import Workers

TEMPORARY_PREFIX = ".resticd-"
TEMPORARY_SUFFIX = ".tmp"

#: Linux's IOV_MAX.
_MAX_VECTORS = 1024
#: How often a temporary file is made anew that somebody removed at once, or whose directory was.
_ATTEMPTS = 50


def temporary_name() -> str:
    """A name for an unfinished upload that nobody else has."""
    return f"{TEMPORARY_PREFIX}{secrets.token_hex(12)}{TEMPORARY_SUFFIX}"


class RunningUploads:
    """The temporary files of uploads that run, so that all can be thrown away. For workers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: set[TemporaryFile] = set()
        self._stopped = False

    def add(self, file: TemporaryFile) -> None:
        """Take note of one. Raises ``StorageError`` when it is too late."""
        with self._lock:
            if self._stopped:
                raise StorageError("the server is stopping")
            self._files.add(file)

    def discard(self, file: TemporaryFile) -> None:
        """Forget one."""
        with self._lock:
            self._files.discard(file)

    def abort_all(self) -> None:
        """Throw all away, and refuse new ones."""
        with self._lock:
            self._stopped = True
            files = list(self._files)
        for file in files:
            file.give_up()
        for file in files:
            file.abort()


class TemporaryFile:
    """The blocking part of an upload. One lock keeps its calls apart, so that the descriptor is never used once closed.

    :param key: what the object is called in messages.
    :param target: where it will lie.
    :param size: how many bytes are announced, None where that is not known.
    :param sha256: what they hash to, None where that is not known.
    :param direct: says whether the page cache is left out.
    """

    def __init__(
        self,
        place: Place,
        running: RunningUploads,
        key: str,
        size: int | None,
        sha256: str | None,
        *,
        overwrite: bool,
        direct: DirectWrites | None = None,
    ) -> None:
        self._place = place
        self._running = running
        self._key = key
        self._target = place.root / key
        self._size = size
        self._sha256 = sha256
        self._overwrite = overwrite
        self._digest = hashlib.sha256() if sha256 is not None else None
        self._written = 0
        self._lock = threading.Lock()
        self._given_up = False
        #: Why there is no file any more.
        self._outcome: BaseException | None = None
        self._finished = False
        place.check()
        with our_errors(f"starting {key}"):
            self._path, self._fd = self._open()
        self._direct = None if direct is None else direct.begin(self._fd, size)
        try:
            running.add(self)
        except StorageError as error:
            self._discard(error)
            raise

    def _open(self) -> tuple[Path, int]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        for _ in range(_ATTEMPTS):
            path = self._target.parent / temporary_name()
            try:
                fd = os.open(path, flags, 0o600)
            except FileNotFoundError:
                with suppress(FileNotFoundError):  # they are being tidied away as they are made
                    self._place.make_directories(self._target.parent)
                continue
            try:
                if _lock(fd):
                    return path, fd
            except OSError:
                path.unlink(missing_ok=True)
                os.close(fd)
                raise
            os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def write(self, chunks: list[bytes] | list[memoryview]) -> None:
        """Hash and write. Raises ``Corrupt`` for more bytes than announced, ``OutOfSpace``, ``StorageError``; then the
        file is gone already.
        """
        with self._lock:
            self._check_open()
            try:
                total = sum(map(len, chunks))
                if self._size is not None and self._written + total > self._size:
                    raise Corrupt(f"more than the announced {self._size} bytes arrived")
                if self._digest is not None:
                    for chunk in chunks:
                        self._digest.update(chunk)
                with our_errors(f"writing {self._key}"):
                    self._write_all(chunks)
                self._written += total
            except BaseException as error:
                self._discard(error)
                raise

    def _write_all(self, chunks: list[bytes] | list[memoryview]) -> None:
        if self._direct is not None:
            self._direct.write(chunks)
            return
        views = [memoryview(chunk) for chunk in chunks if len(chunk)]
        while views:
            written = os.writev(self._fd, views[:_MAX_VECTORS])
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if written:
                views[0] = views[0][written:]

    def commit(self) -> Stat:
        """Check, sync, publish, sync. Raises what ``IUpload.commit`` says, or what ``write`` raised.

        Whatever goes wrong, nothing of this upload is left. The one exception: when the directory cannot be synced the
        object is visible already, and stays, since another client may have been told that it is stored.
        """
        with self._lock:
            self._check_open()
            try:
                self._check_content()
                with our_errors(f"storing {self._key}"):
                    if self._direct is not None:
                        self._direct.finish()
                    os.fsync(self._fd)
                    about = os.fstat(self._fd)
                    if self._given_up:
                        raise StorageError("the upload was given up")
                    self._place.publish(self._path, self._target, self._overwrite)
            except BaseException as error:
                self._discard(error)
                raise
            self._finish()
            with our_errors(f"storing {self._key}"):
                self._place.sync_directory(self._target.parent)
            return Stat(about.st_size, about.st_mtime)

    def _check_open(self) -> None:
        if self._outcome is not None:
            raise self._outcome
        if self._finished or self._given_up:
            raise StorageError("the upload was given up")

    def _check_content(self) -> None:
        if self._size is not None and self._written != self._size:
            raise Corrupt(f"{self._written} bytes arrived, {self._size} were announced")
        if self._digest is not None and self._digest.hexdigest() != self._sha256:
            raise Corrupt("the bytes do not hash to the name")

    def give_up(self) -> None:
        """Let no more writes in, nor a commit that is not visible yet. Never waits: for any thread."""
        self._given_up = True

    def abort(self) -> None:
        """Throw it away, unless it is published. Never raises; what cannot be removed the next sweep removes."""
        self.give_up()
        with self._lock:
            if not self._finished:
                self._discard(StorageError("the upload was given up"))

    def _discard(self, reason: BaseException) -> None:
        self._outcome = copy(reason)  # its traceback would keep the chunks alive
        # Unlinked before the lock goes with the descriptor: only a file without a writer is ever seen unlocked.
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        self._finish()

    def _finish(self) -> None:
        self._finished = True
        self._running.discard(self)
        if self._direct is not None:
            self._direct.close()
        # fsync has said whether the bytes are on disk; close(2) cannot say more.
        with suppress(OSError):
            os.close(self._fd)


def _lock(fd: int) -> bool:
    """Lock a new temporary file as long as it is open: a sweeper that gets the lock knows that the writer is gone.

    Whether it worked: a sweeper may have come between, and removes the file then.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # Some network file systems have no locks: there a leftover is known by its age alone.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    return os.fstat(fd).st_nlink > 0


@implementer(IUpload, IBlockingSink)
class LocalUpload:
    """See ``IUpload`` and ``IBlockingSink``."""

    def __init__(self, workers: Workers, file: TemporaryFile) -> None:
        self._workers = workers
        self._file = file
        self._writer = ThreadedWriter(workers, file.write)
        self._over = False

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

        def cancel(_: Deferred[Stat]) -> None:
            self.abort()

        result: Deferred[Stat] = Deferred(cancel)

        def finish(outcome: Stat | Failure) -> None:
            self._over = True
            if not result.called:  # it was cancelled otherwise
                result.callback(outcome)  # a Failure goes down the errback side

        self._writer.drained().addCallback(lambda _: self._workers.run(self._file.commit)).addBoth(finish)
        return result

    def abort(self) -> Deferred[None]:
        """See ``IUpload``."""
        if self._over:  # there is no file any more, or it is stored
            return succeed(None)
        self._file.give_up()
        return self._writer.discard().addCallback(lambda _: self._workers.run(self._file.abort))
