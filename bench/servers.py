"""The servers that are compared, and how each is started over a directory."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from attrs import frozen

from bench.processes import Daemon

ROOT = Path(__file__).resolve().parent.parent
#: What a run needs and leaves, on the disk that is measured.
RESULTS = ROOT / "bench" / "results"
DEFAULT = ("rest-server", "rclone", "resticd", "null")


@frozen
class Peer:
    """A server with its flags. ``name`` is how it is asked for and what the table calls it."""

    name: str
    kind: str
    flags: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Peer:
        """From ``resticd`` or, with flags, ``resticd:--workers 2``. ``$RESTICD_FLAGS`` come on top of resticd's."""
        kind, _, flags = text.strip().partition(":")
        if kind not in DEFAULT:
            raise SystemExit(f"bench: no server {kind!r}; there are {', '.join(DEFAULT)}")
        more = shlex.split(os.environ.get("RESTICD_FLAGS", "")) if kind == "resticd" else []
        return cls(text.strip(), kind, (*shlex.split(flags), *more))

    def command(self, directory: Path, port: int) -> list[str | Path]:
        """The command line that serves ``directory`` on a port of 127.0.0.1."""
        address = f"127.0.0.1:{port}"
        match self.kind:
            case "rest-server":
                return [program("rest-server"), "--no-auth", "--path", directory, "--listen", address, *self.flags]
            case "rclone":
                start = [program("rclone"), "serve", "restic", "--config", "/dev/null"]
                return [*start, "--addr", address, *self.flags, directory]
            case "resticd":
                start = [Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "resticd"]
                return [*start, "--addr", address, *self.flags, directory]
        return [sys.executable, "-m", "bench.null", str(port), directory]


@contextlib.contextmanager
def serve(peer: Peer, directory: Path, scratch: Path) -> Iterator[tuple[Daemon, int]]:
    """Start ``peer`` over ``directory``; gives the process and its port once it accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = scratch / f"{peer.kind}.log"
    environment = {"PYTHONPATH": str(ROOT)} if peer.kind == "null" else {}
    # bench.null is found from any directory
    with Daemon(peer.command(directory, port), log, cwd=scratch, environment=environment) as daemon:
        daemon.wait_for_port(port)
        yield daemon, port


def settle(daemon: Daemon) -> None:
    """Wait, for some seconds at most, until a server has done what it does after its start."""
    for _ in range(50):
        before = daemon.cpu()
        time.sleep(0.2)
        if daemon.cpu() - before < 0.02:
            return


def program(name: str) -> Path:
    """A program that ``make peers`` brought."""
    path = ROOT / ".peers" / "bin" / name
    if not path.exists():
        raise SystemExit(f"bench: {path} is missing: run `make peers`")
    return path


def versions() -> list[str]:
    """What is compared, and what it runs on."""

    def says(name: str, argument: str, word: int) -> str:
        done = subprocess.run([program(name), argument], capture_output=True, text=True, check=True)
        return done.stdout.split()[word].removeprefix("v")

    resticd = f"resticd {version('resticd')} (Python {platform.python_version()}, Twisted {version('twisted')})"
    return [
        resticd,
        f"rest-server {says('rest-server', '--version', 3)}",
        f"rclone {says('rclone', 'version', 1)}",
        f"restic {says('restic-new', 'version', 1)}",
    ]
