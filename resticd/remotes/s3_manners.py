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
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from resticd.errors import AlreadyExists, Corrupt, ResticdError
from resticd.remotes.s3_api import S3Api, object_headers
from resticd.remotes.s3_errors import NotUnderstood
from resticd.remotes.single_flight import SingleFlight

if TYPE_CHECKING:
    from resticd.transport.response import Response

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


_CHECKSUM = "x-amz-checksum-sha256"


def checksum_header(sha256: str) -> tuple[str, str]:
    """The header for a body whose hash is given in hexadecimal."""
    return _CHECKSUM, base64.b64encode(bytes.fromhex(sha256)).decode("ascii")


def confirms(response: Response, sha256: str) -> bool:
    """Whether what the answer to a PUT says of the object's hash, if it says anything, is right."""
    said = response.header(_CHECKSUM)
    return said is None or said == checksum_header(sha256)[1]


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

    takes_checksum = await accepted(right) is True
    if not takes_checksum and not await accepted():
        raise NotUnderstood(f"s3: the server does not let anything be stored in {api.bucket}")
    checksum = (right,) if takes_checksum else ()
    condition = ("If-None-Match", "*")
    # At the same time: whoever waits for the answers may be far away.
    damaging = Deferred.fromCoroutine(accepted(wrong)) if takes_checksum else succeed(True)
    try:
        # The second time surely finds the object there, even if another daemon has just removed it.
        conditional = await accepted(*checksum, condition) is False or await accepted(*checksum, condition) is False
        unchecked = await damaging
    except BaseException:
        damaging.addErrback(lambda _: None)
        damaging.cancel()
        raise
    try:
        await api.call("DELETE", key)
    except ResticdError as error:
        _log.debug("the probe object stays: {reason}", reason=str(error))
    return Manners(conditional, takes_checksum, unchecked is not True)


class AskedOnce:
    """Remembers the manners of a bucket's server; a probe that failed is repeated for the next one who asks.

    :ivar known: they, once they were found out.
    """

    def __init__(self, api: S3Api, prefix: str) -> None:
        self._api = api
        self._prefix = prefix
        self.known: Manners | None = None
        self._probe = SingleFlight(self._ask)

    async def manners(self) -> Manners:
        """They, found out if need be."""
        return self.known or await self._probe.join()

    def stop(self) -> None:
        """Give up a probe that runs."""
        self._probe.stop()

    async def _ask(self) -> Manners:
        self.known = await probe(self._api, self._prefix)
        if not self.known.conditional:
            _log.warn(
                "the S3 server of {bucket} does not honour If-None-Match: two writers that store different files under "
                "one name at the same time are told apart only if both come through this server",
                bucket=self._api.bucket,
            )
        return self.known
