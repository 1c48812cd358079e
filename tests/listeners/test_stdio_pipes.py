"""The two ends of standard input and output, on pipes of the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from support.producers import Producer
from twisted.internet import main

from resticd.listeners.stdio import WRITE_HIGH, _Reader, _Writer


class Poller:
    """Notes who waits."""

    def __init__(self) -> None:
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()
        self.addReader, self.removeReader = self.readers.add, self.readers.discard
        self.addWriter, self.removeWriter = self.writers.add, self.writers.discard


class Process:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.data = b""
        self.views: list[Any] = []
        self.lost: list[str] = []

    def childDataReceived(self, name: str, data: Any) -> None:
        self.views.append(data)
        self.data += data

    def childConnectionLost(self, name: str, reason: object) -> None:
        self.lost.append(name)


class Pipe:
    """Both ends, not blocking."""

    def __init__(self) -> None:
        self.output, self.input = os.pipe()
        os.set_blocking(self.output, False)
        self.poller = Poller()
        self.process = Process()
        self.read_end = True

    def read(self, size: int = 1 << 24) -> bytes:
        data = b""
        while len(data) < size:
            try:
                piece = os.read(self.output, size - len(data))
            except BlockingIOError:
                break
            if not piece:
                break
            data += piece
        return data

    def close_reader(self) -> None:
        if self.read_end:
            os.close(self.output)
            self.read_end = False


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close_reader()
    os.close(made.input)


@pytest.fixture
def writer(pipe: Pipe) -> _Writer:
    return _Writer(pipe.poller, pipe.process, "write", pipe.input)


def test_what_the_pipe_takes_is_written_at_once(pipe: Pipe, writer: _Writer) -> None:
    writer.writeSequence([b"ab", memoryview(b"xcdx")[1:3], b"", b"ef"])
    writer.write(b"")
    assert pipe.read() == b"abcdef"
    assert not pipe.poller.writers


def test_the_rest_is_written_in_order_when_there_is_room(pipe: Pipe, writer: _Writer) -> None:
    """More pieces than one call takes, more bytes than the pipe holds."""
    pieces = [bytes([number % 251]) * 97 for number in range(5000)]
    writer.writeSequence(pieces)
    writer.write(b"the end")
    assert pipe.poller.writers == {writer}
    data = pipe.read()
    while writer in pipe.poller.writers:
        assert writer.doWrite() is None
        data += pipe.read()
    assert data == b"".join(pieces) + b"the end"


def test_a_pipe_that_is_full_stays_with_what_it_has(pipe: Pipe, writer: _Writer) -> None:
    writer.write(bytes(1 << 20))
    for _ in range(3):
        assert writer.doWrite() is None
    assert pipe.poller.writers == {writer}
    taken = len(pipe.read())
    assert 0 < taken < 1 << 20


def test_a_producer_waits_while_the_pipe_is_full(pipe: Pipe, writer: _Writer) -> None:
    producer = Producer()
    writer.registerProducer(producer, True)
    writer.write(bytes(1000))
    assert producer.told == []
    writer.write(bytes((1 << 16) + WRITE_HIGH))
    assert producer.told == ["pause"]
    while writer in pipe.poller.writers:
        pipe.read()
        assert writer.doWrite() is None
    assert producer.told == ["pause", "resume"]


def test_everything_is_written_before_the_end(pipe: Pipe, writer: _Writer) -> None:
    writer.write(bytes(1 << 20))
    writer.loseConnection()
    data, outcome = b"", None
    while outcome is None:
        data += pipe.read()
        outcome = writer.doWrite()
    assert outcome is main.CONNECTION_DONE
    assert len(data + pipe.read()) == 1 << 20


def test_the_end_of_an_idle_pipe(writer: _Writer) -> None:
    writer.loseConnection()
    assert writer.doWrite() is main.CONNECTION_DONE


def test_a_reader_that_is_gone_is_found_out_later(pipe: Pipe, writer: _Writer) -> None:
    """Not in the middle of somebody's write."""
    pipe.close_reader()
    writer.write(b"x")
    assert pipe.process.lost == []
    assert pipe.poller.writers == {writer}
    assert writer.doWrite() is main.CONNECTION_LOST


def test_the_end_of_an_idle_reader_is_seen(pipe: Pipe, writer: _Writer) -> None:
    """A write does not stop the watching, as Twisted's does."""
    writer.write(b"x")
    assert pipe.poller.readers == {writer}
    assert writer.doRead() is main.CONNECTION_LOST


def test_nothing_is_written_after_the_end(pipe: Pipe, writer: _Writer) -> None:
    writer.connected = 0
    writer.write(b"x")
    assert pipe.read() == b""
    assert not pipe.poller.writers


def test_reading(pipe: Pipe) -> None:
    """Into the same memory each time."""
    reader = _Reader(pipe.poller, pipe.process, "read", pipe.output)
    assert reader.doRead() is None
    for piece in (b"abc", b"de"):
        os.write(pipe.input, piece)
        reader.doRead()
    assert pipe.process.data == b"abcde"
    assert bytes(pipe.process.views[0]) == b"dec"
    os.close(pipe.input)
    assert reader.doRead() is main.CONNECTION_DONE
    pipe.input = os.dup(pipe.output)
