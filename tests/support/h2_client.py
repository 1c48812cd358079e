"""A plain HTTP/2 client over pipes or a socket, one call after the other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
from attrs import define, field
from h2.settings import SettingCodes
from hyperframe.frame import Frame

RESTICD = Path(sys.executable).with_name("resticd")


@define
class Response:
    """What has come of one answer."""

    headers: dict[str, str] = field(factory=dict)
    body: bytearray = field(factory=bytearray)
    complete: bool = False
    #: the code of a RST_STREAM
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.headers[":status"])


class _Engine(h2.connection.H2Connection):
    """h2 that goes on after a GOAWAY, as RFC 9113, section 6.8, has it."""

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        event = h2.events.ConnectionTerminated()
        event.error_code = frame.error_code
        return [], [event]


class H2Client:
    """See the module.

    :param receive: the next bytes, empty at the end.
    :param send: takes bytes.
    :param window: of every stream; what the client does not acknowledge by ``reads`` being true stays as it is.
    :ivar received: every byte that has come.
    """

    def __init__(self, receive: Callable[[], bytes], send: Callable[[bytes], object], window: int = 1 << 20) -> None:
        self._receive = receive
        self._send = send
        self.h2 = _Engine(h2.config.H2Configuration(client_side=True, header_encoding="latin-1"))
        self.responses: dict[int, Response] = {}
        self.received = bytearray()
        self.ended = False
        self.goaway: int | None = None
        self.reads = True
        self.h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = window
        self.h2.local_settings.acknowledge()
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(1 << 30)
        self.flush()

    @classmethod
    def on_socket(cls, connection: socket.socket, window: int = 1 << 20) -> H2Client:
        return cls(lambda: connection.recv(1 << 16), connection.sendall, window)

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            self._send(data)

    def step(self) -> bool:
        """Wait for some bytes; False at the end of the connection."""
        data = self._receive()
        self.received += data
        if not data:
            self.ended = True
            return False
        for event in self.h2.receive_data(data):
            self._see(event)
        self.flush()
        return True

    def _see(self, event: Any) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event.error_code
        response = self.responses.get(getattr(event, "stream_id", 0))
        if response is None:
            return
        match event:
            case h2.events.ResponseReceived():
                response.headers = dict(event.headers)
            case h2.events.DataReceived():
                response.body += event.data
                if self.reads and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                response.complete = True
            case h2.events.StreamReset():
                response.reset = event.error_code

    def begin(self, method: str, path: str, *more: tuple[str, str], end: bool = True) -> int:
        """Send the headers of a request; returns its stream."""
        stream = self.h2.get_next_available_stream_id()
        self.responses[stream] = Response()
        fields = [(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path), *more]
        self.h2.send_headers(stream, fields, end_stream=end)
        self.flush()
        return stream

    def upload(self, stream: int, body: bytes, end: bool = True) -> None:
        """Send all of ``body`` as the windows open, or until the answer is there."""
        sent = 0
        response = self.responses[stream]
        while sent < len(body) and not response.complete and response.reset is None:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(body) - sent)
            if room <= 0:
                assert self.step(), "the connection ended"
                continue
            self.h2.send_data(stream, body[sent : sent + room], end_stream=end and sent + room == len(body))
            sent += room
            self.flush()

    def wait(self, stream: int) -> Response:
        """The whole answer."""
        response = self.responses[stream]
        while not response.complete and response.reset is None:
            assert self.step(), "the connection ended"
        return response

    def ask(self, method: str, path: str, body: bytes = b"", *more: tuple[str, str]) -> Response:
        """A request and its answer."""
        if not body:
            return self.wait(self.begin(method, path, *more))
        stream = self.begin(method, path, ("content-length", str(len(body))), *more, end=False)
        self.upload(stream, body)
        return self.wait(stream)


def all_frames(data: bytes | bytearray) -> list[Frame]:
    """``data`` as frames; raises where it is anything else."""
    frames = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        assert len(data) >= 9 + length, "the last frame is cut off"
        frame.parse_body(memoryview(data[9 : 9 + length]))
        frames.append(frame)
        data = data[9 + length :]
    return frames


class Stdio:
    """``resticd serve restic --stdio`` as a child, and an HTTP/2 client of it. A context manager.

    :param scratch: where its standard error goes.
    """

    def __init__(self, place: Path | str, scratch: Path, *flags: str, window: int = 1 << 20) -> None:
        self.log = scratch / "stdio.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [RESTICD, "serve", "restic", "--stdio", *flags, str(place)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.client = H2Client(lambda: os.read(self.stdout.fileno(), 1 << 16), self._write, window)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.stdin.fileno(), data) :]

    def __enter__(self) -> Stdio:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.stdout.close()

    def output(self) -> str:
        """What it wrote to standard error."""
        return self.log.read_text()

    def end(self, timeout: float = 60) -> int:
        """Close its standard input, read what still comes, and return its exit status."""
        self.stdin.close()
        self.client._send = lambda _: None
        while self.client.step():
            pass
        return self.process.wait(timeout)
