"""S3, at Amazon or wherever else it is spoken."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger
from zope.interface import implementer

from resticd.errors import ConfigurationError, NotFound, ResticdError, Unsupported
from resticd.interfaces import Capabilities, Entry, IBody, IDirectories, IRemote, IUpload, Stat, Usage
from resticd.remotes.claims import Claims
from resticd.remotes.s3_api import S3Api
from resticd.remotes.s3_body import open_object
from resticd.remotes.s3_bucket import make_bucket
from resticd.remotes.s3_credentials import Credentials
from resticd.remotes.s3_directories import list_directories
from resticd.remotes.s3_listing import Listing
from resticd.remotes.s3_manners import AskedOnce, Manners
from resticd.remotes.s3_multipart import MultipartUpload, sweep_uploads
from resticd.remotes.s3_objects import ObjectLookup
from resticd.remotes.s3_options import S3Options
from resticd.remotes.s3_upload import BUFFERED, BufferedUpload, S3Upload, StreamedUpload, Target
from resticd.transport.client import HttpClient

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from resticd.streams import Span
    from resticd.transport.limiter import Limiter
    from resticd.transport.settings import ClientSettings
    from resticd.workers import Workers

#: rclone's default of ``--checkers``.
CHECKERS = 8


def make_s3(
    options: Mapping[str, str],
    path: str,
    reactor: Any,
    workers: Workers,
    settings: ClientSettings,
    *,
    limiter: Limiter | None = None,
    checkers: int = CHECKERS,
    claims: Claims | None = None,
) -> S3Remote:
    """The remote that ``path`` names. Raises ``ConfigurationError``.

    :param options: rclone's, see ``S3Options``.
    :param path: ``bucket`` or ``bucket/some/prefix``.
    :param checkers: how many requests list at once (``--checkers``).
    :param claims: where they are shared with other processes.
    """
    bucket, _, prefix = path.strip("/").partition("/")
    if not bucket:
        raise ConfigurationError("s3: the remote names no bucket: write remote:bucket or remote:bucket/path")
    segments = prefix.split("/") if prefix else []
    if any(segment in ("", ".", "..") for segment in segments):
        raise ConfigurationError(f"s3: the path {prefix} has empty or dot segments")
    client = HttpClient(reactor, settings, limiter)
    parsed = S3Options.parse(options)
    api = S3Api(client, parsed, bucket, Credentials(parsed, workers), reactor)
    return S3Remote(api, "".join(f"{segment}/" for segment in segments), workers, checkers, claims)


@implementer(IRemote, IDirectories)
class S3Remote:
    """One bucket, or what lies under a prefix of it.

    It does not count on the server to compare a body with its hash: put a ``VerifyingRemote`` around it.

    :param root: empty, or with a slash at its end.
    """

    _log = Logger(namespace="resticd.remotes.s3")

    def __init__(
        self, api: S3Api, root: str, workers: Workers, checkers: int = CHECKERS, claims: Claims | None = None
    ) -> None:
        self._api = api
        self._root = root
        self._workers = workers
        self._lookup = ObjectLookup(api)
        self._listing = Listing(api, self._lookup, workers, root, checkers)
        self._server = AskedOnce(api, root)
        self._claims = claims or Claims()
        self._sweeping: Deferred[None] | None = None

    @property
    def capabilities(self) -> Capabilities:
        """See ``IRemote``. Whether creation is conditional is found out by the first upload; see ``s3_manners``.

        Until then, and where the server has no conditions, it is decided among this daemon's own uploads alone.
        """
        return Capabilities(conditional_create=self._server.known is not None and self._server.known.conditional)

    def start(self) -> Deferred[None]:
        """See ``IRemote``. Unfinished uploads of more than a day ago are swept in the background."""
        if not self._api.options.leave_parts_on_error:
            self._sweeping = Deferred.fromCoroutine(sweep_uploads(self._api, self._root)).addCallbacks(
                self._swept, self._not_swept
            )
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """See ``IRemote``."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._server.stop()
        return self._api.client.close()

    def stat(self, key: str) -> Deferred[Stat]:
        """See ``IRemote``."""
        return Deferred.fromCoroutine(self._lookup.head(self._root + key)).addCallback(lambda found: found.stat)

    async def list(self, prefix: str) -> AsyncGenerator[builtins.list[Entry], None]:
        """See ``IRemote``."""
        async with aclosing(self._listing.pages(prefix)) as pages:
            async for page in pages:
                yield page

    async def directories(self, prefix: str) -> AsyncGenerator[builtins.list[str], None]:
        """See ``IDirectories``."""
        async with aclosing(list_directories(self._api, self._workers, self._root + prefix)) as pages:
            async for page in pages:
                yield page

    def open(self, key: str, span: Span | None = None) -> Deferred[IBody]:
        """See ``IRemote``. A download whose connection breaks is taken up again where it was."""
        opening = Deferred.fromCoroutine(open_object(self._api, self._lookup, self._root + key, span))
        return cast("Deferred[IBody]", opening)

    def begin(self, key: str, size: int | None, sha256: str | None, overwrite: bool = False) -> Deferred[IUpload]:
        """See ``IRemote``."""
        return Deferred.fromCoroutine(self._begin(key, size, sha256, overwrite))

    def delete(self, key: str) -> Deferred[None]:
        """See ``IRemote``."""
        return Deferred.fromCoroutine(self._delete(key))

    def make(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``: the bucket, unless ``no_check_bucket`` is set."""
        return Deferred.fromCoroutine(make_bucket(self._api))

    def tidy(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``; there are no directories."""
        return succeed(None)

    def usage(self) -> Deferred[Usage]:
        """See ``IRemote``."""
        return fail(Unsupported("S3 does not say how much room there is"))

    async def _begin(self, key: str, size: int | None, sha256: str | None, overwrite: bool) -> IUpload:
        manners: Manners = await self._server.manners()
        target = Target(
            api=self._api,
            lookup=self._lookup,
            manners=manners,
            workers=self._workers,
            claim=self._claims.begin(self._root + key),
            key=self._root + key,
            size=size,
            sha256=sha256,
            overwrite=overwrite,
        )
        upload: S3Upload
        if size is not None and size <= BUFFERED:
            upload = BufferedUpload(target)
        elif size is not None and sha256 is not None and size <= self._api.options.upload_cutoff:
            upload = StreamedUpload(target, size, sha256)
        else:
            upload = MultipartUpload(target)
        return cast(IUpload, upload)

    async def _delete(self, key: str) -> None:
        with suppress(NotFound):
            await self._api.call("DELETE", self._root + key)
        self._claims.removed(self._root + key)

    def _swept(self, count: int) -> None:
        self._sweeping = None
        if count:
            self._log.info("aborted {count} unfinished uploads of dead writers", count=count)

    def _not_swept(self, failure: Failure) -> None:
        self._sweeping = None
        if failure.check(ResticdError):
            # Many services have no such list, and many credentials no permission for it.
            self._log.debug("unfinished uploads were not swept: {reason}", reason=str(failure.value))
        elif not failure.check(CancelledError):
            self._log.failure("sweeping unfinished uploads", failure)
