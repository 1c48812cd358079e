"""From a body to the answer of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resticd.http.direct import plain_transport
from resticd.http.direct_send import send_file
from resticd.interfaces import IFileBody

if TYPE_CHECKING:
    from resticd.http.request import StreamingRequest
    from resticd.interfaces import IBody


async def send_body(request: StreamingRequest, body: IBody) -> None:
    """Write the whole of ``body`` to the client; the remote waits while the client does."""
    if not body.length:
        return
    transport = None if "direct-send" in request.site.settings.without else plain_transport(request)
    if IFileBody.providedBy(body) and transport is not None:
        await send_file(request, transport, body)
    else:
        await body.deliver(request)
