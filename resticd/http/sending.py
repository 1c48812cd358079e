"""From a body to the answer of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resticd.http.request import StreamingRequest
    from resticd.interfaces import IBody


async def send_body(request: StreamingRequest, body: IBody) -> None:
    """Write the whole of ``body`` to the client; the remote waits while the client does."""
    if body.length:
        await body.deliver(request)
