"""HTTP/2: how bodies move, each stream at its own pace."""

from __future__ import annotations

import os

import h2.settings
import pytest
from h2.errors import ErrorCodes
from support.h2_peer import Peer, Reader, Source

from resticd.errors import ClientGone
from resticd.http.h2_engine import CONNECTION_WINDOW, FIRST_WINDOW, STREAM_WINDOW
from resticd.http.h2_stream import OUTBOUND_HIGH
from resticd.http.negotiation import PREFACE

MIB = 1024 * 1024


@pytest.fixture
def peer() -> Peer:
    made = Peer()
    made.exchange()
    return made


def held(peer: Peer) -> int:
    """Bytes of answers that wait in the server's streams."""
    return sum(stream._outbound_bytes for stream in peer.server._chosen._streams.values())


@pytest.mark.parametrize("size", [1, 3, 24, 25, 1000])
def test_prior_knowledge_at_every_cut(size: int) -> None:
    """The preface, settings and two requests come in one go, cut anywhere: both are answered."""
    peer = Peer()
    streams = [peer.ask(path, exchange=False) for path in ("/a", "/b")]
    data = peer.h2.data_to_send()
    assert data.startswith(PREFACE)
    for start in range(0, len(data), size):
        peer.server.dataReceived(data[start : start + size])
    for request in peer.waiting.values():
        request.write(b"answer")
        request.finish()
    peer.exchange()
    assert [bytes(peer.bodies[stream]) for stream in streams] == [b"answer"] * 2
    assert peer.ended == set(streams)
    assert peer.resource.ended == ["/a", "/b"]


def test_requests_look_as_over_http1(peer: Peer) -> None:
    peer.ask("/a/b?c=d", "POST", ("content-length", "3"), ("x-more", "1"), ("x-more", "2"), end=False)
    request = peer.waiting["/a/b"]
    assert (request.method, request.uri, request.args) == (b"POST", b"/a/b?c=d", {b"c": [b"d"]})
    assert request.getHeader("host") == "x"
    assert request.requestHeaders.getRawHeaders("x-more") == ["1", "2"]
    assert request.body.length == 3
    assert request.clientproto == b"HTTP/2"


def test_an_unread_body_holds_little(peer: Peer) -> None:
    """Before anybody reads, the client may send as much as the settings say; then it waits."""
    stream = peer.ask("/a", "POST", end=False)
    assert peer.settings[h2.settings.SettingCodes.INITIAL_WINDOW_SIZE] == FIRST_WINDOW
    assert peer.send(stream, bytes(MIB)) == FIRST_WINDOW
    reader = Reader(peer.waiting["/a"])
    peer.exchange()
    assert len(reader.data) == FIRST_WINDOW
    assert peer.h2.local_flow_control_window(stream) >= STREAM_WINDOW * 3 // 4


def test_a_reader_that_pauses_holds_a_window(peer: Peer) -> None:
    """And gets every byte in order once it goes on."""
    data = os.urandom(5 * MIB)
    stream = peer.ask("/a", "POST", ("content-length", str(len(data))), end=False)
    reader = Reader(peer.waiting["/a"])
    sent = peer.send(stream, data[:MIB])
    assert sent == MIB == len(reader.data)
    reader.producer.pauseProducing()
    more = peer.send(stream, data[sent:])
    assert len(reader.data) == sent
    assert 0 < more <= STREAM_WINDOW
    sent += more
    while sent < len(data):
        reader.producer.resumeProducing()
        assert len(reader.data) == sent
        reader.producer.pauseProducing()
        more = peer.send(stream, data[sent:], end=True)
        assert 0 < more <= STREAM_WINDOW
        sent += more
    assert not reader.done
    reader.producer.resumeProducing()
    assert reader.done
    assert reader.data == data


def test_a_stalled_upload_does_not_stop_another(peer: Peer) -> None:
    """More than the whole connection's window passes beside 20 streams that nobody reads."""
    stalled = [peer.ask(f"/stalled{number}", "POST", end=False) for number in range(20)]
    for stream in stalled:
        assert peer.send(stream, bytes(MIB)) == FIRST_WINDOW
    stream = peer.ask("/fluent", "POST", end=False)
    reader = Reader(peer.waiting["/fluent"])
    size = CONNECTION_WINDOW + 3 * MIB
    assert peer.send(stream, bytes(size), end=True) == size
    assert reader.done
    assert len(reader.data) == size
    readers = [Reader(peer.waiting[f"/stalled{number}"]) for number in range(20)]
    for number, stream in enumerate(stalled):
        assert peer.send(stream, bytes(MIB), end=True) == MIB
        assert readers[number].done
        assert len(readers[number].data) == FIRST_WINDOW + MIB


def test_a_stalled_download_does_not_stop_another(peer: Peer) -> None:
    """What waits for the client that opens no window of one stream is bounded; another stream is read to its end."""
    peer.h2.increment_flow_control_window(64 * MIB)
    peer.reads = False
    slow, fast = peer.ask("/slow"), peer.ask("/fast")
    source = Source(peer.waiting["/slow"], 8 * MIB)
    peer.exchange()
    assert len(peer.bodies[slow]) == 65535  # the protocol's default window
    assert source.paused
    assert held(peer) <= OUTBOUND_HIGH + source.chunk
    before = source.left
    other = Source(peer.waiting["/fast"], 8 * MIB)
    peer.exchange()
    while fast not in peer.ended:
        peer.open(fast, 100_000)
    assert len(peer.bodies[fast]) == 8 * MIB
    assert other.left == 0
    assert source.left == before
    peer.open(slow, 8 * MIB)
    assert slow in peer.ended
    assert len(peer.bodies[slow]) == 8 * MIB


def test_streams_take_turns(peer: Peer) -> None:
    """Two downloads share what the connection's window allows."""
    peer.reads = False
    peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 8 * MIB})
    peer.h2.increment_flow_control_window(MIB - 65535)
    peer.exchange()
    first, second = peer.ask("/first"), peer.ask("/second")
    peer.server._chosen.pauseProducing()
    for path in ("/first", "/second"):
        Source(peer.waiting[path], 4 * MIB)
    peer.server._chosen.resumeProducing()
    peer.exchange()
    assert len(peer.bodies[first]) + len(peer.bodies[second]) == MIB
    assert abs(len(peer.bodies[first]) - len(peer.bodies[second])) <= 128 * 1024


def test_a_full_transport_pauses_everything(peer: Peer) -> None:
    peer.h2.increment_flow_control_window(64 * MIB)
    stream = peer.ask("/a")
    peer.transport.producer.pauseProducing()
    source = Source(peer.waiting["/a"], 8 * MIB)
    assert source.paused
    assert held(peer) <= OUTBOUND_HIGH + source.chunk
    peer.transport.producer.resumeProducing()
    peer.exchange()
    assert stream in peer.ended
    assert len(peer.bodies[stream]) == 8 * MIB


def test_a_window_that_the_client_shrinks(peer: Peer) -> None:
    """A negative window (RFC 9113, section 6.9.2) stops the stream until it is positive again."""
    stream = peer.ask("/a")
    peer.reads = False
    Source(peer.waiting["/a"], 200_000)
    peer.exchange()
    assert len(peer.bodies[stream]) == 65535
    peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    peer.exchange()
    peer.open(stream, 64_000)
    peer.open(None, 200_000)
    assert len(peer.bodies[stream]) == 65535
    peer.open(stream, 150_000)
    assert len(peer.bodies[stream]) == 1000 + 64_000 + 150_000 - (215_000 - 200_000)
    assert stream in peer.ended


def test_padding_counts(peer: Peer) -> None:
    """Padding takes windows as bytes do, and is given back."""
    stream = peer.ask("/a", "POST", end=False)
    reader = Reader(peer.waiting["/a"])
    for _ in range(20_000):
        peer.h2.send_data(stream, b"x", pad_length=255)
        peer.exchange()
    assert reader.data == b"x" * 20_000


def test_trailers_end_a_body(peer: Peer) -> None:
    stream = peer.ask("/a", "POST", ("trailer", "x-checksum"), end=False)
    reader = Reader(peer.waiting["/a"])
    peer.send(stream, b"body")
    peer.h2.send_headers(stream, [("x-checksum", "1")], end_stream=True)
    peer.exchange()
    assert reader.done
    assert reader.data == b"body"


def test_an_empty_frame_ends_a_body(peer: Peer) -> None:
    stream = peer.ask("/a", "POST", end=False)
    reader = Reader(peer.waiting["/a"])
    peer.send(stream, b"body")
    peer.h2.end_stream(stream)
    peer.exchange()
    assert reader.done
    assert reader.data == b"body"


def test_expect_100_continue(peer: Peer) -> None:
    stream = peer.ask("/a", "POST", ("content-length", "4"), ("expect", "100-continue"), end=False)
    assert not peer.informational
    reader = Reader(peer.waiting["/a"])
    peer.exchange()
    assert peer.informational == [100]
    peer.send(stream, b"body", end=True)
    assert reader.done


def test_an_early_answer_is_whole_and_ends_the_upload(peer: Peer) -> None:
    """No draining: the answer ends the stream, a reset without error stops the client a little later (RFC 9113, 8.1).
    What is on its way still counts against the connection's window, which must not run dry however often it happens.
    """
    for number in range(600):
        stream = peer.ask("/a", "POST", ("content-length", "1000000"), end=False)
        for _ in range(3):
            peer.h2.send_data(stream, bytes(16_000))
        request = peer.waiting["/a"]
        request.setResponseCode(403)
        request.write(b"no")
        request.finish()
        peer.exchange()
        assert peer.status(stream) == 403
        assert peer.bodies[stream] == b"no"
        assert stream in peer.ended
        assert stream not in peer.resets
        peer.clock.advance(1)
        peer.exchange()
        assert peer.resets[stream] == ErrorCodes.NO_ERROR
        assert len(peer.resource.ended) == number + 1
    stream = peer.ask("/b", "POST", end=False)
    reader = Reader(peer.waiting["/b"])
    assert peer.send(stream, bytes(MIB), end=True) == MIB
    assert reader.done


def test_a_client_that_stops_by_itself_is_not_reset(peer: Peer) -> None:
    """Nor does its reset cost anything, however often it happens."""
    for number in range(3000):
        stream = peer.ask(f"/{number}", "POST", ("content-length", "1000000"), end=False)
        peer.waiting.pop(f"/{number}").finish()
        peer.exchange()
        assert stream in peer.ended
        peer.h2.reset_stream(stream)
        peer.exchange()
    peer.clock.advance(1)
    peer.exchange()
    assert not peer.resets
    assert not peer.closed


def test_many_answered_bodies_at_once(peer: Peer) -> None:
    """They do not fill the streams: the oldest is stopped for the next."""
    for number in range(300):
        peer.ask(f"/{number}", "POST", ("content-length", "1000000"), end=False)
        peer.waiting.pop(f"/{number}").finish()
        peer.exchange()
    assert not peer.closed
    assert len(peer.ended) == 300
    assert 200 < len(peer.resets) < 300
    peer.clock.advance(1)
    peer.exchange()
    assert len(peer.resets) == 300
    peer.server.connectionLost()
    assert not peer.clock.getDelayedCalls()


def test_an_answer_beside_the_body(peer: Peer) -> None:
    """An answer may begin before the body has ended; both come to their ends."""
    stream = peer.ask("/a", "POST", end=False)
    request = peer.waiting["/a"]
    reader = Reader(request)
    request.write(b"begun, ")
    peer.send(stream, b"body", end=True)
    assert bytes(peer.bodies[stream]) == b"begun, "
    assert reader.done
    request.write(b"done")
    request.finish()
    peer.exchange()
    assert bytes(peer.bodies[stream]) == b"begun, done"
    assert not peer.resets


def test_a_body_that_is_shorter_than_announced(peer: Peer) -> None:
    """The request ends, and its body is seen to fall short, whichever frame ends it."""
    nothing = peer.ask("/nothing", "POST", ("content-length", "5"))
    request = peer.waiting["/nothing"]
    assert (request.body.length, request.body.received, request.body.complete) == (5, 0, True)
    request.finish()
    trailed = peer.ask("/trailed", "POST", ("content-length", "5"), end=False)
    request = peer.waiting["/trailed"]
    peer.raw(_data_frame(trailed, b"abc"))
    peer.h2.send_headers(trailed, [("x", "y")], end_stream=True)
    peer.exchange()
    assert (request.body.length, request.body.received, request.body.complete) == (5, 3, True)
    request.finish()
    peer.exchange()
    assert {nothing, trailed} == peer.ended


def test_a_reset_upload_is_lost(peer: Peer) -> None:
    stream = peer.ask("/a", "POST", end=False)
    reader = Reader(peer.waiting["/a"])
    peer.send(stream, bytes(1000))
    peer.h2.reset_stream(stream)
    peer.exchange()
    assert reader.failure is not None
    assert reader.failure.check(ClientGone)
    assert peer.resource.broken == ["/a"]
    assert not peer.site.requests
    assert not peer.server._chosen._streams
    assert not peer.closed


def test_a_reset_download_stops_its_producer(peer: Peer) -> None:
    peer.reads = False
    stream, other = peer.ask("/a"), peer.ask("/b")
    source = Source(peer.waiting["/a"], 8 * MIB)
    peer.exchange()
    peer.h2.reset_stream(stream)
    peer.exchange()
    assert source.stopped
    assert peer.resource.broken == ["/a"]
    assert held(peer) == 0
    peer.open(None, MIB)
    Source(peer.waiting["/b"], 1000)
    peer.exchange()
    assert other in peer.ended


def test_a_lost_connection_ends_every_stream(peer: Peer) -> None:
    peer.reads = False
    upload = peer.ask("/upload", "POST", end=False)
    peer.ask("/download")
    reader, source = Reader(peer.waiting["/upload"]), Source(peer.waiting["/download"], 8 * MIB)
    peer.send(upload, bytes(1000))
    peer.server.connectionLost()
    assert reader.failure is not None
    assert source.stopped
    assert sorted(peer.resource.broken) == ["/download", "/upload"]
    assert not peer.site.requests
    assert not peer.site.connections
    assert not peer.clock.getDelayedCalls()


def test_an_answer_that_breaks_off_is_reset(peer: Peer) -> None:
    """It never looks complete, and the connection stays."""
    stream = peer.ask("/a")
    request = peer.waiting["/a"]
    request.write(b"the beginning")
    request.abort()
    peer.exchange()
    assert peer.resets[stream] == ErrorCodes.INTERNAL_ERROR
    assert stream not in peer.ended
    assert not peer.closed
    assert not peer.server._chosen._streams


def _data_frame(stream: int, data: bytes) -> bytes:
    return len(data).to_bytes(3, "big") + b"\x00\x00" + stream.to_bytes(4, "big") + data
