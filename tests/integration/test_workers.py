"""``--workers 2``: several processes that serve as one, with real clients."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from support.asking import ask, basic, blob
from support.certificates import Authority, client_context
from support.daemons import Daemon, DidNotStart, Server
from support.ports import free_port
from support.restic import Restic
from support.sequences import core_life, make_files, restore_and_compare
from support.waiting import wait_until

Start = Callable[..., Server]


@pytest.fixture
def start(start_resticd: Start) -> Start:
    """Starts a server of two workers and waits until both serve; ``log`` is its ``--log-file``."""

    def begin(path: Path | str, *flags: str, log: Path | None = None, **keywords: object) -> Server:
        more = [] if log is None else ["--log-file", str(log)]
        server = start_resticd(path, "--workers", "2", *flags, *more, **keywords)
        wait_until(lambda: "2 workers serve" in (server.output() if log is None else log.read_text()))
        return server

    return begin


def workers(server: Daemon) -> set[int]:
    """The worker processes."""
    return {pid for pid in server.pids() if pid != server.pid and "resticd.processes.worker" in command_of(pid)}


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


@contextlib.contextmanager
def connections(server: Server, count: int) -> Iterator[list[HTTPConnection]]:
    """Connections that stay open; as many to each worker."""
    made = [HTTPConnection("127.0.0.1", server.port, timeout=30) for _ in range(count)]
    try:
        for connection in made:
            assert request(connection, "GET", "/keys/") == (200, b"[]")
        yield made
    finally:
        for connection in made:
            connection.close()


def request(connection: HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def lives(connection: HTTPConnection) -> bool:
    """Whether the connection still serves; it is not opened again."""
    connection.auto_open = 0
    try:
        return request(connection, "GET", "/keys/")[0] == 200
    except (OSError, HTTPException):
        return False


def test_life(start: Start, tmp_path: Path) -> None:
    server = start(tmp_path / "store")
    core_life(Restic(server.repository("a/b"), tmp_path), make_files(tmp_path / "files"), tmp_path)
    assert len(workers(server)) == 2
    assert "has ended" not in server.output()


def test_a_worker_is_killed_in_the_middle_of_a_backup(start: Start, tmp_path: Path) -> None:
    """Its own connections are lost, restic repeats what it sent there, and another worker takes its place."""
    store, files = tmp_path / "store", make_files(tmp_path / "files", big=150 * 1024 * 1024)
    server = start(store)
    restic = Restic(server.repository("r"), tmp_path)
    restic("init")
    before = workers(server)
    with connections(server, 2) as held, ThreadPoolExecutor(1) as pool:
        backup = pool.submit(restic, "backup", files)
        wait_until(lambda: list(store.rglob(".resticd-*")) or backup.done())
        assert not backup.done()
        os.kill(min(before), signal.SIGKILL)
        wait_until(lambda: "another one is started in 0.5 s" in server.output())
        assert sorted(map(lives, held)) == [False, True]
        backup.result()
    wait_until(lambda: "serves again" in server.output())
    after = workers(server)
    assert len(after) == 2
    assert len(before & after) == 1
    assert f"(process {min(before)}) has ended: SIGKILL" in server.output()
    with connections(server, 4):
        restic("check", "--read-data")
    restore_and_compare(restic, files, tmp_path / "restored")
    wait_until(lambda: not list(store.rglob(".resticd-*")))


def test_a_reload_reaches_all(start: Start, tmp_path: Path) -> None:
    settings = tmp_path / "resticd.toml"
    settings.write_text("append-only = false\n")
    server = start(tmp_path / "store", "--settings", str(settings))
    with connections(server, 4) as wires:
        assert all(request(wire, "DELETE", blob(b"x"))[0] == 200 for wire in wires)
        settings.write_text("append-only = true\n")
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: "Supervisor#warn] reloaded" in server.output())
        assert all(request(wire, "DELETE", blob(b"x"))[0] == 403 for wire in wires)
        settings.write_text('append-only = false\nhtpasswd = "/nowhere/at/all"\n')
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: "not reloaded: " in server.output())
        assert all(request(wire, "DELETE", blob(b"x"))[0] == 403 for wire in wires)
        # What is started now has what is in force.
        os.kill(min(workers(server)), signal.SIGKILL)
        wait_until(lambda: "serves again" in server.output())
    with connections(server, 4) as wires:
        assert all(request(wire, "DELETE", blob(b"x"))[0] == 403 for wire in wires)


def begin_upload(server: Server, body: bytes) -> socket.socket:
    """An upload of which the half is sent."""
    wire = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    name = hashlib.sha256(body).hexdigest()
    wire.sendall(f"POST /data/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    wire.sendall(body[: len(body) // 2])
    return wire


def test_a_stop_lets_uploads_of_all_end(start: Start, tmp_path: Path) -> None:
    store = tmp_path / "store"
    server = start(store)
    bodies = [os.urandom(2_000_000) for _ in range(4)]
    wires = [begin_upload(server, body) for body in bodies]
    wait_until(lambda: len(list(store.rglob(".resticd-*"))) == 4)
    os.kill(server.pid, signal.SIGTERM)
    wait_until(lambda: refuses(server.port))
    for wire, body in zip(wires, bodies, strict=True):
        wire.sendall(body[len(body) // 2 :])
        assert wire.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
    assert server.process.wait(30) == -signal.SIGTERM  # as twistd ends
    assert not server.pids()
    assert len([path for path in store.rglob("*") if path.is_file()]) == 4


def test_a_second_signal_ends_at_once(start: Start, tmp_path: Path) -> None:
    store = tmp_path / "store"
    server = start(store, "--shutdown-timeout", "10m")
    wires = [begin_upload(server, os.urandom(2_000_000)) for _ in range(2)]
    wait_until(lambda: len(list(store.rglob(".resticd-*"))) == 2)
    os.kill(server.pid, signal.SIGTERM)
    wait_until(lambda: refuses(server.port))
    os.kill(server.pid, signal.SIGTERM)
    assert server.process.wait(30) == -signal.SIGTERM
    assert not server.pids()
    assert not [path for path in store.rglob("*") if path.is_file()]
    for wire in wires:
        wire.close()


def test_a_signal_to_the_whole_group(start: Start, tmp_path: Path) -> None:
    """As Ctrl-C in a terminal, and as systemd stops a unit: workers get it too, and nothing is cut short."""
    store = tmp_path / "store"
    server = start(store)
    body = os.urandom(2_000_000)
    wire = begin_upload(server, body)
    wait_until(lambda: list(store.rglob(".resticd-*")))
    os.killpg(server.pid, signal.SIGTERM)
    wait_until(lambda: refuses(server.port))
    wire.sendall(body[len(body) // 2 :])
    assert wire.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
    assert server.process.wait(30) == -signal.SIGTERM
    assert "Traceback" not in server.output()


def test_no_worker_outlives_the_supervisor(start: Start, tmp_path: Path) -> None:
    server = start(tmp_path / "store")
    assert len(workers(server)) == 2
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait(30)
    wait_until(lambda: not server.pids())
    assert refuses(server.port)


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_reports_add_up(start: Start, tmp_path: Path) -> None:
    """SIGUSR1: one report of all that both have done; what a dead worker has done stays in it."""
    server = start(tmp_path / "store", "--stats", "0")
    bodies = [os.urandom(1024 * 1024) for _ in range(4)]
    with connections(server, 4) as wires:
        for wire, body in zip(wires, bodies, strict=True):
            assert request(wire, "POST", blob(body), body)[0] == 200
        os.kill(server.pid, signal.SIGUSR1)
        wait_until(lambda: "Elapsed time" in server.output())
        assert server.output().count("Elapsed time") == 1
        assert "4 MiB / 4 MiB" in server.output()
        assert "Requests:               8" in server.output()
        os.kill(min(workers(server)), signal.SIGKILL)
        wait_until(lambda: "serves again" in server.output())
        os.kill(server.pid, signal.SIGUSR1)
        wait_until(lambda: server.output().count("Elapsed time") == 2)
        assert server.output().count("Requests:               8") == 2


def test_logs_of_all_in_one_file(start: Start, tmp_path: Path) -> None:
    """Whole lines of both, in the file that is there after a rotation."""
    audit, log = tmp_path / "audit.jsonl", tmp_path / "resticd.log"
    server = start(tmp_path / "store", "--audit-log", str(audit), "-v", log=log)
    for number in range(2):
        with connections(server, 4) as wires, ThreadPoolExecutor(4) as pool:

            def upload(index: int, wires: list[HTTPConnection] = wires) -> None:
                for _ in range(25):
                    body = os.urandom(100)
                    assert request(wires[index], "POST", blob(body), body)[0] == 200

            list(pool.map(upload, range(4)))
        records = [json.loads(line) for line in audit.read_text().splitlines()]
        assert [record["action"] for record in records] == ["store"] * 100
        wait_until(lambda: sum('"POST /data/' in line for line in log.read_text().splitlines()) == 100)
        if number == 0:
            audit.rename(tmp_path / "audit.1")
            log.rename(tmp_path / "log.1")
            os.kill(server.pid, signal.SIGHUP)
            wait_until(lambda: log.exists() and "reloaded" in log.read_text())


def test_the_service_manager_is_told_by_one(start: Start, tmp_path: Path) -> None:
    """READY once, when all serve; signs of life only while all workers answer."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(30)
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    server = start(tmp_path / "store", environment=environment)
    while "READY=1" not in (message := manager.recv(4096).decode()):
        assert "WATCHDOG" not in message
    assert "by 2 processes" in message
    assert manager.recv(4096) == b"WATCHDOG=1"
    assert manager.recv(4096) == b"WATCHDOG=1"
    stopped = min(workers(server))
    os.kill(stopped, signal.SIGSTOP)
    manager.settimeout(2)
    with pytest.raises(TimeoutError):
        for _ in range(100):
            assert manager.recv(4096) == b"WATCHDOG=1"
    os.kill(stopped, signal.SIGCONT)
    manager.settimeout(30)
    assert manager.recv(4096) == b"WATCHDOG=1"
    os.kill(server.pid, signal.SIGHUP)
    while (message := manager.recv(4096).decode()) == "WATCHDOG=1":
        pass
    assert message.startswith("RELOADING=1")
    while (message := manager.recv(4096).decode()) == "WATCHDOG=1":
        pass
    assert message.startswith("READY=1")
    os.kill(server.pid, signal.SIGTERM)
    while (message := manager.recv(4096).decode()) == "WATCHDOG=1":
        pass
    assert message.startswith("STOPPING=1")
    manager.close()


def test_a_start_that_fails_ends_all(start_resticd: Start, tmp_path: Path) -> None:
    """What only a worker finds is one line, and status 1; nothing is left."""
    port = free_port()
    twistd = Path(sys.executable).with_name("twistd")
    command = [twistd, "-n", "--pidfile=", "resticd", "--addr", f"127.0.0.1:{port}", "--workers", "2"]
    command += ["--audit-log", "/nowhere/at/all", tmp_path / "store"]
    with Daemon(command, tmp_path / "log", cwd=tmp_path) as server:
        assert server.process.wait(60) == 1
        assert server.output().count("--audit-log: cannot open /nowhere/at/all") == 1
        assert "Traceback" not in server.output()
        assert not server.pids()


def test_what_is_in_one_process_is_served_by_one(start_resticd: Start) -> None:
    with pytest.raises(DidNotStart, match=r"--workers: .*memory.* is in the memory of one process"):
        start_resticd(":memory:", "--workers", "2")


def test_limits_hold_over_all(start: Start, tmp_path: Path) -> None:
    """SIGUSR2 takes the limit away from both, and without it nothing of this would come to an end."""
    server = start(tmp_path / "store", "--bwlimit", "off:1k")
    bodies = [os.urandom(200_000) for _ in range(4)]
    with connections(server, 4) as wires:
        for wire, body in zip(wires, bodies, strict=True):
            assert request(wire, "POST", blob(body), body)[0] == 200
        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(request, wire, "GET", blob(body)) for wire, body in zip(wires, bodies, strict=True)]
            os.kill(server.pid, signal.SIGUSR2)
            assert [each.result(60) for each in running] == [(200, body) for body in bodies]
    # A worker that comes later knows of it.
    os.kill(min(workers(server)), signal.SIGKILL)
    wait_until(lambda: "serves again" in server.output())
    with connections(server, 2) as wires:
        assert [request(wire, "GET", blob(bodies[0])) for wire in wires] == [(200, bodies[0])] * 2


def test_logins_at_all(start: Start, tmp_path: Path) -> None:
    server = start(tmp_path / "store", "--user", "alice", "--pass", "secret")
    headers = {"Authorization": basic("alice", "secret")}
    made = [HTTPConnection("127.0.0.1", server.port, timeout=30) for _ in range(4)]
    for connection in made:
        connection.request("GET", "/keys/", headers=headers)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"[]")
    for connection in made:
        connection.close()
    assert ask(server.port, "GET", "/keys/", login=("alice", "wrong")).status == 401
    assert not [pid for pid in server.pids() if pid != server.pid and "secret" in command_of(pid)]


def test_a_unix_socket(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "resticd.sock"
    server = start(tmp_path / "store", "--addr", f"unix://{path}", "--unix-socket-mode", "660")
    assert path.stat().st_mode & 0o777 == 0o660
    restic = Restic(f"rest:http+unix://{path}:/laptop/", tmp_path)
    files = make_files(tmp_path / "files", count=3, big=3_000_000)
    restic("init")
    restic("backup", files)
    os.kill(min(workers(server)), signal.SIGKILL)
    wait_until(lambda: "serves again" in server.output())
    assert path.exists()
    restore_and_compare(restic, files, tmp_path / "restored")
    server.stop()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["--cert", "ssl:", "tcp:"])
def test_tls_and_endpoints(start: Start, tmp_path: Path, kind: str) -> None:
    authority = Authority(tmp_path)
    pair = authority.server()
    port = free_port()
    flags = {
        "--cert": ("--addr", f"tls://localhost:{port}", "--cert", str(pair.cert), "--key", str(pair.key)),
        "ssl:": ("--addr", f"ssl:{port}:interface=127.0.0.1:privateKey={pair.key}:certKey={pair.cert}"),
        "tcp:": ("--addr", f"tcp:{port}:interface=127.0.0.1"),
    }[kind]
    start(tmp_path / "store", *flags)
    context = None if kind == "tcp:" else client_context(authority.file)
    body = os.urandom(300_000)
    assert ask(port, "POST", blob(body), body, context=context).status == 200
    for _ in range(4):
        assert ask(port, "GET", blob(body), context=context).body == body


def test_sockets_of_the_service_manager(tmp_path: Path) -> None:
    program = shutil.which("systemd-socket-activate")
    assert program is not None, "install systemd"
    port, path = free_port(), tmp_path / "s"
    twistd = Path(sys.executable).with_name("twistd")
    command = [program, f"--listen=127.0.0.1:{port}", f"--listen={path}", twistd, "-n", "--pidfile=", "resticd"]
    with Daemon([*command, "--workers", "2", tmp_path / "store"], tmp_path / "log", cwd=tmp_path) as server:
        wait_until(lambda: path.exists() and not refuses(port))
        wait_until(lambda: "2 workers serve" in server.output())
        Restic(f"rest:http://127.0.0.1:{port}/", tmp_path)("init")
        restic = Restic(f"rest:http+unix://{path}:/", tmp_path)
        restic("cat", "config")
        os.kill(min(workers(server)), signal.SIGKILL)
        wait_until(lambda: "serves again" in server.output())
        restic("check")
