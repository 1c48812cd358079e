"""A local directory as a remote. restic can open the same directory by itself."""

from __future__ import annotations

import builtins
import os
import stat
from collections.abc import AsyncGenerator, Collection, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from resticd.errors import StorageError
from resticd.interfaces import (
    Capabilities,
    Entry,
    IBody,
    IDirectories,
    ILeafyRemote,
    IPromptRemote,
    IUpload,
    Leaves,
    Piece,
    Stat,
    Usage,
)
from resticd.remotes.local_body import LocalBody
from resticd.remotes.local_direct import DirectWrites
from resticd.remotes.local_errors import our_errors
from resticd.remotes.local_memory import DirectoryMemory
from resticd.remotes.local_open import OpenFiles
from resticd.remotes.local_place import Place
from resticd.remotes.local_prompt import PromptReader
from resticd.remotes.local_ring_store import RingStore
from resticd.remotes.local_small import SMALL, SmallUpload
from resticd.remotes.local_tree import (
    Listing,
    Way,
    leftovers,
    read_directory,
    remove_empty_directories,
    remove_leftover,
)
from resticd.remotes.local_upload import LocalUpload, RunningUploads, TemporaryFile

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from resticd.streams import Span
    from resticd.workers import Workers

#: Entries on a page of a list.
PAGE = 1000
#: … and at least, where whole directories are listed and more are there. Each page is a turn of a worker.
LEAVES = 4000

# In the class ``list`` is a method.
Waiting = list[tuple[str, Way]]
Listings = list[Listing]

#: What is done for speed alone, by the name under which a remote can do without it.
TECHNIQUES = ("small-uploads", "ring-uploads", "direct-writes", "prompt-reads", "open-files", "directory-memory")

_MISSING = "there is no such file"


@implementer(IPromptRemote, ILeafyRemote, IDirectories)
class LocalRemote:
    """See ``IRemote``. Every call to the disk runs in a worker.

    :param root: the directory; it is made at ``start``. When it disappears later, say because the disk under it is
        unmounted, everything fails: a missing root is not an empty one.
    :param without: the techniques to do without, for comparison; of ``TECHNIQUES``.
    """

    capabilities = Capabilities(conditional_create=True, verifies_hash=True, reports_usage=True)
    _log = Logger(namespace="resticd.remotes.local")

    def __init__(self, root: Path, workers: Workers, without: Collection[str] = ()) -> None:
        self._small = -1 if "small-uploads" in without else SMALL
        self._place = Place(root)
        self._root = self._place.root
        self._workers = workers
        self._uploads = RunningUploads()
        kept = None if "open-files" in without else OpenFiles(cast("IReactorTime", workers.reactor).callLater)
        self._prompt = PromptReader(self._root, kept)
        self._promptly = "prompt-reads" not in without
        self._direct = None if "direct-writes" in without else DirectWrites(self._prompt)
        self._ring = None if "ring-uploads" in without else RingStore(self._place, self._prompt, workers)
        self._memory = None if "directory-memory" in without else DirectoryMemory(self._prompt.learn)
        self._stopped = False
        self._sweep: Deferred[None] | None = None

    def start(self) -> Deferred[None]:
        """See ``IRemote``."""

        def started(_: None) -> None:
            self._sweep = self._workers.run(self._remove_leftovers)
            self._sweep.addErrback(lambda failure: self._log.failure("looking for leftovers failed", failure))

        return self._workers.run(self._prepare).addCallback(started)

    def _prepare(self) -> None:
        self._place.prepare()
        self._prompt.look_at_root()

    def _remove_leftovers(self) -> None:
        removed = sum(remove_leftover(path) for path in leftovers(self._root, lambda: self._stopped))
        if removed:
            self._log.info("{root}: removed {removed} unfinished uploads", root=self._root, removed=removed)

    def stop(self) -> Deferred[None]:
        """See ``IRemote``. Waits for the sweep, which ends early."""
        self._stopped = True
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._workers.run(self._uploads.abort_all)
        if self._ring is not None:
            await self._ring.stop()
        self._prompt.close()
        await self._swept()

    def _swept(self) -> Deferred[None]:
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
        path = self._root / key
        with our_errors(f"looking at {key}", _MISSING):
            try:
                about = path.stat()
            except FileNotFoundError:
                self._place.confirm_missing(path)
                raise
        return _stat_of_file(key, about)

    def prompt_stat(self, key: str) -> Stat | None:
        """See ``IPromptRemote``."""
        return self._prompt.stat(key) if self._promptly else None

    def prompt_read(self, key: str, span: Span | None, most: int) -> Piece | None:
        """See ``IPromptRemote``."""
        return self._prompt.read(key, span, most) if self._promptly else None

    def prompt_store(self, key: str, sha256: str | None, data: bytes) -> Coroutine[Deferred[Any], Any, bool] | None:
        """See ``IPromptRemote``."""
        if self._ring is None or not self._ring.usable or len(data) > self._small:
            return None
        return self._ring.put(key, sha256, data)

    async def list(self, prefix: str) -> AsyncGenerator[list[Entry], None]:
        """See ``IRemote``. One directory and the names of those that wait are in memory at a time."""
        await self._workers.run(self._place.check)
        waiting: Waiting = [(prefix, frozenset())]
        while waiting:
            listing = await self._workers.run(read_directory, self._place, *waiting.pop())
            rows = zip(listing.names, listing.sizes, listing.modified or (), strict=True)
            entries = [Entry(listing.prefix + name, size, modified) for name, size, modified in rows]
            for start in range(0, len(entries), PAGE):
                yield entries[start : start + PAGE]
            waiting += [(directory, listing.way) for directory in listing.directories]

    async def directories(self, prefix: str) -> AsyncGenerator[builtins.list[str], None]:
        """See ``IDirectories``."""
        yield await self._workers.run(self._directories, prefix)

    def _directories(self, prefix: str) -> builtins.list[str]:
        self._place.check()
        path = self._root / prefix
        with our_errors(f"listing {prefix}"):
            try:
                with os.scandir(path) as entries:
                    return [entry.name for entry in entries if entry.is_dir()]
            except FileNotFoundError:
                self._place.confirm_missing(path)
                return []

    async def list_leaves(self, prefix: str) -> AsyncGenerator[Leaves, None]:
        """See ``ILeafyRemote``."""
        await self._workers.run(self._place.check)
        waiting: Waiting = [(prefix, frozenset())]
        while waiting:
            for listing in await self._workers.run(self._read_directories, waiting):
                yield Leaves(listing.prefix, listing.names, listing.sizes)

    def _read_directories(self, waiting: Waiting) -> Listings:
        """As many of the directories that wait as hold ``LEAVES`` or more; what lies in them waits then."""
        listings: Listings = []
        files = 0
        while waiting and files < LEAVES:
            listing = read_directory(self._place, *waiting.pop(), memory=self._memory)
            waiting += [(directory, listing.way) for directory in listing.directories]
            listings.append(listing)
            files += len(listing.names)
        return listings

    def open(self, key: str, span: Span | None = None) -> Deferred[IBody]:
        """See ``IRemote``."""
        opened = self._workers.run_releasing(LocalBody.close_now, self._open, key, span)
        return cast("Deferred[IBody]", opened)

    def _open(self, key: str, span: Span | None) -> LocalBody:
        path = self._root / key
        with our_errors(f"opening {key}", _MISSING):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hang
            except FileNotFoundError:
                self._place.confirm_missing(path)
                raise
        try:
            with our_errors(f"opening {key}"):
                about = os.fstat(fd)
            quick = self._prompt.learn(fd, about.st_dev)
            size = _stat_of_file(key, about).size
            offset, length = (0, size) if span is None else span.resolve(size)
        except BaseException:
            os.close(fd)
            raise
        # On network file systems and FUSE close(2) talks to a server.
        prompt = self._prompt.read_open if quick and self._promptly else None
        return LocalBody(self._workers, fd, size, offset, length, quick=quick, prompt=prompt)

    def begin(self, key: str, size: int | None, sha256: str | None, overwrite: bool = False) -> Deferred[IUpload]:
        """See ``IRemote``."""
        make = partial(
            TemporaryFile, self._place, self._uploads, key, size, sha256, overwrite=overwrite, direct=self._direct
        )
        if size is not None and size <= self._small:
            ring = None if overwrite or self._ring is None else partial(self._ring.store, key, sha256)
            return succeed(cast(IUpload, SmallUpload(self._workers, size, make, ring)))
        opened = self._workers.run_releasing(TemporaryFile.abort, make)
        return opened.addCallback(lambda file: cast(IUpload, LocalUpload(self._workers, file)))

    def delete(self, key: str) -> Deferred[None]:
        """See ``IRemote``."""
        return self._workers.run(self._delete, key)

    def _delete(self, key: str) -> None:
        path = self._root / key
        with our_errors(f"deleting {key}"):
            try:
                path.unlink()
            except FileNotFoundError:
                self._place.confirm_missing(path)

    def make(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``."""
        return self._workers.run(self._make, prefix)

    def _make(self, prefix: str) -> None:
        with our_errors(f"making {prefix}"):
            self._place.check()
            self._place.make_directories(self._root / prefix)

    def tidy(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``. The root itself stays."""
        return self._workers.run(self._tidy, prefix)

    def _tidy(self, prefix: str) -> None:
        with our_errors(f"tidying {prefix}"):
            self._place.check()
            remove_empty_directories(self._root / prefix, keep=self._root)

    def usage(self) -> Deferred[Usage]:
        """See ``IRemote``."""
        return self._workers.run(self._usage)

    def _usage(self) -> Usage:
        self._place.check()
        with our_errors("asking for free space"):
            about = os.statvfs(self._root)
        total, free = about.f_blocks * about.f_frsize, about.f_bavail * about.f_frsize
        return Usage(used=total - about.f_bfree * about.f_frsize, free=free, total=total)


def _stat_of_file(key: str, about: os.stat_result) -> Stat:
    if not stat.S_ISREG(about.st_mode):
        raise StorageError(f"{key} is not a file")
    return Stat(about.st_size, about.st_mtime)
