"""A part of a remote as a remote: gives each test a place of its own where starting a remote is slow."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from zope.interface.interface import InterfaceClass

from resticd.interfaces import Entry, IDirectories, IRemote
from resticd.remotes.wrappers.passing import PassingRemote


class PrefixedRemote(PassingRemote):
    """What lies under ``prefix``, which ends with a slash. Starting and stopping is left to who made the whole."""

    def __init__(self, whole: IRemote, prefix: str) -> None:
        super().__init__(whole)
        self._prefix = prefix

    def __conform__(self, interface: InterfaceClass) -> Any:
        return self if super().__conform__(interface) is not None else None

    async def directories(self, prefix: str) -> AsyncGenerator[list[str], None]:
        async with aclosing(super().__conform__(IDirectories).directories(self._prefix + prefix)) as pages:
            async for page in pages:
                yield page

    async def list(self, prefix: str) -> AsyncGenerator[list[Entry], None]:
        pages = super().list(self._prefix + prefix)
        try:
            async for page in pages:
                yield [entry._replace(key=entry.key.removeprefix(self._prefix)) for entry in page]
        finally:
            await pages.aclose()

    def stat(self, key: str) -> Any:
        return super().stat(self._prefix + key)

    def open(self, key: str, *more: Any) -> Any:
        return super().open(self._prefix + key, *more)

    def begin(self, key: str, *more: Any) -> Any:
        return super().begin(self._prefix + key, *more)

    def delete(self, key: str) -> Any:
        return super().delete(self._prefix + key)

    def make(self, prefix: str) -> Any:
        return super().make(self._prefix + prefix)

    def tidy(self, prefix: str) -> Any:
        return super().tidy(self._prefix + prefix)
