"""Looking at one object, and what a missing one may mean."""

from __future__ import annotations

import email.utils
from typing import TYPE_CHECKING, NamedTuple

from resticd.errors import BadGateway, NotFound
from resticd.interfaces import Stat
from resticd.remotes.s3_api import S3Api, key_headers

if TYPE_CHECKING:
    from resticd.transport.response import Response

#: For how long, in seconds, the bucket is believed to be still there.
_BELIEVED = 60.0


class Found(NamedTuple):
    """What HEAD says."""

    stat: Stat
    etag: str


class ObjectLookup:
    """Size, time and ETag of objects.

    The answer to HEAD has no body, so that a missing bucket and a missing object look the same. Unless
    the bucket was seen a moment ago the object is asked for again, by GET.
    """

    def __init__(self, api: S3Api) -> None:
        self._api = api
        self._seen = float("-inf")

    async def head(self, key: str) -> Found:
        """Raises ``NotFound`` where the object, and not the bucket, is known to be missing."""
        response = await self._api.call("HEAD", key, headers=key_headers(self._api.options), allowed=(404,))
        if response.status != 404:
            self._seen = self._api.seconds()
            return Found(Stat(content_length(response), last_modified(response)), response.header("ETag") or "")
        if self._api.seconds() > self._seen + _BELIEVED:
            await self._ask(key)
        raise NotFound(f"s3: HEAD {key}: there is no such object")

    async def _ask(self, key: str) -> None:
        headers = (("Range", "bytes=0-0"), *key_headers(self._api.options))
        try:
            response = await self._api.call("GET", key, headers=headers, allowed=(416,))
        except NotFound:
            self._seen = self._api.seconds()
            raise
        response.discard()
        raise BadGateway(f"s3: GET {key} finds what HEAD does not")


def content_length(response: Response) -> int:
    """The size of the object from the headers of HEAD. Raises ``BadGateway``."""
    value = response.header("Content-Length") or ""
    if not value.isdecimal():
        raise BadGateway("s3: the server does not say how long an object is")
    return int(value)


def last_modified(response: Response) -> float | None:
    """Seconds since the epoch."""
    try:
        return email.utils.parsedate_to_datetime(response.header("Last-Modified") or "").timestamp()
    except ValueError:
        return None
