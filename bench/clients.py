"""Whole lives of a backup with restic itself, over HTTP and over a server's standard input."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.processes import Children
from bench.servers import program

if TYPE_CHECKING:
    from bench.processes import Daemon
    from bench.work import Stage


def restic(version: str, stage: Stage) -> None:
    """A backup of 1 GiB, a restore of it, a check that reads everything, and the removal of all of it.

    :param version: ``restic-new`` or ``restic-old``.
    """
    with stage.empty() as (daemon, port):
        _life(stage, daemon, version, [f"-r=rest:http://127.0.0.1:{port}/r/"])


def stdio(stage: Stage) -> None:
    """The same by restic's rclone backend, which starts the server itself: the CPU time is not the server's alone."""
    if stage.peer.kind == "rest-server":
        return
    server = program("rclone") if stage.peer.kind == "rclone" else Path(sys.executable).with_name("resticd")
    flags = ["-o", f"rclone.program={server}", f"-r=rclone:{stage.scratch}/store"]
    _life(stage, Children(), "restic-new", flags, ("backup", "restore"))


def _life(
    stage: Stage,
    daemon: Daemon | Children,
    version: str,
    flags: list[str],
    wanted: tuple[str, ...] = ("backup", "restore", "check --read-data", "forget --prune"),
) -> None:
    source, target = stage.corpus.source(), stage.scratch / "restored"
    environment = {
        **os.environ,
        "RESTIC_PASSWORD": "bench",
        "RESTIC_CACHE_DIR": str(stage.scratch / "cache"),
        "RCLONE_CONFIG": "/dev/null",
        "HOME": str(stage.scratch),
    }

    def run(*arguments: str) -> None:
        command = [str(program(version)), "-q", *flags, *arguments]
        subprocess.run(command, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    run("init")
    title = "restic" if version == "restic-new" else "restic 0.14"
    if isinstance(daemon, Children):
        title += " over stdio"
    steps = {
        "backup": ["backup", str(source)],
        "restore": ["restore", "latest", "--target", str(target)],
        "check --read-data": ["check", "--read-data"],
        "forget --prune": ["forget", "latest", "--prune"],
    }
    for name in wanted:
        os.sync()
        with stage.measure(daemon, f"{title}: {name}"):
            run(*steps[name])
