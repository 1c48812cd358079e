"""What rclone knows of single files, and the names of those that are still being uploaded."""

from __future__ import annotations

import datetime
import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from attrs import frozen

from resticd.errors import BadGateway, NotFound
from resticd.interfaces import Stat
from resticd.remotes.bridge_api import FS
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resticd.remotes.bridge_child import Rclone
    from resticd.transport.retries import Retries

_TEMPORARY = re.compile(r"(?:.*/)?\.resticd-[0-9a-f]{24}\.tmp", re.DOTALL)
#: A temporary file that is so old, in seconds, is that of a dead writer.
LEFT = 24 * 3600.0


def temporary_beside(key: str) -> str:
    """A new name in the same directory, or in the first one above where ``serve restic`` leaves names alone."""
    place = key
    while True:
        directory, slash, _ = place.rpartition("/")
        place = f"{directory}{slash}.resticd-{secrets.token_hex(12)}.tmp"
        if not is_moved(place):
            return place
        place = directory


def is_moved(key: str) -> bool:
    """Whether ``serve restic`` stores it elsewhere: ``data/2159…`` becomes ``data/21/2159…`` (its ``WithRemote``).

    Which names right below ``data`` these are depends on its version. restic's own are never there.
    """
    directory, _, _ = key.rpartition("/")
    return directory == "data" or directory.endswith("/data")


def is_temporary(key: str) -> bool:
    """Whether a file is one that is being uploaded, or was left behind."""
    return _TEMPORARY.fullmatch(key) is not None


def parse_time(text: object) -> float | None:
    """Seconds since the epoch from RFC 3339, None where it says nothing."""
    try:
        seconds = datetime.datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if seconds > 0 else None  # Go's zero is the year 1


@frozen
class Found:
    """A file.

    :ivar hashes: in hexadecimal, by rclone's names.
    """

    stat: Stat
    hashes: Mapping[str, str]


class Files:
    """Looks at files, removes and renames them; asks again where rclone has gone meanwhile."""

    def __init__(self, rclone: Rclone, retries: Retries) -> None:
        self._rclone = rclone
        self._retries = retries

    async def call(self, command: str, **parameters: Any) -> dict[str, Any]:
        """A call that may be done twice."""

        async def attempt(_: int) -> dict[str, Any]:
            running = await self._rclone.ready()
            return await running.api.call(command, **parameters)

        return await self._retries.run(attempt)

    async def look(self, key: str, hash: str | None = None) -> Found:
        """The file, with one of its hashes if asked for. Raises ``NotFound``."""
        running = await self._rclone.ready()
        options: dict[str, Any] = {"filesOnly": True, "noMimeType": True, "noModTime": running.features.slow_times}
        if hash is not None:
            options.update(showHash=True, hashTypes=[hash])
        answer = await self.call("operations/stat", remote=key, opt=options)
        item = answer.get("item", "")
        if item is None:
            raise NotFound("there is no such file")
        try:
            size, modified, hashes = int(item["Size"]), parse_time(item.get("ModTime")), item.get("Hashes") or {}
        except (TypeError, KeyError, ValueError, AttributeError):
            raise BadGateway("rclone: operations/stat: the answer is not what it should be") from None
        return Found(Stat(size, modified), hashes)

    async def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        try:
            await self.look(key)
        except NotFound:
            return False
        return True

    async def remove(self, key: str) -> None:
        """Remove a file; one that is missing is removed already."""
        with suppress(NotFound):
            await self.call("operations/deletefile", remote=key)

    async def is_missing(self, directory: str) -> bool:
        """Whether it is certain that there is no such directory: for those types that have no word of their own for it.

        Looks for its name in its parent, and for the parent where that cannot be listed.
        """
        options = {"dirsOnly": True, "noModTime": True, "noMimeType": True}
        while directory:
            try:
                answer = await self.call("operations/stat", remote=directory, opt=options)
            except NotFound:
                return True
            except Refused:
                directory = directory.rpartition("/")[0]
            else:
                return answer.get("item", "") is None
        return False

    async def rename(self, source: str, target: str, *, look: bool = False) -> None:
        """Give a file another name, over a file that has it, as far as the remote lets; not repeated.

        :param look: delete what has the name first.
        """
        running = await self._rclone.ready()
        # Without the first rclone deletes what has the name, so that for a moment there is nothing. Without the second
        # it takes files of one size and time for equal, and renames nothing.
        config = {"NoCheckDest": not look, "IgnoreTimes": True}
        await running.api.call(
            "operations/movefile",
            srcFs=FS,
            srcRemote=source,
            dstFs=FS,
            dstRemote=target,
            _config=config,
        )
