"""Whether a server leaves alone what is in the way of a MOVE, found out by asking it once.

RFC 4918, section 9.9.3, demands it for ``Overwrite: F``, but what is demanded is not always done. So before the
first upload two small files are put beside the repositories under temporary names, and one is moved onto the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from twisted.logger import Logger

from resticd.errors import AlreadyExists
from resticd.remotes.single_flight import SingleFlight
from resticd.remotes.webdav_errors import NotUnderstood
from resticd.remotes.webdav_places import Places, temporary_name
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from resticd.remotes.webdav_api import WebDavApi
    from resticd.remotes.webdav_leftovers import Leftovers

_log = Logger(namespace="resticd.remotes.webdav")


@frozen
class Manners:
    """What a server does.

    :ivar conditional: it refuses a MOVE with ``Overwrite: F`` onto what is there, and leaves it as it is.
    """

    conditional: bool


class AskedOnce:
    """Remembers the manners of a server; a probe that failed is repeated for the next one who asks.

    :param root: where to ask, a collection.
    :ivar known: they, once they were found out.
    """

    def __init__(self, api: WebDavApi, places: Places, leftovers: Leftovers, root: str) -> None:
        self._api = api
        self._places = places
        self._leftovers = leftovers
        self._root = root
        self._probing = SingleFlight(self._probe)
        self.known: Manners | None = None

    async def manners(self) -> Manners:
        """They, found out if need be."""
        if self.known is None:
            await self._probing.join()
        assert self.known is not None
        return self.known

    def stop(self) -> None:
        """Give up a probe that runs."""
        self._probing.stop()

    async def _probe(self) -> None:
        await self._places.ensure(self._root)
        source, target = self._root + temporary_name(), self._root + temporary_name()
        for key in (source, target):
            self._leftovers.begin(key)
        try:
            conditional = await self._asks(source, target)
        finally:
            for key in (source, target):
                await self._leftovers.remove_own(key)
                self._leftovers.end(key)
        self.known = Manners(conditional)
        if not conditional:
            _log.warn(
                "the WebDAV server at {url} does not honour Overwrite: F: two writers that store different files under "
                "one name at the same time are told apart only if both come through this daemon",
                url=self._api.options.url,
            )

    async def _asks(self, source: str, target: str) -> bool:
        for key, data in ((source, b"resticd asks"), (target, b"what this server does with Overwrite")):
            (await self._api.call("PUT", key, data=data)).discard()
        headers = (("Destination", self._api.url(target)), ("Overwrite", "F"))
        try:
            (await self._api.attempt("MOVE", source, headers=headers)).discard()
        except AlreadyExists:
            found = await self._api.properties(target)
            return found is not None and found.size == len(b"what this server does with Overwrite")
        except NotUnderstood as error:
            raise Refused(f"{error}: the server cannot rename files, and nothing can be stored there safely") from None
        return False
