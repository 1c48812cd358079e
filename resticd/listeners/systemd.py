"""Sockets that the service manager passes (sd_listen_fds(3), systemd.socket(5)).

They take the place of every ``--addr``, as in rclone (``lib/http/server.go``). Their names decide on TLS where there is
a certificate: ``http`` is plain, every other name has TLS, and ``https`` or ``tls`` insist on it. It is the whole name,
since a unit that says nothing passes its own, and ``http-backup.socket`` should not lose TLS by accident. Unix sockets
never have TLS.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import MutableMapping
from pathlib import Path

from attrs import field, frozen

from resticd.errors import ConfigurationError

#: SD_LISTEN_FDS_START
_FIRST = 3
_TLS_BY_NAME = {"http": False, "https": True, "tls": True}


@frozen
class InheritedSocket:
    """A listening stream socket from the service manager.

    :ivar name: FileDescriptorName= of its unit; ``unknown`` where none came along (sd_listen_fds_with_names(3)).
    :ivar socket: TCP or unix.
    """

    name: str
    socket: socket.socket = field(eq=False)

    def __str__(self) -> str:
        return f"the service manager's socket {self.name!r}"

    @property
    def is_unix(self) -> bool:
        """Whether it is a unix socket, which never has TLS."""
        return self.socket.family == socket.AF_UNIX

    @property
    def tls(self) -> bool | None:
        """Whether the name asks for TLS (True) or plain text (False); None where it says nothing."""
        return None if self.is_unix else _TLS_BY_NAME.get(self.name)


def take_inherited_sockets(
    environment: MutableMapping[str, str] | None = None, first: int = _FIRST
) -> list[InheritedSocket]:
    """The sockets that were passed to this process, none where it was not started for sockets.

    Call it once, before the process daemonizes: the variables name the process that they are meant for. They are
    removed, and neither they nor the sockets reach children. Raises ``ConfigurationError`` for what is no listening
    stream socket.

    Importing ``twisted.internet.endpoints`` takes the variables away, and loses the sockets where they have no names.
    Then the environment that the process started with counts.

    :param environment: the process's own by default.
    :param first: the first descriptor that was passed.
    """
    if environment is None:
        environment = os.environ
        variables = dict(environment) if "LISTEN_PID" in environment else _lost_variables(first)
    else:
        variables = dict(environment)
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environment.pop(variable, None)
    if variables.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = variables.get("LISTEN_FDS", "")
    if not (count.isascii() and count.isdigit()):
        raise ConfigurationError(f"LISTEN_FDS: {count!r}: not a number of sockets")
    names = variables.get("LISTEN_FDNAMES", "").split(":")
    if len(names) != int(count):
        names = ["unknown"] * int(count)
    return [_take(name or "unknown", descriptor) for descriptor, name in enumerate(names, first)]


def _take(name: str, descriptor: int) -> InheritedSocket:
    """Own one descriptor."""
    try:
        taken = socket.socket(fileno=descriptor)
        taken.setblocking(False)
        taken.set_inheritable(False)
    except OSError as error:
        raise ConfigurationError(f"LISTEN_FDS: descriptor {descriptor} ({name!r}): {error.strerror}") from None
    known = taken.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) and taken.type == socket.SOCK_STREAM
    if not known or not taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        taken.close()
        raise ConfigurationError(
            f"LISTEN_FDS: descriptor {descriptor} ({name!r}): not a listening TCP or unix socket (is Accept=yes set?)"
        )
    return InheritedSocket(name, taken)


def _lost_variables(first: int) -> dict[str, str]:
    """The environment that the process started with, empty where the sockets were taken already.

    Then the first descriptor is closed, or another file has its number, which is closed on exec and so was not there
    when the program began.
    """
    try:
        if fcntl.fcntl(first, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
            return {}
        content = Path("/proc/self/environ").read_bytes()
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in content.split(b"\0") if entry)
    return {name: value for name, _, value in pairs}
