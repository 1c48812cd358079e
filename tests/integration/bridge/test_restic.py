"""Real clients and a real daemon over what rclone serves."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.bridged import STORAGES, union
from support.daemons import Server
from support.descendants import children, is_alive, wait_until
from support.peers import peer
from support.restic import Restic
from support.sequences import core_life, make_files, restore_and_compare

Serve = Callable[..., Server]


@pytest.mark.parametrize(
    ("kind", "program"),
    [
        pytest.param("sftp", "restic-new", marks=pytest.mark.xdist_group("bridge-sftp")),
        pytest.param("ftp", "restic-old", marks=pytest.mark.xdist_group("bridge-ftp")),
        pytest.param("crypt", "restic-new", marks=pytest.mark.xdist_group("bridge-crypt")),
        pytest.param("union", "restic-old", marks=pytest.mark.xdist_group("bridge-union")),
        pytest.param("memory", "restic-new", marks=pytest.mark.xdist_group("bridge-memory")),
    ],
)
def test_life(serve: Serve, tmp_path: Path, kind: str, program: str) -> None:
    """Every command of restic; then there is one child, no temporary file, and no child after the end."""
    with STORAGES[kind](tmp_path) as storage:
        server = serve(storage)
        core_life(Restic(server.repository("a/b"), tmp_path, program), make_files(tmp_path / "files"), tmp_path)
        (child,) = children(server.pid)
        assert [path for folder in storage.folders for path in folder.rglob(".resticd*")] == []
        server.stop()
        assert not is_alive(child)
        assert "Traceback" not in server.output()


@pytest.mark.parametrize("program", ["restic-old", "restic-new"])
def test_rclone_is_killed_during_a_backup(serve: Serve, tmp_path: Path, program: str) -> None:
    """Again and again: the client repeats what it was told has failed, and the backup is whole."""
    files = make_files(tmp_path / "files", big=120 * 1024 * 1024)
    with union(tmp_path) as storage:
        server = serve(storage, "--bwlimit-file", "20M")
        restic = Restic(server.repository(), tmp_path, program)
        restic("init")
        killed = set()
        with ThreadPoolExecutor(1) as pool:
            backup = pool.submit(restic, "backup", files)
            for _ in range(3):
                # A new rclone, with an upload under way.
                wait_until(
                    lambda: (
                        backup.done()
                        or (
                            set(children(server.pid)) - killed
                            and any(list(f.rglob(".resticd-*")) for f in storage.folders)
                        )
                    )
                )
                for child in set(children(server.pid)) - killed:
                    os.kill(child, signal.SIGKILL)
                    killed.add(child)
            backup.result()
        assert len(killed) == 3
        restic("check", "--read-data")
        restore_and_compare(restic, files, tmp_path / "restored")


def test_in_the_place_of_rclone(tmp_path: Path) -> None:
    """``restic -r rclone:…`` finds resticd under the name of rclone, which finds the real one further on."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "rclone").symlink_to(Path(sys.executable).with_name("resticd"))
    files = make_files(tmp_path / "files")
    with union(tmp_path) as storage:
        restic = Restic("rclone:there:repository", tmp_path)
        restic.environment.update(
            PATH=f"{programs}:{peer('rclone').parent}:{os.environ['PATH']}", RCLONE_CONFIG=str(storage.file)
        )
        restic("init")
        restic("backup", files)
        restic("check", "--read-data")
        restore_and_compare(restic, files, tmp_path / "restored")
        assert any((folder / "repository/config").exists() for folder in storage.folders)
