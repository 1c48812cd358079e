"""The reactor that leaves out Twisted's logging context."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.python import context, log
from twisted.python.failure import Failure

from resticd.reactor import QuickReactor, choose


class Seen(Protocol):
    """Remembers what its connection tells it, and raises where it is told to."""

    def __init__(self) -> None:
        self.data = b""
        self.context: list[object] = []
        self.reasons: list[type[BaseException]] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.context.append(context.get(log.ILogContext)["system"])
        if data == b"raise":
            raise ZeroDivisionError

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # always given
        self.reasons.append(reason.type)


class Scene:
    """A reactor that does not run, and a connection with its other end."""

    def __init__(self) -> None:
        self.reactor = QuickReactor()
        ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        self.seen = Seen()
        self.connection = Connection(ours, self.seen, self.reactor)
        self.connection.connected = 1
        self.seen.makeConnection(self.connection)
        self.connection.startReading()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.peer.close()
    for selectable in made.reactor.removeAll():
        selectable.connectionLost(Failure(ConnectionError()))
    made.reactor._poller.close()


@pytest.mark.parametrize("without", [(), ("quick-events",)])
def test_reads(scene: Scene, without: tuple[str, ...]) -> None:
    """What comes is read; the context is what is left out."""
    choose(scene.reactor, without)
    scene.peer.send(b"abc")
    scene.reactor.iterate(1)
    assert scene.seen.data == b"abc"
    assert scene.seen.context == (["Uninitialized"] if without else ["-"])


def test_an_end(scene: Scene) -> None:
    """Bytes and the end in one: both are told, once."""
    scene.peer.send(b"abc")
    scene.peer.close()
    for _ in range(3):
        scene.reactor.iterate(0.01)
    assert scene.seen.data == b"abc"
    assert [reason.__name__ for reason in scene.seen.reasons] == ["ConnectionDone"]
    assert not scene.reactor._selectables.get(scene.connection.fileno())


def test_an_error(scene: Scene) -> None:
    """A protocol that raises loses its connection, and its error is logged; others are read all the same."""
    errors: list[log.EventDict] = []
    log.addObserver(errors.append)
    try:
        other = Scene()
        other.connection.reactor.removeReader(other.connection)
        other.connection.reactor = scene.reactor
        other.connection.startReading()
        scene.peer.send(b"raise")
        other.peer.send(b"abc")
        scene.reactor.iterate(1)
    finally:
        log.removeObserver(errors.append)
    assert scene.seen.reasons == [ZeroDivisionError]
    assert other.seen.data == b"abc"
    assert [event["failure"].type for event in errors if event["isError"]] == [ZeroDivisionError]
    other.peer.close()
    scene.reactor.iterate(1)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["twistd", "-n", "resticd", "--version"], None),
        (["twistd", "-n", "resticd"], "QuickReactor"),
        (["twistd", "-n", "--reactor=poll", "resticd"], "PollReactor"),
        (["resticd", "serve", "restic"], "QuickReactor"),
    ],
    ids=["version", "twistd", "chosen", "command"],
)
def test_installed(command: list[str], expected: str | None) -> None:
    """By the programs, unless another one was asked for."""
    script = f"""
import sys
import twisted.internet.base as base
base.ReactorBase.run = lambda self, *_, **__: print(type(self).__name__)
sys.argv = {[*command, "--addr=127.0.0.1:0", ":memory:"]!r}
if sys.argv[0] == "twistd":
    sys.argv[1:1] = ["--pidfile="]
    from twisted.scripts.twistd import run
else:
    from resticd.cli import run
run()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    names = set(re.findall(r"\w+Reactor\b", done.stdout))  # twistd logs it too
    assert names == set(filter(None, [expected])), done
