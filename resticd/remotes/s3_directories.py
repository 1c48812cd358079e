"""The directories of a bucket: what keys have in common up to a slash (ListObjects with a delimiter)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from resticd.errors import BadGateway
from resticd.remotes.s3_xml import child_text, children, parse_xml

if TYPE_CHECKING:
    from resticd.remotes.s3_api import S3Api
    from resticd.workers import Workers

#: The longest page that is read, in bytes.
_LONGEST_PAGE = 64 * 1024 * 1024


async def list_directories(api: S3Api, workers: Workers, prefix: str) -> AsyncGenerator[list[str], None]:
    """The names directly below ``prefix``, a whole prefix of keys. Raises as ``IRemote.list``."""
    options = api.options
    following: str | None = None
    while True:
        query = [("prefix", prefix), ("delimiter", "/"), ("max-keys", str(options.list_chunk))]
        if options.list_url_encode:
            query.append(("encoding-type", "url"))
        if options.list_version == 2:
            query.append(("list-type", "2"))
        if following is not None:
            query.append(("continuation-token" if options.list_version == 2 else "marker", following))

        async def attempt(_: int, query: list[tuple[str, str]] = query) -> tuple[list[str], str | None]:
            response = await api.attempt("GET", query=query)
            data = await response.read(_LONGEST_PAGE)
            try:
                return await workers.run(parse_directories, data, options.list_version, prefix)
            except ValueError as error:
                raise BadGateway(f"s3: a page of the list of {prefix} cannot be used: {error}") from None

        names, after = await api.client.retries.run(attempt)
        if names:
            yield names
        if after is None:
            return
        if after == following:
            raise BadGateway(f"s3: the list of {prefix} goes on where it began")
        following = after


def parse_directories(data: bytes, version: int, prefix: str) -> tuple[list[str], str | None]:
    """The names on one page, and where the next begins, None behind the last. Raises ``ValueError``."""
    root = parse_xml(data, "ListBucketResult")
    encoded = child_text(root, "EncodingType") == "url"

    def text(name: str | None) -> str:
        return unquote_plus(name or "") if encoded else name or ""

    names = []
    for item in children(root, "CommonPrefixes"):
        found = text(child_text(item, "Prefix"))
        if not found.startswith(prefix) or not found.endswith("/"):
            raise ValueError("a directory of it lies elsewhere")
        names.append(found[len(prefix) : -1])
    match child_text(root, "IsTruncated"):
        case "false":
            return names, None
        case "true":
            following = (
                child_text(root, "NextContinuationToken") if version == 2 else text(child_text(root, "NextMarker"))
            )
            if following:
                return names, following
            raise ValueError("it does not say where it goes on")
    raise ValueError("it does not say whether it is the last one")
