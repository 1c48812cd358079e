"""WebDAV (RFC 4918), as ownCloud, Nextcloud, Apache, lighttpd and many others speak it."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from zope.interface import implementer

from resticd.errors import ConfigurationError, NotFound, ResticdError, StorageError, Unsupported
from resticd.interfaces import Capabilities, Entry, IBody, IRemote, IUpload, Stat, Usage
from resticd.remotes.claims import Claims
from resticd.remotes.webdav_api import WebDavApi
from resticd.remotes.webdav_leftovers import Leftovers
from resticd.remotes.webdav_listing import Listing
from resticd.remotes.webdav_manners import AskedOnce
from resticd.remotes.webdav_objects import Objects
from resticd.remotes.webdav_options import WebDavOptions
from resticd.remotes.webdav_places import Places
from resticd.remotes.webdav_tidy import Tidier
from resticd.remotes.webdav_upload import BUFFERED, BufferedUpload, Store, StreamedUpload, Target
from resticd.remotes.webdav_xml import QUOTA
from resticd.transport.client import HttpClient
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from resticd.remotes.webdav_xml import Resource
    from resticd.streams import Span
    from resticd.transport.limiter import Limiter
    from resticd.transport.settings import ClientSettings

#: rclone's default of ``--checkers``.
CHECKERS = 8
#: For how long, in seconds, a start waits for the server's first answer.
_FIRST_LOOK = 10.0
#: Seconds that an idle connection is kept: Apache and lighttpd close theirs after 5, and an upload that is sent into a
#: connection that is being closed is lost.
_KEEP_ALIVE = 4


def make_webdav(
    options: Mapping[str, str],
    path: str,
    reactor: Any,
    settings: ClientSettings,
    *,
    limiter: Limiter | None = None,
    checkers: int = CHECKERS,
    claims: Claims | None = None,
) -> WebDavRemote:
    """The remote that ``path`` names, below the URL of the options. Raises ``ConfigurationError``.

    :param options: rclone's, see ``WebDavOptions``.
    :param checkers: how many collections are listed at once (``--checkers``).
    :param claims: where they are shared with other processes.
    """
    segments = [segment for segment in path.split("/") if segment]
    if any(segment in (".", "..") for segment in segments):
        raise ConfigurationError(f"webdav: the path {path} has dot segments")
    parsed = WebDavOptions.parse(options)
    settings = evolve(
        settings,
        unix_socket=parsed.unix_socket or settings.unix_socket,
        keep_alive=min(settings.keep_alive, _KEEP_ALIVE),
    )
    client = HttpClient(reactor, settings, limiter)
    api = WebDavApi(client, parsed, reactor, reactor)
    return WebDavRemote(api, "".join(f"{segment}/" for segment in segments), reactor, checkers, claims)


@implementer(IRemote)
class WebDavRemote:
    """What lies under a path of a server.

    It does not compare bodies with their SHA-256, which no server does: put a ``VerifyingRemote`` around it.

    :param root: empty, or with a slash at its end.
    """

    _log = Logger(namespace="resticd.remotes.webdav")

    def __init__(
        self, api: WebDavApi, root: str, reactor: Any, checkers: int = CHECKERS, claims: Claims | None = None
    ) -> None:
        self._api = api
        self._root = root
        self._reactor = reactor
        self._places = Places(api)
        self._leftovers = Leftovers(api)
        self._objects = Objects(api, self._places)
        self._listing = Listing(api, self._places, self._leftovers, root, checkers)
        self._store = Store(api, self._places, self._objects, self._leftovers)
        self._server = AskedOnce(api, self._places, self._leftovers, root)
        self._claims = claims or Claims()
        self._reports_usage = False
        self._sweeping: Deferred[None] | None = None

    @property
    def capabilities(self) -> Capabilities:
        """See ``IRemote``. Whether creation is conditional is found out by the first upload; see ``webdav_manners``.

        Until then, and where the server replaces what it should not, it is decided among this daemon's own uploads
        alone. Whether room is reported is found out at the start.
        """
        return Capabilities(
            conditional_create=self._server.known is not None and self._server.known.conditional,
            reports_usage=self._reports_usage,
        )

    def start(self) -> Deferred[None]:
        """See ``IRemote``. A server that does not answer may do so later: that is no reason not to start.

        Unfinished uploads of more than a day ago are looked for in the background, and whenever a list shows them.
        """
        looking = Deferred.fromCoroutine(self._look()).addTimeout(_FIRST_LOOK, self._reactor)
        return looking.addErrback(self._not_seen).addCallback(self._sweep)

    def stop(self) -> Deferred[None]:
        """See ``IRemote``."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._server.stop()
        self._leftovers.stop()
        return self._api.client.close()

    def stat(self, key: str) -> Deferred[Stat]:
        """See ``IRemote``."""
        return Deferred.fromCoroutine(self._objects.look(self._root + key)).addCallback(lambda found: found.stat)

    async def list(self, prefix: str) -> AsyncGenerator[builtins.list[Entry], None]:
        """See ``IRemote``."""
        async with aclosing(self._listing.pages(prefix)) as pages:
            async for page in pages:
                yield page

    def open(self, key: str, span: Span | None = None) -> Deferred[IBody]:
        """See ``IRemote``. A download whose connection breaks is taken up again where it was."""
        return cast("Deferred[IBody]", Deferred.fromCoroutine(self._objects.open(self._root + key, span)))

    def begin(self, key: str, size: int | None, sha256: str | None, overwrite: bool = False) -> Deferred[IUpload]:
        """See ``IRemote``."""
        return Deferred.fromCoroutine(self._begin(key, size, overwrite))

    def delete(self, key: str) -> Deferred[None]:
        """See ``IRemote``."""
        return Deferred.fromCoroutine(self._delete(key))

    def make(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``."""
        return Deferred.fromCoroutine(self._places.ensure(self._root + prefix))

    def tidy(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``. The place of the remote itself stays."""
        tidier = Tidier(self._api, self._places)
        return Deferred.fromCoroutine(tidier.tidy(self._root + prefix, keep=self._root))

    def usage(self) -> Deferred[Usage]:
        """See ``IRemote``: what the server says of the quota (RFC 4331)."""
        return Deferred.fromCoroutine(self._usage())

    async def _begin(self, key: str, size: int | None, overwrite: bool) -> IUpload:
        manners = await self._server.manners()
        await self._server.check_name(self._root + key)
        claim = self._claims.begin(self._root + key)
        target = Target(self._store, manners, claim, self._root + key, size, overwrite)
        try:
            await target.prepare()
        except BaseException:
            target.leave()
            raise
        small = size is not None and size <= BUFFERED
        return cast(IUpload, BufferedUpload(target) if small else StreamedUpload(target))

    async def _delete(self, key: str) -> None:
        whole = self._root + key
        name = key.rpartition("/")[2]
        if len(name) != 64:
            # DELETE takes whole directories with it, and not every server heeds the Depth of the request. What
            # is named by a hash is no directory, but something called "config" may be.
            try:
                await self._objects.look(whole)
            except NotFound:
                self._claims.removed(whole)
                return
        response = await self._api.call("DELETE", whole, headers=(("Depth", "0"),), allowed=(404,))
        await response.discard()
        if response.status == 404:
            await self._places.check_root()
        elif response.status == 207:
            raise StorageError(f"webdav: DELETE {whole}: the server has not deleted it")
        self._claims.removed(whole)

    async def _usage(self) -> Usage:
        found = await self._quota()
        used, free = found.number("quota-used-bytes"), found.number("quota-available-bytes")
        if used is None and free is None:
            raise Unsupported("the WebDAV server does not say how much room there is")
        return Usage(used, free, None if used is None or free is None else used + free)

    async def _quota(self) -> Resource:
        """What the server says of the place of the remote, or of that of the URL where there is none yet."""
        found = await self._api.properties(self._root, QUOTA)
        if found is None and self._root:
            found = await self._api.properties("", QUOTA)
        if found is None or not found.is_collection:
            raise Refused(f"webdav: the server has no directory at {self._api.options.url}")
        self._places.saw()
        return found

    async def _look(self) -> None:
        found = await self._quota()
        names = ("quota-used-bytes", "quota-available-bytes")
        self._reports_usage = any(found.number(name) is not None for name in names)

    def _not_seen(self, failure: Failure) -> None:
        failure.trap(ResticdError, DeferredTimeout)
        reason = "it does not answer" if failure.check(DeferredTimeout) else str(failure.value)
        url = self._api.options.url
        self._log.warn("the WebDAV server at {url} cannot be used yet: {reason}", url=url, reason=reason)

    def _sweep(self, _: None) -> None:
        self._sweeping = Deferred.fromCoroutine(self._list_once())
        self._sweeping.addErrback(self._not_swept)

    async def _list_once(self) -> None:
        """What is listed is looked at for leftovers; slowly, since nobody waits for it."""
        async with aclosing(self._listing.pages("", checkers=1)) as pages:
            async for _ in pages:
                pass

    def _not_swept(self, failure: Failure) -> None:
        if failure.check(ResticdError):
            self._log.debug("leftovers were not looked for: {reason}", reason=str(failure.value))
        elif not failure.check(CancelledError):
            self._log.failure("looking for leftovers", failure)
