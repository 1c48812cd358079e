"""One worker as the supervisor sees it: a process and the channel to it."""

from __future__ import annotations

import json
import os
import signal
import site
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

import resticd
from resticd.observe.levels import Level, twisted_level
from resticd.processes.channel import Channel, Handlers, attach

#: A longer line of a worker is cut.
LONGEST_LINE = 1024 * 1024
#: For the service manager's first process alone.
_OURS = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class Child(ProcessProtocol):
    """A worker that is started with this.

    :param handlers: what it may ask for and tell.
    :param descriptors: what it inherits, under the same numbers.
    :param relays: whether what it writes is read here and logged. Else it writes where this process does.
    :ivar pid: of the process.
    :ivar ended: fires with how the process ended, in words, once it has.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, handlers: Handlers, descriptors: Sequence[int], *, relays: bool, environ: Mapping[str, str]
    ) -> None:
        self.ended: Deferred[str] = Deferred()
        self.channel = Channel(handlers, lambda: None)
        self._lines = {1: b"", 2: b""}
        ours, theirs = socket.socketpair()
        with ours, theirs, open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted
            ours.setblocking(False)
            theirs.setblocking(False)
            outputs = {1: "r", 2: "r"} if relays else {1: 1, 2: 2}
            inherited = {number: number for number in (theirs.fileno(), *descriptors)}
            self._process = reactor.spawnProcess(
                self,
                sys.executable,
                [sys.executable, "-P", "-m", "resticd.processes.worker", str(theirs.fileno())],
                env=worker_environment(environ),
                childFDs={0: nothing.fileno(), **outputs, **inherited},
            )
            attach(reactor, ours.fileno(), self.channel)
        self.pid: int = self._process.pid

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessExitedAlready):
            self._process.signalProcess("KILL")

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803 - as Twisted has it
        """See ``IProcessProtocol``: what it writes."""
        *lines, rest = (self._lines[childFD] + data).split(b"\n")
        for line in lines:
            self._relay(line)
        if len(rest) > LONGEST_LINE:
            self._relay(rest)
            rest = b""
        self._lines[childFD] = rest

    def childConnectionLost(self, childFD: int) -> None:  # noqa: N803
        """See ``IProcessProtocol``."""
        rest, self._lines[childFD] = self._lines.get(childFD, b""), b""
        if rest:
            self._relay(rest)

    def processEnded(self, reason: Failure) -> None:
        """See ``IProcessProtocol``."""
        error: Any = reason.value
        if reason.check(ProcessDone):
            how = "status 0"
        elif error.signal is not None:
            how = signal.Signals(error.signal).name
        else:
            how = f"status {error.exitCode}"
        self.ended.callback(how)

    def _relay(self, line: bytes) -> None:
        """Log one line of the worker's: an entry in JSON, or what Python writes when all else has failed."""
        try:
            entry = json.loads(line)
            level, source, text = Level[entry["level"].upper()], entry["source"], entry["msg"]
        except (ValueError, KeyError, TypeError, AttributeError):
            level, source, text = Level.ERROR, "resticd.processes", line.decode(errors="backslashreplace")
        Logger(namespace=source).emit(twisted_level(level), "{text}", text=text)


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: this one, where the package is found wherever it was found here."""
    made = {name: value for name, value in environ.items() if name not in _OURS}
    place = str(Path(resticd.__file__).parent.parent)
    if place not in (*site.getsitepackages(), site.getusersitepackages()):
        made["PYTHONPATH"] = os.pathsep.join(filter(None, (place, environ.get("PYTHONPATH"))))
    return made
