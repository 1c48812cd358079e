"""The body of a request on its way to one consumer, while it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from resticd.errors import ClientGone

if TYPE_CHECKING:
    from twisted.internet.interfaces import IConsumer


class Upstream(Protocol):
    """What a body needs of its connection (HTTP/1.1) or stream (HTTP/2)."""

    def pause_body(self) -> None:
        """Let the client wait: no further bytes are read."""

    def resume_body(self) -> None:
        """Read on."""

    def want_body(self) -> None:
        """Tell a client that asked with Expect: 100-continue to go ahead."""


@implementer(IPushProducer)
class RequestBody:
    """Bytes that arrive are written to the consumer at once; without a consumer the client waits.

    :ivar length: what Content-Length announced, None for a chunked body.
    :ivar received: how many bytes have arrived.
    :ivar complete: whether the last byte has arrived.
    """

    def __init__(self, upstream: Upstream, length: int | None) -> None:
        self.length = length
        self.received = 0
        self.complete = False
        self._upstream = upstream
        self._early: list[bytes] = []
        self._consumer: IConsumer | None = None
        self._delivered: Deferred[None] | None = None
        self._paused = False
        self._lost: Failure | None = None

    @property
    def left(self) -> int | None:
        """How many bytes are still to come, None where that is not known."""
        if self.complete:
            return 0
        return None if self.length is None else self.length - self.received

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Write the body to ``consumer`` as it arrives, as its push producer.

        Fires, with the producer unregistered, when the last byte was written, or when the consumer called
        ``stopProducing`` (the rest of the body is left to ``deliver`` again). Fails with ``ClientGone`` when the
        connection ends first. Cancelling it takes the consumer away and pauses the client.
        """
        done: Deferred[None] = Deferred(lambda _: self._detach())
        if self._lost is not None:
            done.errback(self._lost)
            return done
        self._consumer, self._delivered = consumer, done
        consumer.registerProducer(self, True)
        if not self.complete:
            self._upstream.want_body()
        early, self._early = self._early, []
        for position, chunk in enumerate(early):
            if done.called:  # the consumer wants no more
                self._early = early[position:]
                return done
            consumer.write(chunk)
        if self.complete:
            self._finish(None)
        else:
            self._resume()
        return done

    def take_over(self) -> list[bytes]:
        """Stop the connection's reading: somebody else reads from the socket and tells ``StreamingRequest.body_taken``.

        Returns what has arrived already. A later ``deliver`` reads the rest through the connection again.
        """
        self._upstream.want_body()
        self._pause()
        early, self._early = self._early, []
        return early

    def arrived(self, data: bytes) -> None:
        """The connection read some of the body."""
        self.received += len(data)
        if self._consumer is not None:
            self._consumer.write(data)
            return
        self._early.append(data)
        if self.left != 0:
            self._paused = True
            self._upstream.pause_body()

    def ended(self) -> None:
        """The connection read the last of the body."""
        self.complete = True
        self._finish(None)

    def lost(self) -> None:
        """The connection ended."""
        self._early = []
        if not self.complete:
            self._lost = Failure(ClientGone(f"the connection ended after {self.received} bytes of the body"))
            self._finish(self._lost)

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._pause()

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._resume()

    def stopProducing(self) -> None:
        """The consumer wants no more; what comes is kept waiting."""
        self._finish(None)

    def _finish(self, failure: Failure | None) -> None:
        delivered = self._delivered
        self._detach()
        if delivered is None:
            return
        if failure is None:
            delivered.callback(None)
        else:
            delivered.errback(failure)

    def _detach(self) -> None:
        consumer, self._consumer, self._delivered = self._consumer, None, None
        if consumer is not None:
            consumer.unregisterProducer()
            if not self.complete and self._lost is None:
                self._pause()

    def _pause(self) -> None:
        if not self._paused and not self.complete:
            self._paused = True
            self._upstream.pause_body()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._upstream.resume_body()
