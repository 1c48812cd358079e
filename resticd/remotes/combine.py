"""Several remotes under one root, each in a directory of its own (rclone's type ``combine``)."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from zope.interface import implementer

from resticd.errors import Forbidden, NotFound, Unsupported
from resticd.interfaces import Capabilities, Entry, IBody, IDirectories, IRemote, IUpload, Stat, Usage
from resticd.remotes.directories import directories

if TYPE_CHECKING:
    from resticd.streams import Span


@implementer(IRemote, IDirectories)
class CombineRemote:
    """What lies below ``directory/`` is on the remote of that directory; nothing lies beside the directories.

    :param upstreams: the remotes by the names of their directories.
    """

    def __init__(self, upstreams: Mapping[str, IRemote]) -> None:
        self._upstreams = upstreams

    @property
    def capabilities(self) -> Capabilities:
        """See ``IRemote``: what all of them can do."""
        each = [upstream.capabilities for upstream in self._upstreams.values()]
        return Capabilities(
            conditional_create=all(one.conditional_create for one in each),
            verifies_hash=all(one.verifies_hash for one in each),
            reports_usage=all(one.reports_usage for one in each),
        )

    def start(self) -> Deferred[None]:
        """See ``IRemote``."""
        return Deferred.fromCoroutine(self._start())

    def stop(self) -> Deferred[None]:
        """See ``IRemote``."""
        stopping = gatherResults([upstream.stop() for upstream in self._upstreams.values()], consumeErrors=True)
        return stopping.addCallback(lambda _: None)

    def stat(self, key: str) -> Deferred[Stat]:
        """See ``IRemote``."""
        upstream, _, rest = self._find(key)
        return upstream.stat(rest) if upstream is not None else fail(NotFound("there is no such file"))

    async def list(self, prefix: str) -> AsyncGenerator[builtins.list[Entry], None]:
        """See ``IRemote``."""
        upstream, directory, rest = self._find(prefix)
        places = {directory: upstream} if upstream is not None else {} if directory else self._upstreams
        for name, place in places.items():
            async with aclosing(place.list(rest)) as pages:
                async for page in pages:
                    yield [entry._replace(key=f"{name}/{entry.key}") for entry in page]

    async def directories(self, prefix: str) -> AsyncGenerator[builtins.list[str], None]:
        """See ``IDirectories``: those of the combination, or of one of its remotes."""
        upstream, directory, rest = self._find(prefix)
        if upstream is not None:
            async with aclosing(directories(upstream, rest)) as pages:
                async for page in pages:
                    yield page
        elif not directory:
            yield list(self._upstreams)

    def open(self, key: str, span: Span | None = None) -> Deferred[IBody]:
        """See ``IRemote``."""
        upstream, _, rest = self._find(key)
        return upstream.open(rest, span) if upstream is not None else fail(NotFound("there is no such file"))

    def begin(self, key: str, size: int | None, sha256: str | None, overwrite: bool = False) -> Deferred[IUpload]:
        """See ``IRemote``. Fails with ``Forbidden`` beside the directories."""
        upstream, directory, rest = self._find(key)
        return upstream.begin(rest, size, sha256, overwrite) if upstream is not None else fail(_outside(directory))

    def delete(self, key: str) -> Deferred[None]:
        """See ``IRemote``."""
        upstream, _, rest = self._find(key)
        return upstream.delete(rest) if upstream is not None else succeed(None)

    def make(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``. Fails with ``Forbidden`` beside the directories; the root is always there."""
        upstream, directory, rest = self._find(prefix)
        if upstream is not None:
            return upstream.make(rest)
        return fail(_outside(directory)) if directory else succeed(None)

    def tidy(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``. The root itself is never tidied: that would be every remote as a whole."""
        upstream, _, rest = self._find(prefix)
        return upstream.tidy(rest) if upstream is not None else succeed(None)

    def usage(self) -> Deferred[Usage]:
        """See ``IRemote``: the sum, of what all of them know."""
        return Deferred.fromCoroutine(self._usage())

    async def _start(self) -> None:
        for upstream in self._upstreams.values():
            await upstream.start()

    async def _usage(self) -> Usage:
        if not self.capabilities.reports_usage:
            raise Unsupported("not all remotes say how much room there is")
        found = [await upstream.usage() for upstream in self._upstreams.values()]
        return Usage(*(_sum(values) for values in zip(*((u.used, u.free, u.total) for u in found), strict=True)))

    def _find(self, path: str) -> tuple[IRemote | None, str, str]:
        """The remote for a key or a prefix if there is one, the first segment, and what is left."""
        directory, slash, rest = path.partition("/")
        # A file beside the directories has no slash in its key.
        return (self._upstreams.get(directory) if slash else None), directory, rest


def _outside(directory: str) -> Forbidden:
    return Forbidden(f'nothing is stored here: no remote of the combination is called "{directory}"')


def _sum(values: tuple[int | None, ...]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
