"""What workers are told, and with which environment they run."""

from __future__ import annotations

import os
from pathlib import Path

from resticd.assembly import resolve_remote
from resticd.config.settings import Settings
from resticd.config.sources import read_sources
from resticd.listeners.addresses import parse_address
from resticd.processes.assignment import Assignment, pack, quiet, unpack
from resticd.processes.child import worker_environment


def test_it_arrives_as_it_was(tmp_path: Path) -> None:
    """With everything that settings and remotes are made of."""
    config = tmp_path / "rclone.conf"
    config.write_text(
        f"[all]\ntype = combine\nupstreams = a=store: b={tmp_path}\n[store]\ntype = s3\nprovider = Minio\n"
        "endpoint = http://127.0.0.1:1\naccess_key_id = id\nsecret_access_key = secret\n[place]\ntype = alias\n"
        f"remote = {tmp_path}\n"
    )
    argv = ["--config", str(config), "--bwlimit", "08:00,1M 20:00,off", "--response-header", "A: b", "--workers", "3"]
    settings = read_sources([*argv, "--s3-region", "x", "all:"], {}).settings
    resolved = resolve_remote(settings)
    addresses = [parse_address(text) for text in ("127.0.0.1:1", "unix:///s", "tcp:8080")]
    places = [*((address, [number]) for number, address in enumerate(addresses)), ("web", [7, 8])]
    assignment = Assignment(settings, quiet(resolved), 1, 3, 9, places, str(tmp_path), False, True)
    again = unpack(pack(assignment))
    assert again == assignment
    assert again.settings.bwlimit.text == "08:00,1M 20:00,off"
    assert again.resolved.spec.text == resolved.spec.text


def test_one_process_for_standard_input() -> None:
    assert Settings(workers=4).processes == 4
    assert Settings(workers=4, stdio=True).processes == 1
    assert read_sources(["--workers", "auto", "/srv"], {}).settings.workers == len(os.sched_getaffinity(0))


def test_the_environment() -> None:
    """The service manager's variables are not for workers; the package is found where it was."""
    made = worker_environment({"NOTIFY_SOCKET": "/x", "LISTEN_FDS": "1", "PYTHONPATH": "/more", "AWS_PROFILE": "p"})
    assert made["AWS_PROFILE"] == "p"
    assert not {"NOTIFY_SOCKET", "LISTEN_FDS"} & set(made)
    assert made.get("PYTHONPATH", "").split(os.pathsep)[-1] == "/more"
