"""MOVE, repeated where that is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resticd.remotes.webdav_errors import error_for

if TYPE_CHECKING:
    from resticd.remotes.webdav_api import WebDavApi


async def move(api: WebDavApi, source: str, target: str, *, overwrite: bool = False) -> bool:
    """Give what is stored under a temporary name another one, or the other way round.

    Repeated while the error may pass: where the source is gone then, an earlier attempt has moved it and its answer was
    lost, because nobody else knows a temporary name.

    Raises ``AlreadyExists`` where the target is taken and ``overwrite`` is false.

    :returns: whether the server itself said that it was done.
    """
    headers = (("Destination", api.url(target)), ("Overwrite", "T" if overwrite else "F"))

    async def attempt(number: int) -> bool:
        if number and await api.properties(source) is None:
            return False
        response = await api.attempt("MOVE", source, headers=headers)
        await response.discard()
        if response.status == 207:  # it says what could not be done (RFC 4918, section 9.9.4)
            raise error_for(response, b"", f"MOVE {source}")
        return True

    return await api.retrying(attempt)
