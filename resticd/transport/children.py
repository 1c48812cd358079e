"""Programs that run beside the daemon, and never longer than it does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet import error as internet_error
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from resticd.errors import StorageError

#: Seconds that a program has to end by itself when it is told to.
GRACE = 5.0
#: A longer line is cut.
LONGEST_LINE = 32 * 1024

_LAUNCHER = str(Path(__file__).with_name("launch.py"))


class Child:
    """One program that runs. It is killed with this process, even where that is killed itself; see ``launch``.

    Twisted calls the process's end from the reactor, so this is for the reactor's thread alone.

    :param program: its path.
    :param environ: all that it has for an environment.
    :param line: called with each line that it writes to standard output or error, without the line feed.
    :param how: see ``launch``.
    :ivar pid: of the program, or of its guard.
    :ivar status: how it ended, in words; empty while it runs.
    """

    def __init__(
        self,
        reactor: Any,
        program: str,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        line: Callable[[str], object],
        *,
        how: str = "bind",
    ) -> None:
        self.status = ""
        self._reactor = reactor
        self._waiting: list[Deferred[None]] = []
        launch = [sys.executable, "-I", "-S", _LAUNCHER, how, str(os.getpid()), program, *arguments]
        try:
            # Standard input is a pipe that nobody writes to: it is closed when this process ends.
            self._process = reactor.spawnProcess(
                _Protocol(line, self._exited),
                sys.executable,
                launch,
                env=dict(environ),
                childFDs={0: "w", 1: "r", 2: "r"},
            )
        except OSError as error:
            raise StorageError(f"cannot start {program}: {error.strerror}") from None
        self.pid: int = self._process.pid

    def ended(self) -> Deferred[None]:
        """Fires, never fails, when the program has ended."""
        if self.status:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def stop(self) -> Deferred[None]:
        """Ask the program to end, kill it where it does not; fires, never fails, when it has ended."""
        ended = self.ended()
        if not self.status:
            self._signal("TERM")
            timer = self._reactor.callLater(GRACE, self._signal, "KILL")
            ended.addCallback(lambda _: timer.cancel() if timer.active() else None)
        return ended

    def kill(self) -> None:
        """Kill the program."""
        self._signal("KILL")

    def _signal(self, name: str) -> None:
        if not self.status:
            with suppress(internet_error.ProcessExitedAlready):
                self._process.signalProcess(name)

    def _exited(self, reason: Failure) -> None:
        value: Any = reason.value
        signal = getattr(value, "signal", None)
        self.status = f"signal {signal}" if signal is not None else f"status {getattr(value, 'exitCode', 0) or 0}"
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)


class _Protocol(ProcessProtocol):
    def __init__(self, line: Callable[[str], object], exited: Callable[[Failure], None]) -> None:
        self._line = line
        self._exited = exited
        # Standard output and error are two streams, each with a line that is not complete yet.
        self._partial = {1: b"", 2: b""}

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803 - Twisted's signature
        """See ``IProcessProtocol``."""
        *lines, rest = (self._partial[childFD] + data).split(b"\n")
        self._partial[childFD] = rest[:LONGEST_LINE]
        for each in lines:
            self._say(each)

    def processExited(self, reason: Failure) -> None:
        """See ``IProcessProtocol``. Not ``processEnded``: what the program has started may hold its pipes open."""
        self._exited(reason)

    def processEnded(self, reason: Failure) -> None:
        """See ``IProcessProtocol``."""
        for rest in self._partial.values():
            self._say(rest)

    def _say(self, line: bytes) -> None:
        text = line[:LONGEST_LINE].decode("utf-8", "replace").rstrip()
        if text:
            self._line(text)
