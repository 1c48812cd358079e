"""Requests and answers between the client and a peer that does what it is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_twisted
from support.http_peer import Connection, HttpPeer, Received, always
from support.waiting import until
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from resticd.errors import BadGateway, ClientGone, RemoteTimeout, StorageError, Unavailable
from resticd.transport.bodies import BytesBody, StreamedBody
from resticd.transport.client import HttpClient, Request
from resticd.transport.settings import ClientSettings


@pytest.fixture
def client() -> Any:
    made = HttpClient(reactor, ClientSettings(timeout=5, contimeout=5))
    yield made
    pytest_twisted.blockon(made.close())


@pytest.fixture
def peer() -> Any:
    peers = []

    def start(script: Callable[[Connection], Awaitable[None]], **options: Any) -> HttpPeer:
        peers.append(HttpPeer(script, **options))
        return peers[-1]

    yield start
    for started in peers:
        pytest_twisted.blockon(started.stop())


@implementer(IPushProducer)
class Producer:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.paused = False
        self.stopped = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.stopped = True


@implementer(IConsumer)
class Consumer:
    """Keeps what it gets; pauses its producer when told to."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.producer: Any = None
        self.done = False

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.done = True

    def write(self, data: bytes) -> None:
        self.data += data


async def fails(deferred: Deferred[Any], kind: type[Exception]) -> Exception:
    with pytest.raises(kind) as caught:
        await deferred
    return caught.value


def test_interfaces() -> None:
    """Bodies provide what Twisted asks of them."""
    assert verifyObject(IBodyProducer, BytesBody(b"x"))
    assert verifyObject(IBodyProducer, StreamedBody(1))
    assert verifyObject(IConsumer, StreamedBody(1))


@pytest_twisted.ensureDeferred
async def test_requests_share_a_connection(client: HttpClient, peer: Any) -> None:
    """Three requests in a row use one connection, and the body and headers arrive."""
    server = peer(always(lambda connection, got: connection.answer(200, got.body + got.headers["x-a"].encode())))
    for number in range(3):
        body = BytesBody(b"body%d " % number)
        answer = await client.send(Request("PUT", f"{server.url}/a%20b?c=d", (("X-A", "1"),), body))
        assert (answer.status, await answer.read()) == (200, b"body%d 1" % number)
    assert len(server.connections) == 1


@pytest_twisted.ensureDeferred
async def test_large_body_of_bytes(client: HttpClient, peer: Any) -> None:
    """A body larger than all buffers arrives whole."""
    server = peer(always(lambda connection, got: connection.answer(200, got.body)))
    data = bytes(range(256)) * 20000
    answer = await client.send(Request("PUT", server.url, body=BytesBody(data)))
    assert await answer.read(limit=10_000_000) == data


@pytest_twisted.ensureDeferred
async def test_streamed_body_pauses_its_producer(client: HttpClient, peer: Any) -> None:
    """While the peer does not read, the producer is paused; when it reads again, it is resumed."""
    resumed: Deferred[None] = Deferred()

    async def script(connection: Connection) -> None:
        request = await connection.request()
        connection.pause()
        await resumed
        connection.resume()
        await connection.body(int(request.headers["content-length"]))
        connection.answer(201)

    length = 32 * 1024 * 1024
    body, producer = StreamedBody(length), Producer()
    body.registerProducer(producer, True)
    pending = client.send(Request("PUT", peer(script).url, body=body))
    written = 0

    def write_some() -> bool:
        nonlocal written
        while not producer.paused and written < length:
            body.write(b"x" * 65536)
            written += 65536
        return producer.paused

    await until(write_some)
    for _ in range(20):  # it may drain a little more into the kernel's buffers
        await until(lambda: True)
    assert written < length
    resumed.callback(None)
    await until(lambda: not write_some() and written == length)
    body.release()
    assert (await pending).status == 201
    assert not producer.stopped


@pytest_twisted.ensureDeferred
async def test_last_byte_is_held_back(client: HttpClient, peer: Any) -> None:
    """All but the last byte is sent at once, the last one after release."""
    seen: list[bytes] = []

    async def script(connection: Connection) -> None:
        await connection.request()
        seen.append(await connection.body(9))
        seen.append(await connection.body(1))
        connection.answer(200)

    body = StreamedBody(10)
    pending = client.send(Request("PUT", peer(script).url, body=body))
    body.write(b"012345")
    body.write(b"6789")
    await until(lambda: seen)
    assert seen == [b"012345678"]
    assert body.complete
    body.release()
    assert (await pending).status == 200
    assert seen[1] == b"9"


@pytest_twisted.ensureDeferred
async def test_early_refusal(client: HttpClient, peer: Any) -> None:
    """A refusal that comes in pieces before the body was sent is read whole; the producer is stopped."""

    async def script(connection: Connection) -> None:
        await connection.request()
        connection.pause()
        connection.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\n")
        await until(lambda: True)
        connection.send("01234")
        await until(lambda: True)
        connection.send("56789")
        connection.resume()

    server = peer(script)
    body, producer = StreamedBody(1 << 30), Producer()
    body.registerProducer(producer, True)
    pending = client.send(Request("PUT", server.url, body=body))
    while not producer.paused:
        body.write(b"x" * 65536)
    answer = await pending
    assert (answer.status, await answer.read()) == (403, b"0123456789")
    assert producer.stopped
    await until(lambda: server.connections[0].is_lost)


@pytest_twisted.ensureDeferred
async def test_early_success_is_a_fault(client: HttpClient, peer: Any) -> None:
    """A 200 for a body that was not sent is not believed."""

    async def script(connection: Connection) -> None:
        await connection.request()
        connection.answer(200)

    body = StreamedBody(100)
    body.write(b"x" * 50)
    await fails(client.send(Request("PUT", peer(script).url, body=body)), BadGateway)


@pytest_twisted.ensureDeferred
async def test_reset_while_sending(client: HttpClient, peer: Any) -> None:
    """A connection that breaks under a streamed body is a StorageError and stops the producer."""

    async def script(connection: Connection) -> None:
        await connection.request()
        connection.abort()

    body, producer = StreamedBody(1 << 20), Producer()
    body.registerProducer(producer, True)
    await fails(client.send(Request("PUT", peer(script).url, body=body)), StorageError)
    assert producer.stopped
    body.write(b"ignored")


@pytest_twisted.ensureDeferred
async def test_cancelled_while_sending(client: HttpClient, peer: Any) -> None:
    """Cancelling a request closes its connection."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.body(1 << 20)

    server = peer(script)
    body = StreamedBody(1 << 20)
    pending = client.send(Request("PUT", server.url, body=body))
    body.write(b"some")
    await until(lambda: server.connections)
    pending.cancel()
    await fails(pending, CancelledError)
    await until(lambda: server.connections[0].is_lost)


@pytest_twisted.ensureDeferred
async def test_cancelled_while_waiting(client: HttpClient, peer: Any) -> None:
    """Cancelling a request that waits for its answer closes the connection."""
    requests: list[Received] = []

    async def script(connection: Connection) -> None:
        requests.append(await connection.request())

    server = peer(script)
    pending = client.send(Request("GET", server.url))
    await until(lambda: requests)
    pending.cancel()
    await fails(pending, CancelledError)
    await until(lambda: server.connections[0].is_lost)


@pytest_twisted.ensureDeferred
async def test_download_waits_for_its_consumer(client: HttpClient, peer: Any) -> None:
    """A paused consumer makes the peer wait; nothing is lost."""
    data = bytes(range(256)) * 65536  # 16 MiB
    server = peer(always(lambda connection, _: connection.answer(200, data)))
    answer = await client.send(Request("GET", server.url))
    assert answer.length == len(data)
    consumer = Consumer()
    done = answer.deliver(consumer)
    consumer.producer.pauseProducing()
    got = len(consumer.data)
    for _ in range(20):
        await until(lambda: True)
    assert len(consumer.data) <= got + 65536
    assert not done.called
    consumer.producer.resumeProducing()
    await done
    assert consumer.data == data
    assert consumer.done


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest_twisted.ensureDeferred
async def test_download_cut_short(client: HttpClient, peer: Any, how: str) -> None:
    """A body that ends early is an error, never a short success."""

    async def script(connection: Connection) -> None:
        await connection.request()
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + "x" * 99)
        await until(lambda: len(consumer.data) == 99)
        getattr(connection, how)()

    consumer = Consumer()
    answer = await client.send(Request("GET", peer(script).url))
    await fails(answer.deliver(consumer), StorageError)
    assert consumer.done


@pytest_twisted.ensureDeferred
async def test_download_of_unknown_length(client: HttpClient, peer: Any) -> None:
    """A body without a length that ends with the connection is an error: it may be short."""

    async def script(connection: Connection) -> None:
        await connection.request()
        connection.send("HTTP/1.1 200 OK\r\n\r\nxxx")
        connection.close()

    answer = await client.send(Request("GET", peer(script).url))
    assert answer.length is None
    await fails(answer.read(), BadGateway)


@pytest_twisted.ensureDeferred
async def test_consumer_stops(client: HttpClient, peer: Any) -> None:
    """A consumer that wants no more closes the connection."""

    async def script(connection: Connection) -> None:
        await connection.request()
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")

    server = peer(script)
    answer = await client.send(Request("GET", server.url))
    consumer = Consumer()
    done = answer.deliver(consumer)
    consumer.producer.stopProducing()
    await fails(done, ClientGone)
    await until(lambda: server.connections[0].is_lost)


@pytest_twisted.ensureDeferred
async def test_discarded(client: HttpClient, peer: Any) -> None:
    """Discarding an answer closes the connection where much is still to come, and keeps it where not."""

    async def script(connection: Connection) -> None:
        for body in (b"", b"short"):
            await connection.request()
            connection.answer(200, body)
        await connection.request()
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n\r\n")
        await connection.request()
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nx")

    server = peer(script)
    for turn in range(4):
        answer = await client.send(Request("GET", server.url))
        assert len(server.connections) == 1, turn
        discarded = answer.discard()
        answer.discard()
        await discarded
    await until(lambda: server.connections[0].is_lost)


@pytest_twisted.ensureDeferred
async def test_discarded_and_silent(peer: Any) -> None:
    """A short body that does not come does not keep the connection for ever."""

    async def script(connection: Connection) -> None:
        await connection.request()
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx")

    server, client = peer(script), HttpClient(reactor, ClientSettings(timeout=0.1))
    (await client.send(Request("GET", server.url))).discard()
    await until(lambda: server.connections[0].is_lost)
    await client.close()


@pytest_twisted.ensureDeferred
async def test_nobody_gets_an_aborted_connection(client: HttpClient, peer: Any) -> None:
    """A consumer that stops with the last bytes of an answer does no harm to the request that follows at once."""

    class Stopping(Consumer):
        def write(self, data: bytes) -> None:
            self.producer.stopProducing()

    server = peer(always(lambda connection, _: connection.answer(200, b"short")))
    for _ in range(5):
        delivered = (await client.send(Request("GET", server.url))).deliver(Stopping())
        following = client.send(Request("GET", server.url))
        with pytest.raises(ClientGone):
            await delivered
        assert await (await following).read() == b"short"


@pytest_twisted.ensureDeferred
async def test_too_long_to_read(client: HttpClient, peer: Any) -> None:
    """An answer that should be short and is not is given up."""
    server = peer(always(lambda connection, _: connection.answer(200, b"x" * 1000)))
    await fails((await client.send(Request("GET", server.url))).read(limit=999), BadGateway)


@pytest.mark.parametrize("silent", ["headers", "body", "reading"])
@pytest_twisted.ensureDeferred
async def test_idle_remote(peer: Any, silent: str) -> None:
    """A remote that makes no progress in its turn is given up: before headers, in a body, while it should read."""
    over: Deferred[None] = Deferred()

    async def script(connection: Connection) -> None:
        await connection.request()
        if silent == "reading":
            connection.pause()
        if silent == "body":
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        await over

    client = HttpClient(reactor, ClientSettings(timeout=0.1))
    server = peer(script)
    if silent == "reading":
        error = await fails(client.send(Request("PUT", server.url, body=BytesBody(b"x" * (32 << 20)))), RemoteTimeout)
    elif silent == "body":
        error = await fails((await client.send(Request("GET", server.url))).read(), RemoteTimeout)
    else:
        error = await fails(client.send(Request("GET", server.url)), RemoteTimeout)
    assert "no progress" in str(error)
    over.callback(None)
    if silent == "reading":
        server.connections[0].resume()
    await until(lambda: server.connections[0].is_lost)


@pytest_twisted.ensureDeferred
async def test_slow_client_is_not_the_remotes_fault(peer: Any) -> None:
    """While the client sends nothing and the remote waits for it, the remote's time does not run."""
    client = HttpClient(reactor, ClientSettings(timeout=0.05))
    server = peer(always(lambda connection, got: connection.answer(200, got.body)))
    body = StreamedBody(2)
    pending = client.send(Request("PUT", server.url, body=body))
    body.write(b"a")
    started = reactor.seconds()
    await until(lambda: reactor.seconds() > started + 0.2)
    body.write(b"b")
    body.release()
    assert await (await pending).read() == b"ab"
    await client.close()


@pytest_twisted.ensureDeferred
async def test_nobody_there(client: HttpClient, peer: Any) -> None:
    """A refused connection is Unavailable, and the message names the host."""
    server = peer(always(lambda *_: None))
    await server.stop()
    error = await fails(client.send(Request("GET", server.url)), Unavailable)
    assert "127.0.0.1" in str(error)


@pytest_twisted.ensureDeferred
async def test_not_http(client: HttpClient, peer: Any) -> None:
    """An answer that is not HTTP is a StorageError."""

    async def script(connection: Connection) -> None:
        await connection.request()
        connection.send("220 smtp.example.com ESMTP\r\n")
        connection.close()

    await fails(client.send(Request("GET", peer(script).url)), StorageError)


def test_nothing_secret_is_shown() -> None:
    """A request's text has neither its query nor its headers."""
    request = Request("GET", "http://host/path?X-Amz-Signature=abc", (("Authorization", "secret"),))
    assert "abc" not in repr(request)
    assert "secret" not in repr(request)
    assert "http://host/path" in repr(request)


@pytest_twisted.ensureDeferred
async def test_connections_opened_ahead(client: HttpClient, peer: Any) -> None:
    """So many are open when they are needed, no more for being asked again, and requests go over them."""
    server = peer(always(lambda connection, got: connection.answer(200, b"")))
    for _ in range(2):
        client.warm(server.url, 3)
    await until(lambda: len(server.connections) == 3)
    await until(lambda: sum(map(len, client._pool._connections.values())) == 3)
    client.warm(server.url, 3)
    answers = [client.send(Request("GET", server.url)) for _ in range(3)]
    for answer in answers:
        await (await answer).read()
    assert len(server.connections) == 3


@pytest_twisted.ensureDeferred
async def test_opened_ahead_and_closed_by_the_peer(client: HttpClient, peer: Any) -> None:
    """Nobody gets a connection that is closed already."""
    server = peer(always(lambda connection, got: connection.answer(200, b"x")))
    client.warm(server.url, 2)
    await until(lambda: sum(map(len, client._pool._connections.values())) == 2)
    for connection in server.connections:
        connection.transport.loseConnection()
    idle = [protocol for protocols in client._pool._connections.values() for protocol in protocols]
    await until(lambda: all(protocol.state != "QUIESCENT" for protocol in idle))
    answer = await client.send(Request("GET", server.url))
    assert await answer.read() == b"x"
    client.warm(server.url, 2)
    await until(lambda: len(server.connections) == 4)


@pytest_twisted.ensureDeferred
async def test_nobody_to_open_ahead(peer: Any) -> None:
    """Where nobody listens the request says so, and a client that is closed opens nothing any more."""
    client = HttpClient(reactor, ClientSettings(timeout=5, contimeout=5))
    server = peer(always(lambda connection, got: connection.answer(200, b"")))
    client.warm("http://127.0.0.1:1/", 3)
    await fails(client.send(Request("GET", "http://127.0.0.1:1/")), Unavailable)
    client.warm(server.url, 3)
    await client.close()
    assert not client._pool._opening
    assert not any(client._pool._connections.values())


@pytest_twisted.ensureDeferred
async def test_chunks_in_order(client: HttpClient, peer: Any) -> None:
    """Small and large chunks, some sent at once and some by the transport, arrive in order at a peer that is slow."""
    waiting: Deferred[None] = Deferred()

    async def script(connection: Connection) -> None:
        got = await connection.request()
        connection.transport.pauseProducing()
        await waiting
        connection.transport.resumeProducing()
        connection.answer(200, await connection.body(int(got.headers["content-length"])))

    server = peer(script)
    chunks = [bytes([number]) * (300_000 if number % 3 else 7) for number in range(60)]
    data = b"".join(chunks)
    body = StreamedBody(len(data))
    producer = Producer()
    body.registerProducer(producer, True)
    sending = client.send(Request("PUT", server.url, body=body))
    for chunk in chunks[:3]:
        body.write(chunk)
    await until(lambda: server.connections and not producer.paused)
    for chunk in chunks[3:]:
        body.write(chunk)
    await until(lambda: producer.paused)
    waiting.callback(None)
    await until(lambda: not producer.paused)
    body.release()
    answer = await sending
    assert await answer.read(limit=20_000_000) == data
