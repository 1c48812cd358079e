"""The site: what every request of every listener has in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.web import server

from resticd.http.negotiation import Negotiator
from resticd.http.request import StreamingRequest

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress
    from twisted.web.http import Request
    from twisted.web.resource import IResource

    from resticd.http.h2_connection import H2Connection
    from resticd.http.lane import Lane
    from resticd.interfaces import IEventSink, IReactor
    from resticd.workers import Workers

#: Seconds without a byte after which a connection is closed, between requests and inside a body. restic itself gives up
#: after five minutes without progress.
IDLE_SECONDS = 310


class Connection(Protocol):
    """What the site knows of every connection."""

    def finish(self) -> None:
        """Take no further requests; close when those that run are answered."""

    def abort(self) -> None:
        """Break off."""


@frozen
class SiteSettings:
    """What can be set for all requests.

    :ivar max_header_bytes: a larger header block is answered with 431.
    :ivar read_timeout: seconds for one request's body to come in, 0 for no limit.
    :ivar write_timeout: seconds for one answer to go out, 0 for no limit.
    :ivar response_headers: names and values that every answer gets.
    :ivar without: the techniques to do without, for comparison: ``direct-receive``, ``direct-send``,
        ``h2-bodies``.
    """

    max_header_bytes: int = 4096
    read_timeout: float = 3600.0
    write_timeout: float = 3600.0
    response_headers: tuple[tuple[str, str], ...] = ()
    without: frozenset[str] = frozenset()


class Site(server.Site):
    """A ``twisted.web`` site of streaming requests.

    :param resource: answers every request, whatever its path.
    :param reactor: for timeouts and durations, and for waiting on sockets.
    :param workers: for bodies that are moved by threads.
    :param sink: learns of every request when it is over.
    :param http2: whether HTTP/2 is spoken, besides HTTP/1.1.
    """

    def __init__(
        self,
        resource: IResource,
        reactor: IReactor,
        workers: Workers,
        sink: IEventSink,
        settings: SiteSettings | None = None,
        *,
        http2: bool = True,
    ) -> None:
        super().__init__(resource, requestFactory=StreamingRequest, timeout=IDLE_SECONDS, reactor=reactor)
        self.clock = self.poller = reactor
        self.workers = workers
        self.sink = sink
        self.settings = settings or SiteSettings()
        self.http2 = http2
        self.lane: Lane | None = getattr(resource, "lane", None)
        self.connections: set[Connection] = set()
        self.requests: set[StreamingRequest] = set()
        self._retired: list[tuple[set[StreamingRequest], Deferred[None]]] = []
        self._emptied: Deferred[None] | None = None
        self.displayTracebacks = False
        self.noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Negotiator:  # type: ignore[override]  # of our own
        """The protocol of one connection."""
        return Negotiator(self)

    def replace(self, resource: IResource, settings: SiteSettings) -> Deferred[None]:
        """Answer requests by another resource from now on.

        Fires when the last request to the resource before is over.
        """
        self.resource, self.settings = resource, settings
        self.lane = getattr(resource, "lane", None)
        over: Deferred[None] = Deferred()
        if self.requests:
            self._retired.append((set(self.requests), over))
        else:
            over.callback(None)
        return over

    def ended(self, request: StreamingRequest) -> None:
        """A request is over."""
        self.requests.discard(request)
        for waiting in list(self._retired):
            requests, over = waiting
            requests.discard(request)
            if not requests:
                self._retired.remove(waiting)
                over.callback(None)

    def finish(self, seconds: float) -> Deferred[None]:
        """Let what runs come to its end: no connection takes another request.

        Fires when the last connection is gone. Those that are left after ``seconds`` are broken off.
        """
        return Deferred.fromCoroutine(self._finish(seconds))

    async def _finish(self, seconds: float) -> None:
        for connection in list(self.connections):
            connection.finish()
        if not self.connections:
            return
        self._emptied = Deferred()
        deadline = self.clock.callLater(seconds, self.abort)
        await self._emptied
        if deadline.active():
            deadline.cancel()

    def abort(self) -> None:
        """Break all connections off."""
        for connection in list(self.connections):
            connection.abort()

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        emptied = self._emptied
        if emptied is not None and not self.connections:
            self._emptied = None
            emptied.callback(None)

    def prior_knowledge(self) -> H2Connection:
        """The protocol of a connection that speaks HTTP/2 from its first byte and may be idle for ever."""
        from resticd.http.h2_connection import H2Connection

        return H2Connection(self, 0)

    def log(self, request: Request) -> None:
        """Requests report themselves to the sink, those cut short too; Twisted's own access log is not kept."""
