"""The site: what every request of every listener has in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.web import server

from resticd.http.request import StreamingRequest

if TYPE_CHECKING:
    from twisted.web.http import Request
    from twisted.web.resource import IResource

    from resticd.interfaces import IEventSink, IReactor
    from resticd.workers import Workers

#: Seconds without a byte after which a connection is closed, between requests and inside a request's body. restic
#: itself gives up after five minutes without progress.
IDLE_SECONDS = 310


class Site(server.Site):
    """A ``twisted.web`` site of streaming requests.

    :param resource: answers every request, whatever its path.
    :param reactor: for timeouts and durations, and for waiting on sockets.
    :param workers: for bodies that are moved by threads.
    :param sink: learns of every request when it is over.
    """

    def __init__(self, resource: IResource, reactor: IReactor, workers: Workers, sink: IEventSink) -> None:
        super().__init__(resource, requestFactory=StreamingRequest, timeout=IDLE_SECONDS, reactor=reactor)
        self.clock = self.poller = reactor
        self.workers = workers
        self.sink = sink
        self.displayTracebacks = False

    def log(self, request: Request) -> None:
        """Requests report themselves to the sink, those cut short too; Twisted's own access log is not kept."""
