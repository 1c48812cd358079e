"""What a server makes of MOVE, found out by asking it once.

RFC 4918, section 9.9.3, demands that nothing is replaced with ``Overwrite: F``, but what is demanded is not always
done. So before the first upload two small files are put beside the repositories under temporary names, and one is moved
onto the other.

WsgiDAV decodes the Destination before it takes it apart, and moves what is meant for ``a?b`` to ``a``. So before the
first upload to a name with such a character a small file is moved to one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import frozen
from twisted.logger import Logger

from resticd.errors import AlreadyExists, StorageError
from resticd.remotes.single_flight import SingleFlight
from resticd.remotes.webdav_errors import NotUnderstood
from resticd.remotes.webdav_move import move
from resticd.remotes.webdav_places import ODD_END, Places, temporary_name
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from resticd.remotes.webdav_api import WebDavApi
    from resticd.remotes.webdav_leftovers import Leftovers

_ODD = re.compile("[?#;%]")
_log = Logger(namespace="resticd.remotes.webdav")
_FIRST, _SECOND = b"resticd asks", b"what this server does with Overwrite"


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
        self._probing_names = SingleFlight(self._probe_names)
        self._moves_to_odd_names: bool | None = None
        self.known: Manners | None = None

    async def manners(self) -> Manners:
        """They, found out if need be."""
        if self.known is None:
            await self._probing.join()
        assert self.known is not None
        return self.known

    async def check_name(self, key: str) -> None:
        """Raises ``StorageError`` where what is meant for a key would be moved to another one."""
        if _ODD.search(key) is None:
            return
        if self._moves_to_odd_names is None:
            await self._probing_names.join()
        if not self._moves_to_odd_names:
            raise Refused(f"webdav: the server cannot move files to names such as {key}: use one without ?, #, ; and %")

    def stop(self) -> None:
        """Give up a probe that runs."""
        self._probing.stop()
        self._probing_names.stop()

    async def _probe(self) -> None:
        source, target = self._root + temporary_name(), self._root + temporary_name()
        conditional = await self._asks(source, target)
        self.known = Manners(conditional)
        if not conditional:
            _log.warn(
                "the WebDAV server at {url} does not honour Overwrite: F: two writers that store different files under "
                "one name at the same time are told apart only if both come through this daemon",
                url=self._api.options.url,
            )

    async def _probe_names(self) -> None:
        source, cut = self._root + temporary_name(), self._root + temporary_name()
        target = cut + ODD_END
        await self._put(source, _FIRST)
        try:
            await move(self._api, source, target)
            found = await self._api.properties(target)
            self._moves_to_odd_names = found is not None and found.size == len(_FIRST)
        except StorageError as error:
            if not isinstance(error, Refused):  # it may pass
                raise
            self._moves_to_odd_names = False
        finally:
            await self._remove(source, target, cut)

    async def _asks(self, source: str, target: str) -> bool:
        try:
            await self._put(source, _FIRST)
            await self._put(target, _SECOND)
            try:
                await move(self._api, source, target)
            except AlreadyExists:
                found = await self._api.properties(target)
                return found is not None and found.size == len(_SECOND)
            except NotUnderstood as error:
                raise Refused(f"{error}: where files cannot be renamed nothing can be stored safely") from None
            return False
        finally:
            await self._remove(source, target)

    async def _put(self, key: str, data: bytes) -> None:
        await self._places.ensure(self._root)
        self._leftovers.begin(key)
        await (await self._api.call("PUT", key, data=data)).discard()

    async def _remove(self, *keys: str) -> None:
        for key in keys:
            await self._leftovers.remove_own(key)
            self._leftovers.end(key)
