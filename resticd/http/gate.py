"""What every request passes before the routes: the site's base, CORS, and who it is from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from resticd.auth.proxies import address_text
from resticd.errors import NoSuchName, Unauthorized
from resticd.events import LoginRefused
from resticd.http.blobs import BLOB_HANDLERS
from resticd.http.errors import WrongMethod, answer_error
from resticd.http.fields import allow_origin
from resticd.http.lane import Lane
from resticd.http.listing import get_list
from resticd.interfaces import Caller, Introduction
from resticd.repository.names import Blob, Directory, Repository, parse

if TYPE_CHECKING:
    from twisted.web.http_headers import Headers

    from resticd.http.request import StreamingRequest
    from resticd.interfaces import IAuthenticator
    from resticd.repository.operations import Repositories

#: Of the routes of a repository itself.
REPOSITORY_METHODS = (b"POST", b"DELETE")


@frozen
class Gate:
    """The rules.

    :ivar repositories: what is behind the gate.
    :ivar authenticator: says who a request is from.
    :ivar base: the prefix of all paths, with neither slash; empty for none.
    :ivar allow_origin: the origin whose scripts may read answers (CORS), None for none.
    :ivar user_header: the header whose value goes to the authenticator as ``header_user``, None for none.
    :ivar common_name: tells the common name of a transport's verified client certificate.
    :ivar lane: whether requests for blobs and lists go to their handlers without the routes, which cost 100 µs, and
        some are answered by the fast lane (``http.lane``).
    """

    repositories: Repositories
    authenticator: IAuthenticator
    base: str = ""
    allow_origin: str | None = None
    user_header: str | None = None
    common_name: Callable[[object], str | None] = lambda _: None
    lane: bool = True

    def introduce(self, headers: Headers, channel: Any) -> Introduction:
        """What a request with these headers shows of its sender.

        :param channel: where it came from, a ``Channel`` or ``H2Stream``.
        """
        return Introduction(
            peer=channel.getPeer(),
            authorization=_last(headers, b"authorization"),
            header_user=None if self.user_header is None else _only(headers, self.user_header.encode()),
            common_name=self.common_name(channel.connection_transport),
            forwarded_for=_joined(headers, b"x-forwarded-for"),
            forwarded=_joined(headers, b"forwarded"),
        )

    def resource(self) -> IResource:
        """The gate and what is behind it as a ``twisted.web`` resource."""
        return _GateResource(self)


class _GateResource(Resource):
    isLeaf = True

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate
        self._base = f"/{gate.base}" if gate.base else ""
        self.lane = Lane(gate, gate.repositories) if gate.lane else None
        self._routes: IResource | None = None

    def render(self, request: StreamingRequest) -> int:
        """See ``IResource``."""
        gate = self._gate
        # For the access line of whatever is answered without anybody being believed.
        request.caller = Caller(address=address_text(request.client))
        if gate.allow_origin is not None:
            allow_origin(request.responseHeaders, gate.allow_origin)
            if request.method == b"OPTIONS":
                request.setResponseCode(204)
                request.finish()
                return NOT_DONE_YET
        admitted = Deferred.fromCoroutine(self._admit(request))
        request.notifyFinish().addErrback(lambda _: admitted.cancel())
        admitted.addErrback(lambda failure: answer_error(request, failure))
        return NOT_DONE_YET

    async def _admit(self, request: StreamingRequest) -> None:
        gate = self._gate
        try:
            request.caller = await gate.authenticator.authenticate(
                gate.introduce(request.requestHeaders, request.channel)
            )
        except Unauthorized as refusal:
            request.caller = Caller(address=refusal.address)
            request.site.sink.emit(LoginRefused(refusal.address, refusal.user, str(refusal)))
            if gate.authenticator.challenge is not None:
                request.setHeader(b"www-authenticate", gate.authenticator.challenge.encode())
            raise
        repositories, lane = gate.repositories, gate.lane
        target = request.target = parse(self._below_base(request.path.decode("latin-1")))
        if lane and isinstance(target, Blob) and request.method in BLOB_HANDLERS:
            await BLOB_HANDLERS[request.method](repositories, request, target)
        elif lane and isinstance(target, Directory) and request.method in (b"GET", b"HEAD"):
            await get_list(repositories, request, target)
        elif lane and isinstance(target, Repository) and request.method not in REPOSITORY_METHODS:
            # So begins every run of restic over standard input: GET /file-NUMBER, to see whether anybody is there.
            raise WrongMethod(method.decode() for method in REPOSITORY_METHODS)
        else:
            # The routes see what was parsed and not what was sent: %64ata is data.
            request.postpath = quote(str(target)).encode().split(b"/")
            if self._routes is None:
                # Klein and werkzeug take a fifth of a second and 8 MiB, and most requests do not need them.
                self._routes = await request.site.workers.run(_make_routes, repositories)
            request.render(self._routes)

    def _below_base(self, path: str) -> str:
        base = self._base
        if path == base:
            return "/"
        if not path.startswith(base + "/"):
            raise NoSuchName("nothing is served here")
        return path[len(base) :]


def _make_routes(repositories: Repositories) -> IResource:
    from resticd.http.routes import Api

    return Api(repositories).resource()


# Headers are bytes that need not be text. In Latin-1 each byte is a character.


def _last(headers: Headers, name: bytes) -> str | None:
    """A header that comes once; of several the last."""
    values = headers.getRawHeaders(name)
    return values[-1].decode("latin-1") if values else None


def _joined(headers: Headers, name: bytes) -> str | None:
    """All values of a header that may come several times."""
    values = headers.getRawHeaders(name)
    return b", ".join(values).decode("latin-1") if values else None


def _only(headers: Headers, name: bytes) -> str | None:
    """A header in UTF-8; None where it comes several times, since nobody can say which of them the proxy set."""
    values = headers.getRawHeaders(name) or []
    try:
        return values[0].decode() if len(values) == 1 else None
    except UnicodeDecodeError:
        return None
