"""Removing empty collections, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resticd.errors import AlreadyExists
from resticd.remotes.webdav_collection import children_of
from resticd.remotes.webdav_errors import CollectionMissing
from resticd.remotes.webdav_move import move
from resticd.remotes.webdav_places import Places, parent_of, temporary_name

if TYPE_CHECKING:
    from resticd.remotes.webdav_api import WebDavApi


class Tidier:
    """Removes the empty collections of a tree.

    DELETE takes everything in a collection with it (RFC 4918, section 9.6.1), and so what an upload has put there a
    moment ago. So an empty collection is given a name first that no upload knows, and is looked at again under it.
    """

    def __init__(self, api: WebDavApi, places: Places) -> None:
        self._api = api
        self._places = places

    async def tidy(self, key: str, keep: str) -> None:
        """Remove the empty collections at and under ``key``, but for ``keep``."""
        try:
            children = await children_of(self._api, key)
        except CollectionMissing:
            await self._places.check_root()
            return
        for child in children:
            if child.resource.is_collection and child.name is not None:
                await self.tidy(f"{key}{child.name}/", keep)
        if key not in ("", keep) and await self._is_empty(key):
            await self._remove(key)

    async def _remove(self, key: str) -> None:
        self._places.forget(key)
        aside = f"{parent_of(key)}{temporary_name()}/"
        await move(self._api, key, aside)
        if await self._is_empty(aside):
            await (await self._api.call("DELETE", aside, allowed=(404,))).discard()
        else:
            await self._put_back(aside, key)

    async def _put_back(self, aside: str, key: str) -> None:
        try:
            await move(self._api, aside, key)
            return
        except AlreadyExists:  # made anew meanwhile
            pass
        for child in await children_of(self._api, aside):
            slash = "/" if child.resource.is_collection else ""
            await move(self._api, f"{aside}{child.name}{slash}", f"{key}{child.name}{slash}")
        if await self._is_empty(aside):
            await (await self._api.call("DELETE", aside, allowed=(404,))).discard()

    async def _is_empty(self, key: str) -> bool:
        try:
            return not await children_of(self._api, key)
        except CollectionMissing:
            return False
