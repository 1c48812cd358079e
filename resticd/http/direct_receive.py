"""Uploads whose bytes a worker takes from the socket and hands to the driver, without a detour through the reactor."""

from __future__ import annotations

import mmap
import threading
from typing import TYPE_CHECKING

from resticd.errors import ClientGone
from resticd.http.direct import TURN, SharedSocket

if TYPE_CHECKING:
    import socket

    from twisted.internet import tcp

    from resticd.http.request import StreamingRequest
    from resticd.interfaces import IBlockingSink

#: What a worker gathers before it hands it on. The buffer is the thread's, so memory does not grow with the uploads.
BUFFER_SIZE = 1024 * 1024


async def receive_directly(request: StreamingRequest, transport: tcp.Connection, sink: IBlockingSink) -> None:
    """Move the rest of the request's body from the socket of ``transport`` to ``sink``.

    Raises ``ClientGone`` when the connection ends first, and what ``sink.consume`` raises. Never receives more than the
    body's rest, so that a pipelined request stays where it is.
    """
    early = request.body.take_over()
    receiver = _Receiver(sink, early, request.body.left or 0)
    shared = SharedSocket(request.site.poller, request.site.workers, transport)
    try:
        while True:
            before = receiver.left
            blocked = await shared.run(receiver.receive)
            request.body_taken(before - receiver.left)
            if not receiver.left:
                return
            if blocked:
                request.channel.expect_progress(True)
                await shared.readable()
                request.channel.expect_progress(False)
    finally:
        await shared.close()


class _Receiver:
    """The worker's part.

    :ivar left: how many bytes of the body are still to be received.
    """

    def __init__(self, sink: IBlockingSink, early: list[bytes], left: int) -> None:
        self.left = left
        self._sink = sink
        self._early = early

    def receive(self, client: socket.socket) -> bool:
        """Receive until the socket is empty (then True), the body's end or the end of a turn."""
        early, self._early = self._early, []
        if early:
            self._sink.consume(early)
        turn = min(self.left, TURN)
        view = _buffer()
        while turn:
            blocked, size = _fill(client, view[: min(turn, BUFFER_SIZE)])
            if size:
                self._sink.consume([view[:size]])
            turn -= size
            self.left -= size
            if blocked:
                return True
        return False


def _fill(client: socket.socket, view: memoryview) -> tuple[bool, int]:
    """Receive into ``view``. Whether the socket was empty before the view was full, and how many bytes came."""
    size = 0
    try:
        while size < len(view):
            received = client.recv_into(view[size:])
            if not received:
                raise ClientGone("the connection ended during the upload")
            size += received
    except BlockingIOError:
        return True, size
    except OSError:
        raise ClientGone("the connection ended during the upload") from None
    return False, size


_threads = threading.local()


def _buffer() -> memoryview:
    """The buffer of the calling thread: page-aligned, for drivers that write around the page cache."""
    if not hasattr(_threads, "view"):
        _threads.view = memoryview(mmap.mmap(-1, BUFFER_SIZE))
    view: memoryview = _threads.view
    return view
