"""From a body to the answer of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from resticd.http.direct_send import send_file
from resticd.http.wire import direct_wire
from resticd.interfaces import IFileBody

if TYPE_CHECKING:
    from resticd.http.request import StreamingRequest
    from resticd.interfaces import IBody


async def send_body(request: StreamingRequest, body: IBody) -> None:
    """Write the whole of ``body`` to the client; the remote waits while the client does."""
    if not body.length:
        return
    direct = IFileBody.providedBy(body) and "direct-send" not in request.site.settings.without
    wire = direct_wire(request) if direct else None
    if wire is None:
        await body.deliver(request)
    else:
        await send_file(request, wire, cast(IFileBody, body))
