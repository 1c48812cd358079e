"""The audit log: who changed what, or was kept from it, as JSON lines."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from resticd.errors import ConfigurationError
from resticd.events import Change, LoginRefused
from resticd.interfaces import IEventSink
from resticd.observe.appendfile import AppendFile

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

#: How much waits for a file that cannot be written, in bytes. Some 30,000 records.
BACKLOG = 8 * 1024 * 1024
#: How often such a file is tried, in seconds.
RETRY_EVERY = 1.0

_log = Logger(namespace="resticd.audit")


@implementer(IEventSink)
class AuditLog:
    """Appends one line for each ``Change`` and ``LoginRefused`` to a file, in the order in which they happened.

    A record is written before ``emit`` returns, on the reactor thread: an ``os.write`` of some 250 bytes into the page
    cache takes microseconds, less than handing it to a worker and back would. There is no queue that could overflow
    under load, and nothing is lost with the process. (With the machine the last seconds are: nothing waits for the
    disk.)

    While the file cannot be written records wait in memory in their order, up to ``BACKLOG`` bytes, and are tried again
    every ``RETRY_EVERY`` seconds. Records beyond that go to the ordinary log, at ERROR, so that they are somewhere.

    :param path: made with mode 640 where it is missing; ``--audit-log``.
    :param now: the time in seconds since the epoch.
    :param shared: whether other processes write to the file too. A record of which only a part could be written is
        written again as a whole then, on a line of its own: the next bytes in the file may be another's.
    """

    def __init__(
        self, path: str, clock: IReactorTime, now: Callable[[], float] = time.time, *, shared: bool = False
    ) -> None:
        self._shared = shared
        self._file = AppendFile(path, clock, self._complain)
        self._now = now
        #: records that wait, and how much of the first one is written
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._begun = 0
        self._retry = LoopingCall(self._flush)
        self._retry.clock = clock

    def start(self) -> None:
        """Open the file. Raises ``ConfigurationError``."""
        try:
            self._file.open()
        except OSError as error:
            raise ConfigurationError(f"--audit-log: cannot open {self._file.path}: {error.strerror}") from None

    def stop(self) -> None:
        """Write what waits, or say what was lost, and close the file. What is emitted later opens it again."""
        self._flush()
        if self._retry.running:
            self._retry.stop()
        while self._waiting:
            self._give_up(self._waiting.popleft())
        self._waiting_bytes = self._begun = 0
        self._file.close()

    def reopen(self) -> None:
        """Go on in the file that is at the path now (SIGHUP)."""
        self._file.reopen()

    def emit(self, event: object) -> None:
        """See ``IEventSink``."""
        if isinstance(event, Change):
            record = change_record(event)
        elif isinstance(event, LoginRefused):
            record = refusal_record(event)
        else:
            return
        line = json.dumps({"time": utc_time(self._now()), **record}).encode() + b"\n"
        if self._waiting_bytes + len(line) > BACKLOG:
            self._give_up(line)
            return
        self._waiting.append(line)
        self._waiting_bytes += len(line)
        if not self._retry.running:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._waiting:
                self._write_first()
        except OSError as error:
            if not self._retry.running:
                self._complain(f"cannot write {self._file.path}: {error.strerror}")
                self._retry.start(RETRY_EVERY, now=False)
            return
        if self._retry.running:
            self._retry.stop()
            _log.warn("{path} is written again", path=self._file.path)

    def _write_first(self) -> None:
        line = self._waiting[0]
        before = self._file.identity
        self._file.follow()
        if self._file.identity != before:
            self._begun = 0  # the beginning of the record is in another file
        self._begun += self._file.write(memoryview(line)[self._begun :])
        if self._begun == len(line):
            self._waiting.popleft()
            self._waiting_bytes -= len(line)
            self._begun = 0
        elif self._shared and self._begun:
            again = b"\n" + line.removeprefix(b"\n")
            self._waiting[0] = again
            self._waiting_bytes += len(again) - len(line)
            self._begun = 0

    def _complain(self, sentence: str) -> None:
        _log.error("audit log: {sentence}", sentence=sentence)

    def _give_up(self, line: bytes) -> None:
        _log.error("not in the audit log: {record}", record=line.decode().rstrip("\n"))


def change_record(event: Change) -> dict[str, Any]:
    """The fields of a change."""
    record = {
        "user": event.caller.user,
        "address": event.caller.address,
        "action": event.action,
        "repository": event.repository,
        "type": event.type,
        "name": event.name,
        "size": event.size,
        "outcome": event.outcome,
        "reason": event.reason,
    }
    return {name: value for name, value in record.items() if name == "user" or value not in ("", None)}


def refusal_record(event: LoginRefused) -> dict[str, Any]:
    """The fields of a refused login; ``user`` is who the client said it is."""
    return {
        "user": event.user or None,
        "address": event.address,
        "action": "login",
        "outcome": "refused",
        "reason": event.reason,
    }


def utc_time(seconds: float) -> str:
    """ISO 8601 in UTC, with milliseconds: ``2026-11-28T08:00:00.000Z``."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{stamp}.{int(seconds % 1 * 1000):03d}Z"
