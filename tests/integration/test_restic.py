"""The main job: a local directory served to real restic clients."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.daemons import Server, rclone_restic, rest_server
from support.restic import Restic
from support.sequences import assert_same, core_life, make_files, restore_and_compare, whole_life

VERSIONS = ["restic-old", "restic-new"]
Start = Callable[..., Server]


@pytest.mark.parametrize("program", VERSIONS)
@pytest.mark.parametrize(
    ("path", "life"), [("", core_life), ("user1repo", core_life), ("a/b/c", whole_life)], ids=["root", "one", "deep"]
)
def test_life(
    start_resticd: Start, tmp_path: Path, program: str, path: str, life: Callable[[Restic, Path, Path], None]
) -> None:
    server = start_resticd(tmp_path / "store")
    life(Restic(server.repository(path), tmp_path, program), make_files(tmp_path / "files"), tmp_path)


@pytest.mark.parametrize("program", VERSIONS)
def test_memory(start_resticd: Start, tmp_path: Path, program: str) -> None:
    server = start_resticd(":memory:")
    core_life(Restic(server.repository("in/memory"), tmp_path, program), make_files(tmp_path / "files"), tmp_path)


def test_copy_between_two_repositories(start_resticd: Start, tmp_path: Path) -> None:
    """On one server, with restic 0.18."""
    server = start_resticd(tmp_path / "store")
    files = make_files(tmp_path / "files")
    first, second = Restic(server.repository("first"), tmp_path), Restic(server.repository("second"), tmp_path)
    first("init")
    first("backup", files)
    second("init", "--from-repo", server.repository("first"), "--copy-chunker-params", RESTIC_FROM_PASSWORD="secret")
    second("copy", "--from-repo", server.repository("first"), RESTIC_FROM_PASSWORD="secret")
    second("check", "--read-data")
    restore_and_compare(second, files, tmp_path / "restored")


def test_many_clients_at_once(start_resticd: Start, tmp_path: Path) -> None:
    """Four clients with 20 connections each: two share a repository, two have their own."""
    server = start_resticd(tmp_path / "store")
    homes = [tmp_path / f"home{number}" for number in range(4)]
    paths = ["shared", "shared", "own2", "own3"]
    clients = []
    for number, (home, path) in enumerate(zip(homes, paths, strict=True)):
        home.mkdir()
        program = VERSIONS[number % 2]
        clients.append(Restic(server.repository(path), home, program, options=("-o", "rest.connections=20")))
    for client in clients[1:]:
        client("init", "--repository-version", "2")
    folders = [make_files(tmp_path / f"files{number}", seed=number, big=24 * 1024 * 1024) for number in range(4)]

    def work(number: int) -> None:
        clients[number]("backup", folders[number])
        restic = clients[number]
        mine = [s["id"] for s in restic.snapshots() if s["paths"] == [str(folders[number])]]
        restore_and_compare(restic, folders[number], tmp_path / f"restored{number}", mine[0])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    for client in clients[1:]:
        client("check", "--read-data")


@pytest.mark.parametrize("program", VERSIONS)
def test_the_directory_opens_without_a_server(start_resticd: Start, tmp_path: Path, program: str) -> None:
    """A repository made through resticd opens with restic on the directory, and the other way round."""
    server = start_resticd(tmp_path / "store")
    files = make_files(tmp_path / "files")
    served = Restic(server.repository("r"), tmp_path, program)
    direct = Restic(tmp_path / "store/r", tmp_path / "direct", program)
    served("init")
    served("backup", files)
    direct("check", "--read-data")
    restore_and_compare(direct, files, tmp_path / "restored")

    other = Restic(tmp_path / "store/other", tmp_path / "direct", program)
    other("init")
    other("backup", files)
    served = Restic(server.repository("other"), tmp_path, program)
    served("check", "--read-data")
    restore_and_compare(served, files, tmp_path / "restored-2")
    served("forget", "latest", "--prune")
    other("check")


@pytest.mark.parametrize("peer", [rest_server, rclone_restic])
def test_repositories_move_between_servers(start_resticd: Start, tmp_path: Path, peer: Callable[..., Server]) -> None:
    """What rest-server and rclone stored is served by resticd, and back."""
    store, files = tmp_path / "store", make_files(tmp_path / "files")
    store.mkdir()
    with peer(store, tmp_path) as server:
        restic = Restic(server.repository("r"), tmp_path)
        restic("init")
        restic("backup", files)
    server = start_resticd(store)
    restic = Restic(server.repository("r"), tmp_path / "second")
    restic("check", "--read-data")
    restore_and_compare(restic, files, tmp_path / "restored")
    (files / "added").write_bytes(os.urandom(1000))
    restic("backup", files)
    server.stop()
    with peer(store, tmp_path) as server:
        restic = Restic(server.repository("r"), tmp_path / "third")
        restic("check", "--read-data")
        restore_and_compare(restic, files, tmp_path / "restored-2")


def test_a_restart_in_the_middle_of_a_backup(start_resticd: Start, tmp_path: Path) -> None:
    """The daemon is killed while a client uploads: the client retries, the backup is whole, no temporary file stays."""
    store, files = tmp_path / "store", make_files(tmp_path / "files", big=200 * 1024 * 1024)
    server = start_resticd(store)
    restic = Restic(server.repository(), tmp_path)
    restic("init")
    with ThreadPoolExecutor(1) as pool:
        backup = pool.submit(restic, "backup", files)
        while not list(store.rglob(".resticd-*")):
            assert not backup.done()
        server.kill()
        start_resticd(store, port=server.port)
        backup.result()
    restic("check", "--read-data")
    restore_and_compare(restic, files, tmp_path / "restored")
    assert not list(store.rglob(".resticd-*"))


def test_access_lines(start_resticd: Start, tmp_path: Path) -> None:
    """With -v every request has a line; without it none has."""
    for flags, expected in (((), False), (("-v",), True)):
        server = start_resticd(":memory:", *flags)
        Restic(server.repository(), tmp_path)("init")
        assert ("POST /config" in server.output()) == expected
        server.stop()


def test_standard_input_is_backed_up(start_resticd: Start, tmp_path: Path) -> None:
    """``backup --stdin`` and ``dump``, with bytes compared."""
    restic = Restic(start_resticd(tmp_path / "store").repository(), tmp_path)
    restic("init")
    data = os.urandom(3_000_000)
    command = [str(restic.program), "backup", "--stdin", "--stdin-filename", "dump"]
    subprocess.run(command, env=restic.environment, input=data, capture_output=True, check=True, timeout=120)
    (tmp_path / "expected").mkdir()
    (tmp_path / "expected" / "dump").write_bytes(data)
    restic("restore", "latest", "--target", tmp_path / "restored")
    assert_same(tmp_path / "expected", tmp_path / "restored")
