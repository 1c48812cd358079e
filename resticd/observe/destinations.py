"""Where finished lines of the log go. ``write`` raises ``OSError`` for a line that could not be written."""

from __future__ import annotations

import os
import select
import socket
import time
from typing import TYPE_CHECKING, Protocol

from resticd.errors import ConfigurationError
from resticd.observe.levels import Level

if TYPE_CHECKING:
    from resticd.observe.appendfile import AppendFile

#: RFC 5424, section 6.2.1, and syslog(3).
FACILITIES = {
    name: number
    for number, name in enumerate(
        "KERN USER MAIL DAEMON AUTH SYSLOG LPR NEWS UUCP CRON AUTHPRIV FTP".split()  # noqa: SIM905 - a table
    )
} | {f"LOCAL{number}": 16 + number for number in range(8)}

#: Longest datagram to syslog; daemons cut at 8 KiB by default, or refuse.
LONGEST = 8000

#: How long a standard error that takes nothing may hold up the process, in seconds.
PATIENCE = 1.0


class Destination(Protocol):
    """What takes the text of an entry."""

    def write(self, level: Level, text: str) -> None:
        """Write ``text``, one or several lines without the last line feed. Raises ``OSError``."""

    def reopen(self) -> None:
        """Go on in the file that is in the old one's place."""


class FileDestination:
    """Lines in a file."""

    def __init__(self, file: AppendFile) -> None:
        self._file = file

    def write(self, level: Level, text: str) -> None:
        """See ``Destination``."""
        self._file.follow()
        data = _encoded(text) + b"\n"
        while data:
            data = data[self._file.write(data) :]

    def reopen(self) -> None:
        """See ``Destination``."""
        self._file.reopen()


class StreamDestination:
    """Lines on an open descriptor, standard error above all.

    It may be non-blocking without our doing, where it shares a terminal or a socket with standard input; then a full
    one is waited for, as a blocking one would be, but not forever.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, level: Level, text: str) -> None:
        """See ``Destination``."""
        data = _encoded(text) + b"\n"
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                poller = select.poll()
                poller.register(self._fd, select.POLLOUT)
                if not poller.poll(PATIENCE * 1000):
                    raise

    def reopen(self) -> None:
        """Nothing to do."""


class SyslogDestination:
    """Datagrams to the syslog daemon's socket, in the form of syslog(3) (RFC 3164 without the host).

    Never waits: what a daemon that hangs does not take is refused. A daemon that was restarted is found again. Raises
    ``ConfigurationError`` where there is none at the start.

    :param facility: a key of ``FACILITIES``.
    """

    def __init__(self, facility: str, tag: str = "resticd", path: str = "/dev/log") -> None:
        if facility not in FACILITIES:
            raise ConfigurationError(f"--syslog-facility: not one of {', '.join(FACILITIES)}: {facility}")
        self._facility = FACILITIES[facility]
        self._tag = tag
        self._path = path
        self._socket: socket.socket | None = None
        try:
            self._connect()
        except OSError as error:
            raise ConfigurationError(f"--syslog: cannot reach {path}: {error.strerror}") from None

    def write(self, level: Level, text: str) -> None:
        """See ``Destination``. Each line is a message of its own."""
        # syslog(3) wants English names of months, as ctime gives in every locale.
        stamp = time.ctime()[4:19]
        head = f"<{self._facility * 8 + level}>{stamp} {self._tag}[{os.getpid()}]: "
        for line in text.split("\n"):
            self._send(_encoded(head + line)[:LONGEST])

    def reopen(self) -> None:
        """Connect again at the next line."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: bytes) -> None:
        try:
            self._connect().send(message)
        except ConnectionError:
            self.reopen()
            self._connect().send(message)

    def _connect(self) -> socket.socket:
        if self._socket is None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                made.setblocking(False)
                made.connect(self._path)
            except OSError:
                made.close()
                raise
            self._socket = made
        return self._socket


def _encoded(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
