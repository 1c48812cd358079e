"""The directories of a bucket: what keys have in common up to a slash (ListObjects with a delimiter)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_plus

from resticd.remotes.s3_query import fetch_page
from resticd.remotes.s3_xml import child_text, children, parse_xml

if TYPE_CHECKING:
    from resticd.remotes.s3_api import S3Api
    from resticd.workers import Workers


class DirectoryPage(NamedTuple):
    """The names on one page, and where the next begins; None behind the last."""

    names: list[str]
    following: str | None


async def list_directories(api: S3Api, workers: Workers, prefix: str) -> AsyncGenerator[list[str], None]:
    """The names directly below ``prefix``, a whole prefix of keys. Raises as ``IRemote.list``."""
    page = DirectoryPage([], None)
    first = True
    while first or page.following is not None:
        page = await fetch_page(api, workers, parse_directories, prefix, following=page.following, delimiter="/")
        first = False
        if page.names:
            yield page.names


def parse_directories(data: bytes, version: int, prefix: str) -> DirectoryPage:
    """One answer of ListObjects. Raises ``ValueError``."""
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
            return DirectoryPage(names, None)
        case "true":
            following = (
                child_text(root, "NextContinuationToken") if version == 2 else text(child_text(root, "NextMarker"))
            )
            if following:
                return DirectoryPage(names, following)
            raise ValueError("it does not say where it goes on")
    raise ValueError("it does not say whether it is the last one")
