"""Every type of remote that has no driver of its own, served through the installed rclone.

``docs/design.md`` has a section on what passes between the two, and on what rclone cannot promise.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from zope.interface import implementer

from resticd.errors import NotFound, ResticdError, Unsupported
from resticd.interfaces import Capabilities, Entry, IBody, IDirectories, IRemote, IUpload, Stat, Usage
from resticd.remotes.bridge_body import open_file
from resticd.remotes.bridge_child import Rclone
from resticd.remotes.bridge_files import LEFT, Files
from resticd.remotes.bridge_listing import Listing
from resticd.remotes.bridge_program import find_rclone
from resticd.remotes.bridge_spool import SpooledUpload
from resticd.remotes.bridge_upload import BridgeUpload, Target
from resticd.transport.errors import Refused
from resticd.transport.retries import Retries

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from resticd.remotes.registry import Loan, RemoteSpec
    from resticd.streams import Span

_log = Logger(namespace="resticd.remotes.bridge")


@implementer(IRemote, IDirectories)
class BridgeRemote:
    """One remote behind an rclone of its own.

    It does not compare bodies with their hashes: put a ``VerifyingRemote`` around it.
    """

    def __init__(self, spec: RemoteSpec, loan: Loan) -> None:
        self.rclone = Rclone(loan.reactor, str(spec), spec.text, loan.rclone, loan.client)
        self._type = spec.type
        self._settings = loan.rclone
        self._reactor = loan.reactor
        self._workers = loan.workers
        self._retries = Retries(loan.reactor, loan.client.low_level_retries)
        self._files = Files(self.rclone, self._retries)
        self._listing = Listing(self.rclone, self._files, self._retries, at_once=loan.checkers, left=self._found_left)
        self._claims = loan.claims_of(spec)
        self._sweeping: dict[str, Deferred[None]] = {}

    @property
    def capabilities(self) -> Capabilities:
        """See ``IRemote``. What the remote reports is known once rclone runs."""
        known = self.rclone.known
        return Capabilities(reports_usage=known is not None and known.about)

    def start(self) -> Deferred[None]:
        """See ``IRemote``. Looks for a program that can be used; it is started when it is needed.

        What dead writers left is swept when a list comes across it: nobody knows where to look.
        """
        return Deferred.fromCoroutine(self._start())

    def stop(self) -> Deferred[None]:
        """See ``IRemote``."""
        for sweeping in list(self._sweeping.values()):
            sweeping.cancel()
        return Deferred.fromCoroutine(self.rclone.stop())

    def stat(self, key: str) -> Deferred[Stat]:
        """See ``IRemote``."""
        return Deferred.fromCoroutine(self._files.look(key)).addCallback(lambda found: found.stat)

    async def list(self, prefix: str) -> AsyncGenerator[builtins.list[Entry], None]:
        """See ``IRemote``."""
        async with aclosing(self._listing.pages(prefix)) as pages:
            async for page in pages:
                yield page

    async def directories(self, prefix: str) -> AsyncGenerator[builtins.list[str], None]:
        """See ``IDirectories``."""
        async with aclosing(self._listing.directories(prefix)) as pages:
            async for page in pages:
                yield page

    def open(self, key: str, span: Span | None = None) -> Deferred[IBody]:
        """See ``IRemote``. A download whose connection breaks, or whose rclone goes, is taken up again where it was."""
        opening = Deferred.fromCoroutine(open_file(self.rclone, self._files, self._retries, key, span))
        return cast("Deferred[IBody]", opening)

    def begin(self, key: str, size: int | None, sha256: str | None, overwrite: bool = False) -> Deferred[IUpload]:
        """See ``IRemote``. Whether a key is free is looked up, and decided among this daemon's own uploads."""
        return Deferred.fromCoroutine(self._begin(key, size, sha256, overwrite))

    def delete(self, key: str) -> Deferred[None]:
        """See ``IRemote``."""
        return Deferred.fromCoroutine(self._delete(key))

    def make(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``: a directory or a bucket."""
        return _nothing(self._files.call("operations/mkdir", remote=prefix.rstrip("/")))

    def tidy(self, prefix: str) -> Deferred[None]:
        """See ``IRemote``."""
        return Deferred.fromCoroutine(self._tidy(prefix.rstrip("/")))

    def usage(self) -> Deferred[Usage]:
        """See ``IRemote``."""
        return Deferred.fromCoroutine(self._usage())

    async def _start(self) -> None:
        settings = self._settings
        self.rclone.program = await self._workers.run(find_rclone, settings.program, self._type, settings.environ)

    async def _begin(self, key: str, size: int | None, sha256: str | None, overwrite: bool) -> IUpload:
        running = await self.rclone.ready()
        claim = self._claims.begin(key)
        target = Target(
            files=self._files,
            running=running,
            claim=claim,
            key=key,
            size=size or 0,
            sha256=sha256,
            overwrite=overwrite,
            several=self._type == "union",
            taken=False,
            free=self._free,
        )
        try:
            # Without a temporary name the first byte may do harm to what is there.
            if not (target.staged or overwrite) and await self._files.exists(key):
                target = evolve(target, taken=True)
        except BaseException:
            claim.leave()
            raise

        def make(known: int) -> IUpload:
            return cast(IUpload, BridgeUpload(evolve(target, size=known)))

        return make(size) if size is not None else cast(IUpload, SpooledUpload(self._workers, make, claim.leave))

    async def _delete(self, key: str) -> None:
        await self._files.remove(key)
        self._claims.removed(key)

    async def _tidy(self, directory: str) -> None:
        for last in (False, True):
            try:
                await self._files.call("operations/rmdirs", remote=directory, leaveRoot=not directory)
            except NotFound:
                return
            except Refused:
                # What is not there, or goes meanwhile, is an error of its own kind for each type of remote.
                if await self._files.is_missing(directory):
                    return
                if last:
                    raise
            else:
                return

    async def _usage(self) -> Usage:
        running = await self.rclone.ready()
        if not running.features.about:
            raise Unsupported(f"the type {self._type} does not say how much room there is")
        answer = await self._files.call("operations/about")
        return Usage(_number(answer, "used"), _number(answer, "free"), _number(answer, "total"))

    async def _free(self) -> int | None:
        try:
            return (await self._usage()).free
        except Unsupported:
            return None

    def _found_left(self, key: str, modified: float | None) -> None:
        """A list came across a temporary file: remove it where its writer is dead."""
        if modified is None or self._reactor.seconds() - modified < LEFT or key in self._sweeping:
            return

        def over(failure: Failure | None) -> None:
            del self._sweeping[key]
            if failure is None:
                _log.info("removed {key}, which a dead writer had left", key=key)
            elif not failure.check(ResticdError, CancelledError):
                _log.failure("removing {key}", failure, key=key)

        removing = Deferred.fromCoroutine(self._files.remove(key))
        self._sweeping[key] = removing
        removing.addBoth(over)


def _number(answer: dict[str, Any], name: str) -> int | None:
    value = answer.get(name)
    return value if isinstance(value, int) else None


def _nothing(call: Any) -> Deferred[None]:
    return Deferred.fromCoroutine(call).addCallback(lambda _: None)
