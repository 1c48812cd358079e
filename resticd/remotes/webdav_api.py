"""Requests to one WebDAV server, with their login and the redirections that are safe to follow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from resticd.errors import StorageError, Unavailable
from resticd.remotes.webdav_errors import error_for
from resticd.remotes.webdav_login import make_login
from resticd.remotes.webdav_options import WebDavOptions, origin_of
from resticd.remotes.webdav_xml import LISTED, MultistatusParser, Resource, segments_of
from resticd.transport.bodies import BytesBody
from resticd.transport.client import HttpClient, Request
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from resticd.transport.bodies import StreamedBody
    from resticd.transport.response import Response

T = TypeVar("T")
Pairs = Sequence[tuple[str, str]]

#: How much of an error's body is read.
_LONGEST_ERROR = 64 * 1024
#: How many redirections follow each other.
_MOST_REDIRECTIONS = 5
#: How often a request is sent again with a new login: nonces may run out faster than they are used.
_MOST_LOGINS = 5
_REDIRECTIONS = frozenset((301, 302, 303, 307, 308))
#: What changes nothing, so that asking somewhere else is safe.
_FOLLOWED = frozenset(("GET", "PROPFIND"))
_XML = ("Content-Type", "application/xml; charset=utf-8")


class _Message(NamedTuple):
    """One request, without its login."""

    method: str
    url: str
    headers: Pairs
    data: bytes | None = None
    stream: StreamedBody | None = None

    @property
    def target(self) -> str:
        """Path and query, as they are sent."""
        parts = urlsplit(self.url)
        return f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"


class WebDavApi:
    """Talks to the server.

    Keys are paths below the URL of the options, without a slash at the beginning; those of collections end with one.

    :param clock: this machine's time.
    """

    def __init__(self, client: HttpClient, options: WebDavOptions, reactor: Any, clock: IReactorTime) -> None:
        self.client = client
        self.options = options
        self._clock = clock
        self._login = make_login(options, self._ask, reactor, clock)
        names = {name.lower() for name, _ in options.headers}
        # rclone sends it, too: there are servers that count its lack as an attack from another site.
        referer = () if "referer" in names else (("Referer", options.url),)
        self._own_headers = (*referer, *options.headers)
        self.base = segments_of(options.url) or ()

    def seconds(self) -> float:
        """The time of this machine, in seconds since the epoch."""
        return self._clock.seconds()

    def url(self, key: str) -> str:
        """Where a key lies."""
        return self.options.url + quote(key, safe="/~")

    async def attempt(
        self,
        method: str,
        key: str,
        *,
        headers: Pairs = (),
        data: bytes | None = None,
        stream: StreamedBody | None = None,
        allowed: Iterable[int] = (),
    ) -> Response:
        """One request; returns the answer if its status is below 300 or among ``allowed``.

        Raises what ``error_for`` makes of any other answer, and a ``StorageError`` where there is none.

        :param data: the body, in memory.
        :param stream: the body, on its way; it is not sent twice.
        """
        await self._login.prepare(stream is not None)
        message = _Message(method, self.url(key), headers, data, stream)
        sent = self._login.header(method, message.target)
        response = await self._send(message, sent)
        for number in range(_MOST_LOGINS):
            if response.status != 401 or not await self._may_again(message, response, sent, number):
                break
            sent = self._login.header(method, message.target)
            response = await self._send(message, sent)
        if response.status < 300 or response.status in allowed:
            self._login.answered(response)
            return response
        raise error_for(response, await _beginning(response), f"{method} {key or '/'}")

    async def call(
        self, method: str, key: str, *, headers: Pairs = (), data: bytes | None = None, allowed: Iterable[int] = ()
    ) -> Response:
        """As ``attempt``, repeated while the error may pass. For requests that may be done twice."""

        async def attempt(_: int) -> Response:
            return await self.attempt(method, key, headers=headers, data=data, allowed=allowed)

        return await self.retrying(attempt)

    async def retrying(self, attempt: Callable[[int], Awaitable[T]]) -> T:
        """What ``attempt`` returns, called again while it raises an error that may pass."""
        return await self.client.retries.run(attempt)

    async def properties(self, key: str, wanted: bytes = LISTED) -> Resource | None:
        """What the server says of one resource; None where it answers 404. Repeated while the error may pass.

        :param wanted: the body of PROPFIND.
        """

        async def attempt(_: int) -> Resource | None:
            response = await self.propfind(key, "0", wanted)
            if response is None:
                return None
            parser = MultistatusParser()
            data = await response.read()
            try:
                found = parser.feed(data)
                parser.finish()
                if len(found) != 1:
                    raise ValueError(f"it is about {len(found)} resources")
                if found[0].status == 404:
                    return None
                if found[0].status != 200:
                    raise ValueError(f"it says status {found[0].status}")
            except ValueError as error:
                raise unusable(key, error) from None
            return found[0]

        return await self.retrying(attempt)

    async def propfind(self, key: str, depth: str, wanted: bytes) -> Response | None:
        """One answer with a multistatus; None for 404."""
        response = await self.attempt("PROPFIND", key, headers=(("Depth", depth), _XML), data=wanted, allowed=(404,))
        if response.status == 404:
            await response.discard()
            return None
        if response.status != 207:
            raise error_for(response, await _beginning(response), f"PROPFIND {key or '/'}")
        return response

    async def _ask(self) -> Response:
        """A small request without a login."""
        return await self._send(_Message("PROPFIND", self.options.url, (("Depth", "0"), _XML), LISTED), None)

    async def _may_again(self, message: _Message, response: Response, sent: str | None, number: int) -> bool:
        """Whether the same request may be let in with a new login; what refused it is discarded then."""
        try:
            may = await self._login.refused(response, sent, number)
        except BaseException:
            response.discard()
            raise
        if may:
            await response.discard()
            if message.stream is not None:
                raise Unavailable("webdav: the login had to be renewed in the middle of an upload", 1.0)
            # A token may have been waited for, and a nonce may be older than what others have got since.
            await self._login.prepare(False)
        return may

    async def _send(self, message: _Message, authorization: str | None) -> Response:
        own = self._own_headers
        for _ in range(_MOST_REDIRECTIONS):
            login = () if authorization is None else (("Authorization", authorization),)
            # Whatever is stored is wanted as it is stored.
            every = (("Accept-Encoding", "identity"), *own, *login, *message.headers)
            body = BytesBody(message.data) if message.data is not None else message.stream
            response = await self.client.send(Request(message.method, message.url, every, body))
            if response.status not in _REDIRECTIONS:
                return response
            try:
                url = self._followed(message.method, message.url, response.header("Location"))
            finally:
                await response.discard()
            message = message._replace(url=url)
            if origin_of(url) != self.options.origin and not self.options.auth_redirect:
                own, authorization = (), None
            elif authorization is not None:
                authorization = self._login.header(message.method, message.target)
        raise Refused("webdav: the server redirects again and again")

    def _followed(self, method: str, url: str, location: str | None) -> str:
        """Where a redirection leads. Raises ``Refused`` where it must not be followed."""
        try:
            following = quote(urljoin(url, location or "").partition("#")[0], safe="%/:?&=+$,;~@!*'()[]")
            target = origin_of(following)
        except ValueError:
            raise Refused("webdav: the server redirects to what is no URL") from None
        shown = f"{target[0]}://{target[1]}:{target[2]}{urlsplit(following).path}"
        if urlsplit(url).path.rstrip("/") + "/" == urlsplit(following).path and not url.endswith("/"):
            raise Refused(f"webdav: {urlsplit(url).path} is a directory")
        if method not in _FOLLOWED:
            raise Refused(f"webdav: the server redirects {method} to {shown}: if that is right, set url accordingly")
        if urlsplit(url).scheme == "https" and target[0] != "https":
            raise Refused(f"webdav: the server redirects to {shown}, which is not encrypted")
        # Lists from somewhere else would be about somewhere else.
        trusted = self.options.unix_socket is None and (method == "GET" or self.options.auth_redirect)
        if target != self.options.origin and not trusted:
            raise Refused(f"webdav: the server redirects {method} to {shown}: if that is right, set url accordingly")
        return following


def unusable(key: str, error: ValueError) -> StorageError:
    """For an answer that is not what it should be."""
    return StorageError(f"webdav: what the server says of {key or '/'} cannot be used: {error}")


async def _beginning(response: Response) -> bytes:
    with suppress(StorageError):  # the status says enough
        return await response.read(_LONGEST_ERROR)
    return b""
