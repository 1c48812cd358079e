"""From a request's body to an upload."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from resticd.http.direct_receive import receive_directly
from resticd.http.wire import direct_wire, plain_transport
from resticd.interfaces import IBlockingSink

if TYPE_CHECKING:
    from resticd.http.request import StreamingRequest
    from resticd.interfaces import IUpload


#: How much is read from the socket at once on its way through the reactor. Every chunk costs there, whatever its size:
#: with Twisted's 64 KiB an upload to S3 takes half as much CPU time again.
_CHUNK = 512 * 1024


async def receive_body(request: StreamingRequest, upload: IUpload) -> None:
    """Move the whole body of ``request`` to ``upload``; the client waits while the upload does.

    Raises ``ClientGone`` when the connection ends first. Returns early when the upload wants no more.
    """
    if request.body.complete or "direct-receive" in request.site.settings.without:
        await request.body.deliver(upload)
        return
    wire = direct_wire(request) if IBlockingSink.providedBy(upload) else None
    if wire is not None and request.channel.can_be_bypassed:
        await receive_directly(request, wire, cast(IBlockingSink, upload))
        return
    transport = plain_transport(request)
    if transport is None:
        await request.body.deliver(upload)
    else:
        usual, transport.bufferSize = transport.bufferSize, _CHUNK
        try:
            await request.body.deliver(upload)
        finally:
            transport.bufferSize = usual
