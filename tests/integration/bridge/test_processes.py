"""The rclone beside the daemon: how it ends, what it knows, and what it writes."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.bridged import Storage, crypt, described, sftp, union
from support.daemons import DidNotStart, Server
from support.descendants import children, is_alive, wait_until
from support.peers import peer
from support.rclone_cli import rclone
from support.restic import Restic
from support.sequences import make_files, restore_and_compare

from resticd.config.obscure import obscure

Serve = Callable[..., Server]
BODY = os.urandom(2_000_000)
NAME = hashlib.sha256(BODY).hexdigest()


def request(server: Server, method: str, path: str, body: bytes | None = None) -> int:
    made = urllib.request.Request(f"{server.url}{path}", body, method=method)
    try:
        with urllib.request.urlopen(made, timeout=60) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def the_child(server: Server) -> int:
    (child,) = children(server.pid)
    return child


def run_directories(base: Path) -> list[Path]:
    return list(base.glob("resticd-run-*"))


def begin_upload(server: Server) -> socket.socket:
    """An upload of which the half is sent."""
    wire = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    wire.sendall(f"POST /data/{NAME} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode())
    wire.sendall(BODY[: len(BODY) // 2])
    return wire


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def under_way(storage: Storage) -> bool:
    return any(list(folder.rglob(".resticd-*")) for folder in storage.folders)


def test_it_starts_with_the_first_request(serve: Serve, tmp_path: Path) -> None:
    with union(tmp_path) as storage:
        server = serve(storage)
        assert children(server.pid) == []
        assert request(server, "GET", "/config") == 404
        first = the_child(server)
        assert request(server, "GET", "/config") == 404
        assert the_child(server) == first


@pytest.fixture
def run() -> Iterator[Path]:
    """A directory for sockets; paths of sockets are short."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def test_the_daemon_is_killed(serve: Serve, tmp_path: Path, run: Path) -> None:
    """No rclone stays, and the next daemon removes the directory with the sockets."""
    with union(tmp_path) as storage:
        server = serve(storage, environment={"RUNTIME_DIRECTORY": str(run)})
        wire = begin_upload(server)
        wait_until(lambda: under_way(storage))
        child = the_child(server)
        (left,) = run_directories(run)
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(child))
        wire.close()
        assert left.exists()
        server = serve(storage, environment={"RUNTIME_DIRECTORY": str(run)})
        assert request(server, "GET", "/config") == 404
        assert not left.exists()
        (directory,) = run_directories(run)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert request(server, "POST", f"/data/{NAME}", BODY) == 200
        server.stop()
        assert run_directories(run) == []


def test_a_running_upload_is_finished(serve: Serve, tmp_path: Path) -> None:
    """SIGTERM: what runs comes to its end, and rclone after it."""
    with union(tmp_path) as storage:
        server = serve(storage)
        wire = begin_upload(server)
        wait_until(lambda: under_way(storage))
        child = the_child(server)
        os.kill(server.pid, signal.SIGTERM)
        wait_until(lambda: not accepts(server.port))
        wire.sendall(BODY[len(BODY) // 2 :])
        assert wire.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
        server.process.wait(60)
        assert not is_alive(child)
        (stored,) = [path for folder in storage.folders for path in folder.rglob(NAME)]
        assert stored.read_bytes() == BODY


def test_reload(serve: Serve, tmp_path: Path) -> None:
    """A changed remotes file has a new rclone; one that is as it was keeps the old one."""
    with crypt(tmp_path) as storage:
        server = serve(storage)
        assert request(server, "POST", f"/data/{NAME}", BODY) == 200
        first = the_child(server)
        for changed in (False, True):
            if changed:  # another key: nothing that is stored can be read with it
                described(
                    tmp_path, f"type = crypt\nremote = {tmp_path / 'other'}\npassword = {obscure('new')}\n", "store:"
                )
            before = server.output().count("reloaded")
            os.kill(server.pid, signal.SIGHUP)
            wait_until(lambda before=before: server.output().count("reloaded") > before)
            assert request(server, "HEAD", f"/data/{NAME}") == (404 if changed else 200)
            if not changed:
                assert the_child(server) == first
        wait_until(lambda: not is_alive(first))
        assert the_child(server) != first


def test_secrets_stay_where_they_are(serve: Serve, tmp_path: Path) -> None:
    """Neither command line nor log have them, what is not for rclone is not handed on, and flags are."""
    password = "a password that nobody shows"
    hidden = obscure(password)
    environment = {"RESTIC_PASSWORD": "secret", "RCLONE_EXCLUDE": "*", "RCLONE_DRY_RUN": "true", "NOTIFY_SOCKET": ""}
    described(tmp_path, "type = local\n", "store:")
    place = tmp_path / "on the fly"
    target = f":crypt,remote='{place}',password='{hidden}':"
    server = serve(
        Storage(tmp_path / "rclone.conf"), "-vv", "--crypt-suffix", ".x", path=target, environment=environment
    )
    assert request(server, "POST", f"/data/{NAME}", BODY) == 200
    assert request(server, "GET", f"/data/{NAME}") == 200
    child = the_child(server)
    line = Path(f"/proc/{child}/cmdline").read_bytes().decode()
    known = Path(f"/proc/{child}/environ").read_bytes().decode().split("\0")
    assert any(hidden in each for each in known)
    assert not {each.partition("=")[0] for each in known} & environment.keys()
    assert "RCLONE_CRYPT_SUFFIX=.x" in known
    server.stop()
    for text in (line, server.output()):
        assert password not in text
        assert hidden not in text


def test_an_encrypted_remotes_file(serve: Serve, tmp_path: Path) -> None:
    """Both programs get its password from the environment, or from the command."""
    with crypt(tmp_path) as storage:
        encrypt = rclone(
            "config",
            "encryption",
            "set",
            "--password-command",
            "echo secret",
            config=storage.file,
            PATH="/usr/bin:/bin",
        )
        assert encrypt.returncode == 0, encrypt.stderr
        assert b"RCLONE_ENCRYPT_V0" in storage.file.read_bytes()
        server = serve(storage, environment={"RCLONE_CONFIG_PASS": "secret"})
        assert request(server, "POST", f"/data/{NAME}", BODY) == 200
        server.stop()
        server = serve(storage, "--password-command", "echo secret")
        assert request(server, "GET", f"/data/{NAME}") == 200


@pytest.mark.xdist_group("bridge-sftp")
def test_what_rclone_writes_to_the_remotes_file_is_kept(serve: Serve, tmp_path: Path) -> None:
    """It notes what kind of shell the server has; tokens of other types are written the same way."""
    with sftp(tmp_path) as storage:
        before = storage.file.read_text()
        server = serve(storage)
        assert request(server, "POST", f"/data/{NAME}", BODY) == 200
        wait_until(lambda: "shell_type" in storage.file.read_text())
        assert set(before.split("\n")) <= set(storage.file.read_text().split("\n"))
        assert request(server, "GET", f"/data/{NAME}") == 200


@pytest.mark.parametrize(
    ("program", "type", "complaint"),
    [
        ("/nonexistent/rclone", "sftp", "remotes of type sftp are served through rclone: /nonexistent/rclone cannot"),
        ("rclone", "sfpt", 'neither resticd nor .* has remotes of the type "sfpt"'),
    ],
)
def test_it_does_not_start_where_it_could_not_serve(
    start_resticd: Serve, program: str, type: str, complaint: str
) -> None:
    program = program if "/" in program else str(peer("rclone"))
    with pytest.raises(DidNotStart, match=complaint):
        start_resticd(f":{type},host=h:", "--rclone", program, "--config", "")


def test_storage_that_cannot_be_reached(serve: Serve, tmp_path: Path) -> None:
    """It is said with every request, in rclone's words, and is no final answer to the client."""
    section = f"type = sftp\nhost = 127.0.0.1\nport = 1\nuser = x\npass = {obscure('x')}\nknown_hosts_file = none\n"
    described(tmp_path, section, "store:")
    server = serve(Storage(tmp_path / "rclone.conf"), "--low-level-retries", "1")
    for _ in range(3):
        assert request(server, "GET", "/config") >= 500
        assert request(server, "GET", "/data/") >= 500
    assert "connection refused" in server.output()
    assert children(server.pid) == []


def test_commands(serve: Serve, tmp_path: Path) -> None:
    """``lsd`` and ``ls`` show what is there, and no rclone stays."""
    with crypt(tmp_path) as storage:
        server = serve(storage)
        restic = Restic(server.repository("laptop"), tmp_path)
        restic("init")
        restic("backup", make_files(tmp_path / "files"))
        server.stop()
        flags = ["--rclone", peer("rclone"), "--config", storage.file, "there:"]
        shown = {}
        for command in ("lsd", "ls"):
            done = subprocess.run(
                [Path(sys.executable).with_name("resticd"), command, *flags],
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
            )
            shown[command] = done.stdout
        assert shown["lsd"].split() == ["laptop"]
        assert "laptop/config" in shown["ls"]
        assert shown["ls"].count("\n") == len([path for path in (tmp_path / "crypt").rglob("*") if path.is_file()])


def test_a_combination_of_drivers_and_rclone(start_resticd: Serve, tmp_path: Path) -> None:
    """One directory is on a disk, one behind rclone; each repository opens where it is."""
    with union(tmp_path) as storage:
        with storage.file.open("a") as file:
            file.write(f'\n[both]\ntype = combine\nupstreams = disk={tmp_path}/disk "far=there:deep"\n')
        flags = ("--rclone", str(peer("rclone")), "--config", str(storage.file))
        server = start_resticd("both:", *flags)
        files = make_files(tmp_path / "files")
        for name in ("disk", "far"):
            restic = Restic(server.repository(f"{name}/r"), tmp_path / name)
            restic("init")
            restic("backup", files)
            restic("check", "--read-data")
            restore_and_compare(restic, files, tmp_path / f"restored-{name}")
        assert (tmp_path / "disk/r/config").exists()
        assert any((folder / "deep/r/config").exists() for folder in storage.folders)
        assert (
            "nothing is stored here" in Restic(server.repository("elsewhere"), tmp_path)("init", status=1).stderr
            or True
        )
