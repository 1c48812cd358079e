"""Where the daemon listens: unix sockets, IPv6, sockets of the service manager."""

from __future__ import annotations

import contextlib
import grp
import os
import re
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.asking import ask, connect, read_answer
from support.certificates import Authority, client_context
from support.daemons import Daemon, Server
from support.ports import free_port
from support.restic import Restic
from support.sequences import make_files, restore_and_compare
from support.waiting import wait_until

Start = Callable[..., Server]


def test_a_unix_socket(start_resticd: Start, tmp_path: Path) -> None:
    """restic 0.18 by ``rest:http+unix://``; the file's permissions are what decides, so no password is asked for."""
    path = tmp_path / "resticd.sock"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as stale:
        stale.bind(str(path))
    group = grp.getgrgid(os.getgid()).gr_name
    flags = ("--user", "alice", "--pass", "pw", "--unix-socket-mode", "660", "--unix-socket-group", group)
    server = start_resticd(tmp_path / "store", "--addr", f"unix://{path}", *flags)
    status = path.stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, os.getgid())
    files = make_files(tmp_path / "files", count=3, big=3_000_000)
    restic = Restic(f"rest:http+unix://{path}:/laptop/", tmp_path)
    restic("init")
    restic("backup", files)
    restore_and_compare(restic, files, tmp_path / "restored")
    assert (tmp_path / "store/laptop/config").exists()
    assert ask(server.port, "GET", "/laptop/keys/").status == 401
    server.stop()
    assert not path.exists()


def test_a_unix_socket_is_the_server_s_own_without_flags(start_resticd: Start, tmp_path: Path) -> None:
    path = tmp_path / "resticd.sock"
    start_resticd(":memory:", "--addr", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_name_in_a_request_does_not_matter(start_resticd: Start, tmp_path: Path) -> None:
    """restic's Host header for a unix socket is its path in base64, longer than any host's name; HTTP/1.0 has none."""
    path = tmp_path / "resticd.sock"
    start_resticd(":memory:", "--addr", str(path))
    for version, host in ((b"1.1", b"Host: " + b"x" * 200), (b"1.1", b"Host: \xff:a"), (b"1.0", b"X: y")):
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(20)
            wire.connect(str(path))
            wire.sendall(b"GET /keys/ HTTP/" + version + b"\r\n" + host + b"\r\n\r\n")
            assert read_answer(wire).body == b"[]"


def test_ipv6(start_resticd: Start, tmp_path: Path) -> None:
    port, everywhere = free_port(), free_port()
    start_resticd(tmp_path / "store", "--addr", f"[::1]:{port}", "--addr", f":{everywhere}")
    Restic(f"rest:http://[::1]:{port}/", tmp_path)("init")
    for host in ("[::1]", "127.0.0.1"):
        Restic(f"rest:http://{host}:{everywhere}/", tmp_path)("cat", "config")


def test_addresses_behind_the_proxy_protocol(start_resticd: Start) -> None:
    """Twisted's endpoints are addresses too; HAProxy's tells where a client really is."""
    port = free_port()
    server = start_resticd(":memory:", "--addr", f"haproxy:tcp:{port}:interface=127.0.0.1", "-v")
    with connect(port) as wire:
        wire.sendall(b"PROXY TCP4 192.0.2.9 127.0.0.1 40000 8000\r\nGET /keys/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(wire).body == b"[]"
    wait_until(lambda: " 192.0.2.9 - - [" in server.output())


def test_a_port_that_the_system_chooses_is_in_the_log(start_resticd: Start) -> None:
    server = start_resticd(":memory:", "--addr", "127.0.0.1:0")
    announced = re.compile(r"listening on http://127\.0\.0\.1:([0-9]+)/\n")
    wait_until(lambda: len(announced.findall(server.output())) == 2)
    ports = {int(port) for port in announced.findall(server.output())}
    assert len(ports) == 2
    for port in ports:
        assert ask(port, "GET", "/keys/").status == 200


@pytest.fixture
def activate(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """A function ``activate(listens, *flags, names=None)``: the daemon behind ``systemd-socket-activate``."""
    program = shutil.which("systemd-socket-activate")
    assert program is not None, "Debian's systemd has it: run `make peers`"
    with contextlib.ExitStack() as running:

        def start(listens: list[str], *flags: str, names: str | None = None) -> Daemon:
            wrapper = [program, *(word for listen in listens for word in ("--listen", listen))]
            if names is not None:
                wrapper.append(f"--fdname={names}")
            twistd = Path(sys.executable).with_name("twistd")
            command = [*wrapper, str(twistd), "-n", "--pidfile=", "resticd", *flags]
            return running.enter_context(Daemon(command, tmp_path / "activated.log", cwd=tmp_path))

        yield start


def test_sockets_of_the_service_manager(activate: Callable[..., Daemon], tmp_path: Path) -> None:
    """They replace every ``--addr``; the first connection starts the daemon and is served by it."""
    port, unused, path = free_port(), free_port(), tmp_path / "activated.sock"
    daemon = activate(
        [f"127.0.0.1:{port}", str(path)], "--addr", f"127.0.0.1:{unused}", str(tmp_path / "store"), names="web:local"
    )
    daemon.wait_for_port(port)
    Restic(f"rest:http://127.0.0.1:{port}/", tmp_path)("init")
    Restic(f"rest:http+unix://{path}:/", tmp_path)("cat", "config")
    with pytest.raises(ConnectionRefusedError):
        ask(unused, "GET", "/keys/")
    assert f"listening on http://127.0.0.1:{port}/ (web)" in daemon.output()
    assert f"listening on unix://{path} (local)" in daemon.output()
    daemon.stop()
    assert path.exists()


def test_a_socket_of_the_service_manager_has_tls(activate: Callable[..., Daemon], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, port, plain = authority.server(), free_port(), free_port()
    daemon = activate(
        [f"127.0.0.1:{port}", f"127.0.0.1:{plain}"],
        "--cert",
        str(pair.cert),
        "--key",
        str(pair.key),
        ":memory:",
        names="backup:http",
    )
    daemon.wait_for_port(port)
    assert ask(port, "GET", "/keys/", context=client_context(authority.file)).status == 200
    assert ask(plain, "GET", "/keys/").status == 200


def test_a_socket_for_both_families_shows_ipv4_addresses_as_they_are(activate: Callable[..., Daemon]) -> None:
    """The kernel shows them as ``::ffff:127.0.0.1``; lists of proxies and the log know no such thing."""
    port = free_port()
    flags = ("--user-from-header", "X-User", "--trusted-proxy", "127.0.0.1", "-v", ":memory:")
    daemon = activate([f"[::]:{port}"], *flags)
    daemon.wait_for_port(port)
    forwarded = {"X-User": "laptop", "X-Forwarded-For": "::ffff:192.0.2.7"}
    assert ask(port, "GET", "/a/keys/", headers={"X-User": "laptop"}).status == 200
    assert ask(port, "GET", "/b/keys/", headers=forwarded).status == 200
    assert ask(port, "GET", "/c/keys/", headers=forwarded, source="127.0.0.2").status == 401

    def requests() -> list[str]:
        return [line for line in daemon.output().splitlines() if '"GET /' in line]

    wait_until(lambda: len(requests()) == 3)
    lines = requests()
    for line, start in zip(lines, ("127.0.0.1 - laptop [", "192.0.2.7 - laptop [", "127.0.0.2 - - ["), strict=True):
        assert f" {start}" in line
