"""Lists of files as JSON, in both versions of restic's API, written page by page.

A list that is short but valid JSON would make ``restic prune`` delete good data. An error before the first byte is an
answer of its own; an error after it breaks the connection before the closing bracket is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from resticd.errors import ClientGone

if TYPE_CHECKING:
    from resticd.http.request import StreamingRequest
    from resticd.repository.names import Directory
    from resticd.repository.operations import Listed, Repositories

V1 = "application/vnd.x.restic.rest.v1"
V2 = "application/vnd.x.restic.rest.v2"


async def get_list(repositories: Repositories, request: StreamingRequest, directory: Directory) -> None:
    """Answer with the files of ``directory``."""
    accepted = request.getHeader("accept") or ""
    content_type, encode = (V2, _encode_v2) if V2 in accepted else (V1, _encode_v1)
    pages = repositories.list(request.caller, directory)
    try:
        # One page is looked ahead, so that most lists have a length and an error in their making has a status.
        first = await _next_page(pages)
        second = await _next_page(pages) if first is not None else None
        request.setHeader(b"content-type", content_type.encode())
        if first is None or second is None:
            text = b"[]" if first is None else f"[{encode(first)}]".encode()
            request.setHeader(b"content-length", b"%d" % len(text))
            request.write(text)
        else:
            await _write_pages(request, first, second, pages, encode)
    finally:
        await pages.aclose()
    request.finish()


async def _next_page(pages: AsyncIterator[Listed]) -> Listed | None:
    """The next page, None at the end. (``anext`` with a default leaves a generator that cannot be closed on Python
    3.11.)
    """
    try:
        return await anext(pages)
    except StopAsyncIteration:
        return None


async def _write_pages(
    request: StreamingRequest,
    first: Listed,
    second: Listed,
    rest: AsyncIterator[Listed],
    encode: Callable[[Listed], str],
) -> None:
    writer = _PatientWriter(request)
    try:
        await writer.write(f"[{encode(first)},{encode(second)}".encode())
        async for page in rest:
            await writer.write(f",{encode(page)}".encode())
    finally:
        writer.close()
    request.write(b"]")


def _encode_v1(page: Listed) -> str:
    """Names are hexadecimal digits, so JSON needs no escapes."""
    return '"' + '","'.join(page.names) + '"'


def _encode_v2(page: Listed) -> str:
    return ",".join([f'{{"name":"{name}","size":{size}}}' for name, size in zip(*page, strict=True)])


@implementer(IPushProducer)
class _PatientWriter:
    """Writes to a request and waits while its client does not read."""

    def __init__(self, request: StreamingRequest) -> None:
        self._request = request
        self._wait: Deferred[None] | None = None
        self._paused = False
        self._stopped = False
        request.registerProducer(self, True)

    async def write(self, data: bytes) -> None:
        """Write; returns when the transport takes more. Raises ``ClientGone``."""
        if self._stopped:
            raise ClientGone("the connection ended during the list")
        self._request.write(data)
        if self._paused:
            self._wait = Deferred()
            await self._wait

    def close(self) -> None:
        """Nothing more is written."""
        if not self._stopped and not self._request._disconnected:
            self._request.unregisterProducer()

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = True

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False
        wait, self._wait = self._wait, None
        if wait is not None:
            wait.callback(None)

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self._stopped = True
        wait, self._wait = self._wait, None
        if wait is not None:
            wait.errback(ClientGone("the connection ended during the list"))
