"""A client's connection in the hands of a worker, which moves one body over it.

Between requests and answers a connection is the reactor's. For one body a worker takes it: ``Wire`` is what it takes,
``PlainWire`` the one where the bytes on the socket are the bytes of the body. Whoever else knows how to part with a
connection (``listeners.direct_tls``) is an ``ILender``.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp
from zope.interface import Interface

from resticd.errors import ClientGone

if TYPE_CHECKING:
    from twisted.internet.defer import DeferredSemaphore

    from resticd.http.request import StreamingRequest


class Wire:
    """See the module. ``take`` and ``give_back`` are the reactor's to call, all else the worker's, in between.

    :ivar socket: a duplicate of the connection's: the transport's end cannot hand its number to another file while a
        worker uses it. Never blocks.
    :ivar turns: how many workers may hold such a wire at once, None for any number.
    """

    turns: DeferredSemaphore | None = None
    socket: socket.socket

    def __init__(self, transport: tcp.Connection) -> None:
        self._transport = transport
        self._unsent: bytes | memoryview = b""

    def take(self) -> None:
        """From now on the connection is the worker's."""
        self.socket = self._transport.socket.dup()
        self._unsent = _take_unsent(self._transport)

    def give_back(self) -> None:
        """The connection is the reactor's again, with what was received too much and not sent yet."""
        if self._unsent:
            self._transport.write(bytes(self._unsent))
        self.socket.close()

    def receive_into(self, view: memoryview) -> tuple[bool, int]:
        """Receive some of the body, or all that fits. Whether nothing more is there for now, and how many bytes came.

        Raises ``ClientGone`` when the connection ends.
        """
        raise NotImplementedError

    def send_file(self, file: int, offset: int, count: int) -> int:
        """Send at most ``count`` bytes of an open file. How many they were; 0 only where the file has no more.

        Raises ``BlockingIOError`` when there is no room, other ``OSError`` for the file, ``ClientGone``.
        """
        raise NotImplementedError

    def flush(self, flags: int = 0) -> None:
        """Send what was taken over from the transport, or is sealed. Raises as ``send_file``."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent, flags) :]
        except BlockingIOError:
            raise
        except OSError:
            raise ClientGone("the connection ended") from None

    def _flush_in_passing(self) -> None:
        """Before something is received: an interim answer may wait, and then the client may wait for it."""
        try:
            self.flush()
        except BlockingIOError:
            return


class PlainWire(Wire):
    """A plain TCP or unix socket."""

    def receive_into(self, view: memoryview) -> tuple[bool, int]:
        """See ``Wire``."""
        self._flush_in_passing()
        size = 0
        try:
            while size < len(view):
                received = self.socket.recv_into(view[size:])
                if not received:
                    raise ClientGone("the connection ended during the upload")
                size += received
        except BlockingIOError:
            return True, size
        except OSError:
            raise ClientGone("the connection ended during the upload") from None
        return False, size

    def send_file(self, file: int, offset: int, count: int) -> int:
        """See ``Wire``. By ``sendfile(2)``: the bytes never enter the process."""
        # MSG_MORE: the headers do not cost a packet of their own.
        self.flush(socket.MSG_MORE)
        try:
            return os.sendfile(self.socket.fileno(), file, offset, count)
        except ConnectionError:
            raise ClientGone("the connection ended during the download") from None


class ILender(Interface):
    """A transport that can part with its connection for one body."""

    def wire() -> Wire | None:
        """What a worker would take, or None where it cannot be had. Changes nothing yet."""


def direct_wire(request: StreamingRequest) -> Wire | None:
    """How a worker can move the body of ``request``; None where something is in the way."""
    transport = plain_transport(request)
    if transport is not None:
        return PlainWire(transport)
    lender = getattr(request.channel, "transport", None)
    return lender.wire() if ILender.providedBy(lender) else None


def plain_transport(request: StreamingRequest) -> tcp.Connection | None:
    """The request's transport if bytes on its socket are the bytes of the body and nothing is in the way, or None.

    ``hasattr(transport, "socket")`` would be true under TLS as well, and plain text would leak: the class decides.
    """
    transport: Any = getattr(request.channel, "transport", None)
    return transport if at_rest(transport) else None


def at_rest(transport: object) -> bool:
    """Whether ``transport`` is a socket of its own, with nothing in front of it, neither full nor closing."""
    return isinstance(transport, tcp.Connection) and not (
        transport.TLS or transport.producerPaused or transport.disconnecting or transport.disconnected
    )


def _take_unsent(transport: tcp.Connection) -> bytes:
    """Take what the transport has not sent yet out of its hands: the headers go out right before the body."""
    unsent = b"".join([bytes(transport.dataBuffer)[transport.offset :], *transport._tempDataBuffer])
    transport.dataBuffer, transport.offset = b"", 0
    transport._tempDataBuffer, transport._tempDataLen = [], 0
    transport.stopWriting()
    return unsent
