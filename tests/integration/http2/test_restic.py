"""restic over HTTP/2: through standard input and output in rclone's place, over TLS, and h2c."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.certificates import Authority
from support.daemons import Server
from support.h2_programs import h2c_bridge
from support.restic import Restic
from support.sequences import make_files, restore_and_compare, whole_life

VERSIONS = ["restic-old", "restic-new"]
RESTICD = Path(sys.executable).with_name("resticd")
Start = Callable[..., Server]


def as_rclone(tmp_path: Path, program: str, how: str, home: str = "home") -> Restic:
    """restic whose rclone is resticd, over the remote ``mine:`` of an rclone.conf.

    :param how: ``option`` names the program, ``link`` is found first on the path.
    """
    conf = tmp_path / "rclone.conf"
    conf.write_text(f"[mine]\ntype = alias\nremote = {tmp_path / 'store'}\n")
    (tmp_path / home).mkdir(exist_ok=True)
    options = ("-o", f"rclone.program={RESTICD}") if how == "option" else ()
    restic = Restic("rclone:mine:laptop", tmp_path / home, program, options=options)
    restic.environment["RCLONE_CONFIG"] = str(conf)
    if how == "link":
        links = tmp_path / "bin"
        links.mkdir(exist_ok=True)
        (links / "rclone").symlink_to(RESTICD)
        restic.environment["PATH"] = f"{links}:{restic.environment['PATH']}"
    return restic


def protocols(server: Server) -> set[str]:
    """Of the access lines."""
    return set(re.findall(r'"[A-Z]+ /\S* (HTTP/[\d.]+)" \d', server.output()))


@pytest.mark.parametrize(("program", "how"), [("restic-old", "option"), ("restic-new", "link")])
def test_whole_life_in_rclones_place(tmp_path: Path, program: str, how: str) -> None:
    restic = as_rclone(tmp_path, program, how)
    whole_life(restic, make_files(tmp_path / "files"), tmp_path)
    assert (tmp_path / "store/laptop/config").is_file()
    assert not list((tmp_path / "store").rglob(".resticd-*"))


@pytest.mark.parametrize(("program", "how"), [("restic-old", "link"), ("restic-new", "option")])
def test_backup_and_restore_in_rclones_place(tmp_path: Path, program: str, how: str) -> None:
    """With what restic passes to rclone, flags that its users add, and packs in parallel."""
    restic = as_rclone(tmp_path, program, how)
    args = "serve restic --stdio --b2-hard-delete --drive-use-trash=false --fast-list --transfers 8 --tpslimit 1000 -v"
    restic.options = (*restic.options, "-o", f"rclone.args={args}", "-o", "rclone.connections=20")
    files = make_files(tmp_path / "files", big=60 * 1024 * 1024)
    restic("init")
    said = restic("backup", files).stderr
    assert re.search(r'rclone: .*"POST /config HTTP/2"|rclone: .*"POST /data/[0-9a-f]{64} HTTP/2', said), said
    restore_and_compare(restic, files, tmp_path / "restored")
    restic("check", "--read-data")


def test_a_wrong_remote_is_told_by_restic(tmp_path: Path) -> None:
    """restic shows the one line that resticd writes."""
    restic = as_rclone(tmp_path, "restic-new", "option")
    restic.environment["RESTIC_REPOSITORY"] = "rclone:missing:laptop"
    said = restic("snapshots", status=None).stderr
    assert "missing" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("program", VERSIONS)
def test_whole_life_over_tls(start_resticd: Start, tmp_path: Path, program: str) -> None:
    """By ALPN; the access lines say that it was HTTP/2."""
    root = Authority(tmp_path)
    pair = root.server()
    flags = ("--cert", str(pair.cert), "--key", str(pair.key), "-v", "--http2=prefer")
    server = start_resticd(tmp_path / "store", *flags)
    options = ("--cacert", str(root.file), "-o", "rest.connections=20")
    restic = Restic(f"rest:https://localhost:{server.port}/laptop/", tmp_path, program, options=options)
    whole_life(restic, make_files(tmp_path / "files"), tmp_path)
    assert protocols(server) == {"HTTP/2"}
    assert "Traceback" not in server.output()


@pytest.mark.parametrize("program", VERSIONS)
def test_whole_life_over_h2c(start_resticd: Start, tmp_path: Path, program: str) -> None:
    server = start_resticd(tmp_path / "store", "-v")
    with h2c_bridge(server.port, tmp_path) as bridge:
        restic = Restic(bridge.repository("laptop"), tmp_path, program, options=("-o", "rest.connections=20"))
        whole_life(restic, make_files(tmp_path / "files"), tmp_path)
    assert protocols(server) == {"HTTP/2"}
    assert "Traceback" not in server.output()


def test_early_refusals_over_tls(start_resticd: Start, tmp_path: Path) -> None:
    """Uploads that are refused while they come: restic hears of it at once and says why."""
    root = Authority(tmp_path)
    pair = root.server()
    flags = ("--cert", str(pair.cert), "--key", str(pair.key), "-v", "--http2=prefer", "--private-repos")
    server = start_resticd(tmp_path / "store", *flags, "--user", "me", "--pass", "secret")
    options = ("--cacert", str(root.file))
    good = Restic(f"rest:https://me:secret@localhost:{server.port}/me/", tmp_path, options=options)
    good("init")
    for login, path, status in (("me:secret", "other", "403"), ("me:wrong", "me", "401")):
        bad = Restic(f"rest:https://{login}@localhost:{server.port}/{path}/", tmp_path, options=options)
        assert status in bad("init", status=1).stderr
    good("backup", make_files(tmp_path / "files"))
    assert protocols(server) == {"HTTP/2"}
