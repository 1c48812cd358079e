"""Downloads by ``sendfile(2)`` in a worker: the bytes never enter the process."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from twisted.internet import tcp

from resticd.errors import ClientGone, StorageError
from resticd.http.direct import TURN, SharedSocket

if TYPE_CHECKING:
    from resticd.http.request import StreamingRequest
    from resticd.interfaces import IFileBody


async def send_file(request: StreamingRequest, transport: tcp.Connection, body: IFileBody) -> None:
    """Write the whole of ``body`` to the client on ``transport``.

    Raises ``ClientGone`` when the connection ends first, ``StorageError`` when the file does. While it runs nothing
    else may write to the transport, which HTTP/1.1 grants: one answer at a time.
    """
    request.write(b"")  # the headers
    sender = _Sender(body, _take_unsent(transport))
    shared = SharedSocket(request.site.poller, request.site.workers, transport)
    try:
        while sender.left:
            before = sender.left
            blocked = await shared.run(sender.send)
            request.count_sent(before - sender.left)
            if blocked:
                request.channel.expect_progress(True)
                await shared.writable()
                request.channel.expect_progress(False)
    finally:
        await shared.close()


def _take_unsent(transport: tcp.Connection) -> bytes:
    """Take what the transport has not sent yet out of its hands: the headers go out right before the body."""
    unsent = b"".join([bytes(transport.dataBuffer)[transport.offset :], *transport._tempDataBuffer])
    transport.dataBuffer, transport.offset = b"", 0
    transport._tempDataBuffer, transport._tempDataLen = [], 0
    transport.stopWriting()
    return unsent


class _Sender:
    """The worker's part.

    :ivar left: how many bytes of the body are still to be sent.
    """

    def __init__(self, body: IFileBody, head: bytes) -> None:
        self.left = body.length
        self._file = body.fileno()
        self._offset = body.offset
        self._head = head

    def send(self, client: socket.socket) -> bool:
        """Send until the socket is full (then True), the body's end or the end of a turn."""
        try:
            while self._head:
                # MSG_MORE: the headers do not cost a packet of their own.
                self._head = self._head[client.send(self._head, socket.MSG_MORE) :]
            turn = min(self.left, TURN)
            while turn:
                sent = os.sendfile(client.fileno(), self._file, self._offset, turn)
                if not sent:
                    raise StorageError("the file became shorter while it was sent")
                self._offset += sent
                self.left -= sent
                turn -= sent
        except BlockingIOError:
            return True
        except ConnectionError:
            raise ClientGone("the connection ended during the download") from None
        except OSError as error:
            raise StorageError(f"reading failed: {error.strerror}") from error
        return False
