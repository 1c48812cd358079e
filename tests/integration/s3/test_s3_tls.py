"""S3 over TLS, with an authority of one's own, and through a proxy that the environment names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.asking import ask, blob
from support.certificates import Authority
from support.daemons import Server
from support.fault_proxy import FaultProxy
from support.restic import Restic
from support.s3_fixtures import section
from support.s3_servers import DOMAIN, S3Server, seaweedfs
from support.sequences import make_files, restore_and_compare

Start = Callable[..., Server]
pytestmark = pytest.mark.xdist_group("seaweedfs_restic")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secure(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS over TLS."""
    pair = authority.server()
    flags = (f"-s3.cert.file={pair.cert}", f"-s3.key.file={pair.key}")
    with seaweedfs(tmp_path_factory.mktemp("secure"), *flags) as running:
        yield running


def test_restic_over_tls(secure: S3Server, authority: Authority, start_resticd: Start, tmp_path: Path) -> None:
    """With ``--ca-cert`` the whole way works; without it nothing is sent, and the log says why."""
    options = secure.options("SeaweedFS") | {"endpoint": f"https://127.0.0.1:{secure.port}"}
    daemon = start_resticd("store:tls/a", "--ca-cert", str(authority.file), environment=section(options))
    restic = Restic(daemon.repository(), tmp_path)
    files = make_files(tmp_path / "files")
    restic("init")
    restic("backup", files)
    restic("check", "--read-data")
    restore_and_compare(restic, files, tmp_path / "restored")
    suspicious = start_resticd("store:tls/a", environment=section(options))
    answer = ask(suspicious.port, "POST", blob(b"x"), b"x")
    assert answer.status in (500, 502, 503)
    assert b"certificate verify failed" in answer.body
    trusting = start_resticd("store:tls/a", "--no-check-certificate", environment=section(options))
    assert ask(trusting.port, "GET", "/config").status == 200


def test_restic_through_a_proxy(weed: S3Server, start_resticd: Start, tmp_path: Path) -> None:
    """``HTTP_PROXY`` leads to a host that only the proxy knows, with the bucket before its name."""
    with FaultProxy(weed.port) as proxy:
        options = weed.options("Wasabi") | {"endpoint": f"http://{DOMAIN}"}
        environment = section(options) | {"HTTP_PROXY": proxy.url}
        restic = Restic(start_resticd("store:proxied-bucket/a", environment=environment).repository(), tmp_path)
        files = make_files(tmp_path / "files")
        restic("init")
        restic("backup", files)
        restic("check", "--read-data")
        restore_and_compare(restic, files, tmp_path / "restored")
        assert all(target.startswith(f"http://proxied-bucket.{DOMAIN}/") for _, target in proxy.seen)
