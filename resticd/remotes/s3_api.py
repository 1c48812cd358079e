"""Signed requests to one bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from resticd.errors import StorageError
from resticd.remotes.s3_credentials import Credentials
from resticd.remotes.s3_errors import Complaint, error_for, read_complaint
from resticd.remotes.s3_signing import EMPTY_SHA256, Signable, Signer
from resticd.transport.bodies import BytesBody
from resticd.transport.client import HttpClient, Request

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from resticd.remotes.s3_options import S3Options
    from resticd.transport.bodies import StreamedBody
    from resticd.transport.response import Response

T = TypeVar("T")
Pairs = Sequence[tuple[str, str]]

#: How much of an error's body is read.
_LONGEST_ERROR = 64 * 1024


class S3Api:
    """Talks to the bucket, on behalf of the credentials, and learns which region it is in.

    :param bucket: its name.
    :param clock: this machine's time.
    """

    def __init__(
        self, client: HttpClient, options: S3Options, bucket: str, credentials: Credentials, clock: IReactorTime
    ) -> None:
        self.client = client
        self.options = options
        self.bucket = bucket
        self._credentials = credentials
        self._clock = clock
        self._region = options.region
        self._signer = Signer(options.v2_auth, options.unsigned_payload)

    def seconds(self) -> float:
        """The time of this machine, in seconds since the epoch."""
        return self._clock.seconds()

    def warm(self, connections: int) -> None:
        """Requests will follow, so many at once: open connections. Waits for nothing and never fails."""
        self.client.warm(self.options.base_url(self.bucket, self._region), connections)

    async def attempt(
        self,
        method: str,
        key: str = "",
        *,
        query: Pairs = (),
        headers: Pairs = (),
        body: BytesBody | StreamedBody | None = None,
        sha256: str = EMPTY_SHA256,
        allowed: Iterable[int] = (),
    ) -> Response:
        """One request; returns the answer if its status is below 300 or among ``allowed``.

        Raises what ``error_for`` makes of any other answer, and a ``StorageError`` where there is none.

        :param key: of the object; empty for the bucket itself.
        :param sha256: of the body, in hexadecimal.
        """
        keys = await self._credentials.get()
        base = self.options.base_url(self.bucket, self._region)
        url = f"{base}/{quote(key, safe='/~')}"
        if query:
            url += "?" + "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query)
        if self.options.requester_pays:
            headers = (*headers, ("x-amz-request-payer", "requester"))
        path = quote(f"/{self.bucket}/{key}", safe="/~")
        what = Signable(method, url, path, dict(headers), sha256)
        signed = self._signer.sign(keys, self._region, what)
        # Not signed, because some proxies and services change it. Whatever is stored is wanted as it is stored.
        signed["Accept-Encoding"] = "identity"
        response = await self.client.send(Request(method, url, tuple(signed.items()), body))
        if response.status < 300 or response.status in allowed:
            return response
        described = f"{method} {key}" if key else f"{method} bucket {self.bucket}"
        raise self._error(await self._complaint(response, method), described)

    async def call(
        self,
        method: str,
        key: str = "",
        *,
        query: Pairs = (),
        headers: Pairs = (),
        data: bytes | memoryview | None = None,
        sha256: str = EMPTY_SHA256,
        allowed: Iterable[int] = (),
    ) -> Response:
        """As ``attempt``, repeated while the error may pass. For requests that may be done twice."""

        async def attempt(_: int) -> Response:
            body = BytesBody(data) if data is not None else None
            return await self.attempt(
                method, key, query=query, headers=headers, body=body, sha256=sha256, allowed=allowed
            )

        return await self.client.retries.run(attempt)

    async def fetch(self, key: str = "", *, query: Pairs = (), method: str = "GET", limit: int = 1 << 20) -> bytes:
        """As ``call``, with the whole of the answer's body; a body cut short counts as a fault that may pass."""

        async def attempt(_: int) -> bytes:
            return await (await self.attempt(method, key, query=query)).read(limit)

        return await self.client.retries.run(attempt)

    async def post(self, key: str, query: Pairs, headers: Pairs, data: bytes) -> bytes:
        """One POST, with the whole of the answer's body."""
        sha256 = hashlib.sha256(data).hexdigest()
        body = BytesBody(data)
        return await (await self.attempt("POST", key, query=query, headers=headers, body=body, sha256=sha256)).read()

    async def _complaint(self, response: Response, method: str) -> Complaint:
        body = b""
        if method != "HEAD":
            with suppress(StorageError):  # the status says enough
                body = await response.read(_LONGEST_ERROR)
        return read_complaint(response, body)

    def _error(self, complaint: Complaint, what: str) -> Exception:
        if complaint.expired and self._credentials.renewable:
            self._credentials.forget()
            return StorageError(f"s3: {what}: the credentials have expired")
        if complaint.status in (301, 307, 400, 403) and complaint.region not in ("", self._region):
            self._region = complaint.region
            return StorageError(f"s3: the bucket {self.bucket} is in the region {complaint.region}")
        return error_for(complaint, what, self._clock.seconds())


def object_headers(options: S3Options) -> list[tuple[str, str]]:
    """What comes with every new object."""
    wanted = (
        ("Content-Type", "application/octet-stream"),
        ("x-amz-acl", options.acl),
        ("x-amz-storage-class", options.storage_class),
        ("x-amz-server-side-encryption", options.server_side_encryption),
        ("x-amz-server-side-encryption-aws-kms-key-id", options.sse_kms_key_id),
    )
    return [*((name, value) for name, value in wanted if value), *key_headers(options)]


def key_headers(options: S3Options) -> list[tuple[str, str]]:
    """What comes with every request that reads or writes the bytes of an object."""
    key = options.customer_key
    if key is None:
        return []
    prefix = "x-amz-server-side-encryption-customer-"
    return [(f"{prefix}algorithm", key.algorithm), (f"{prefix}key", key.key), (f"{prefix}key-MD5", key.md5)]
