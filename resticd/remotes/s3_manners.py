"""What a server does with conditions and checksums, found out by asking it once.

Servers differ, and none says what it ignores. So before the first upload a few bytes are stored under
``.resticd-probe`` beside the repositories, which no client of restic lists, and removed again. Where nothing may be
removed they stay, and serve the next probe.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from resticd.errors import AlreadyExists, Corrupt, ResticdError
from resticd.remotes.s3_api import S3Api, object_headers
from resticd.remotes.s3_errors import NotUnderstood

if TYPE_CHECKING:
    from twisted.python.failure import Failure

PROBE = ".resticd-probe"
_DATA = b"resticd asks what this server does with conditions and checksums\n"
_log = Logger(namespace="resticd.remotes.s3")


@frozen
class Manners:
    """What one bucket's server does.

    :ivar conditional: refuses ``If-None-Match: *`` where the key is taken.
    :ivar takes_checksum: accepts ``x-amz-checksum-sha256``.
    :ivar checks_checksum: refuses a body that does not match it.
    """

    conditional: bool
    takes_checksum: bool
    checks_checksum: bool


def checksum_header(sha256: str) -> tuple[str, str]:
    """The header for a body whose hash is given in hexadecimal."""
    return "x-amz-checksum-sha256", base64.b64encode(bytes.fromhex(sha256)).decode("ascii")


async def probe(api: S3Api, prefix: str) -> Manners:
    """Ask the server. Raises what keeps us from storing anything there."""
    key, sha256 = prefix + PROBE, hashlib.sha256(_DATA).hexdigest()
    right, wrong = checksum_header(sha256), checksum_header(hashlib.sha256(b"something else").hexdigest())
    common = object_headers(api.options)

    async def accepted(*headers: tuple[str, str]) -> bool | None:
        """Whether a PUT is; None where its headers are not understood."""
        try:
            await api.call("PUT", key, headers=(*common, *headers), data=_DATA, sha256=sha256)
        except (Corrupt, AlreadyExists):
            return False
        except NotUnderstood:
            return None
        return True

    unchecked = await accepted(wrong)
    takes_checksum = await accepted(right) is True
    if not takes_checksum and not await accepted():
        raise NotUnderstood(f"s3: the server does not let anything be stored in {api.bucket}")
    checksum = (right,) if takes_checksum else ()
    condition = ("If-None-Match", "*")
    # The second time surely finds the object there, even if another daemon has just removed it.
    conditional = await accepted(*checksum, condition) is False or await accepted(*checksum, condition) is False
    try:
        await api.call("DELETE", key)
    except ResticdError as error:
        _log.debug("the probe object stays: {reason}", reason=str(error))
    return Manners(conditional, takes_checksum, takes_checksum and unchecked is not True)


class AskedOnce:
    """Remembers the manners of a bucket's server; a probe that failed is repeated for the next one who asks.

    :ivar known: they, once they were found out.
    """

    def __init__(self, api: S3Api, prefix: str) -> None:
        self._api = api
        self._prefix = prefix
        self.known: Manners | None = None
        self._probe: Deferred[Manners] | None = None
        self._waiting: list[Deferred[Manners]] = []

    async def manners(self) -> Manners:
        """They, found out if need be."""
        if self.known is not None:
            return self.known
        waiting: Deferred[Manners] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        if self._probe is None:
            self._probe = Deferred.fromCoroutine(probe(self._api, self._prefix))
            self._probe.addBoth(self._done)
        return await waiting

    def stop(self) -> None:
        """Give up a probe that runs."""
        if self._probe is not None:
            self._probe.cancel()

    def _done(self, result: Manners | Failure) -> None:
        self._probe = None
        if isinstance(result, Manners):
            self.known = result
            if not result.conditional:
                _log.warn(
                    "the S3 server of {bucket} does not honour If-None-Match: two writers that store different files "
                    "under one name at the same time are told apart only if both come through this daemon",
                    bucket=self._api.bucket,
                )
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(result)  # a Failure goes down the errback side
