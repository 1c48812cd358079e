"""The h2 library as it is set up here: what clients are told of the limits, and what becomes of those who ignore them.

h2 keeps the protocol's rules (RFC 9113): it refuses windows that overflow, frames and headers that are too large, more
than 64 CONTINUATION frames, bodies longer than announced. It has no measure of time, which ``Budget`` adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import h2.config
import h2.connection
import h2.events
from h2.errors import ErrorCodes
from h2.exceptions import DenialOfServiceError, FrameTooLargeError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import DataFrame, GoAwayFrame

#: Requests at once on one connection; RFC 9113, section 6.5.2, advises against fewer. Go's client, which restic is,
#: opens no more before it has heard of a limit.
MAX_STREAMS = 100
#: Bytes of a body that a client may send before anybody reads it, and so before its login was checked …
FIRST_WINDOW = 64 * 1024
#: … and how many it may be ahead of its reader from then on.
STREAM_WINDOW = 512 * 1024
#: The same for all streams together. It is given back as bytes arrive, so that a stream that nobody reads does not stop
#: the others; what is held in memory is the sum of the streams' windows.
CONNECTION_WINDOW = 16 * 1024 * 1024
#: Large frames cost less: Go's client fills them up to 512 KiB.
MAX_FRAME = 128 * 1024
#: RFC 9113, section 6.5.2: each field counts for 32 bytes more than it is long. HTTP/1.1's limit does not say so, hence
#: room for ten more fields than that would leave.
FIELD_OVERHEAD = 32
SPARE_FIELDS = 10

#: Frames that cost us more than the client (resets, pings, settings …): this many at once, and how many more a second.
BURST, RATE = 1000, 50.0

#: RFC 9113, section 6.9.1 …
MAX_WINDOW = 2**31 - 1
#: … and section 4.1.
FRAME_HEADER = 9

_DEFAULT_WINDOW = 65535  # section 6.9.2


class Engine(h2.connection.H2Connection):
    """The server's side of one connection, with its settings and windows on their way.

    :param max_header_bytes: as for HTTP/1.1. ``oversized`` finds headers above it; from four times as many (and at
        least 64 KiB) on h2 closes the connection, since headers must be decoded before one request can be refused.
    """

    def __init__(self, max_header_bytes: int) -> None:
        super().__init__(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.max_header_list = max_header_bytes + SPARE_FIELDS * FIELD_OVERHEAD
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                SettingCodes.INITIAL_WINDOW_SIZE: FIRST_WINDOW,
                SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
                SettingCodes.MAX_HEADER_LIST_SIZE: self.max_header_list,
            },
        )
        self.max_inbound_frame_size = MAX_FRAME
        self.decoder.max_header_list_size = max(4 * self.max_header_list, 64 * 1024)
        self._frame_dispatch_table[_QuietDataFrame] = self._receive_data_frame
        self.initiate_connection()
        self.increment_flow_control_window(CONNECTION_WINDOW - _DEFAULT_WINDOW)
        # h2 closes the connection for a stream too many. A client that has not heard of the limit yet deserves better,
        # so that the exact limit is ours to keep, and h2 keeps the double of it.
        self.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 2 * MAX_STREAMS
        self.local_settings.acknowledge()

    def receive_data(self, data: Any) -> list[Any]:
        """See ``H2Connection.receive_data``, which waits for all of a frame, or of headers, to find them too long."""
        events: list[Any] = super().receive_data(data)
        waiting = self.incoming_buffer
        if len(waiting._data) > self.max_inbound_frame_size + FRAME_HEADER:
            self._terminate_connection(ErrorCodes.FRAME_SIZE_ERROR)
            raise FrameTooLargeError("the frame that comes is too long")
        if sum(len(frame.data) for frame in waiting._headers_buffer) > self.decoder.max_header_list_size:
            self._terminate_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            raise DenialOfServiceError("the headers that come are too long")
        return events

    def _receive_frame(self, frame: Any) -> list[Any]:
        """h2 makes a ``repr`` of every frame, all bytes in hexadecimal, for a log that is off: a fifth of its time."""
        if frame.__class__ is DataFrame:
            frame.__class__ = _QuietDataFrame
        events: list[Any] = super()._receive_frame(frame)
        return events

    def send_body(self, stream_id: int, chunks: list[memoryview]) -> list[bytes | memoryview]:
        """Everything that is to be sent now, and ``chunks`` of a body, which must fit in the windows, at its end.

        Raises ``ProtocolError`` where the stream cannot be written to.
        """
        most = self.max_outbound_frame_size
        for chunk in chunks:
            for start in range(0, len(chunk), most):
                self.send_data(stream_id, chunk[start : start + most])
        return [self.data_to_send()]

    def oversized(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the headers of a request are longer than the client was told they may be."""
        return sum(len(name) + len(value) + FIELD_OVERHEAD for name, value in headers) > self.max_header_list

    def announce_end(self) -> None:
        """GOAWAY: streams that were begun go on, further ones will be refused (RFC 9113, section 6.8).

        h2's own ``close_connection`` would end everything at once.
        """
        frame = GoAwayFrame(0, last_stream_id=self.highest_inbound_stream_id)
        self._prepare_for_sending([frame])

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        """The client will begin no further streams. h2 would end those that run."""
        return [], [h2.events.ConnectionTerminated()]


class _QuietDataFrame(DataFrame):
    def __repr__(self) -> str:
        return f"DataFrame(stream_id={self.stream_id})"


class Budget:
    """A bucket of tokens for what costs us more than the client.

    :param seconds: tells the time.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._tokens = float(BURST)
        self._at = seconds()

    def spend(self) -> bool:
        """Take one; False where none is left."""
        now = self._seconds()
        self._tokens = min(BURST, self._tokens + max(0.0, now - self._at) * RATE)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
