"""Uploads whose bytes a worker takes from the connection and hands to the driver, beside the reactor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resticd.http.direct import BUFFER_SIZE, TURN, Lent, buffer

if TYPE_CHECKING:
    from resticd.http.request import StreamingRequest
    from resticd.http.wire import Wire
    from resticd.interfaces import IBlockingSink


async def receive_directly(request: StreamingRequest, wire: Wire, sink: IBlockingSink) -> None:
    """Move the rest of the request's body from ``wire`` to ``sink``.

    Raises ``ClientGone`` when the connection ends first, and what ``sink.consume`` raises. Never receives more than the
    body's rest, so that a pipelined request stays where it is.
    """
    early = request.body.take_over()
    receiver = _Receiver(sink, early, request.body.left or 0)
    lent = Lent(request.site.poller, request.site.workers, wire)
    try:
        while True:
            before = receiver.left
            try:
                blocked = await lent.run(receiver.receive)
            finally:
                # What the sink refused was received as well: what follows it is no part of the body.
                request.body_taken(before - receiver.left)
            if not receiver.left:
                return
            if blocked:
                request.channel.expect_progress(True)
                await lent.readable()
                request.channel.expect_progress(False)
    finally:
        await lent.close()


class _Receiver:
    """The worker's part.

    :ivar left: how many bytes of the body are still to be received.
    """

    def __init__(self, sink: IBlockingSink, early: list[bytes], left: int) -> None:
        self.left = left
        self._sink = sink
        self._early = early

    def receive(self, wire: Wire) -> bool:
        """Receive until nothing more is there (then True), the body's end or the end of a turn."""
        view = buffer()
        start = self._take_early(view)
        for _ in range(TURN // BUFFER_SIZE):
            blocked, size = wire.receive_into(view[start : start + min(self.left, BUFFER_SIZE - start)])
            self.left -= size
            if start + size:
                self._sink.consume([view[: start + size]])
            start = 0
            if blocked:
                return True
            if not self.left:
                break
        return False

    def _take_early(self, view: memoryview) -> int:
        """Put what came with the headers to where the rest will follow, so that it is handed on in whole buffers."""
        early, self._early = b"".join(self._early), []
        if len(early) >= len(view):
            self._sink.consume([early])
            return 0
        view[: len(early)] = early
        return len(early)
