"""The servers that are compared, and how each is started over a directory."""

from __future__ import annotations

import base64
import contextlib
import hashlib
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

from bench.certificate import make_certificate
from bench.processes import Daemon

ROOT = Path(__file__).resolve().parent.parent
#: What a run needs and leaves, on the disk that is measured.
RESULTS = ROOT / "bench" / "results"
DEFAULT = ("rest-server", "rclone", "resticd", "resticd:--workers 2", "null")
KINDS = ("rest-server", "rclone", "resticd", "null")


@frozen
class Guard:
    """What stands before a server: a login with a log of all requests, or TLS.

    :ivar place: a directory for passwords, certificates and logs.
    """

    place: Path
    login: bool = False
    tls: bool = False

    #: of the one user, ``bench`` with the password ``secret``
    header = f"Authorization: Basic {base64.b64encode(b'bench:secret').decode()}"

    def flags(self, kind: str) -> list[str | Path]:
        """The flags for a server of this kind; makes the files that they name."""
        flags: list[str | Path] = []
        if self.login:
            passwords = self.place / "htpasswd"
            digest = base64.b64encode(hashlib.sha1(b"secret", usedforsecurity=False).digest()).decode()
            passwords.write_text(f"bench:{{SHA}}{digest}\n")
            flags += ["--htpasswd-file" if kind == "rest-server" else "--htpasswd", passwords]
            log = self.place / f"{kind}-access.log"
            flags += ["--log", log] if kind == "rest-server" else ["-v", "--log-file", log]
        if self.tls:
            certificate, key = make_certificate(self.place)
            if kind == "rest-server":
                flags += ["--tls", "--tls-cert", certificate, "--tls-key", key]
            else:
                flags += ["--cert", certificate, "--key", key]
        return flags


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
        if kind not in KINDS:
            raise SystemExit(f"bench: no server {kind!r}; there are {', '.join(KINDS)}")
        more = shlex.split(os.environ.get("RESTICD_FLAGS", "")) if kind == "resticd" else []
        return cls(text.strip(), kind, (*shlex.split(flags), *more))

    def command(self, directory: Path, port: int, guard: Guard | None = None) -> list[str | Path]:
        """The command line that serves ``directory`` on a port of 127.0.0.1."""
        address = f"127.0.0.1:{port}"
        more = [*self.flags, *(guard.flags(self.kind) if guard is not None else ())]
        match self.kind:
            case "rest-server":
                if guard is None or not guard.login:
                    more.append("--no-auth")
                return [program("rest-server"), "--path", directory, "--listen", address, *more]
            case "rclone":
                start = [program("rclone"), "serve", "restic", "--config", "/dev/null"]
                return [*start, "--addr", address, *more, directory]
            case "resticd":
                start = [Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "resticd"]
                return [*start, "--addr", address, *more, directory]
        return [sys.executable, "-m", "bench.null", str(port), directory]


@contextlib.contextmanager
def serve(peer: Peer, directory: Path, scratch: Path, guard: Guard | None = None) -> Iterator[tuple[Daemon, int]]:
    """Start ``peer`` over ``directory``; gives the process and its port once it accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = scratch / f"{peer.kind}.log"
    environment = {"PYTHONPATH": str(ROOT)} if peer.kind == "null" else {}
    # bench.null is found from any directory
    with Daemon(peer.command(directory, port, guard), log, cwd=scratch, environment=environment) as daemon:
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
