"""HTTP/2 on standard input and output, as ``rclone serve restic --stdio`` speaks it to restic (in restic:
``internal/backend/rclone``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from twisted.internet import main
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.process import ProcessReader, ProcessWriter
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure
from zope.interface import implementer

from resticd.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from resticd.http.site import Site
    from resticd.interfaces import IReactor

#: What a pipe may hold; the kernel's own choice is 64 KiB.
PIPE_SIZE = 1024 * 1024
READ_SIZE = PIPE_SIZE
#: A producer waits while more than this could not be written.
WRITE_HIGH = 64 * 1024
#: Linux's IOV_MAX.
_MAX_VECTORS = 1024


def take_standard_output() -> int:
    """A private descriptor of standard output; what anybody else writes there goes to standard error from now on.

    Raises ``ConfigurationError`` where a person sits at the other end.
    """
    if os.isatty(0) or os.isatty(1):
        raise ConfigurationError("--stdio: this is a terminal; restic starts the program by itself")
    output = os.dup(1)
    os.dup2(2, 1)
    return output


class StdioListener:
    """One connection, which is there already; ``start`` and ``stop`` as ``Listeners`` has them.

    :param output: of ``take_standard_output``.
    :param ended: called, perhaps more than once, when the client has closed its end.
    """

    def __init__(self, reactor: IReactor, site: Site, output: int, ended: Callable[[], object]) -> None:
        self._reactor = reactor
        self._output = output
        self._connection = StdioConnection(site, ended)

    def start(self) -> Deferred[None]:
        """Begin to serve."""
        for descriptor in (0, self._output):
            with contextlib.suppress(OSError):  # not a pipe, or more than this user may have
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        transport: Any = _StandardIO
        transport(self._connection, 0, self._output, self._reactor)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Nothing: the site finishes the connection, as all others."""
        return succeed(None)


class _Reader(ProcessReader):
    """Reads more at a time than Twisted's, which takes 8 KiB, and always to the same place: ``StdioConnection`` keeps
    nothing of what it is given, and new memory would cost as much as the reading.
    """

    def __init__(self, reactor: IReactor, proc: object, name: str, descriptor: int) -> None:
        super().__init__(reactor, proc, name, descriptor)
        self._buffer = memoryview(bytearray(READ_SIZE))

    def doRead(self) -> Any:
        """See ``IReadDescriptor``."""
        try:
            size = os.readv(self.fd, [self._buffer])
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not size:
            return main.CONNECTION_DONE
        return self.dataReceived(self._buffer[:size])


class _Writer(ProcessWriter):
    """Writes at once what the pipe takes, headers and bodies from where they lie.

    Twisted's joins everything first, writes in the reactor's next turn, and asks for that turn with every write.
    """

    def __init__(self, reactor: IReactor, proc: object, name: str, descriptor: int) -> None:
        super().__init__(reactor, proc, name, descriptor)
        self.producer: Any
        self._queue: deque[memoryview] = deque()
        self._queued = 0

    def write(self, data: bytes) -> None:
        """See ``ITransport``."""
        self.writeSequence([data])

    def writeSequence(self, iovec: Iterable[bytes | memoryview]) -> None:
        """See ``ITransport``."""
        if not self.connected or self.disconnected or self._writeDisconnected:
            return
        idle = not self._queue
        for data in iovec:
            if data:
                self._queue.append(memoryview(data))
                self._queued += len(data)
        # What is wrong with the pipe is for ``doWrite`` to find out: who writes expects no end of the connection.
        if idle and self._write_some() is None and not self._queue:
            return
        self.startWriting()
        if self._queued > WRITE_HIGH and self.producer is not None and not self.producerPaused:
            self.producerPaused = True
            self.producer.pauseProducing()

    def doWrite(self) -> Any:
        """See ``IWriteDescriptor``."""
        error = self._write_some()
        if error is not None or self._queue:
            return error
        self.stopWriting()
        if self.producer is not None and self.producerPaused:
            self.producerPaused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            return self._postLoseConnection()
        return None

    def _write_some(self) -> Exception | None:
        queue = self._queue
        while queue:
            vectors = list(islice(queue, _MAX_VECTORS))
            try:
                written = os.writev(self.fd, vectors)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError:
                lost: Exception = main.CONNECTION_LOST
                return lost
            self._queued -= written
            for data in vectors:
                if len(data) > written:
                    queue[0] = data[written:]
                    return None
                written -= len(data)
                queue.popleft()
        return None


class _StandardIO(StandardIO):
    #: ``writeSequence`` takes memory of any kind
    takes_views = True

    def __init__(self, protocol: Protocol, stdin: int, stdout: int, reactor: IReactor) -> None:
        # What StandardIO does, but for the classes of the reader and the writer.
        self.protocol = protocol
        self._writer = _Writer(reactor, self, "write", stdout)
        self._reader = _Reader(reactor, self, "read", stdin)
        self._reader.startReading()
        self.protocol.makeConnection(self)


@implementer(IHalfCloseableProtocol)
class StdioConnection(Protocol):
    """HTTP/2 whose two directions end on their own.

    A client that closes standard input sends no more, but may wait for answers: what it has asked for in full is
    answered, uploads whose last byte has come are stored. One that closes standard output waits for nothing.
    """

    transport: Any

    def __init__(self, site: Site, ended: Callable[[], object]) -> None:
        self._site = site
        self._http2 = site.prior_knowledge()
        self._ended = ended

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        self._site.connections.add(self)
        self._http2.makeConnection(self.transport)

    def dataReceived(self, data: bytes | memoryview) -> None:
        """See ``IProtocol``; ``data`` may change afterwards."""
        self._http2.dataReceived(data)

    def readConnectionLost(self) -> None:
        """See ``IHalfCloseableProtocol``."""
        self._http2.input_ended()
        self._ended()

    def writeConnectionLost(self) -> None:
        """See ``IHalfCloseableProtocol``."""
        self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        self._http2.connectionLost(reason)
        self._site.closed(self)
        self._ended()

    def finish(self) -> None:
        """Take no further requests; the connection closes when those that run are answered."""
        self._http2.finish()

    def abort(self) -> None:
        """Break the connection off."""
        if not self.transport.disconnected:
            self.transport.connectionLost(Failure(ConnectionLost("broken off")))
