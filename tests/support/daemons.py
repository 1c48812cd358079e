"""Servers for tests, each a real process on 127.0.0.1.

All are context managers and come back when they accept connections::

    with resticd(tmp_path / "store", tmp_path, "--append-only") as server:
        Restic(server.repository("laptop"), tmp_path)("init")
        assert server.resident() < 250 << 20
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from bench.processes import Daemon, DidNotStart
from support.peers import peer
from support.ports import free_port

__all__ = ["Daemon", "DidNotStart", "Server", "rclone_restic", "rest_server", "resticd"]


class Server(Daemon):
    """A ``Daemon`` (``pid``, ``stop``, ``kill``, ``output``, ``resident`` …) that listens on ``port``."""

    port: int

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    def repository(self, path: str = "") -> str:
        """The name by which restic calls the repository at ``path``: ``rest:http://127.0.0.1:PORT/path/``."""
        return f"rest:{self.url}/{path.strip('/')}/" if path.strip("/") else f"rest:{self.url}/"


def resticd(
    path: Path | str, scratch: Path, *flags: str, port: int | None = None, environment: Mapping[str, str] | None = None
) -> Server:
    """``twistd -n resticd`` over ``path``, which may be a directory, ``:memory:`` or any other remote.

    :param scratch: where its log goes and what its working directory is.
    :param flags: more flags of resticd, such as ``"--append-only"``.
    :param port: listen here and not on a free port, for a restart.
    """
    twistd = Path(sys.executable).with_name("twistd")
    port = port or free_port()
    arguments = [twistd, "-n", "--pidfile=", "resticd", "--addr", f"127.0.0.1:{port}", *flags, path]
    return _serve(arguments, scratch, port, environment)


def rest_server(path: Path, scratch: Path, *flags: str) -> Server:
    """restic's own rest-server over the directory ``path``."""
    port = free_port()
    arguments = [peer("rest-server"), "--no-auth", "--path", path, "--listen", f"127.0.0.1:{port}", *flags]
    return _serve(arguments, scratch, port)


def rclone_restic(path: Path | str, scratch: Path, *flags: str) -> Server:
    """``rclone serve restic`` over ``path``."""
    port = free_port()
    arguments = [
        peer("rclone"),
        "serve",
        "restic",
        "--config",
        "/dev/null",
        "--addr",
        f"127.0.0.1:{port}",
        *flags,
        path,
    ]
    return _serve(arguments, scratch, port)


def _serve(
    arguments: list[str | Path], scratch: Path, port: int, environment: Mapping[str, str] | None = None
) -> Server:
    name = Path(arguments[0]).name
    server = Server(arguments, scratch / f"{name}-{port}.log", cwd=scratch, environment=environment)
    server.port = port
    server.wait_for_port(port)
    return server
