"""twistd's own options: the daemon, its process id, directory, umask and logs, as Twisted's users know them.

``--uid``, ``--gid`` and ``--syslog`` are tested on a whole machine, in ``tests/packaging``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.ports import free_port
from support.waiting import wait_until

BODY = b"some bytes"
NAME = hashlib.sha256(BODY).hexdigest()


class Twistd:
    """A daemon that ``twistd`` made, known by its process id alone."""

    def __init__(self, pidfile: Path, port: int) -> None:
        self.pidfile = pidfile
        self.pid = int(pidfile.read_text())
        self.port = port

    def status(self, key: str) -> str:
        """A line of /proc/PID/status."""
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return lines[key].strip()

    def is_alive(self) -> bool:
        """Whether it runs; one that ended and was not waited for does not."""
        try:
            return not self.status("State").startswith("Z")
        except (FileNotFoundError, ProcessLookupError):
            return False

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        wait_until(lambda: not self.is_alive())

    def upload(self) -> None:
        url = f"http://127.0.0.1:{self.port}/data/{NAME}"
        with urllib.request.urlopen(urllib.request.Request(url, BODY, method="POST"), timeout=60) as answer:
            assert answer.status == 200


Start = Callable[..., Twistd]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """``start(twistd's options, *flags)``: daemonizes, and comes back when connections are accepted."""
    started: list[Twistd] = []

    def begin(options: list[str | Path], *flags: str, **environment: str) -> Twistd:
        twistd = Path(sys.executable).with_name("twistd")
        port = free_port()
        pidfile = tmp_path / "a" / "resticd.pid"
        pidfile.parent.mkdir()
        command = [twistd, *options, "--pidfile", pidfile, "resticd", "--addr", f"127.0.0.1:{port}", *flags]
        with (tmp_path / "output").open("wb") as output:
            subprocess.run(
                [*command, "store"],
                check=True,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=tmp_path,
                env={**os.environ, **environment},
                timeout=90,
            )
        wait_until(lambda: pidfile.exists() and pidfile.read_text())
        daemon = Twistd(pidfile, port)
        started.append(daemon)
        wait_until(lambda: accepts(port))
        return daemon

    yield begin
    for daemon in started:
        if daemon.is_alive():
            daemon.end(signal.SIGKILL)


def accepts(port: int) -> bool:
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/keys/", timeout=30).close()
        return True
    return False


def test_a_daemon(start: Start, tmp_path: Path) -> None:
    """It leaves terminal, directory and parent behind, and its file of the process id with its end."""
    rundir = tmp_path / "rundir"
    rundir.mkdir()
    daemon = start(["--rundir", rundir, "--umask", "027"])
    assert daemon.status("PPid") == "1"
    assert os.getsid(daemon.pid) != os.getsid(0)
    assert Path(f"/proc/{daemon.pid}/cwd").readlink() == rundir
    assert Path(f"/proc/{daemon.pid}/fd/0").readlink() == Path("/dev/null")
    assert daemon.status("Umask") == "0027"
    daemon.upload()
    # What is served is what the command line named where it was typed.
    stored = tmp_path / "store" / "data" / NAME[:2] / NAME
    assert stored.read_bytes() == BODY
    assert stored.stat().st_mode & 0o027 == 0
    assert "listening on http://127.0.0.1" in (tmp_path / "twistd.log").read_text()
    daemon.end()
    assert not daemon.pidfile.exists()
    assert "Traceback" not in (tmp_path / "twistd.log").read_text()


def test_a_second_one_is_refused(start: Start, tmp_path: Path) -> None:
    """Two daemons never share a file of the process id."""
    daemon = start([])
    twistd = Path(sys.executable).with_name("twistd")
    again = subprocess.run(
        [twistd, "--pidfile", daemon.pidfile, "resticd", "--addr", f"127.0.0.1:{free_port()}", "store"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=90,
    )
    assert again.returncode != 0
    assert "Another twistd server is running" in again.stdout + again.stderr
    assert daemon.is_alive()


def test_logfile(start: Start, tmp_path: Path) -> None:
    """twistd's log, with resticd's levels."""
    daemon = start(["--logfile", tmp_path / "log"], "-v")
    daemon.upload()
    wait_until(lambda: f"POST /data/{NAME} HTTP/1.1" in (tmp_path / "log").read_text())
    assert not (tmp_path / "twistd.log").exists()


def test_log_file_of_resticd(start: Start, tmp_path: Path) -> None:
    """The other log; on SIGHUP it goes on in a new file."""
    daemon = start([], "-v", "--log-file", str(tmp_path / "log"))
    assert "listening on" in (tmp_path / "log").read_text()
    (tmp_path / "log").rename(tmp_path / "log.1")
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until(lambda: (tmp_path / "log").exists() and "reloaded" in (tmp_path / "log").read_text())
    assert not (tmp_path / "twistd.log").exists()


def test_logger(start: Start, tmp_path: Path) -> None:
    """A function that makes an observer."""
    (tmp_path / "my_logs.py").write_text(
        "from twisted.logger import formatEvent\n"
        "def make():\n"
        f"    file = open({str(tmp_path / 'mine')!r}, 'a', buffering=1)\n"
        "    return lambda event: print('mine:', formatEvent(event), file=file)\n"
    )
    daemon = start(["--logger", "my_logs.make"], "-v", PYTHONPATH=str(tmp_path))
    daemon.upload()
    wait_until(lambda: f"POST /data/{NAME} HTTP/1.1" in (tmp_path / "mine").read_text())
    assert "mine: listening on http://127.0.0.1" in (tmp_path / "mine").read_text()
