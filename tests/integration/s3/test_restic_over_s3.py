"""restic through resticd on real S3 servers, on good days and on bad ones."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.daemons import Server
from support.fault_proxy import Fault, FaultProxy
from support.restic import Restic
from support.s3_fixtures import section
from support.s3_servers import S3Server
from support.sequences import core_life, make_files, restore_and_compare, whole_life
from support.weed_cluster import WeedCluster

VERSIONS = ["restic-old", "restic-new"]
Start = Callable[..., Server]
seaweedfs = pytest.mark.xdist_group("seaweedfs_restic")


@pytest.mark.parametrize("program", VERSIONS)
@pytest.mark.parametrize(
    ("kind", "provider"),
    [
        pytest.param("weed", "SeaweedFS", marks=seaweedfs),
        pytest.param("swift", "Other", marks=pytest.mark.xdist_group("swift")),
        pytest.param("rclone", "Rclone", marks=pytest.mark.xdist_group("rclone_s3")),
    ],
    ids=["weed", "swift", "rclone"],
)
def test_whole_life(
    request: pytest.FixtureRequest, start_resticd: Start, tmp_path: Path, kind: str, provider: str, program: str
) -> None:
    """Both restic versions, in a bucket that init makes; every command over SeaweedFS."""
    server: S3Server = request.getfixturevalue(kind)
    environment = section(server.options(provider))
    daemon = start_resticd(f"store:whole-life-{program}/some/place", environment=environment)
    life = whole_life if kind == "weed" else core_life
    life(Restic(daemon.repository("laptop"), tmp_path, program), make_files(tmp_path / "files"), tmp_path)


@seaweedfs
def test_parts(weed: S3Server, start_resticd: Start, tmp_path: Path) -> None:
    """Packs above the cutoff go in parts; what rclone reads beside us is the same repository."""
    environment = section(weed.options("SeaweedFS", upload_cutoff="5M"))
    daemon = start_resticd("store:parts/repo", environment=environment)
    files = make_files(tmp_path / "files", big=60 * 1024 * 1024)
    restic = Restic(daemon.repository(), tmp_path)
    restic("init")
    restic("backup", files)
    restic("check", "--read-data")
    direct = Restic(f"s3:{weed.url}/parts/repo", tmp_path / "direct")
    login = {"AWS_ACCESS_KEY_ID": weed.options("")["access_key_id"]}
    login["AWS_SECRET_ACCESS_KEY"] = weed.options("")["secret_access_key"]
    direct("check", "--read-data", **login)


def packs(daemon: Server) -> int:
    """How many packs are stored."""
    with urllib.request.urlopen(f"{daemon.url}/data/", timeout=60) as answer:
        return len(json.load(answer))


def test_a_volume_server_dies_during_a_backup(start_resticd: Start, tmp_path: Path) -> None:
    """Of three volume servers with two copies of everything one is killed: backup, check and restore come out right."""
    (tmp_path / "cluster").mkdir()
    with WeedCluster(tmp_path / "cluster") as cluster:
        environment = section(cluster.options("SeaweedFS"))
        daemon = start_resticd("store:killed/repo", environment=environment)
        restic = Restic(daemon.repository(), tmp_path)
        restic("init")
        files = make_files(tmp_path / "files", big=150 * 1024 * 1024)
        with ThreadPoolExecutor(1) as pool:
            backup = pool.submit(restic, "backup", files)
            deadline = time.monotonic() + 60
            while packs(daemon) < 2 and not backup.done():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert not backup.done()
            cluster.volumes[2].kill()
            backup.result(300)
        assert packs(daemon) > 5
        restic("check", "--read-data")
        restore_and_compare(restic, files, tmp_path / "restored")


class Proxied:
    """A repository on SeaweedFS with a proxy in between."""

    def __init__(self, proxy: FaultProxy, daemon: Server, restic: Restic) -> None:
        self.proxy = proxy
        self.daemon = daemon
        self.restic = restic


@pytest.fixture
def proxied(weed: S3Server, start_resticd: Start, tmp_path: Path) -> Any:
    with FaultProxy(weed.port) as proxy:
        environment = section(weed.options("SeaweedFS", list_version="2") | {"endpoint": proxy.url})
        daemon = start_resticd(f"store:proxied/{tmp_path.name}", "--low-level-retries=2", environment=environment)
        restic = Restic(daemon.repository(), tmp_path, options=("--no-cache",))
        restic("init")
        yield Proxied(proxy, daemon, restic)


@seaweedfs
def test_backup_through_faults(proxied: Proxied, tmp_path: Path) -> None:
    """Delays, cuts in bodies and answers, 503 and lost answers: the client repeats, and every byte is right."""
    files = make_files(tmp_path / "files", big=40 * 1024 * 1024)
    faults = [
        Fault(on="PUT", target="/data/", cut_request=300_000),
        Fault(on="PUT", target="/data/", cut_answer=0),
        Fault(on="PUT", target="/data/", status=503),
        Fault(on="PUT", target="/data/", status=500, early=True),
        Fault(on="PUT", target="/index/", cut_answer=0),
        Fault(on="GET", target="list-type", status=503),
        Fault(on="PUT", target="/snapshots/", status=503, times=2),
        Fault(delay=0.3, times=10),
    ]
    for fault in faults:
        proxied.proxy.inject(fault)
    # Many packs, so that each meets few faults: the client's pauses double with every one.
    proxied.restic("backup", "--pack-size", "4", files)
    assert [fault for fault in faults if fault.hits < fault.times] == []
    proxied.proxy.clear()
    proxied.restic("check", "--read-data")
    for _ in range(4):
        proxied.proxy.inject(Fault(on="GET", target="/data/", cut_answer=50_000))
    restore_and_compare(proxied.restic, files, tmp_path / "restored")


@seaweedfs
@pytest.mark.parametrize(
    "fault",
    [
        Fault(on="GET", target="%2Findex%2F", status=403),
        Fault(on="GET", target="%2Fdata%2F", edit=lambda body: body[: len(body) // 3] + body[len(body) // 2 :]),
        Fault(on="GET", target="%2Fdata%2F", cut_answer=300),
    ],
    ids=["refused", "middle", "cut"],
)
def test_prune_never_trusts_a_broken_list(proxied: Proxied, tmp_path: Path, fault: Fault) -> None:
    """While lists fail prune fails; afterwards all is still there."""
    files = make_files(tmp_path / "files")
    proxied.restic("backup", files)
    fault.hits, fault.times = 0, 1_000_000
    proxied.proxy.inject(fault)
    restic = proxied.restic
    pruning = subprocess.Popen([str(restic.program), *restic.options, "prune"], env=restic.environment, cwd=tmp_path)
    # It repeats for a quarter of an hour; some attempts are enough.
    deadline = time.monotonic() + 60
    while pruning.poll() is None and fault.hits < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pruning.kill()
    assert pruning.wait(60) != 0
    assert fault.hits
    proxied.proxy.clear()
    proxied.restic("unlock")
    proxied.restic("check", "--read-data")
    restore_and_compare(proxied.restic, files, tmp_path / "restored")
