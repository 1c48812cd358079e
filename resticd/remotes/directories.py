"""The directories of any remote."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from resticd.interfaces import IDirectories

if TYPE_CHECKING:
    from resticd.interfaces import IRemote


async def directories(remote: IRemote, prefix: str) -> AsyncGenerator[list[str], None]:
    """As ``IDirectories.directories``, of a remote that may have no such method.

    Then all that lies below ``prefix`` is listed, and the names are kept in memory.
    """
    direct: Any = IDirectories(remote, None)
    if direct is not None:
        async with aclosing(direct.directories(prefix)) as names:
            async for page in names:
                yield page
        return
    seen: set[str] = set()
    async with aclosing(remote.list(prefix)) as pages:
        async for entries in pages:
            paths = (entry.key[len(prefix) :].partition("/") for entry in entries)
            new = {name for name, slash, _ in paths if slash} - seen
            seen |= new
            if new:
                yield sorted(new)
