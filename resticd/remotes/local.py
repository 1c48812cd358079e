"""A local directory as a remote. restic can open the same directory by itself."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from resticd.errors import ConfigurationError, StorageError
from resticd.interfaces import Capabilities, Entry, IBody, IFileBody, IRemote, IUpload, Stat, Usage
from resticd.remotes.local_files import make_directories, our_errors
from resticd.remotes.local_tree import leftovers, read_directory, remove_empty_directories, remove_leftover
from resticd.remotes.local_upload import LocalUpload, TemporaryFile
from resticd.streams import ThreadedReader

if TYPE_CHECKING:
    from twisted.internet.interfaces import IConsumer

    from resticd.streams import Span
    from resticd.workers import Workers

T = TypeVar("T")

#: Entries on a page of a list.
PAGE = 1000

_MISSING = "there is no such file"


@implementer(IRemote)
class LocalRemote:
    """See ``IRemote``. Every call to the disk runs in a worker.

    :param root: the directory; it is made at ``start``. When it disappears later, say because it is unmounted,
        everything fails:
        a missing root is not an empty one.
    """

    capabilities = Capabilities(conditional_create=True, verifies_hash=True, reports_usage=True)
    _log = Logger(namespace="resticd.remotes.local")

    def __init__(self, root: Path, workers: Workers) -> None:
        self._root = root.absolute()
        self._workers = workers
        self._stopped = False
        self._sweep: Deferred[None] | None = None

    def start(self) -> Deferred[None]:
        """See ``IRemote``."""

        def started(_: None) -> None:
            self._sweep = self._workers.run(self._remove_leftovers)
            self._sweep.addErrback(lambda failure: self._log.failure("looking for leftovers failed", failure))

        return self._workers.run(self._make_root).addCallback(started)

    def _make_root(self) -> None:
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            next(self._root.iterdir(), None)
        except OSError as error:
            raise ConfigurationError(f"{self._root}: {error.strerror}") from None

    def _remove_leftovers(self) -> None:
        removed = sum(remove_leftover(path) for path in leftovers(self._root, lambda: self._stopped))
        if removed:
            self._log.info("{root}: removed {removed} unfinished uploads", root=self._root, removed=removed)

    def stop(self) -> Deferred[None]:
        """See ``IRemote``."""
        self._stopped = True
        done: Deferred[None] = Deferred()
        if self._sweep is None:
            done.callback(None)
        else:
            self._sweep.addCallback(done.callback)
        return done

    def stat(self, key: str) -> Deferred[Stat]:
        """See ``IRemote``."""
        return self._workers.run(self._stat, key)

    def _stat(self, key: str) -> Stat:
        with our_errors(f"looking at {key}", _MISSING):
            try:
                about = (self._root / key).stat()
            except FileNotFoundError:
                self._check_root()
                raise
        return _stat_of_file(key, about)

    async def list(self, prefix: str) -> AsyncGenerator[list[Entry], None]:
        """See ``IRemote``."""
        await self._workers.run(self._check_root)
        waiting = [(prefix, frozenset[tuple[int, int]]())]
        while waiting:
            current, above = waiting.pop()
            path = self._root / current
            files, directories = await self._workers.run(read_directory, path, current)
            for start in range(0, len(files), PAGE):
                yield files[start : start + PAGE]
            if directories:
                # A link may lead back to a directory above; each is entered once on any way down.
                identity = await self._workers.run(_identity, path)
                if identity not in above:
                    waiting += [(f"{current}{name}/", above | {identity}) for name in directories]

    def open(self, key: str, span: Span | None = None) -> Deferred[IBody]:
        """See ``IRemote``."""
        opened = self._workers.run_releasing(LocalBody.close_now, self._open, key, span)
        return cast("Deferred[IBody]", opened)

    def _open(self, key: str, span: Span | None) -> LocalBody:
        with our_errors(f"opening {key}", _MISSING):
            try:
                fd = os.open(self._root / key, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hang
            except FileNotFoundError:
                self._check_root()
                raise
        try:
            size = _stat_of_file(key, os.fstat(fd)).size
            offset, length = (0, size) if span is None else span.resolve(size)
        except BaseException:
            os.close(fd)
            raise
        return LocalBody(self._workers, fd, size, offset, length)

    def begin(self, key: str, size: int | None, sha256: str | None, overwrite: bool = False) -> Deferred[IUpload]:
        """See ``IRemote``."""
        target = self._root / key
        opened = self._workers.run_releasing(
            TemporaryFile.abort, TemporaryFile, self._root, target, size, sha256, overwrite
        )
        return opened.addCallback(lambda file: cast(IUpload, LocalUpload(self._workers, file)))

    def delete(self, key: str) -> Deferred[None]:
        """See ``IRemote``."""
        return self._workers.run(self._delete, key)

    def _delete(self, key: str) -> None:
        with our_errors(f"deleting {key}"):
            try:
                (self._root / key).unlink()
            except FileNotFoundError:
                self._check_root()

    def make(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``."""
        return self._workers.run(self._make, prefix)

    def _make(self, prefix: str) -> None:
        with our_errors(f"making {prefix}"):
            self._check_root()
            make_directories(self._root, self._root / prefix)

    def tidy(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``. The root itself stays."""
        return self._workers.run(self._tidy, prefix)

    def _tidy(self, prefix: str) -> None:
        with our_errors(f"tidying {prefix}"):
            if prefix:
                remove_empty_directories(self._root / prefix)

    def usage(self) -> Deferred[Usage]:
        """See ``IRemote``."""
        return self._workers.run(self._usage)

    def _usage(self) -> Usage:
        with our_errors("asking for free space"):
            about = os.statvfs(self._root)
        total, free = about.f_blocks * about.f_frsize, about.f_bavail * about.f_frsize
        return Usage(used=total - about.f_bfree * about.f_frsize, free=free, total=total)

    def _check_root(self) -> None:
        """Raise ``StorageError`` where the root is gone."""
        with our_errors("looking at the served directory"):
            if not self._root.is_dir():
                raise StorageError("the served directory is gone")


def _stat_of_file(key: str, about: os.stat_result) -> Stat:
    if not stat.S_ISREG(about.st_mode):
        raise StorageError(f"{key} is not a file")
    return Stat(about.st_size, about.st_mtime)


def _identity(path: Path) -> tuple[int, int]:
    with our_errors(f"listing {path.name}"):
        about = path.stat()
    return about.st_dev, about.st_ino


@implementer(IFileBody)
class LocalBody:
    """See ``IBody`` and ``IFileBody``."""

    def __init__(self, workers: Workers, fd: int, size: int, offset: int, length: int) -> None:
        self.size = size
        self.offset = offset
        self.length = length
        self._workers = workers
        self._fd = fd
        self._position = offset
        self._delivering = False
        self._lock = Lock()
        self._closed = False

    def fileno(self) -> int:
        """See ``IFileBody``."""
        return self._fd

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``."""
        self._delivering = True
        reader = ThreadedReader(self._workers, self._read, self.length)
        return reader.deliver(consumer).addBoth(self._release)

    def _read(self, size: int) -> bytes:
        with self._lock, our_errors("reading"):
            if self._closed:
                raise StorageError("the download was given up")
            data = os.pread(self._fd, size, self._position)
        if not data:
            raise StorageError("the file became shorter while it was sent")
        self._position += len(data)
        return data

    def close(self) -> None:
        """See ``IBody``."""
        if not self._delivering:
            self._release(None)

    def _release(self, result: T) -> T:
        """Close the file, after the read that may still run in a worker."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
            self.close_now()
        else:
            self._workers.run(self.close_now)
        return result

    def close_now(self) -> None:
        """Close the file; waits for a read that runs."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._fd)
