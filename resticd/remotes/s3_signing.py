"""Signatures: botocore's, over requests whose payload's hash is known without reading it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.auth import HmacV1Auth, S3SigV4Auth
from botocore.awsrequest import AWSRequest

if TYPE_CHECKING:
    from resticd.remotes.s3_credentials import Keys

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
UNSIGNED = "UNSIGNED-PAYLOAD"

# At lower levels botocore writes signatures, tokens and what credential sources answered.
logging.getLogger("botocore").setLevel(logging.CRITICAL)


class _KnownPayload(S3SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """Signs with the hash that it is told."""

    def payload(self, request: Any) -> str:
        """See ``SigV4Auth``."""
        return str(request.context["payload"])


class Signable(NamedTuple):
    """A request to be signed."""

    method: str
    #: the whole of it, percent-encoded
    url: str
    #: ``/bucket/key``, percent-encoded, whichever way the URL names the bucket
    path: str
    headers: dict[str, str]
    #: the SHA-256 of the body in hexadecimal
    payload: str


class Signer:
    """Signs requests.

    :param v2: use the signatures of old servers.
    :param unsigned_payload: leave the body out of the signature.
    """

    def __init__(self, v2: bool = False, unsigned_payload: bool = False) -> None:
        self._v2 = v2
        self._unsigned_payload = unsigned_payload

    def sign(self, keys: Keys | None, region: str, what: Signable) -> dict[str, str]:
        """The headers with a signature; without keys, for anonymous access, as they are."""
        if keys is None:
            return what.headers
        request = AWSRequest(method=what.method, url=what.url, headers=what.headers, auth_path=what.path)
        if self._v2:
            HmacV1Auth(keys).add_auth(request)
        else:
            # An empty body needs no trust.
            leave_out = self._unsigned_payload and what.payload != EMPTY_SHA256
            request.context["payload"] = UNSIGNED if leave_out else what.payload
            _KnownPayload(keys, "s3", region).add_auth(request)
        return dict(request.headers.items())
