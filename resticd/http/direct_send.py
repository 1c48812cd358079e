"""Downloads that a worker sends from the file, beside the reactor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resticd.errors import StorageError
from resticd.http.direct import TURN, Lent

if TYPE_CHECKING:
    from resticd.http.request import StreamingRequest
    from resticd.http.wire import Wire
    from resticd.interfaces import IFileBody


async def send_file(request: StreamingRequest, wire: Wire, body: IFileBody) -> None:
    """Write the whole of ``body`` to the client on ``wire``.

    Raises ``ClientGone`` when the connection ends first, ``StorageError`` when the file does. While it runs nothing
    else may write to the transport, which HTTP/1.1 grants: one answer at a time.
    """
    request.write(b"")  # the headers
    sender = _Sender(body)
    lent = Lent(request.site.poller, request.site.workers, wire)
    try:
        while not sender.done:
            before = sender.left
            blocked = await lent.run(sender.send)
            request.count_sent(before - sender.left)
            if blocked:
                request.channel.expect_progress(True)
                await lent.writable()
                request.channel.expect_progress(False)
    finally:
        await lent.close()


class _Sender:
    """The worker's part.

    :ivar left: how many bytes of the body are still to be sent.
    :ivar done: whether the last of them has left.
    """

    def __init__(self, body: IFileBody) -> None:
        self.left = body.length
        self.done = False
        self._file = body.fileno()
        self._offset = body.offset

    def send(self, wire: Wire) -> bool:
        """Send until there is no room (then True), the body's end or the end of a turn."""
        turn = min(self.left, TURN)
        try:
            while turn:
                sent = wire.send_file(self._file, self._offset, turn)
                if not sent:
                    raise StorageError("the file became shorter while it was sent")
                self._offset += sent
                self.left -= sent
                turn -= sent
            if not self.left:
                wire.flush()
                self.done = True
        except BlockingIOError:
            return True
        except OSError as error:
            raise StorageError(f"reading failed: {error.strerror}") from error
        return False
