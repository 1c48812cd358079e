"""From a request's body to an upload."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resticd.http.request import StreamingRequest
    from resticd.interfaces import IUpload


async def receive_body(request: StreamingRequest, upload: IUpload) -> None:
    """Move the whole body of ``request`` to ``upload``; the client waits while the upload does.

    Raises ``ClientGone`` when the connection ends first. Returns early when the upload wants no more.
    """
    await request.body.deliver(upload)
