"""The answer to one request."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.iweb import UNKNOWN_LENGTH
from zope.interface import implementer

from resticd.errors import BadGateway, ClientGone, RemoteTimeout
from resticd.transport.errors import connection_error
from resticd.transport.idle import IdleTimer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IProducer, IReactorTime
    from twisted.web.iweb import IResponse

    from resticd.transport.connections import Link

#: The longest answer that is read into memory, unless the caller says otherwise.
LONGEST_ANSWER = 1024 * 1024
#: Reading so many bytes costs less than another connection.
_SHORT = 64 * 1024


class Response:
    """Status and headers; the body waits in the connection until it is read, delivered or discarded, one of these once.

    :ivar status: as a number.
    :ivar length: of the body in bytes, None where the headers do not say; 0 in the answer to HEAD.
    :ivar host: of the remote, for messages.
    """

    def __init__(self, answer: IResponse, link: Link, clock: IReactorTime, timeout: float, host: str) -> None:
        self.status: int = answer.code
        self.length: int | None = None if answer.length is UNKNOWN_LENGTH else answer.length
        self.host = host
        self._answer = answer
        self._link = link
        self._clock = clock
        self._timeout = timeout
        self._taken = False

    def __repr__(self) -> str:
        return f"<Response {self.status} from {self.host}>"

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        values = self._answer.headers.getRawHeaders(name)
        return values[0] if values else None

    def headers(self, name: str) -> list[str]:
        """All headers of that name."""
        return list(self._answer.headers.getRawHeaders(name) or ())

    def read(self, limit: int = LONGEST_ANSWER) -> Deferred[bytes]:
        """Fires with the whole body. Fails with a ``StorageError`` where it ends early or is longer than ``limit``.

        Cancelling it closes the connection.
        """
        collector = _Collector(limit)

        def collected(_: None) -> bytes:
            return b"".join(collector.chunks)

        def stopped(failure: Failure) -> NoReturn:
            failure.trap(ClientGone)
            raise BadGateway(f"{self.host} sent an answer of more than {limit} bytes")

        return self.deliver(collector).addCallbacks(collected, stopped)

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Write the body to ``consumer``, as its push producer; fires, with the producer unregistered, after the last
        byte.

        Fails with a ``StorageError`` where the body ends early or the remote makes no progress, with ``ClientGone``
        where the consumer calls ``stopProducing``. Cancelling it closes the connection.
        """
        self._taken = True
        delivery = _Delivery(consumer, self._link, self._clock, self._timeout, self.host)
        consumer.registerProducer(delivery, True)
        self._answer.deliverBody(delivery)
        return delivery.done

    def discard(self) -> Deferred[None]:
        """Drop the body: read it where it is short, so that the connection can be used again, or else close it.

        Does nothing where something else was done with the body. Fires, never fails, when the connection is free or
        closed; the next request uses it if that is waited for.
        """
        if self._taken:
            return succeed(None)
        self._taken = True
        short = self.length is not None and self.length <= _SHORT
        sink = _Sink(self._clock, self._timeout if short else 0.0, self._link)
        self._answer.deliverBody(sink)
        return sink.ended


class _Sink(Protocol):
    """Drops what comes.

    :param seconds: after so many the connection is closed. With 0 this is done in the next turn of the reactor: what
        has arrived with the headers, perhaps all, is still in the parser's hands.
    """

    def __init__(self, clock: IReactorTime, seconds: float, link: Link) -> None:
        self.ended: Deferred[None] = Deferred()
        self._late: IDelayedCall = clock.callLater(seconds, link.abort)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008  # Twisted's signature
        """See ``IProtocol``."""
        if self._late.active():
            self._late.cancel()
        if not self.ended.called:  # it may have been cancelled
            self.ended.callback(None)


@implementer(IPushProducer)
class _Delivery(Protocol):
    """From the connection to a consumer."""

    def __init__(self, consumer: IConsumer, link: Link, clock: IReactorTime, timeout: float, host: str) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._stop(CancelledError()))
        self._consumer: IConsumer | None = consumer
        self._link = link
        self._host = host
        self._ended = False
        self._paused = False
        self._outcome: Exception | None = None
        self._timer = IdleTimer(
            clock, timeout, lambda: self._stop(RemoteTimeout(f"{host} made no progress for {timeout:g} s"))
        )

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        self._timer.restart()
        if self._paused:
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        if self._consumer is None:
            return
        self._consumer.write(data)
        if not self._paused:
            self._timer.restart()

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008  # Twisted's signature
        """See ``IProtocol``."""
        self._ended = True
        error = None if reason.check(ResponseDone) else connection_error(reason, self._host)
        self._finish(error)

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = True
        self._timer.stop()
        if self.transport is not None:
            self.transport.pauseProducing()  # type: ignore[attr-defined]

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False
        if not self._ended and self._consumer is not None:
            self._timer.restart()
        if self.transport is not None:
            self.transport.resumeProducing()  # type: ignore[attr-defined]

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self._stop(ClientGone("the connection ended during the download"))

    def _stop(self, error: Exception) -> None:
        if not self._ended:
            self._ended = True
            self._link.abort()
        self._finish(error)

    def _finish(self, error: Exception | None) -> None:
        self._timer.close()
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        consumer.unregisterProducer()
        if error is None:
            self.done.callback(None)
        else:
            self.done.errback(Failure(error))


@implementer(IConsumer)
class _Collector:
    """Keeps up to ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self.chunks: list[bytes] = []
        self._left = limit
        self._producer: IProducer | None = None

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self._left -= len(data)
        if self._left >= 0:
            self.chunks.append(data)
        elif self._producer is not None:
            self._producer.stopProducing()
