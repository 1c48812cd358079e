"""The two sockets of one rclone: bodies of uploads through ``serve restic``, all else through its remote control.

``serve restic`` alone takes a body whose length is told beforehand, which is what lets backends stream: the remote
control's ``uploadfile`` copies to a temporary file of this machine where a backend wants to know the length.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from attrs import evolve, frozen

from resticd.errors import BadGateway, NotFound, ResticdError, StorageError
from resticd.remotes.bridge_command import NAME
from resticd.transport.bodies import BytesBody
from resticd.transport.client import HttpClient, Request
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from resticd.transport.bodies import StreamedBody
    from resticd.transport.response import Response
    from resticd.transport.settings import ClientSettings

FS = f"{NAME}:"
#: How much longer than a backend rclone itself may make no progress: it lists a whole directory, or ends an upload,
#: before it says anything.
_PATIENCE = 3
_LONGEST_ERROR = 64 * 1024
#: Statistics of all calls go into one group: rclone would keep a thousand of them otherwise.
_GROUP = "resticd"


@frozen
class Features:
    """What rclone says of a remote (``operations/fsinfo``).

    :ivar moves: it can rename files, on the server's side.
    :ivar partial: files that are being uploaded can be seen under their names.
    :ivar lists_all: one call lists everything below a directory as cheaply as the directory alone.
    :ivar slow_times: times of files cost a request each.
    :ivar about: it tells how much room there is.
    :ivar hashes: what it can tell of files without reading them, by rclone's names.
    """

    moves: bool
    partial: bool
    lists_all: bool
    slow_times: bool
    about: bool
    hashes: tuple[str, ...]

    @classmethod
    def read(cls, info: dict[str, Any]) -> Features:
        """From the answer of ``operations/fsinfo``."""
        features = info.get("Features") or {}
        return cls(
            moves=bool(features.get("Move")),
            partial=bool(features.get("PartialUploads")),
            lists_all=bool(features.get("ListR")),
            slow_times=bool(features.get("SlowModTime")),
            about=bool(features.get("About")),
            hashes=() if features.get("SlowHash") else tuple(info.get("Hashes") or ()),
        )


class RcloneApi:
    """Talks to one running rclone.

    :param directory: where its sockets ``bodies`` and ``calls`` are.
    :param clean: takes secrets out of what rclone says.
    """

    def __init__(self, reactor: Any, settings: ClientSettings, directory: Path, clean: Callable[[str], str]) -> None:
        inner = evolve(settings, timeout=settings.timeout * _PATIENCE)
        self._bodies = HttpClient(reactor, evolve(inner, unix_socket=str(directory / "bodies")))
        self._calls = HttpClient(reactor, evolve(inner, unix_socket=str(directory / "calls")))
        self._clean = clean

    async def call(self, command: str, **parameters: Any) -> dict[str, Any]:
        """One call of the remote control on the remote itself, with its answer.

        Raises ``NotFound``, ``Refused`` for whatever else rclone says, which it has tried again itself, and another
        ``StorageError`` where it does not answer.
        """
        response = await self.ask(command, **parameters)
        try:
            answer = json.loads(await response.read())
        except ValueError:
            raise BadGateway(f"rclone: {command}: the answer is not JSON") from None
        if not isinstance(answer, dict):
            raise BadGateway(f"rclone: {command}: the answer is no object")
        return answer

    async def ask(self, command: str, **parameters: Any) -> Response:
        """As ``call``, with an answer that was not read yet."""
        data = json.dumps({"fs": FS, "_group": _GROUP, **parameters}).encode()
        headers = (("Content-Type", "application/json"),)
        request = Request("POST", f"http://rclone/{command}", headers, BytesBody(data))
        response = await self._calls.send(request)
        if response.status == 200:
            return response
        raise await self._error(response, command)

    async def get(self, key: str, span: str | None) -> Response:
        """The object, or the part of it that a Range header's value names, with status 200 or 206.

        Raises ``NotFound`` where rclone says 404, which it also does where an object cannot be opened.
        """
        headers = (("Range", span),) if span is not None else ()
        response = await self._calls.send(Request("GET", f"http://rclone/{quote(f'[{FS}]/{key}')}", headers))
        if response.status in (200, 206):
            return response
        raise await self._error(response, f"read {key}")

    async def post(self, place: str, body: StreamedBody | BytesBody) -> None:
        """Store a body; not under a name that ``bridge_files.is_moved``."""
        response = await self._bodies.send(Request("POST", f"http://rclone/{quote(place)}", (), body))
        status = response.status
        response.discard()
        if status != 200:
            raise Refused(f"rclone could not store {place} (status {status}); the log has what it said")

    def close(self) -> list[Deferred[None]]:
        """Close the idle connections."""
        return [self._bodies.close(), self._calls.close()]

    async def _error(self, response: Response, what: str) -> ResticdError:
        try:
            said = json.loads(await response.read(_LONGEST_ERROR))["error"]
        except (ValueError, KeyError, TypeError, StorageError):
            said = f"status {response.status}"
        text = f"rclone: {what}: {self._clean(' '.join(str(said).split()))[:300]}"
        return NotFound(text) if response.status == 404 else Refused(text)
