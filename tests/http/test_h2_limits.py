"""HTTP/2: what clients cannot make the server do, and how connections end."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from support.h2_peer import Peer, Reader, Source

from resticd.http import h2_connection
from resticd.http.channel import HEADER_SECONDS
from resticd.http.h2_connection import CLOSE_SECONDS, CONTROL_HIGH
from resticd.http.h2_engine import BURST, MAX_FRAME, MAX_STREAMS, RATE
from resticd.http.site import IDLE_SECONDS

REQUEST = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/a")]


@pytest.fixture
def peer() -> Peer:
    made = Peer()
    made.exchange()
    return made


def headers(stream: int, fields: list[tuple[str, str]] = REQUEST, *flags: str) -> HeadersFrame:
    frame = HeadersFrame(stream, Encoder().encode(fields))
    for flag in flags or ("END_HEADERS", "END_STREAM"):
        frame.flags.add(flag)
    return frame


def window(stream: int, increment: int) -> WindowUpdateFrame:
    return WindowUpdateFrame(stream, window_increment=increment)


def closed_with(peer: Peer, code: ErrorCodes) -> bool:
    last = peer.frames()[-1]
    return peer.closed and isinstance(last, GoAwayFrame) and last.error_code == code


# Streams.


def test_one_stream_too_many_is_refused_alone(peer: Peer) -> None:
    assert peer.settings[SettingCodes.MAX_CONCURRENT_STREAMS] == MAX_STREAMS
    streams = [peer.ask(f"/{number}") for number in range(MAX_STREAMS)]
    peer.raw(headers(2 * MAX_STREAMS + 1))
    assert [(type(frame), frame.error_code) for frame in peer.frames()] == [(RstStreamFrame, ErrorCodes.REFUSED_STREAM)]
    assert "/a" not in peer.waiting
    assert not peer.closed
    for request in list(peer.waiting.values()):
        request.write(b"x")
        request.finish()
    peer.exchange()
    assert peer.ended == set(streams)
    peer.raw(headers(2 * MAX_STREAMS + 3))
    assert "/a" in peer.waiting


def test_a_refused_stream_may_be_tried_again() -> None:
    """Whoever has not read the settings yet learns that the request was not looked at (RFC 9113, section 8.7)."""
    peer = Peer()
    streams = [peer.ask(f"/{number}", exchange=False) for number in range(MAX_STREAMS + 20)]
    peer.exchange()
    assert len(peer.waiting) == MAX_STREAMS
    assert set(peer.resets) == set(streams[MAX_STREAMS:])
    assert set(peer.resets.values()) == {ErrorCodes.REFUSED_STREAM}


def test_who_ignores_the_number_of_streams_is_closed(peer: Peer) -> None:
    peer.raw(*(headers(1 + 2 * number) for number in range(3 * MAX_STREAMS)))
    assert closed_with(peer, ErrorCodes.PROTOCOL_ERROR)
    assert not peer.site.requests


def test_rapid_resets(peer: Peer) -> None:
    """CVE-2023-44487: requests that are reset at once."""
    for number in range(2 * BURST):
        peer.raw(headers(1 + 2 * number), RstStreamFrame(1 + 2 * number))
        if peer.closed:
            break
    assert BURST - 1 <= number < BURST + 100
    assert closed_with(peer, ErrorCodes.ENHANCE_YOUR_CALM)
    assert not peer.site.requests


def test_resets_now_and_then_are_fine(peer: Peer) -> None:
    for number in range(3 * BURST):
        peer.raw(headers(1 + 2 * number), RstStreamFrame(1 + 2 * number))
        peer.clock.advance(1 / RATE)
    assert not peer.closed


def test_resets_that_the_client_makes_us_send(peer: Peer) -> None:
    """CVE-2025-8671: a window that overflows ends a stream by our reset. They are paid for as its own."""
    for number in range(2 * BURST):
        peer.raw(headers(1 + 2 * number), window(1 + 2 * number, 2**31 - 1))
        if peer.closed:
            break
    assert closed_with(peer, ErrorCodes.ENHANCE_YOUR_CALM)
    assert not peer.site.requests


# Headers.


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_long_headers_refuse_one_request(peer: Peer, method: str) -> None:
    limit = peer.settings[SettingCodes.MAX_HEADER_LIST_SIZE]
    fits = limit - sum(len(name) + len(value) + 32 for name, value in [*REQUEST, ("x-long", "")])
    other = peer.ask("/b")
    good = peer.ask("/a", "GET", ("x-long", "x" * fits))
    assert "/a" in peer.waiting
    bad = peer.ask("/c", method, ("x-long", "x" * (fits + 1)), end=method == "GET")
    assert "/c" not in peer.waiting
    assert peer.status(bad) == 431
    assert bad in peer.ended
    assert peer.resets.get(bad) == (None if method == "GET" else ErrorCodes.NO_ERROR)
    for path in ("/a", "/b"):
        peer.waiting[path].finish()
    peer.exchange()
    assert {other, good} <= peer.ended


def test_the_limit_is_the_flag_s() -> None:
    for limit in (1000, 50_000):
        peer = Peer(max_header_bytes=limit)
        peer.exchange()
        assert peer.settings[SettingCodes.MAX_HEADER_LIST_SIZE] == limit + 320
        assert peer.status(peer.ask("/a", "GET", ("x-long", "x" * (limit + 320)))) == 431
        peer.ask("/b", "GET", ("x-long", "x" * (limit - 200)))
        assert "/b" in peer.waiting


def test_headers_that_grow_when_decoded(peer: Peer) -> None:
    """CVE-2016-6581: one long field in the compression table, named a thousand times by a byte each."""
    encoder = Encoder()
    field = ("x-long", "x" * 3000)
    first = encoder.encode([*REQUEST, field])
    again = encoder.encode([*REQUEST, *[field] * 1000])
    assert len(again) < 2000
    for stream, block in ((1, first), (3, again)):
        peer.raw(HeadersFrame(stream, block, flags=("END_HEADERS", "END_STREAM")))
    assert closed_with(peer, ErrorCodes.ENHANCE_YOUR_CALM)


def test_headers_without_end() -> None:
    """CVE-2024-27316: CONTINUATION frames for ever."""
    for size, most, code in ((10, 64, ErrorCodes.PROTOCOL_ERROR), (10_000, 7, ErrorCodes.ENHANCE_YOUR_CALM)):
        peer = Peer()
        peer.exchange()
        peer.raw(headers(1, REQUEST, "END_STREAM"))
        sent = 0
        while not peer.closed:
            peer.raw(ContinuationFrame(1, bytes(size)))
            sent += 1
        assert sent <= most
        assert closed_with(peer, code)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(":method", "GET"), (":scheme", "http"), (":authority", "x")],
        [*REQUEST, (":path", "/b")],
        [*REQUEST, ("Upper", "case")],
        [*REQUEST, ("connection", "close")],
        [*REQUEST, ("x-line", "a\r\nb")],
        [*REQUEST, ("content-length", "x")],
    ],
)
def test_malformed_requests(peer: Peer, fields: list[tuple[str, str]]) -> None:
    peer.raw(headers(1, fields))
    assert closed_with(peer, ErrorCodes.PROTOCOL_ERROR)
    assert not peer.waiting


def test_connect_has_no_path(peer: Peer) -> None:
    """Some versions of h2 let it through."""
    peer.raw(headers(1, [(":method", "CONNECT"), (":authority", "x:1")]))
    assert peer.closed or list(peer.waiting) == ["*"]


def test_a_negative_length_is_none(peer: Peer) -> None:
    """Where h2 does not refuse it."""
    peer.raw(headers(1, [*REQUEST, ("content-length", "-5")]))
    assert peer.closed or peer.waiting["/a"].body.length == 0


# Windows and small frames.


def test_more_than_a_window(peer: Peer) -> None:
    stream = peer.ask("/a", "POST", end=False)
    peer.raw(*[DataFrame(stream, bytes(16_384)) for _ in range(5)])
    assert closed_with(peer, ErrorCodes.FLOW_CONTROL_ERROR)
    assert peer.resource.broken == ["/a"]


def test_a_connection_s_window_that_overflows(peer: Peer) -> None:
    peer.raw(window(0, 2**31 - 1))
    assert closed_with(peer, ErrorCodes.FLOW_CONTROL_ERROR)


def test_a_stream_s_window_that_overflows_ends_the_stream(peer: Peer) -> None:
    stream = peer.ask("/a")
    peer.raw(window(stream, 2**31 - 1))
    peer.exchange()
    assert peer.resets == {stream: ErrorCodes.FLOW_CONTROL_ERROR}
    assert peer.resource.broken == ["/a"]
    assert not peer.closed


def test_windows_opened_by_a_byte(peer: Peer) -> None:
    """CVE-2019-9511: an answer that is to be sent in frames of one byte."""
    peer.reads = False
    peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    stream = peer.ask("/a")
    Source(peer.waiting["/a"], 1_000_000)
    peer.exchange()
    for _ in range(2 * BURST):
        peer.raw(window(stream, 1))
        if peer.closed:
            break
    assert closed_with(peer, ErrorCodes.ENHANCE_YOUR_CALM)


@pytest.mark.parametrize(
    "frame",
    [PingFrame(0, b"12345678"), SettingsFrame(0), SettingsFrame(0, {4: 1000}), DataFrame(1), DataFrame(1, b"")],
    ids=["ping", "settings", "more settings", "empty data", "empty data again"],
)
def test_floods(peer: Peer, frame: object) -> None:
    """CVE-2019-9512, -9515, -9518: what wants an answer, or brings nothing."""
    peer.ask("/a", "POST", end=False)
    for _ in range(2 * BURST):
        peer.raw(frame)
        if peer.closed:
            break
    assert closed_with(peer, ErrorCodes.ENHANCE_YOUR_CALM)
    assert peer.resource.broken == ["/a"]


def test_padding_without_data_is_a_flood_too(peer: Peer) -> None:
    stream = peer.ask("/a", "POST", end=False)
    Reader(peer.waiting["/a"])
    for _ in range(2 * BURST):
        frame = DataFrame(stream, b"", pad_length=100)
        frame.flags.add("PADDED")
        peer.raw(frame)
        if peer.closed:
            break
    assert closed_with(peer, ErrorCodes.ENHANCE_YOUR_CALM)


def test_frames_that_are_too_large(peer: Peer) -> None:
    """They are refused before all of one has come."""
    stream = peer.ask("/a", "POST", end=False)
    peer.raw((16_000_000).to_bytes(3, "big"), b"\0\0", stream.to_bytes(4, "big"), bytes(MAX_FRAME + 1))
    assert closed_with(peer, ErrorCodes.FRAME_SIZE_ERROR)


def test_junk_is_closed(peer: Peer) -> None:
    peer.raw(b"\0\0\x01\0\xff" + bytes(1000))
    assert closed_with(peer, ErrorCodes.PROTOCOL_ERROR)


# Time.


def test_a_client_that_only_greets_is_dropped() -> None:
    """The preface alone is not enough."""
    peer = Peer()
    peer.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    peer.clock.advance(HEADER_SECONDS - 1)
    assert not peer.closed
    peer.clock.advance(2)
    assert peer.closed


def test_an_idle_connection_is_closed(peer: Peer) -> None:
    """Some time after its last request; pings do not count."""
    peer.clock.pump([1] * 100)
    peer.ask("/a")
    peer.clock.pump([1] * 400)
    assert not peer.closed
    peer.waiting["/a"].finish()
    peer.exchange()
    for _ in range(IDLE_SECONDS - 1):
        peer.raw(PingFrame(0, b"12345678"))
        peer.clock.advance(1)
    assert not peer.closed
    peer.clock.pump([1] * 20)
    assert closed_with(peer, ErrorCodes.NO_ERROR)


def test_an_upload_without_progress_is_ended_alone() -> None:
    peer = Peer(read_timeout=0, write_timeout=0)
    stalled, slow = (peer.ask(f"/{name}", "POST", end=False) for name in ("stalled", "slow"))
    for path in ("/stalled", "/slow"):
        Reader(peer.waiting[path])
    for _ in range(IDLE_SECONDS + 20):
        peer.send(slow, b"x")
        peer.clock.advance(1)
    peer.exchange()
    assert stalled in peer.resets
    assert peer.resource.broken == ["/stalled"]
    assert not peer.closed


def test_an_upload_that_waits_for_us_has_time() -> None:
    """Nobody reads it, which is not the client's fault."""
    peer = Peer(read_timeout=0, write_timeout=0)
    stream = peer.ask("/a", "POST", end=False)
    peer.send(stream, bytes(1_000_000))
    peer.clock.pump([1] * (IDLE_SECONDS + 20))
    peer.exchange()
    assert not peer.resets


def test_a_download_without_progress_is_ended() -> None:
    peer = Peer(read_timeout=0, write_timeout=0)
    peer.reads = False
    stream = peer.ask("/a")
    source = Source(peer.waiting["/a"], 8_000_000)
    peer.exchange()
    peer.clock.pump([1] * (IDLE_SECONDS + 20))
    peer.exchange()
    assert stream in peer.resets
    assert source.stopped


@pytest.mark.parametrize("kind", ["ping", "request"])
def test_a_client_that_never_reads_is_broken_off(peer: Peer, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What we want to say besides bodies is bounded, however slowly it is made to grow. Here by less, to save time."""
    monkeypatch.setattr(h2_connection, "CONTROL_HIGH", 20_000)
    peer.transport.producer.pauseProducing()
    for number in range(100_000):
        if kind == "ping":
            peer.raw(PingFrame(0, b"12345678"))
        else:
            peer.raw(headers(1 + 2 * number), RstStreamFrame(1 + 2 * number))
            peer.raw(DataFrame(1 + 2 * number, b"x"))
        peer.clock.advance(1 / RATE)
        if peer.aborted:
            break
        if number % 1000 == 0:
            peer.server._chosen._busy_at = peer.clock.seconds()
    assert peer.aborted
    assert len(peer.transport.value()) < 21_000


def test_answers_wait_with_a_client_that_never_reads(peer: Peer) -> None:
    """Finished answers occupy their streams until they are sent, so that there are never more than the limit."""
    peer.transport.producer.pauseProducing()
    for number in range(3 * MAX_STREAMS):
        peer.raw(headers(1 + 2 * number))
        for request in list(peer.waiting.values()):
            request.write(b"x" * 100)
            request.finish()
        peer.waiting.clear()
    assert len(peer.server._chosen._streams) == MAX_STREAMS
    assert len(peer.transport.value()) < CONTROL_HIGH
    peer.transport.producer.resumeProducing()
    assert not peer.server._chosen._streams
    assert len(peer.resource.ended) == MAX_STREAMS


# The end.


def test_finish_lets_requests_end(peer: Peer) -> None:
    """GOAWAY names the last stream that is served; a later one is refused; after the last answer we close."""
    stream = peer.ask("/a", "POST", end=False)
    reader = Reader(peer.waiting["/a"])
    peer.exchange()
    over = peer.site.finish(30)
    (goaway,) = peer.frames()
    assert (goaway.last_stream_id, goaway.error_code) == (stream, ErrorCodes.NO_ERROR)
    peer.raw(headers(stream + 2))
    assert len(peer.waiting) == 1
    (refused,) = peer.frames()
    assert (refused.stream_id, refused.error_code) == (stream + 2, ErrorCodes.REFUSED_STREAM)
    peer.send(stream, b"body", end=True)
    assert reader.done
    peer.waiting["/a"].write(b"done")
    peer.waiting["/a"].finish()
    peer.exchange()
    assert peer.bodies[stream] == b"done"
    assert not peer.closed, "the client may close first"
    peer.clock.advance(CLOSE_SECONDS + 0.1)
    assert peer.closed
    assert not over.called
    peer.server.connectionLost()
    assert over.called
    assert not peer.clock.getDelayedCalls()


def test_finish_closes_an_idle_connection_at_once(peer: Peer) -> None:
    over = peer.site.finish(30)
    assert closed_with(peer, ErrorCodes.NO_ERROR)
    peer.server.connectionLost()
    assert over.called


def test_a_connection_that_does_not_close_is_broken_off(peer: Peer) -> None:
    peer.site.finish(30)
    assert not peer.aborted
    peer.clock.advance(CLOSE_SECONDS + 0.1)
    assert peer.aborted


def test_finish_breaks_off_what_is_late(peer: Peer) -> None:
    peer.ask("/a")
    peer.site.finish(30)
    peer.clock.advance(31)
    assert peer.aborted


@pytest.mark.parametrize("together", [True, False])
def test_the_client_s_goaway_lets_its_requests_end(peer: Peer, together: bool) -> None:
    """It says that no further ones will come, no more."""
    stream = peer.ask("/a", "POST", end=False)
    reader = Reader(peer.waiting["/a"])
    body = DataFrame(stream, b"body")
    body.flags.add("END_STREAM")
    if together:
        peer.raw(GoAwayFrame(0), body)
    else:
        peer.raw(GoAwayFrame(0))
        peer.raw(body)
    assert reader.done
    peer.waiting["/a"].write(b"done")
    peer.waiting["/a"].finish()
    peer.exchange()
    assert bytes(peer.bodies[stream]) == b"done"
    peer.clock.advance(CLOSE_SECONDS + 0.1)
    assert peer.closed


def test_the_client_s_goaway_ends_an_idle_connection(peer: Peer) -> None:
    peer.raw(GoAwayFrame(0))
    assert peer.closed


def test_a_client_that_speaks_http1_to_a_site_without_http2() -> None:
    """With HTTP/2 switched off the preface is an ordinary, wrong request."""
    peer = Peer(http2=False)
    peer.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert b"HTTP/1.1 " in peer.transport.value() or peer.closed
    assert not peer.waiting
