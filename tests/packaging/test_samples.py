"""What lies in conf/ is accepted by the programs that it is for, and works.

nginx: tests/integration/http/test_proxy.py; fail2ban: tests/observe/test_log.py.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.certificates import Authority
from support.daemons import Daemon, Server
from support.peers import ROOT
from support.ports import free_port
from support.restic import Restic
from support.sequences import make_files, restore_and_compare

CONF = ROOT / "conf"
SYSTEMD = CONF / "systemd"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as on a machine where the program is installed."""
    directory = tmp_path / "units"
    directory.mkdir()
    for unit in ("resticd.service", "resticd.socket"):
        text = (SYSTEMD / unit).read_text()
        # Neither the program nor its manual pages are installed here.
        text = re.sub(r"(?m)^Documentation=.*\n", "", text).replace(
            "ExecStart=/usr/lib/resticd/bin/twistd", "ExecStart=/bin/true"
        )
        (directory / unit).write_text(text)
    return directory


@pytest.mark.parametrize("drop_in", [None, "lan-tls.conf", "s3.conf"])
def test_units(units: Path, drop_in: str | None) -> None:
    """systemd finds nothing to complain of, and the service is well protected with every drop-in."""
    if drop_in is not None:
        (units / "resticd.service.d").mkdir()
        shutil.copy(SYSTEMD / drop_in, units / "resticd.service.d")
    checked = run("systemd-analyze", "verify", units / "resticd.service", units / "resticd.socket")
    assert (checked.returncode, checked.stderr) == (0, "")
    rated = run("systemd-analyze", "security", "--offline=true", units / "resticd.service")
    assert float(re.search(r"Overall exposure level for resticd\.service: ([0-9.]+)", rated.stdout)[1]) < 2.0


def test_drop_ins_set_what_resticd_reads() -> None:
    """Every variable is one of a flag."""
    from resticd.config.settings import FLAGS
    from resticd.config.sources import REMOTE

    known = {f"RESTICD_{flag.name.upper().replace('-', '_')}" for flag in (*FLAGS, REMOTE)}
    for sample in ("lan-tls.conf", "s3.conf"):
        names = set(re.findall(r"(?m)^Environment=(\w+)=", (SYSTEMD / sample).read_text()))
        assert names
        assert names <= known


def test_haproxy(start_resticd: Callable[..., Server], tmp_path: Path) -> None:
    """HAProxy takes the file, asks for the password of the sample, and a whole backup passes through it."""
    flags = ("--user-from-header", "X-Remote-User", "--trusted-proxy", "127.0.0.1", "--private-repos")
    server = start_resticd(tmp_path / "store", *flags)
    authority = Authority(tmp_path)
    pair = authority.server("haproxy")
    (tmp_path / "backup.pem").write_bytes(pair.cert.read_bytes() + pair.key.read_bytes())
    port = free_port()
    text = (CONF / "haproxy.cfg").read_text()
    for ours, theirs in (
        ("bind :443 ", f"bind 127.0.0.1:{port} "),
        ("/etc/haproxy/backup.pem", str(tmp_path / "backup.pem")),
        ("server resticd 127.0.0.1:8000", f"server resticd 127.0.0.1:{server.port}"),
    ):
        assert text.count(ours) == 1, ours
        text = text.replace(ours, theirs)
    config = tmp_path / "haproxy.cfg"
    config.write_text(text)
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert program is not None
    checked = run(program, "-c", "-f", config)
    assert checked.returncode == 0, checked.stderr
    assert "WARN" not in checked.stderr
    with Daemon([program, "-db", "-f", config], tmp_path / "haproxy.log") as proxy:
        proxy.wait_for_port(port)

        def client(login: str) -> Restic:
            url = f"rest:https://{login}@localhost:{port}/laptop/"
            return Restic(url, tmp_path, options=("--cacert", str(authority.file)))

        files = make_files(tmp_path / "files", count=5)
        client("laptop:change-me")("init")
        client("laptop:change-me")("backup", files)
        restore_and_compare(client("laptop:change-me"), files, tmp_path / "restored")
        assert "401" in client("laptop:wrong")("init", status=1).stderr
    assert (tmp_path / "store/laptop/config").exists()


def test_settings_of_the_package() -> None:
    """resticd takes them, and what is commented out as well."""
    from resticd.config.sources import read_sources

    path = ROOT / "debian/resticd.toml"
    settings = read_sources(["--settings", str(path)], {}).settings
    assert settings.remote == "/var/lib/resticd/backups"
    assert settings.addr == ("localhost:8080",)
    assert settings.htpasswd == "/etc/resticd/htpasswd"


def test_settings_that_the_package_suggests(tmp_path: Path) -> None:
    """Without the comment marks they are settings too."""
    from resticd.config.sources import read_sources

    text = (ROOT / "debian/resticd.toml").read_text()
    suggested = re.findall(r"(?m)^#([a-z-]+ = .*)$", text)
    assert len(suggested) >= 5
    path = tmp_path / "suggested.toml"
    path.write_text("\n".join(suggested))
    settings = read_sources(["--settings", str(path)], {}).settings
    assert settings.append_only
    assert settings.private_repos
