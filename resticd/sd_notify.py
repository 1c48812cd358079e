"""Telling the service manager how we are (``sd_notify(3)``); does nothing where there is none."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

from attrs import frozen

#: How often the service manager is asked for more time while the service starts, in seconds.
SIGN_SECONDS = 20.0

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


@frozen
class Notifier:
    """Sends states to the service manager.

    :ivar address: of its socket, empty where there is none.
    :ivar watchdog: seconds within which it wants a sign of life, 0 where it wants none.
    """

    address: str = ""
    watchdog: float = 0.0

    @classmethod
    def take_from(cls, environ: MutableMapping[str, str]) -> Notifier:
        """What ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` say to this process.

        They are removed: children have nothing to say to the service manager.
        """
        address, pid, microseconds = (environ.pop(name, "") for name in _VARIABLES)
        is_meant = pid in ("", str(os.getpid())) and microseconds.isascii() and microseconds.isdigit()
        return cls(address, int(microseconds) / 1e6 if is_meant else 0.0)

    def starting(self, status: str, seconds: float) -> None:
        """The service is not ready yet and will say so again, or be ready, within ``seconds``."""
        self._send(f"STATUS={status}", _extend(seconds))

    def ready(self, status: str) -> None:
        """The service is up, or has reloaded."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins (Type=notify-reload wants the time)."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str, seconds: float) -> None:
        """The service goes down and needs up to ``seconds`` for that."""
        self._send("STOPPING=1", f"STATUS={status}", _extend(seconds))

    def alive(self) -> None:
        """A sign of life for the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self.address:
            return
        # "@" is how an abstract socket is written.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), address)
        except OSError:
            return  # there is nobody to tell


def _extend(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}"
