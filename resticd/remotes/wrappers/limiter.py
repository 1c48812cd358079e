"""Counts operations against ``--tpslimit``, for remotes that are not reached through ``resticd.transport``."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from resticd.interfaces import Entry, IBody, IRemote, IUpload, Stat, Usage
from resticd.remotes.wrappers.passing import PassingRemote

if TYPE_CHECKING:
    from resticd.streams import Span

T = TypeVar("T")


class Limiter(Protocol):
    """Says when the next operation may go; ``transport.limiter.TokenBucket`` is one."""

    def acquire(self) -> Deferred[None]:
        """Fires when it may. Can be cancelled."""


@implementer(IRemote)
class LimitedRemote(PassingRemote):
    """Every operation, and every page of a list, waits for its turn."""

    def __init__(self, inner: IRemote, limiter: Limiter) -> None:
        super().__init__(inner)
        self._limiter = limiter

    def stat(self, key: str) -> Deferred[Stat]:
        """See ``IRemote``."""
        return self._in_turn(lambda: self._inner.stat(key))

    async def list(self, prefix: str) -> AsyncGenerator[builtins.list[Entry], None]:
        """See ``IRemote``."""
        await self._limiter.acquire()
        async with aclosing(self._inner.list(prefix)) as pages:
            async for page in pages:
                yield page
                await self._limiter.acquire()

    def open(self, key: str, span: Span | None = None) -> Deferred[IBody]:
        """See ``IRemote``."""
        return self._in_turn(lambda: self._inner.open(key, span))

    def begin(self, key: str, size: int | None, sha256: str | None, overwrite: bool = False) -> Deferred[IUpload]:
        """See ``IRemote``."""
        return self._in_turn(lambda: self._inner.begin(key, size, sha256, overwrite))

    def delete(self, key: str) -> Deferred[None]:
        """See ``IRemote``."""
        return self._in_turn(lambda: self._inner.delete(key))

    def make(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``."""
        return self._in_turn(lambda: self._inner.make(prefix))

    def tidy(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``."""
        return self._in_turn(lambda: self._inner.tidy(prefix))

    def usage(self) -> Deferred[Usage]:
        """See ``IRemote``."""
        return self._in_turn(self._inner.usage)

    def _in_turn(self, operation: Callable[[], Deferred[T]]) -> Deferred[T]:
        return self._limiter.acquire().addCallback(lambda _: operation())
