"""One HTTP request and its answer, streamed both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, ProxyAgent
from twisted.web.http_headers import Headers

from resticd.errors import BadGateway, RemoteTimeout
from resticd.transport.connections import Lease, Pool
from resticd.transport.endpoints import Endpoints
from resticd.transport.errors import connection_error
from resticd.transport.idle import IdleTimer
from resticd.transport.response import Response
from resticd.transport.retries import Retries

if TYPE_CHECKING:
    from twisted.web.iweb import IAgent, IResponse

    from resticd.transport.bodies import BytesBody, StreamedBody
    from resticd.transport.limiter import Limiter
    from resticd.transport.settings import ClientSettings


@frozen
class Request:
    """What to send. Neither the URL's query nor the headers are ever shown: both may hold signatures.

    :ivar url: percent-encoded.
    :ivar headers: without Content-Length, which the body brings, and perhaps without Host and User-Agent.
    """

    method: str
    url: str = field(repr=lambda url: repr(url.partition("?")[0]))
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: BytesBody | StreamedBody | None = None


class HttpClient:
    """Sends requests over kept connections.

    Redirections are not followed, content encodings are not undone, cookies are not kept.

    :param limiter: asked before every request (``--tpslimit``).
    :ivar retries: repeats what is safe to repeat, as often as the settings say.
    """

    def __init__(self, reactor: Any, settings: ClientSettings, limiter: Limiter | None = None) -> None:
        self.settings = settings
        self.retries = Retries(reactor, settings.low_level_retries)
        self._reactor = reactor
        self._limiter = limiter
        self._endpoints = Endpoints(reactor, settings)
        self._pool = Pool(reactor, settings.connections, settings.keep_alive)

    def send(self, request: Request) -> Deferred[Response]:
        """Fires with the answer, whatever its status, when its headers are there.

        An answer that comes before the body was sent ends the body: its producer is stopped, the connection closed.

        Fails with a ``StorageError`` where there is no answer. Cancelling it closes the connection.
        """
        return Deferred.fromCoroutine(self._send(request))

    def warm(self, url: str, connections: int) -> None:
        """Open connections to where ``url`` leads, for requests that will follow, until so many are idle.

        Saves their round trips. Waits for nothing and never fails. Proxies for plain requests are left alone.
        """
        uri = URI.fromBytes(url.encode("ascii"))
        if uri.scheme == b"https" or self._endpoints.proxy_for(uri) is None:
            self._pool.warm((uri.scheme, uri.host, uri.port), self._endpoints.endpointForURI(uri), connections)

    def close(self) -> Deferred[None]:
        """Close the idle connections; fires when they are closed."""
        return self._pool.closeCachedConnections()

    async def _send(self, request: Request) -> Response:
        if self._limiter is not None:
            await self._limiter.acquire()
        uri = URI.fromBytes(request.url.encode("ascii"))
        host = uri.host.decode("ascii")
        lease = Lease(self._pool, request.body is not None)
        pending: Deferred[IResponse] | None = None
        late = False

        def expired() -> None:
            nonlocal late
            late = True
            if pending is not None:
                pending.cancel()

        timer = IdleTimer(self._reactor, self.settings.timeout, expired)
        if request.body is not None:
            request.body.remote_turn = timer.restart
            request.body.our_turn = timer.stop
        timer.restart()
        try:
            pending = self._request(request, uri, lease)
            answer = await pending
        except Exception:
            if request.body is not None:
                request.body.stopProducing()
            if late:
                raise RemoteTimeout(f"{host} made no progress for {self.settings.timeout:g} s") from None
            raise connection_error(Failure(), host) from None
        finally:
            timer.close()
        assert lease.link is not None  # there is no answer without a connection
        lease.link.sending = False
        if request.body is not None and not request.body.sent:
            lease.link.abort()
            request.body.stopProducing()
            if answer.code < 400:
                raise BadGateway(f"{host} calls a request done that was not sent yet (status {answer.code})")
        return Response(answer, lease.link, self._reactor, self.settings.timeout, host)

    def _request(self, request: Request, uri: URI, lease: Lease) -> Deferred[IResponse]:
        headers = Headers()
        headers.addRawHeader("User-Agent", self.settings.user_agent)
        for name, value in request.headers:
            headers.setRawHeaders(name, [value])
        agent: IAgent = Agent.usingEndpointFactory(self._reactor, self._endpoints, lease)
        proxy = self._endpoints.proxy_for(uri)
        if proxy is not None and uri.scheme == b"http":
            agent = ProxyAgent(self._endpoints.to_proxy(proxy), self._reactor, lease)
            if proxy.authorization:
                headers.addRawHeader("Proxy-Authorization", proxy.authorization)
        return agent.request(request.method.encode("ascii"), request.url.encode("ascii"), headers, request.body)
