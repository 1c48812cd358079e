"""Messages between the supervisor and a worker: JSON over a pair of unix sockets.

Both ends ask (``call``, with an answer) and tell (``tell``, without). What waits to be sent is bounded: an end that
does not read for so long is as good as dead, and the connection to it is given up.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from resticd.errors import ConfigurationError, ResticdError, StorageError

#: Bytes of one message, and of messages that wait for an end that does not read.
LONGEST = 16 * 1024 * 1024

#: What the other end may ask for or tell, by name; called with the message's arguments.
Handlers = Mapping[str, Callable[..., Any]]


class ChannelClosed(StorageError):
    """The other process is gone, or going."""


class Refused(ResticdError):
    """The other process could not do what it was asked."""


@implementer(IPushProducer)
class Channel(Int32StringReceiver):
    """One end.

    :param handlers: what the other end may ask for; the result, or that of the Deferred, is the answer. A
        ``ConfigurationError`` reaches the other end as one, every other failure as ``Refused``.
    :param lost: called when the other end is gone.
    """

    MAX_LENGTH = LONGEST
    _log = Logger()

    def __init__(self, handlers: Handlers, lost: Callable[[], object]) -> None:
        self._handlers = handlers
        self._lost = lost
        self._numbers = count(1)
        self._asked: dict[int, Deferred[Any]] = {}
        self._full = False
        self._backlog = 0

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        # Not for its bytes: so the transport tells when it holds too many.
        cast(Any, self.transport).registerProducer(self, True)

    def call(self, name: str, **arguments: object) -> Deferred[Any]:
        """Fires with the other end's answer. Fails with ``ConfigurationError``, ``Refused`` or ``ChannelClosed``.

        Cancelling it stops the waiting; the other end is not told.
        """
        number = self.unique()
        answer: Deferred[Any] = Deferred(lambda _: self._forget(number))
        self._asked[number] = answer
        self._send({"call": name, "number": number, "with": arguments})
        return answer

    def unique(self) -> int:
        """A number that this end has not used before, for what messages speak of."""
        return next(self._numbers)

    def tell(self, name: str, **arguments: object) -> None:
        """Tell the other end something; lost where it is gone."""
        self._send({"call": name, "with": arguments})

    def close(self) -> None:
        """Close once all is sent."""
        transport = cast(Any, self.transport)
        if transport is not None:
            transport.unregisterProducer()
            transport.loseConnection()

    def stringReceived(self, string: bytes) -> None:
        """A message."""
        message = json.loads(string)
        number = message.get("number")
        if "call" not in message:
            self._answered(message)
            return
        done = maybeDeferred(self._handlers[message["call"]], **message["with"])
        if number is None:
            done.addErrback(lambda failure: self._log.failure("{name}", failure, name=message["call"]))
        else:
            done.addCallbacks(lambda value: {"value": value}, self._excuse).addCallback(
                lambda answer: self._send({"number": number, **answer})
            )

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        asked, self._asked = self._asked, {}
        self.transport = None
        for answer in asked.values():
            answer.errback(ChannelClosed("the server is stopping"))
        self._lost()

    def lengthLimitExceeded(self, length: int) -> None:
        """A message that no end of ours sends."""
        self._log.error("a message of {length} bytes from another process", length=length)
        super().lengthLimitExceeded(length)

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._full = True

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._full = False
        self._backlog = 0

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""

    def _send(self, message: Mapping[str, object]) -> None:
        transport = cast(Any, self.transport)
        if transport is None:
            answer = self._asked.pop(cast(int, message.get("number")), None) if "call" in message else None
            if answer is not None:
                answer.errback(ChannelClosed("the server is stopping"))
            return
        data = json.dumps(message).encode()
        if self._full:
            self._backlog += len(data)
            if self._backlog > LONGEST:
                self._log.error("the other process reads no messages")
                transport.abortConnection()
                return
        self.sendString(data)

    def _forget(self, number: int) -> None:
        self._asked.pop(number, None)

    def _answered(self, message: Mapping[str, Any]) -> None:
        answer = self._asked.pop(message["number"], None)
        if answer is None:
            return
        if "value" in message:
            answer.callback(message["value"])
        elif message["mistake"]:
            answer.errback(ConfigurationError(message["error"]))
        else:
            answer.errback(Refused(message["error"]))

    def _excuse(self, failure: Failure) -> dict[str, object]:
        if not failure.check(ResticdError):
            self._log.failure("a call from another process", failure)
        known = failure.check(ResticdError) is not None
        error = str(failure.value) if known else f"{failure.value.__class__.__name__}: {failure.getErrorMessage()}"
        return {"error": error, "mistake": failure.check(ConfigurationError) is not None}


def attach(reactor: Any, descriptor: int, channel: Channel) -> None:
    """Let ``channel`` speak over a connected unix socket, which is duplicated."""
    reactor.adoptStreamConnection(descriptor, socket.AF_UNIX, _Only(channel))


class _Only(Factory):
    """Has one protocol, which is there already."""

    noisy = False

    def __init__(self, protocol: Channel) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Channel:
        """See ``IProtocolFactory``."""
        return self._protocol
