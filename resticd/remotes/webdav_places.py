"""Collections of a WebDAV server: made where they are missing, and told from what is gone."""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING

from resticd.errors import NotFound
from resticd.remotes.webdav_errors import Conflict, error_for
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from resticd.remotes.webdav_api import WebDavApi

#: For how long, in seconds, the place at the URL is believed to be still there.
_BELIEVED = 60.0
#: How many collections are remembered: a repository has some 260.
_REMEMBERED = 10_000
#: What a temporary name ends with where it is to be seen if the server can take it.
ODD_END = "?#;%25"
_TEMPORARY = re.compile(rf"\.resticd-[0-9a-f]{{32}}\.tmp({re.escape(ODD_END)})?\Z")


def temporary_name() -> str:
    """A name for what is not finished yet, that nobody else has."""
    return f".resticd-{secrets.token_hex(16)}.tmp"


def is_temporary(name: str) -> bool:
    """Whether a file of this name is an unfinished upload."""
    return _TEMPORARY.match(name) is not None


def parent_of(key: str) -> str:
    """The collection that a key, or another collection, lies in; empty for the topmost one."""
    head, slash, _ = key.rstrip("/").rpartition("/")
    return head + slash


class Places:
    """The tree of collections below the URL, which itself is never made."""

    def __init__(self, api: WebDavApi) -> None:
        self._api = api
        self._seen = float("-inf")
        self._known: OrderedDict[str, None] = OrderedDict()

    def saw(self) -> None:
        """The server has just shown something that lies below the URL."""
        self._seen = self._api.seconds()

    async def ensure(self, directory: str) -> None:
        """Make a collection, and those that it lies in, unless it was seen before."""
        if not directory or directory in self._known:
            return
        try:
            await self._make(directory)
        except Conflict:
            if not parent_of(directory):
                raise
            self.forget(parent_of(directory))
            await self.ensure(parent_of(directory))
            await self._make(directory)
        self._known[directory] = None
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def forget(self, directory: str) -> None:
        """A collection may be gone, and with it those that lie in it."""
        if not directory:
            return
        for known in [known for known in self._known if known.startswith(directory)]:
            del self._known[known]

    async def check_root(self) -> None:
        """Return where the place at the URL is there, as far as it was seen a moment ago.

        Raises a ``StorageError`` where it is not: then nothing is known of what lies below, even if the server says
        that it is not there.
        """
        if self._api.seconds() <= self._seen + _BELIEVED:
            return
        found = await self._api.properties("")
        if found is None or not found.is_collection:
            raise Refused(f"webdav: the server has no directory at {self._api.options.url}")
        self.saw()

    async def confirm_missing(self, what: str) -> NotFound:
        """The error for a resource that the server says is not there."""
        await self.check_root()
        return NotFound(f"webdav: {what}: there is no such object")

    async def _make(self, directory: str) -> None:
        """MKCOL (RFC 4918, section 9.3), for which servers have many words where the collection is there already."""
        response = await self._api.call("MKCOL", directory, allowed=(405, 403, 404, 406, 409, 423))
        status = response.status
        await response.discard()
        if status < 300 or status == 405:
            return
        found = await self._api.properties(directory)
        if found is not None and found.is_collection:
            return
        if status in (404, 409):
            raise Conflict(f"webdav: MKCOL {directory}: the directory above is missing")
        raise error_for(response, b"", f"MKCOL {directory}")
