"""HTTP/2: bodies that go past h2 leave everything as if they had not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Any

import pytest
from attrs import frozen
from h2.errors import ErrorCodes
from h2.events import DataReceived
from h2.exceptions import FrameTooLargeError, ProtocolError
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.h2_peer import Peer, Reader, Source

from resticd.http.h2_bodies import BodyEngine
from resticd.http.h2_connection import PUMP_SIZE, WRITE_SIZE
from resticd.http.h2_engine import FIRST_WINDOW, MAX_FRAME, MAX_WINDOW, Engine

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIELDS = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"x"), (b":path", b"/a")]
STREAMS = (1, 3, 5)


def request(stream: int, length: int | None, *, ends: bool = False, whole: bool = True) -> bytes:
    fields = [*FIELDS, *([] if length is None else [(b"content-length", b"%d" % length)])]
    frame = HeadersFrame(stream, Encoder().encode(fields))
    frame.flags |= {flag for flag, wanted in (("END_HEADERS", whole), ("END_STREAM", ends)) if wanted}
    return frame.serialize()


def header(length: int, kind: int, flags: int, stream: int) -> bytes:
    return length.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")


def body(stream: int, size: int, *, ends: bool = False, padding: int | None = None) -> bytes:
    data = bytes([stream % 256]) * size
    if padding is not None:
        data = bytes([padding]) + data + bytes(padding)
    return header(len(data), 0, ends | (padding is not None) << 3, stream) + data


def window(stream: int, increment: int) -> bytes:
    return header(4, 8, 0, stream) + increment.to_bytes(4, "big")


# What happens on a connection: frames that come, and what the server does.

stream_ids = st.sampled_from((*STREAMS, *STREAMS, 2, 7, 0))
sizes = st.sampled_from((0, 1, 7, 100, 5000, 16384, FIRST_WINDOW - 1, FIRST_WINDOW, FIRST_WINDOW + 1))
frames = st.one_of(
    *[st.builds(body, st.sampled_from(STREAMS), st.integers(1, 20_000))] * 4,
    st.builds(body, stream_ids, sizes, ends=st.booleans(), padding=st.none() | st.integers(0, 9)),
    *[st.builds(window, st.sampled_from((0, *STREAMS)), st.integers(1, 1 << 20))] * 2,
    st.builds(window, stream_ids, st.sampled_from((0, 1, MAX_WINDOW - 65535, MAX_WINDOW, MAX_WINDOW + 1))),
    st.builds(
        request,
        st.sampled_from((1, 2, 3, 5, 7)),
        st.none() | st.sampled_from((0, 10, 30_000)),
        ends=st.booleans(),
        whole=st.booleans(),
    ),
    st.builds(
        lambda stream: ContinuationFrame(stream, b"", flags=["END_HEADERS"]).serialize(), st.sampled_from(STREAMS)
    ),
    st.builds(lambda stream: RstStreamFrame(stream, 8).serialize(), st.sampled_from(STREAMS)),
    st.builds(lambda stream: PriorityFrame(stream, 0, 3).serialize(), st.sampled_from(STREAMS)),
    st.just(PingFrame(0, b"12345678").serialize()),
    st.just(SettingsFrame(0, {4: 100_000}).serialize()),
    # flags and types that nobody knows, a reserved bit, a frame of the wrong length
    st.builds(
        lambda stream, flags: header(3, 0, flags, stream) + b"abc", stream_ids, st.sampled_from((0x2, 0x10, 0x80))
    ),
    st.builds(lambda stream: header(3, 0, 0, stream | 1 << 31) + b"abc", st.sampled_from(STREAMS)),
    st.builds(lambda stream: header(5, 8, 0, stream) + b"12345", stream_ids),
    st.builds(lambda stream: header(3, 0xEE, 0, stream) + b"abc", stream_ids),
)


@frozen
class Do:
    """Something that the server does to a stream."""

    what: str
    stream: int
    size: int

    def __call__(self, engine: Engine) -> str | None:
        """The name of the error, if there is one."""
        try:
            match self.what:
                case "answer":
                    engine.send_headers(self.stream, [(b":status", b"200")])
                case "end":
                    engine.end_stream(self.stream)
                case "reset":
                    engine.reset_stream(self.stream)
                case "open":
                    engine.increment_flow_control_window(self.size, self.stream)
        except (ProtocolError, KeyError) as error:
            return type(error).__name__
        return None


doings = st.builds(
    Do, st.sampled_from(("answer", "end", "reset", "open", "open")), st.sampled_from(STREAMS), st.integers(1, 1 << 20)
)
happenings = st.lists(st.one_of(*[frames] * 7, doings), max_size=40)


def begin(engine: Engine, lengths: tuple[int | None, ...] = ()) -> None:
    engine.receive_data(PREFACE + SettingsFrame(0).serialize())
    for stream, length in zip(STREAMS, lengths, strict=False):
        engine.receive_data(request(stream, length))


def state(engine: Any) -> Any:
    """All that h2 knows and that bodies change."""
    streams = {
        number: (
            stream.state_machine.state,
            stream.outbound_flow_control_window,
            vars(stream._inbound_window_manager),
            stream._expected_content_length,
            stream._actual_content_length,
        )
        for number, stream in engine.streams.items()
    }
    inbound = vars(engine._inbound_flow_control_window_manager)
    return engine.state_machine.state, engine.outbound_flow_control_window, inbound, streams


def told(events: list[Any]) -> list[Any]:
    """Events, where those of DATA in a row are as one for each stream."""
    found: list[Any] = []
    for is_data, some in groupby(events, lambda event: isinstance(event, DataReceived)):
        if not is_data:
            found += map(repr, some)
            continue
        bodies: dict[int, tuple[bytes, int, bool]] = {}
        for event in some:
            data, length, ended = bodies.get(event.stream_id, (b"", 0, False))
            ended = ended or event.stream_ended is not None
            bodies[event.stream_id] = data + event.data, length + event.flow_controlled_length, ended
        found.append(bodies)
    return found


def cut(data: bytes, cuts: Iterator[int]) -> Iterator[bytes]:
    places = sorted({0, len(data), *(next(cuts) % (len(data) + 1) for _ in range(len(data) // 20_000 + 1))})
    for start, end in pairwise(places):
        yield data[start:end]


def run(engine: Engine, happened: list[bytes | Do], cuts: Iterator[int]) -> tuple[list[Any], str, bytes]:
    """What the engine tells, the error that ends it, and what it wants to say."""
    events: list[Any] = []
    for is_frame, some in groupby(happened, lambda one: isinstance(one, bytes)):
        if not is_frame:
            events += [one(engine) for one in some]
            continue
        for piece in cut(b"".join(some), cuts):
            try:
                events += engine.receive_data(piece)
            except ProtocolError as error:
                return events, type(error).__name__, engine.data_to_send()
    return events, "", engine.data_to_send()


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    happenings,
    st.tuples(*[st.none() | st.sampled_from((10, 30_000, 1 << 20))] * len(STREAMS)),
    st.lists(st.integers(0, 1 << 20), min_size=1),
)
def test_everything_is_as_h2_has_it(
    happened: list[bytes | Do], lengths: tuple[int | None, ...], cuts: list[int]
) -> None:
    """Whatever comes, in whatever pieces: the same events, errors, answers, windows and states.

    What came in one piece with an error is not told by h2; that of a frame's header it finds before the frame is whole.
    """

    def all_cuts() -> Iterator[int]:
        while True:
            yield from cuts

    slow, fast = Engine(4096), BodyEngine(4096)
    outcomes = []
    for engine in (slow, fast):
        begin(engine, lengths)
        events, error, said = run(engine, happened, all_cuts())
        outcomes.append(([] if error else told(events), error, said))
    assert outcomes[0] == outcomes[1]
    assert state(slow) == state(fast)


def test_plain_bodies_go_past_h2(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of any length; the last frame and all others are h2's."""
    seen: list[bytes] = []
    engine = BodyEngine(4096)
    begin(engine, (None, 60_000))
    usual = Engine.receive_data
    monkeypatch.setattr(Engine, "receive_data", lambda self, data: seen.append(bytes(data)) or usual(self, data))
    last = body(1, 5, ends=True)
    data = body(1, 30_000) + body(3, 20_000) + window(0, 9) + body(1, 10_000) + window(3, 7) + body(3, 40_000) + last
    events = [event for start in range(0, len(data), 777) for event in engine.receive_data(data[start : start + 777])]
    assert seen == [last]
    assert b"".join(event.data for event in events if getattr(event, "data", b"")).count(1) == 40_005
    assert engine.streams[3].outbound_flow_control_window == 65535 + 7


def test_one_read_is_one_event_for_each_stream() -> None:
    engine = BodyEngine(4096)
    begin(engine, (None, None))
    first, second = engine.receive_data((body(1, 100) + body(3, 50)) * 3)
    assert (first.stream_id, len(first.data), second.stream_id, len(second.data)) == (1, 300, 3, 150)


def test_what_is_read_may_change_afterwards() -> None:
    engine = BodyEngine(4096)
    begin(engine, (None,))
    data = bytearray(body(1, 100) + body(1, 100)[:50])
    (event,) = engine.receive_data(memoryview(data))
    data[:] = bytes(len(data))
    (rest,) = engine.receive_data(body(1, 100)[50:])
    assert event.data + rest.data == b"\1" * 200


def test_a_frame_that_is_too_long_ends_it_with_its_header() -> None:
    engine = BodyEngine(4096)
    begin(engine, (None,))
    engine.data_to_send()
    engine.receive_data(header(MAX_FRAME + 1, 0, 0, 1)[:8])
    with pytest.raises(FrameTooLargeError):
        engine.receive_data(b"\1")
    frame, length = Frame.parse_frame_header(memoryview(sent := engine.data_to_send())[:9])
    frame.parse_body(memoryview(sent)[9 : 9 + length])
    assert frame.error_code == ErrorCodes.FRAME_SIZE_ERROR


@settings(deadline=None)
@given(st.lists(st.integers(1, 40_000), max_size=4), st.sampled_from((16384, 16385, 100_000)), st.booleans())
def test_what_is_sent_is_what_h2_sends(chunks: list[int], largest: int, ends: bool) -> None:
    outcomes = []
    for make in (Engine, BodyEngine):
        engine = make(4096)
        begin(engine)
        engine.receive_data(SettingsFrame(0, {4: 1 << 20, 5: largest}).serialize() + window(0, 1 << 20))
        engine.receive_data(request(1, None, ends=ends))
        engine.send_headers(1, [(b":status", b"200")])
        sent = b"".join(engine.send_body(1, [memoryview(bytes([size % 256]) * size) for size in chunks]))
        outcomes.append((sent, state(engine)))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("make", [Engine, BodyEngine])
def test_nothing_is_sent_where_h2_refuses(make: type[Engine]) -> None:
    engine = make(4096)
    begin(engine, (None, None))
    with pytest.raises(ProtocolError):
        engine.send_body(1, [memoryview(bytes(10_000))] * 7)  # more than the window
    engine.reset_stream(3)
    with pytest.raises(ProtocolError):
        engine.send_body(3, [memoryview(b"x")])


@pytest.mark.parametrize("without", [frozenset(), frozenset({"h2-bodies"})])
def test_bodies_both_ways(without: frozenset[str]) -> None:
    peer = Peer(without=without)
    peer.exchange()
    up = peer.ask("/up", "POST", end=False)
    reader = Reader(peer.waiting["/up"])
    down = peer.ask("/down")
    Source(peer.waiting["/down"], 3_000_000)
    data = bytes(range(256)) * 8000
    sent = 0
    while sent < len(data):
        sent += peer.send(up, data[sent:], end=True)
    assert reader.done
    assert reader.data == data
    assert len(peer.bodies[down]) == 3_000_000
    assert down in peer.ended


def begin_a_download(peer: Peer) -> int:
    """All windows open at once when the body's producer waits already; the reactor has had no turn since."""
    peer.exchange()
    peer.reads = False
    peer.open(None, 64 << 20)
    stream = peer.ask("/a")
    Source(peer.waiting["/a"], 20 << 20)
    peer.exchange()
    peer.h2.increment_flow_control_window(64 << 20, stream)
    peer.server.dataReceived(peer.h2.data_to_send())
    return stream


def test_the_reactor_has_its_turn() -> None:
    """A transport that takes all at once and a body that is all there do not stop everybody else."""
    peer = Peer()
    stream = begin_a_download(peer)
    assert PUMP_SIZE < len(peer.transport.value()) < PUMP_SIZE + 2 * WRITE_SIZE
    peer.exchange()
    assert len(peer.bodies[stream]) == 20 << 20
    assert stream in peer.ended


def test_a_connection_that_ends_between_two_turns() -> None:
    peer = Peer()
    begin_a_download(peer)
    peer.server.connectionLost()
    sent = len(peer.transport.value())
    peer.clock.advance(0)
    assert peer.resource.broken == ["/a"]
    assert len(peer.transport.value()) == sent
