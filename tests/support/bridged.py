"""Storage of types that only rclone knows, on real servers: a section ``[store]`` of a remotes file for each."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from bench.processes import Daemon
from resticd.config.obscure import obscure
from support.ports import free_port

SSHD = Path("/usr/sbin/sshd")


@frozen
class Storage:
    """A place that rclone reaches.

    :ivar file: a remotes file with the sections ``[store]`` and ``[there]``, an alias of a place in it.
    :ivar folders: where the bytes are on this machine, if they are anywhere.
    """

    file: Path
    folders: tuple[Path, ...] = ()


def described(scratch: Path, section: str, place: str, *folders: Path) -> Storage:
    file = scratch / "rclone.conf"
    file.write_text(f"[store]\n{section}\n[there]\ntype = alias\nremote = {place}\n")
    return Storage(file, folders)


@contextlib.contextmanager
def sftp(scratch: Path) -> Iterator[Storage]:
    """OpenSSH's server, with keys of its own."""
    if not SSHD.exists():
        raise AssertionError(f"{SSHD} is missing: run `make peers`")
    data = scratch / "sftp"
    data.mkdir()
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", scratch / name], check=True)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = free_port()
    config = scratch / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {scratch}/host\nAuthorizedKeysFile {scratch}/client.pub\n"
        "PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n"
        "MaxStartups 200\nMaxSessions 200\nSubsystem sftp internal-sftp\n"
    )
    known = scratch / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {(scratch / 'host.pub').read_text()}")
    with Daemon([SSHD, "-D", "-e", "-f", config], scratch / "sshd.log") as server:
        server.wait_for_port(port)
        yield described(
            scratch,
            f"type = sftp\nhost = 127.0.0.1\nport = {port}\nuser = {getpass.getuser()}\n"
            f"key_file = {scratch}/client\nknown_hosts_file = {known}\n",
            f"store:{data}",
            data,
        )


@contextlib.contextmanager
def ftp(scratch: Path) -> Iterator[Storage]:
    """pyftpdlib's server."""
    data = scratch / "ftp"
    data.mkdir()
    port = free_port()
    password = secrets.token_urlsafe(8)
    command = [sys.executable, "-m", "pyftpdlib", "-i", "127.0.0.1", "-p", str(port), "-w", "-d", data]
    with Daemon([*command, "-u", "somebody", "-P", password], scratch / "ftp.log") as server:
        server.wait_for_port(port)
        yield described(
            scratch,
            f"type = ftp\nhost = 127.0.0.1\nport = {port}\nuser = somebody\npass = {obscure(password)}\n",
            "store:",
            data,
        )


@contextlib.contextmanager
def crypt(scratch: Path) -> Iterator[Storage]:
    """rclone's encryption over a directory."""
    data = scratch / "crypt"
    data.mkdir()
    section = f"type = crypt\nremote = {data}\npassword = {obscure('secret of the crypt')}\n"
    yield described(scratch, section, "store:", data)


@contextlib.contextmanager
def union(scratch: Path) -> Iterator[Storage]:
    """Two directories as one."""
    folders = (scratch / "union-1", scratch / "union-2")
    for folder in folders:
        folder.mkdir()
    section = f"type = union\nupstreams = {folders[0]} {folders[1]}\ncreate_policy = rand\n"
    yield described(scratch, section, "store:", *folders)


@contextlib.contextmanager
def memory(scratch: Path) -> Iterator[Storage]:
    """Memory of the rclone itself, encrypted, since memory as such has a driver of its own."""
    section = f"type = crypt\nremote = :memory:bucket\npassword = {obscure('secret of the memory')}\n"
    yield described(scratch, section, "store:")


STORAGES: dict[str, Callable[[Path], contextlib.AbstractContextManager[Storage]]] = {
    "sftp": sftp,
    "ftp": ftp,
    "crypt": crypt,
    "union": union,
    "memory": memory,
}
