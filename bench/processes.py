"""A server as a child process: started, watched, stopped by its pid."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

TICK = os.sysconf("SC_CLK_TCK")


class DidNotStart(Exception):
    """The program ended, or was not ready in time. The message holds the end of what it wrote."""


class Daemon:
    """A child process in a session of its own, so that its own children are found and ended with it.

    A context manager; leaving it stops the process.

    :param arguments: the command line.
    :param log: where standard output and error go (appended).
    :param environment: variables on top of this process's own.
    :param stdin: as for ``subprocess.Popen``.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        log: Path,
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self.arguments = [str(argument) for argument in arguments]
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.arguments,
                stdin=stdin,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self.pid = self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_until(self, ready: Callable[[], bool], timeout: float = 30) -> None:
        """Return once ``ready()`` is true; stop the process and raise ``DidNotStart`` if it ends before or is late."""
        deadline = time.monotonic() + timeout
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise DidNotStart(
                    f"{' '.join(self.arguments)}: status {self.process.returncode}\n{self.output()[-4000:]}"
                )
            time.sleep(0.01)

    def wait_for_port(self, port: int, timeout: float = 30) -> None:
        """Return once something accepts connections on that port of 127.0.0.1; raises as ``wait_until``."""
        self.wait_until(lambda: _accepts(port), timeout)

    def output(self) -> str:
        """What the process has written so far."""
        return self.log.read_text(errors="replace")

    def stop(self, timeout: float = 20) -> int:
        """Send SIGTERM, wait, then SIGKILL what is left; returns the exit status, negative where a signal ended it."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout)
        return self.kill()

    def kill(self) -> int:
        """SIGKILL the whole session, reap the process and return its exit status once nothing of it lives."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        status = self.process.wait()
        # The signal is only on its way to the children, and who inherits them may reap them late or, as the first
        # process of a container, never.
        deadline = time.monotonic() + 20
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.01)
        return status

    def pids(self) -> list[int]:
        """The process and its living descendants, as far as they did not open a session of their own."""
        return [pid for pid, fields in _processes() if int(fields[3]) == self.pid and fields[0] not in "ZX"]

    def cpu(self) -> float:
        """CPU seconds used until now, children included."""
        # utime, stime, and both again of children that ended and were waited for
        return sum(sum(map(int, fields[11:15])) for _, fields in _processes() if int(fields[3]) == self.pid) / TICK

    def resident(self) -> int:
        """Bytes of memory resident now, summed over the processes."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """Bytes of memory resident at most since the start or ``reset_peak``, summed over the processes."""
        return self._status("VmHWM")

    def reset_peak(self) -> None:
        """Let ``peak`` count from now on (proc(5), clear_refs)."""
        for pid in self.pids():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def descriptors(self) -> int:
        """How many file descriptors are open, summed over the processes."""
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.pids())

    def _status(self, key: str) -> int:
        total = 0
        for pid in self.pids():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith(key + ":"):
                        total += int(line.split()[1]) * 1024
        return total


class Children:
    """In place of a ``Daemon``: whatever this process has run to its end."""

    def cpu(self) -> float:
        """CPU seconds used until now."""
        times = os.times()
        return times.children_user + times.children_system

    def peak(self) -> int:
        """Not known of processes that have ended."""
        return 0

    def reset_peak(self) -> None:
        """Nothing to do."""


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Every process with the fields of /proc/PID/stat that come after its name: [0] state, [1] parent, [3] session."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield int(entry.name), (entry / "stat").read_text().rpartition(")")[2].split()
