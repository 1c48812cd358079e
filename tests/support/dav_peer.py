"""A WebDAV server of a few lines inside the test process, for logins, redirections and lists that no real one shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from support.http_peer import Connection, HttpPeer, Received

#: Takes the request and answers it, or does not (False): then it is served.
Guard = Callable[[Connection, Received], bool]


def response(path: str, size: int | None) -> str:
    """One part of a multistatus; a collection where there is no size."""
    kind = (
        "<resourcetype><collection/></resourcetype>" if size is None else f"<getcontentlength>{size}</getcontentlength>"
    )
    known = f"<propstat><prop>{kind}</prop><status>HTTP/1.1 200 OK</status></propstat>"
    return f"<response><href>{path}</href>{known}</response>"


def multistatus(*responses: str) -> bytes:
    return f'<?xml version="1.0"?><multistatus xmlns="DAV:">{"".join(responses)}</multistatus>'.encode()


class DavPeer:
    """Files in memory, and a place for every path that ends with a slash.

    :param guard: is asked first.
    :ivar seen: all requests, in order.
    """

    def __init__(self, guard: Guard | None = None, context: Any = None) -> None:
        self.files: dict[str, bytes] = {}
        self.seen: list[Received] = []
        self._guard = guard
        self.peer = HttpPeer(self._script, context)
        self.url = self.peer.url

    def header(self, name: str) -> list[str | None]:
        """That header of each request."""
        return [request.headers.get(name) for request in self.seen]

    def stop(self) -> Any:
        return self.peer.stop()

    async def _script(self, connection: Connection) -> None:
        while True:
            request = await connection.whole()
            self.seen.append(request)
            if self._guard is None or not self._guard(connection, request):
                self._serve(connection, request)

    def _serve(self, connection: Connection, request: Received) -> None:
        path = request.target
        if request.method == "PROPFIND":
            if path.endswith("/"):
                connection.answer(207, multistatus(response(path, None)))
            elif path in self.files:
                connection.answer(207, multistatus(response(path, len(self.files[path]))))
            else:
                connection.answer(404)
        elif request.method == "PUT":
            self.files[path] = request.body
            connection.answer(201)
        elif request.method == "MOVE":
            target = urlsplit(request.headers["destination"]).path
            if target in self.files and request.headers["overwrite"] == "F":
                connection.answer(412)
            else:
                self.files[target] = self.files.pop(path)
                connection.answer(201)
        elif request.method == "GET" and path in self.files:
            connection.answer(200, self.files[path])
        elif request.method == "DELETE":
            connection.answer(204 if self.files.pop(path, None) is not None else 404)
        else:
            connection.answer(201 if request.method == "MKCOL" else 404)
