"""What can be done to repositories, over any remote: names become keys, policy is asked, uploads are judged."""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from attrs import define, evolve

from resticd.errors import (
    AlreadyExists,
    Corrupt,
    Forbidden,
    NotFound,
    OutOfSpace,
    ResticdError,
    StorageError,
    Unsupported,
)
from resticd.events import Change
from resticd.interfaces import ILeafyRemote, IPromptRemote
from resticd.repository.layout import all_blobs, blob_key, blob_name, blob_names, directory_prefix, repository_prefix
from resticd.repository.names import TYPES, Blob, Directory, Repository
from resticd.streams import ThreadedWriter

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from resticd.interfaces import Caller, IBody, IEventSink, IRemote, IUpload, Piece, Stat
    from resticd.repository.policy import Policy
    from resticd.streams import Span
    from resticd.workers import Workers


class Listed(NamedTuple):
    """Some files of a list, in columns."""

    names: list[str]
    #: in bytes
    sizes: list[int]


class Repositories:
    """All repositories on one remote.

    Every method is a coroutine that raises the errors of ``resticd.errors``; cancelling one stops what runs for it.

    :param remote: where the files are.
    :param policy: what callers may do.
    :param workers: threads for hashing.
    :param sink: learns of every change.
    """

    def __init__(self, remote: IRemote, policy: Policy, workers: Workers, sink: IEventSink) -> None:
        self._remote = remote
        self._prompt = remote if IPromptRemote.providedBy(remote) else None
        self._policy = policy
        self._workers = workers
        self._sink = sink

    async def create(self, caller: Caller, repository: Repository) -> None:
        """Make the place for a repository. One that exists is left as it is."""
        with self.noting(Change(caller, "create", str(repository))):
            self._policy.check_create(caller, repository)
            await self._remote.make(repository_prefix(repository))

    async def remove(self, caller: Caller, repository: Repository) -> None:
        """Delete all files of a repository, its config first; files that are not restic's stay."""
        with self.noting(Change(caller, "remove", str(repository))):
            self._policy.check_remove(caller, repository)
            await self._remove(repository)

    async def _remove(self, repository: Repository) -> None:
        await self._remote.delete(blob_key(Blob(repository, "config", "")))
        for kind in TYPES:
            directory = Directory(repository, kind)
            async with aclosing(self._remote.list(directory_prefix(directory))) as pages:
                async for page in pages:
                    for entry in page:
                        if blob_name(directory, entry.key) is not None:
                            await self._remote.delete(entry.key)
            await self._remote.tidy(directory_prefix(directory))
        await self._remote.tidy(repository_prefix(repository))

    async def stat(self, caller: Caller, blob: Blob) -> Stat:
        """Size and time of a file, or ``NotFound``."""
        self._check_read(caller, blob)
        return await self._remote.stat(blob_key(blob))

    async def open(self, caller: Caller, blob: Blob, span: Span | None) -> IBody:
        """A file, or the part of it that ``span`` names."""
        self._check_read(caller, blob)
        return await self._remote.open(blob_key(blob), span)

    def prompt_stat(self, caller: Caller, blob: Blob) -> Stat | None:
        """As ``stat``, where it is known at once; None says nothing. Raises ``Forbidden``."""
        if self._prompt is None:
            return None
        self._check_read(caller, blob)
        return self._prompt.prompt_stat(blob_key(blob))

    def prompt_read(self, caller: Caller, blob: Blob, span: Span | None, most: int) -> Piece | None:
        """As ``open``, for not more than ``most`` bytes that are in memory; None says nothing. Raises ``Forbidden``."""
        if self._prompt is None:
            return None
        self._check_read(caller, blob)
        return self._prompt.prompt_read(blob_key(blob), span, most)

    def prompt_store(self, caller: Caller, blob: Blob, data: bytes) -> Coroutine[Deferred[Any], Any, bool] | None:
        """As ``store``, ``write`` and ``commit`` in one step, where the remote may be so prompt; else None.

        Returns whether it is stored by this step. If not, nothing is left and the sink has heard nothing: it is to be
        tried, and refused, in the other way. Raises ``Forbidden``.
        """
        if self._prompt is None:
            return None
        self._policy.check_store(caller, blob)
        storing = self._prompt.prompt_store(blob_key(blob), None if blob.is_config else blob.name, data)
        return None if storing is None else self._note_stored(storing, change_of(caller, "store", blob, len(data)))

    async def _note_stored(self, storing: Coroutine[Deferred[Any], Any, bool], change: Change) -> bool:
        try:
            stored = await storing
        except ResticdError:
            return False
        if stored:
            self._sink.emit(change)
        return stored

    async def list(self, caller: Caller, directory: Directory) -> AsyncGenerator[Listed, None]:
        """All files of a type, as pages without empty ones; what is not restic's is left out.

        Ends by itself only when the list is complete.
        """
        self._check_read(caller, directory)
        pages = self._list_leaves(directory) if ILeafyRemote.providedBy(self._remote) else self._list_entries(directory)
        async with aclosing(pages):
            async for page in pages:
                if page.names:
                    yield page

    async def _list_leaves(self, directory: Directory) -> AsyncGenerator[Listed, None]:
        async with aclosing(cast(ILeafyRemote, self._remote).list_leaves(directory_prefix(directory))) as pages:
            async for prefix, names, sizes in pages:
                if all_blobs(directory, prefix, names):
                    yield Listed(names, sizes)
                else:
                    yield _columns(blob_names(directory, [prefix + name for name in names]), sizes)

    async def _list_entries(self, directory: Directory) -> AsyncGenerator[Listed, None]:
        async with aclosing(self._remote.list(directory_prefix(directory))) as pages:
            async for page in pages:
                yield _columns(blob_names(directory, [entry.key for entry in page]), [entry.size for entry in page])

    async def delete(self, caller: Caller, blob: Blob) -> None:
        """Remove a file; one that is missing is a success."""
        with self.noting(change_of(caller, "delete", blob)):
            self._policy.check_delete(caller, blob)
            await self._remote.delete(blob_key(blob))

    async def store(self, caller: Caller, blob: Blob, size: int | None) -> Store:
        """Start an upload of ``size`` bytes (None: not known). Nothing stored is ever replaced."""
        change = change_of(caller, "store", blob, size)
        with self.noting(change, only_failures=True):
            self._policy.check_store(caller, blob)
            sha256 = None if blob.is_config else blob.name
            upload = await self._remote.begin(blob_key(blob), size, sha256)
        return Store(self, blob, upload, change)

    def _check_read(self, caller: Caller, what: Blob | Directory) -> None:
        """Raise ``Forbidden`` where policy says so, which the sink learns of too; what may be read it need not know."""
        try:
            self._policy.check_read(caller, what.repository)
        except Forbidden as error:
            name = what.name if isinstance(what, Blob) else ""
            self._sink.emit(Change(caller, "read", str(what.repository), what.type, name, None, "refused", str(error)))
            raise

    @contextmanager
    def noting(self, change: Change, only_failures: bool = False) -> Iterator[None]:
        """Tell the sink what became of ``change`` when the block ends."""
        try:
            yield
        except BaseException as error:
            refused = isinstance(error, Forbidden | Unsupported | OutOfSpace)
            reason = str(error) if isinstance(error, ResticdError) else type(error).__name__
            self._sink.emit(evolve(change, outcome="refused" if refused else "failed", reason=reason))
            raise
        if not only_failures:
            self._sink.emit(change)

    def note(self, change: Change) -> None:
        """Tell the sink."""
        self._sink.emit(change)

    async def judge(self, blob: Blob, error: AlreadyExists | Corrupt) -> None:
        """Decide what an upload that was not stored means: returns where the client's bytes are stored already.

        A retry of an upload that had succeeded finds its own bytes, which must be read to be believed. Raises
        ``AlreadyExists`` where something else is stored under the name, and ``error`` where nothing is.
        """
        try:
            if isinstance(error, Corrupt):
                await self._remote.stat(blob_key(blob))
                raise AlreadyExists("another file is stored under this name")
            if blob.is_config:
                raise AlreadyExists("the repository has a config already")
            if await self._hash(blob) != blob.name:
                raise AlreadyExists("a damaged file is stored under this name")
        except NotFound:
            if isinstance(error, Corrupt):
                raise error from None
            raise StorageError("the file that was in the way is gone") from None

    async def _hash(self, blob: Blob) -> str:
        """The SHA-256 of what is stored."""
        body = await self._remote.open(blob_key(blob), None)
        digest = hashlib.sha256()

        def update(chunks: builtins.list[bytes]) -> None:
            for chunk in chunks:
                digest.update(chunk)

        consumer = ThreadedWriter(self._workers, update)
        try:
            if body.length:
                await body.deliver(consumer)
            await consumer.drained()
        finally:
            body.close()
        return digest.hexdigest()


def _columns(names: list[str | None], sizes: list[int]) -> Listed:
    """What is restic's, of names, which are None for what is not, and sizes."""
    if None in names:
        kept = [(name, size) for name, size in zip(names, sizes, strict=True) if name is not None]
        return Listed([name for name, _ in kept], [size for _, size in kept])
    return Listed(cast("list[str]", names), sizes)


@define
class Store:
    """One upload on its way: feed ``upload``, then ``commit``, and ``abort`` in every case."""

    repositories: Repositories
    blob: Blob
    upload: IUpload
    change: Change
    _decided: bool = False

    async def commit(self) -> None:
        """Returns once the client's bytes are durable under the name, by this upload or an earlier one.

        Raises ``Corrupt`` for bytes that do not hash to the name or fall short, ``AlreadyExists`` where other bytes are
        stored.
        """
        self._decided = True
        with self.repositories.noting(self.change):
            try:
                await self.upload.commit()
            except (AlreadyExists, Corrupt) as error:
                await self.repositories.judge(self.blob, error)

    async def abort(self) -> None:
        """Throw the bytes away; does nothing after a commit."""
        if not self._decided:
            self._decided = True
            self.repositories.note(evolve(self.change, outcome="failed", reason="the upload was given up"))
        await self.upload.abort()


def change_of(caller: Caller, action: str, blob: Blob, size: int | None = None) -> Change:
    """What is to happen to ``blob``."""
    return Change(caller, action, str(blob.repository), blob.type, blob.name, size)
