"""What every request passes before the routes: the site's base, CORS, and who it is from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from resticd.auth.proxies import address_text
from resticd.errors import NoSuchName, Unauthorized
from resticd.events import LoginRefused
from resticd.http.errors import answer_error
from resticd.interfaces import Caller, Introduction
from resticd.repository.names import parse

if TYPE_CHECKING:
    from resticd.http.request import StreamingRequest
    from resticd.interfaces import IAuthenticator


@frozen
class Gate:
    """The rules.

    :ivar inner: renders requests that may pass, on every path.
    :ivar authenticator: says who a request is from.
    :ivar base: the prefix of all paths, with neither slash; empty for none.
    :ivar allow_origin: the origin whose scripts may read answers (CORS), None for none.
    :ivar user_header: the header whose value goes to the authenticator as ``header_user``, None for none.
    :ivar common_name: tells the common name of a transport's verified client certificate.
    """

    inner: IResource
    authenticator: IAuthenticator
    base: str = ""
    allow_origin: str | None = None
    user_header: str | None = None
    common_name: Callable[[object], str | None] = lambda _: None

    def resource(self) -> IResource:
        """The gate and what is behind it as a ``twisted.web`` resource."""
        return _GateResource(self)


class _GateResource(Resource):
    isLeaf = True

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate
        self._base = f"/{gate.base}" if gate.base else ""

    def render(self, request: StreamingRequest) -> int:
        """See ``IResource``."""
        gate = self._gate
        # For the access line of whatever is answered without anybody being believed.
        request.caller = Caller(address=address_text(request.client))
        if gate.allow_origin is not None:
            _allow_origin(request, gate.allow_origin)
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
            request.caller = await gate.authenticator.authenticate(introduce(gate, request))
        except Unauthorized as refusal:
            request.caller = Caller(address=refusal.address)
            request.site.sink.emit(LoginRefused(refusal.address, refusal.user, str(refusal)))
            if gate.authenticator.challenge is not None:
                request.setHeader(b"www-authenticate", gate.authenticator.challenge.encode())
            raise
        path = self._below_base(request.path.decode("latin-1"))
        request.target = parse(path)
        request.postpath = path.encode().split(b"/")
        request.render(gate.inner)

    def _below_base(self, path: str) -> str:
        base = self._base
        if path == base:
            return "/"
        if not path.startswith(base + "/"):
            raise NoSuchName("nothing is served here")
        return path[len(base) :]


def introduce(gate: Gate, request: StreamingRequest) -> Introduction:
    """What ``request`` shows of its sender."""
    return Introduction(
        peer=request.client,
        authorization=_last(request, b"authorization"),
        header_user=None if gate.user_header is None else _only(request, gate.user_header.encode()),
        common_name=gate.common_name(request.channel.connection_transport),
        forwarded_for=_joined(request, b"x-forwarded-for"),
        forwarded=_joined(request, b"forwarded"),
    )


# Headers are bytes that need not be text. In Latin-1 each byte is a character.


def _last(request: StreamingRequest, name: bytes) -> str | None:
    """A header that comes once; of several the last."""
    value = request.getHeader(name)
    return None if value is None else value.decode("latin-1")


def _joined(request: StreamingRequest, name: bytes) -> str | None:
    """All values of a header that may come several times."""
    values = request.requestHeaders.getRawHeaders(name)
    return b", ".join(values).decode("latin-1") if values else None


def _only(request: StreamingRequest, name: bytes) -> str | None:
    """A header in UTF-8; None where it comes several times, since nobody can say which of them the proxy set."""
    values = request.requestHeaders.getRawHeaders(name) or []
    try:
        return values[0].decode() if len(values) == 1 else None
    except UnicodeDecodeError:
        return None


def _allow_origin(request: StreamingRequest, origin: str) -> None:
    """CORS (the Fetch standard, section 3.2)."""
    request.setHeader(b"access-control-allow-origin", origin.encode())
    request.setHeader(b"access-control-allow-methods", b"DELETE, GET, HEAD, OPTIONS, POST")
    request.setHeader(b"access-control-allow-headers", b"Authorization, Content-Type, Range")
    request.setHeader(b"access-control-expose-headers", b"Accept-Ranges, Content-Length, Content-Range")
    request.setHeader(b"access-control-max-age", b"86400")
    if origin != "*":
        request.responseHeaders.addRawHeader(b"vary", b"Origin")
