"""The frames that bodies are made of, taken apart and put together without h2.

h2 copies a DATA frame five times on its way and makes a frame, flags and events of it; a client such as restic, whose
frames are 16 KiB and which opens its windows after every read, means 64,000 of these and as many WINDOW_UPDATEs a GiB.
Here one read is taken apart at once: of each stream the bytes come as one event, copied once, and what is sent is a
list of headers and of views of the body, copied by nobody. A restore of 1 GiB takes 0.6 CPU seconds less that way, of
two, and a backup 0.4 of three.

h2 keeps the state: windows, content lengths and the states of streams are its own, and this module reads and changes
them as h2 would. Only what is plain is done here, where h2 would find nothing to object to: DATA without padding and
END_STREAM on a stream that is open, within all windows and the announced length; WINDOW_UPDATE that does not overflow.
Everything else h2 gets to see, frame by frame, so that errors, and all that is rare, stay h2's.
``tests/http/test_h2_bodies.py`` sends the same frames both ways and compares what comes of them.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.events import DataReceived, WindowUpdated
from h2.exceptions import FrameTooLargeError
from h2.stream import StreamState

from resticd.http.h2_engine import FRAME_HEADER, MAX_WINDOW, Engine

#: RFC 9113, section 4.1: length (24 bits), type, flags, stream.
_HEADER = Struct(">HBBBL")
_INCREMENT = Struct(">L")
# section 6
_DATA, _WINDOW_UPDATE = 0x0, 0x8

_OPEN = ConnectionState.SERVER_OPEN
_RECEIVES = StreamState.OPEN
_SENDS = (StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE)


class BodyEngine(Engine):
    """See the module and ``Engine``. Private names are those of h2."""

    def __init__(self, max_header_bytes: int) -> None:
        super().__init__(max_header_bytes)
        #: a frame of which the rest is still to come
        self._begun = bytearray()

    def receive_data(self, data: Any) -> list[Any]:
        """As ``Engine.receive_data``, but several frames in a row of one stream's DATA are one event."""
        events: list[Any] = []
        view = memoryview(data)
        if missing := self.incoming_buffer._preamble_len:
            events += super().receive_data(view[:missing])
            view = view[missing:]
        view = self._complete(view, events)
        used = self._take_apart(view, events)
        self._begun += view[used:]
        return events

    def _complete(self, view: memoryview, events: list[Any]) -> memoryview:
        """Take the frame that has begun, once it is whole; returns what follows it."""
        begun = self._begun
        if begun:
            view = self._fill(FRAME_HEADER, view)
        if len(begun) >= FRAME_HEADER:
            length = begun[0] << 16 | begun[1] << 8 | begun[2]
            self._check(length)
            view = self._fill(FRAME_HEADER + length, view)
            if len(begun) == FRAME_HEADER + length:
                self._begun = bytearray()
                self._take_apart(memoryview(begun), events)
        return view

    def _fill(self, size: int, view: memoryview) -> memoryview:
        missing = max(size - len(self._begun), 0)
        self._begun += view[:missing]
        return view[missing:]

    def _take_apart(self, view: memoryview, events: list[Any]) -> int:
        """Take the frames that are whole; returns their length."""
        start, size = 0, len(view)
        #: of each stream the pieces of its body
        bodies: dict[int, list[memoryview]] = {}
        while size - start >= FRAME_HEADER:
            high, low, kind, flags, stream_id = _HEADER.unpack_from(view, start)
            length = high << 8 | low
            self._check(length)
            body = start + FRAME_HEADER
            end = body + length
            if end > size:
                break
            if kind == _DATA and not flags and self._take_data(stream_id, length):
                bodies.setdefault(stream_id, []).append(view[body:end])
            else:
                if bodies:
                    _join(bodies, events)
                if kind == _WINDOW_UPDATE and not flags and self._take_window(stream_id, view[body:end]):
                    events.append(WindowUpdated(stream_id=stream_id, delta=_INCREMENT.unpack_from(view, body)[0]))
                else:
                    events += super().receive_data(view[start:end])
            start = end
        _join(bodies, events)
        return start

    def _check(self, length: int) -> None:
        if length > self.max_inbound_frame_size:
            self._terminate_connection(ErrorCodes.FRAME_SIZE_ERROR)
            raise FrameTooLargeError("the frame that comes is too long")

    def _take_data(self, stream_id: int, length: int) -> bool:
        """Do for a frame what h2 does, if there is nothing to object to."""
        stream: Any = self.streams.get(stream_id)
        if (
            stream is None
            or not length
            or self.state_machine.state is not _OPEN
            or self.incoming_buffer._headers_buffer
        ):
            return False
        if stream.state_machine.state is not _RECEIVES or not stream.state_machine.headers_received:
            return False
        window, own_window = self._inbound_flow_control_window_manager, stream._inbound_window_manager
        if length > window.current_window_size or length > own_window.current_window_size:
            return False
        announced, arrived = stream._expected_content_length, stream._actual_content_length + length
        if announced is not None and arrived > announced:
            return False
        window.window_consumed(length)
        own_window.window_consumed(length)
        stream._actual_content_length = arrived
        return True

    def _take_window(self, stream_id: int, content: memoryview) -> bool:
        """The same for a WINDOW_UPDATE."""
        if (
            len(content) != _INCREMENT.size
            or self.state_machine.state is not _OPEN
            or self.incoming_buffer._headers_buffer
        ):
            return False
        whose: Any = self
        if stream_id:
            whose = self.streams.get(stream_id)
            if whose is None or whose.state_machine.state not in _SENDS:
                return False
        increment: int = _INCREMENT.unpack(content)[0]
        window = whose.outbound_flow_control_window + increment
        if not increment or increment > MAX_WINDOW or window > MAX_WINDOW:
            return False
        whose.outbound_flow_control_window = window
        return True

    def send_body(self, stream_id: int, chunks: list[memoryview]) -> list[bytes | memoryview]:
        """See ``Engine.send_body``."""
        stream: Any = self.streams.get(stream_id)
        size = sum(map(len, chunks))
        if (
            stream is None
            or self.state_machine.state is not _OPEN
            or stream.state_machine.state not in _SENDS
            or size > min(self.outbound_flow_control_window, stream.outbound_flow_control_window)
        ):
            return super().send_body(stream_id, chunks)
        self.outbound_flow_control_window -= size
        stream.outbound_flow_control_window -= size
        parts: list[bytes | memoryview] = []
        if first := self.data_to_send():
            parts.append(first)
        most = self.max_outbound_frame_size
        full = _HEADER.pack(most >> 8, most & 0xFF, _DATA, 0, stream_id)
        for chunk in chunks:
            whole = len(chunk) // most * most
            for start in range(0, whole, most):
                parts += (full, chunk[start : start + most])
            if rest := len(chunk) - whole:
                parts += (_HEADER.pack(rest >> 8, rest & 0xFF, _DATA, 0, stream_id), chunk[whole:])
        return parts


def _join(bodies: dict[int, list[memoryview]], events: list[Any]) -> None:
    for stream_id, pieces in bodies.items():
        data = b"".join(pieces)
        events.append(DataReceived(stream_id=stream_id, data=data, flow_controlled_length=len(data)))
    bodies.clear()
