"""Telling the service manager how we are (``sd_notify(3)``); does nothing where there is none."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from attrs import frozen


@frozen
class Notifier:
    """Sends states to the service manager.

    :ivar address: of its socket, empty where there is none.
    :ivar watchdog: seconds within which it wants a sign of life, 0 where it wants none.
    """

    address: str = ""
    watchdog: float = 0.0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Notifier:
        """What ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` say to this process."""
        watchdog = 0.0
        if environ.get("WATCHDOG_PID") in (None, str(os.getpid())) and environ.get("WATCHDOG_USEC", "").isdigit():
            watchdog = int(environ["WATCHDOG_USEC"]) / 1e6
        return cls(environ.get("NOTIFY_SOCKET", ""), watchdog)

    def ready(self, status: str) -> None:
        """The service is up, or has reloaded."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins (Type=notify-reload wants the time)."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str, seconds: float) -> None:
        """The service goes down and needs up to ``seconds`` for that."""
        self._send("STOPPING=1", f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

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
