"""Handlers for one file. They do not know which protocol the request came by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from resticd.events import Transfer, TransferDone, TransferStarted
from resticd.http.fields import blob_fields
from resticd.http.ranges import parse_range
from resticd.http.receiving import receive_body
from resticd.http.sending import send_body

if TYPE_CHECKING:
    from resticd.http.request import StreamingRequest
    from resticd.repository.names import Blob
    from resticd.repository.operations import Repositories


async def head_blob(repositories: Repositories, request: StreamingRequest, blob: Blob) -> None:
    """Answer with the size alone."""
    stat = await repositories.stat(request.caller, blob)
    set_fields(request, blob_fields(stat.size))
    request.finish()


async def get_blob(repositories: Repositories, request: StreamingRequest, blob: Blob) -> None:
    """Stream the file, or the single range that the request asks for.

    A broken delivery raises after the headers were written, which breaks the connection: never a short 200.
    """
    # There are no validators that an If-Range could match, so its condition is false and the whole file is meant.
    conditional = request.requestHeaders.hasHeader(b"if-range")
    header = request.getHeader("range")
    span = None if conditional else parse_range(header)
    body = await repositories.open(request.caller, blob, span)
    try:
        if span is not None:
            request.setResponseCode(206)
        set_fields(request, blob_fields(body.length, None if span is None else (body.offset, body.size)))
        with transferring(request, Transfer(str(blob), body.length, upload=False)):
            await send_body(request, body)
    finally:
        body.close()
    request.finish()


async def post_blob(repositories: Repositories, request: StreamingRequest, blob: Blob) -> None:
    """Store the request's body; returns when it is durable.

    An upload that cannot go on, for lack of space say, stops the body early, and ``commit`` raises the reason.
    """
    store = await repositories.store(request.caller, blob, request.body.length)
    try:
        with transferring(request, Transfer(str(blob), request.body.length, upload=True)):
            await receive_body(request, store.upload)
            await store.commit()
    finally:
        await store.abort()  # does nothing after a commit
    answer_empty(request)


async def delete_blob(repositories: Repositories, request: StreamingRequest, blob: Blob) -> None:
    """Remove the file."""
    await repositories.delete(request.caller, blob)
    answer_empty(request)


def answer_empty(request: StreamingRequest) -> None:
    """Finish ``request`` with 200 and nothing else; restic takes no other status for success."""
    request.setHeader(b"content-length", b"0")
    request.finish()


def set_fields(request: StreamingRequest, fields: Iterable[tuple[bytes, bytes]]) -> None:
    """Give the answer to ``request`` these fields."""
    for name, value in fields:
        request.setHeader(name, value)


@contextmanager
def transferring(request: StreamingRequest, transfer: Transfer) -> Iterator[None]:
    """Let the sink watch ``transfer`` while the block moves it."""
    request.track(transfer)
    request.site.sink.emit(TransferStarted(transfer))
    ok = False
    try:
        yield
        ok = True
    finally:
        request.site.sink.emit(TransferDone(transfer, ok))


#: The handlers by method.
BLOB_HANDLERS: dict[bytes, Callable[[Repositories, StreamingRequest, Blob], Awaitable[None]]] = {
    b"HEAD": head_blob,
    b"GET": get_blob,
    b"POST": post_blob,
    b"DELETE": delete_blob,
}
