"""restic through resticd on real WebDAV servers, on good days and on bad ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemons import Server
from support.dav_servers import DavServer
from support.fault_proxy import Fault, FaultProxy
from support.restic import Restic
from support.s3_fixtures import section
from support.sequences import core_life, make_files, restore_and_compare

from resticd.config.obscure import obscure

Start = Callable[..., Server]


def described(server: DavServer, path: str | None = None, **more: str) -> dict[str, str]:
    """Variables that describe the remote ``store:``."""
    options = server.options(path, **more)
    return section(options | {"pass": obscure(options["pass"])}, type="webdav")


@pytest.mark.parametrize(
    ("kind", "path", "program"),
    [
        pytest.param("apache", "/basic/", "restic-old", marks=pytest.mark.xdist_group("apache")),
        pytest.param("apache", "/digest/", "restic-new", marks=pytest.mark.xdist_group("apache")),
        pytest.param("lighttpd", "/basic/", "restic-old", marks=pytest.mark.xdist_group("lighttpd")),
        pytest.param("lighttpd", "/digest/", "restic-new", marks=pytest.mark.xdist_group("lighttpd")),
        pytest.param("wsgidav", "/", "restic-old", marks=pytest.mark.xdist_group("wsgidav")),
        pytest.param("wsgidav", "/", "restic-new", marks=pytest.mark.xdist_group("wsgidav")),
        pytest.param("rclone_dav", "/", "restic-old", marks=pytest.mark.xdist_group("rclone_dav")),
        pytest.param("rclone_dav", "/", "restic-new", marks=pytest.mark.xdist_group("rclone_dav")),
    ],
)
def test_life(
    request: pytest.FixtureRequest, start_resticd: Start, tmp_path: Path, kind: str, path: str, program: str
) -> None:
    """Every command, in a folder that init makes; nothing unfinished stays behind."""
    server: DavServer = request.getfixturevalue(kind)
    place = f"whole-life/{program}/some place"
    daemon = start_resticd(f"store:{place}", environment=described(server, path))
    core_life(Restic(daemon.repository("laptop"), tmp_path, program), make_files(tmp_path / "files"), tmp_path)
    folder = server.folder.parent / path.strip("/") if path != "/" else server.folder
    stored = [file.name for file in (folder / place).rglob("*") if file.is_file()]
    assert "config" in stored
    assert [name for name in stored if name.endswith(".tmp")] == []


@pytest.mark.xdist_group("apache")
def test_looking_at_a_remote(apache: DavServer, tmp_path: Path) -> None:
    """``resticd lsd`` and ``ls`` show what is there, and say what is wrong where nothing can be seen."""
    folder = apache.folder.parent / "digest" / "looked at"
    for name in ("laptop/data/00/x", "per%cent/config", "top"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")
    rclone_conf = tmp_path / "rclone.conf"
    options = apache.options("/digest/")
    lines = [f"{name} = {value}" for name, value in (options | {"pass": obscure(options["pass"])}).items()]
    rclone_conf.write_text("\n".join(["[store]", "type = webdav", *lines, ""]))

    def run(command: str, place: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", "resticd", command, "--config", rclone_conf, place]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)

    assert sorted(run("lsd", "store:looked at").stdout.splitlines()) == ["laptop", "per%cent"]
    assert sorted(run("ls", "store:looked at").stdout.splitlines()) == [
        f"{5:>9} laptop/data/00/x",
        f"{5:>9} per%cent/config",
        f"{5:>9} top",
    ]
    assert run("lsd", "store:never made").stdout == ""
    rclone_conf.write_text(rclone_conf.read_text().replace(options["user"], "nobody"))
    refused = run("lsd", "store:looked at")
    assert refused.returncode != 0
    assert "does not accept the login" in refused.stderr
    assert options["pass"] not in refused.stderr


class Proxied:
    """A repository on Apache with a proxy in between."""

    def __init__(self, proxy: FaultProxy, restic: Restic) -> None:
        self.proxy = proxy
        self.restic = restic


@pytest.fixture
def proxied(apache: DavServer, start_resticd: Start, tmp_path: Path) -> Iterator[Proxied]:
    with FaultProxy(apache.port) as proxy:
        environment = described(apache) | {"RCLONE_CONFIG_STORE_URL": f"{proxy.url}/basic/"}
        daemon = start_resticd(f"store:proxied/{tmp_path.name}", "--low-level-retries=2", environment=environment)
        restic = Restic(daemon.repository(), tmp_path, options=("--no-cache",))
        restic("init")
        yield Proxied(proxy, restic)


@pytest.mark.xdist_group("apache")
def test_backup_through_faults(proxied: Proxied, tmp_path: Path) -> None:
    """Delays, cuts in bodies and answers, 503 and lost answers: the client repeats, and every byte is right."""
    files = make_files(tmp_path / "files", big=40 * 1024 * 1024)
    for number in range(5):
        proxied.proxy.inject(Fault(on="PUT", target="/data/", cut_request=100_000 * number))
        proxied.proxy.inject(Fault(on="PUT", target="/data/", cut_answer=0))
        proxied.proxy.inject(Fault(on="MOVE", target="/data/", cut_answer=0))
        proxied.proxy.inject(Fault(status=503))
        proxied.proxy.inject(Fault(on="PUT", status=500, early=True))
        proxied.proxy.inject(Fault(delay=0.3))
    proxied.restic("backup", files)
    proxied.proxy.clear()
    proxied.restic("check", "--read-data")
    for _ in range(4):
        proxied.proxy.inject(Fault(on="GET", target="/data/", cut_answer=50_000))
    restore_and_compare(proxied.restic, files, tmp_path / "restored")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(on="PROPFIND", target="/data/", status=403),
        Fault(on="PROPFIND", target="/data/", status=404),
        Fault(on="PROPFIND", target="/data/", edit=lambda body: body[: len(body) // 2] + body[len(body) * 2 // 3 :]),
        Fault(on="PROPFIND", target="/data/", cut_answer=300),
    ],
    ids=["refused", "missing", "middle", "cut"],
)
@pytest.mark.xdist_group("apache")
def test_prune_never_trusts_a_broken_list(proxied: Proxied, tmp_path: Path, fault: Fault) -> None:
    """While lists fail prune fails; afterwards all is still there."""
    files = make_files(tmp_path / "files", big=100_000)
    proxied.restic("backup", files)
    fault.hits, fault.times = 0, 1_000_000
    proxied.proxy.inject(fault)
    with pytest.raises((AssertionError, subprocess.TimeoutExpired)):  # it fails, or repeats for longer than we wait
        proxied.restic("prune", timeout=10)
    proxied.proxy.clear()
    proxied.restic("unlock")
    proxied.restic("check", "--read-data")
    restore_and_compare(proxied.restic, files, tmp_path / "restored")
