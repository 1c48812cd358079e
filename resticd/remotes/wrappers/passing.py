"""What every wrapper does with what it does not change: hand it on."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from zope.interface import alsoProvides, implementer

from resticd.interfaces import Capabilities, Entry, IBody, IDirectories, IRemote, IUpload, IVerifyingUpload, Stat, Usage

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer
    from zope.interface.interface import InterfaceClass

    from resticd.streams import Span


@implementer(IRemote)
class PassingRemote:
    """Is ``inner``, but for what a subclass overrides."""

    def __init__(self, inner: IRemote) -> None:
        self._inner = inner

    def __conform__(self, interface: InterfaceClass) -> Any:
        """What the wrapped one can do besides and no wrapper changes."""
        return IDirectories(self._inner, None) if interface is IDirectories else None

    @property
    def capabilities(self) -> Capabilities:
        """See ``IRemote``."""
        return self._inner.capabilities

    def start(self) -> Deferred[None]:
        """See ``IRemote``."""
        return self._inner.start()

    def stop(self) -> Deferred[None]:
        """See ``IRemote``."""
        return self._inner.stop()

    def stat(self, key: str) -> Deferred[Stat]:
        """See ``IRemote``."""
        return self._inner.stat(key)

    def list(self, prefix: str) -> AsyncGenerator[builtins.list[Entry], None]:
        """See ``IRemote``."""
        return self._inner.list(prefix)

    def open(self, key: str, span: Span | None = None) -> Deferred[IBody]:
        """See ``IRemote``."""
        return self._inner.open(key, span)

    def begin(self, key: str, size: int | None, sha256: str | None, overwrite: bool = False) -> Deferred[IUpload]:
        """See ``IRemote``."""
        return self._inner.begin(key, size, sha256, overwrite)

    def delete(self, key: str) -> Deferred[None]:
        """See ``IRemote``."""
        return self._inner.delete(key)

    def make(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``."""
        return self._inner.make(prefix)

    def tidy(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``."""
        return self._inner.tidy(prefix)

    def usage(self) -> Deferred[Usage]:
        """See ``IRemote``."""
        return self._inner.usage()


@implementer(IUpload)
class PassingUpload:
    """Is ``inner``, but for what a subclass overrides, and never an ``IBlockingSink``."""

    def __init__(self, inner: IUpload) -> None:
        self._inner = inner
        if IVerifyingUpload.providedBy(inner):
            alsoProvides(self, IVerifyingUpload)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        self._inner.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._inner.unregisterProducer()

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self._inner.write(data)

    def commit(self) -> Deferred[Stat]:
        """See ``IUpload``."""
        return self._inner.commit()

    def abort(self) -> Deferred[None]:
        """See ``IUpload``."""
        return self._inner.abort()
