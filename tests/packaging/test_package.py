"""The Debian package, on a Debian of the release it was built for, with systemd: from the installation to the purge.

The tests go through one machine's life in their order.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.machine import Machine
from support.peers import ROOT

import resticd

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can install a package"),
    pytest.mark.xdist_group("package"),
]

#: On top of a minimal Debian: what the package depends on, and what the tests use.
PACKAGES = ("adduser", "python3", "systemd", "systemd-sysv", "dbus", "logrotate", "restic", "procps")
RELEASE = next(
    line.partition("=")[2].strip().strip('"')
    for line in Path("/etc/os-release").read_text().splitlines()
    if line.startswith("VERSION_CODENAME=")
)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built as "make deb" does."""
    directory = tmp_path_factory.mktemp("package")
    # Compressing well takes longer than all the rest.
    environment = {**os.environ, "DPKG_DEB_COMPRESSOR_LEVEL": "1"}
    command = [ROOT / "tools/build-deb", directory]
    built = subprocess.run(
        command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment
    )
    assert built.returncode == 0, built.stderr[-5000:]
    return Path(built.stdout.strip())


@pytest.fixture(scope="module")
def newer(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package with a higher version."""
    directory = tmp_path_factory.mktemp("newer")
    subprocess.run(["dpkg-deb", "--raw-extract", package, directory / "tree"], check=True)
    control = directory / "tree/DEBIAN/control"
    text, count = re.subn(r"(?m)^Version: (.*)$", r"Version: \1.1", control.read_text())
    assert count == 1
    control.write_text(text)
    file = directory / "resticd-newer.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--build", directory / "tree", file], check=True, capture_output=True)
    shutil.rmtree(directory / "tree")
    return file


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A fresh Debian, booted."""
    directory = tmp_path_factory.mktemp("machine")
    cache = ROOT / ".peers/debian/debootstrap"
    command = [ROOT / "tools/debian-root", RELEASE, directory / "root", cache, *PACKAGES]
    made = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert made.returncode == 0, made.stderr
    with Machine(directory / "root", directory / "log") as machine:
        yield machine
    shutil.rmtree(directory / "root")


@pytest.fixture(scope="module")
def installed(machine: Machine, package: Path) -> str:
    """What the installation of the package said."""
    shutil.copy(package, machine.root / "root/resticd.deb")
    return machine.shell("apt-get -q install -y /root/resticd.deb")


def restic(machine: Machine, script: str) -> str:
    """Run the machine's own restic with the login that the installation made."""
    return machine.shell(f". /etc/resticd/first-login; {script}", RESTIC_PASSWORD="secret", RESTIC_CACHE_DIR="/root/c")


def is_active(machine: Machine) -> bool:
    return machine.run("systemctl", "is-active", "resticd", status=None).stdout.strip() == "active"


def may_delete(machine: Machine) -> bool:
    """Whether a client may delete files, such as one that is not there."""
    script = (
        "import base64, http.client, re; "
        "login = re.search('//(.*)@', open('/etc/resticd/first-login').read())[1]; "
        "wire = http.client.HTTPConnection('localhost', 8080); "
        "wire.request('DELETE', '/data/' + 64 * '0', headers={'Authorization': "
        "'Basic ' + base64.b64encode(login.encode()).decode()}); "
        "print(wire.getresponse().status)"
    )
    status = machine.run("python3", "-c", script).stdout.strip()
    assert status in ("200", "403")
    return status == "200"


def property_of(machine: Machine, name: str) -> str:
    return machine.run("systemctl", "show", "resticd", "--value", "-p", name).stdout.strip()


def test_versions() -> None:
    """The package's version is the program's."""
    changelog = (ROOT / "debian/changelog").read_text()
    assert changelog.startswith(f"resticd ({resticd.__version__}) ")


def test_lintian(package: Path) -> None:
    """No error and no warning."""
    (changes,) = package.parent.glob("*.changes")
    checked = subprocess.run(
        ["lintian", "--fail-on", "error,warning", "--allow-root", changes], check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_first_installation(machine: Machine, installed: str) -> None:
    """It serves at once, on loopback alone, for nobody without the login that it made and says where to find."""
    assert "the user and password are in /etc/resticd/first-login" in installed
    assert is_active(machine)
    assert property_of(machine, "StatusText") == "serving /var/lib/resticd/backups"
    modes = machine.shell("stat -c '%n %U:%G %a' /etc/resticd/* /var/lib/resticd /var/lib/resticd/backups").split("\n")
    assert {
        "/etc/resticd/first-login root:root 600",
        "/etc/resticd/htpasswd root:resticd 640",
        "/etc/resticd/rclone.conf root:resticd 640",
        "/etc/resticd/resticd.toml root:root 644",
        "/var/lib/resticd resticd:resticd 750",
        "/var/lib/resticd/backups resticd:resticd 750",
    } <= set(modes)
    listening = re.findall(r"listening on (\S+)", machine.run("journalctl", "-u", "resticd", "-o", "cat").stdout)
    assert listening == ["http://127.0.0.1:8080/"]
    password = machine.shell("sed -n 's/.*password  //p' /etc/resticd/first-login").strip()
    assert len(password) >= 24
    assert password not in machine.run("journalctl", "-o", "cat").stdout + installed
    ask = "python3 -c 'import urllib.request as r; r.urlopen(\"http://localhost:8080/keys/\")' 2>&1 || true"
    assert "HTTP Error 401" in machine.shell(ask)


def test_the_unit(machine: Machine, installed: str) -> None:
    """systemd finds nothing wrong with the units and calls the service well protected."""
    units = "/lib/systemd/system/resticd.service /lib/systemd/system/resticd.socket"
    assert machine.run("systemd-analyze", "verify", "--man=no", *units.split()).stderr == ""
    found = machine.run("systemd-analyze", "security", "--no-pager", "resticd.service").stdout
    assert float(re.search(r"Overall exposure level for resticd\.service: ([0-9.]+)", found)[1]) < 2.0
    pid = property_of(machine, "MainPID")
    status = dict(line.split(":", 1) for line in machine.run("cat", f"/proc/{pid}/status").stdout.splitlines())
    assert status["Seccomp"].strip() == "2"
    assert status["NoNewPrivs"].strip() == "1"
    assert status["CapBnd"].strip() == "0" * 16
    assert machine.run("ps", "-o", "user=,group=", "-p", pid).stdout.split() == ["resticd", "resticd"]


def test_backup_and_restore(machine: Machine, installed: str) -> None:
    """With the restic of the release."""
    said = restic(
        machine,
        "restic init; restic backup -q /etc /usr/share/man; restic check -q --read-data;"
        "restic restore -q latest --target /root/restored; diff -r --no-dereference /etc /root/restored/etc;"
        "diff -r /usr/share/man /root/restored/usr/share/man; restic forget -q --prune latest; restic snapshots -q",
    )
    assert "created restic repository" in said
    assert machine.shell("find /var/lib/resticd/backups ! -user resticd") == ""


def test_reload(machine: Machine, installed: str) -> None:
    """A mistake changes nothing and is named with its line; then the change counts."""
    settings = "/etc/resticd/resticd.toml"
    machine.shell(f"echo 'append-only = maybe' >>{settings}; systemctl reload resticd")
    line = len(machine.shell(f"cat {settings}").splitlines())
    assert f"not reloaded: {settings}:{line}: " in machine.run("journalctl", "-u", "resticd", "-o", "cat").stdout
    assert is_active(machine)
    assert may_delete(machine)
    machine.shell(f"sed -i 's/^append-only = maybe/append-only = true/' {settings}; systemctl reload resticd")
    assert not may_delete(machine)
    machine.shell(f"sed -i '/^append-only = true/d' {settings}; systemctl reload resticd")
    assert may_delete(machine)
    assert property_of(machine, "NRestarts") == "0"


def test_what_is_installed(machine: Machine, installed: str) -> None:
    """Manual pages, completions, the list of plugins and compiled modules, and the rotation of logs."""
    machine.shell("test -e /usr/lib/resticd/lib/python3*/site-packages/resticd/__pycache__/service.*.pyc")
    assert "resticd" in machine.shell("/usr/lib/resticd/bin/twistd --help")
    assert machine.run("resticd", "version").stdout.startswith(f"resticd {resticd.__version__}\n")
    shown = machine.run("resticd", "check-config", "--settings", "/etc/resticd/resticd.toml").stdout
    assert re.search(r"^htpasswd +/etc/resticd/htpasswd +/etc/resticd/resticd\.toml:\d+$", shown, re.MULTILINE)
    machine.shell("bash -n /usr/share/bash-completion/completions/resticd")
    machine.shell("bash -c '. /usr/share/bash-completion/completions/resticd; complete -p resticd'")
    # Nobody wrote there but the package and the compiler.
    changed = machine.shell("dpkg --verify resticd")
    assert [line for line in changed.splitlines() if not line.endswith(" c /etc/resticd/resticd.toml")] == []
    assert machine.shell("find /usr/lib/resticd -newer /etc/resticd/htpasswd ! -path '*__pycache__*' -type f") == ""


def test_log_files_are_rotated(machine: Machine, installed: str) -> None:
    """As /etc/logrotate.d/resticd says; the service goes on in the new file by itself."""
    settings, log = "/etc/resticd/resticd.toml", "/var/log/resticd/audit.jsonl"
    machine.shell(f"cp {settings} /root/saved; echo 'audit-log = \"{log}\"' >>{settings}; systemctl restart resticd")
    restic(machine, "restic backup -q /etc/hosts")
    machine.shell("logrotate --force /etc/logrotate.d/resticd")
    assert machine.shell(f"stat -c '%U:%G %a' {log}").strip() == "resticd:resticd 640"
    machine.wait(
        lambda: restic(machine, "restic backup -q /etc/hosts") == "" and machine.shell(f"stat -c %s {log}") != "0\n"
    )
    machine.shell(f"cat /root/saved >{settings}; systemctl restart resticd")


def test_twistd_becomes_another_user(machine: Machine, installed: str) -> None:
    """--uid, --gid and --umask count for all that it writes; --syslog and --prefix for its log."""
    machine.shell("install -d -o resticd -g resticd /srv/t")
    twistd = "/usr/lib/resticd/bin/twistd --uid resticd --gid resticd --umask 027 --rundir /srv/t --pidfile /srv/t/pid"
    serve = "resticd --addr localhost:9000 /srv/t/store"
    put = 'python3 -c \'import urllib.request as r; r.urlopen("http://localhost:9000/?create=true", b"")\''
    for log in ("--syslog --prefix backups", ""):
        machine.shell(f"{twistd} {log} {serve} {'' if log else '--log-file /srv/t/log'}")
        machine.wait(lambda: machine.run("sh", "-c", put, status=None).returncode == 0)
        pid = machine.shell("cat /srv/t/pid")
        ids = machine.shell(f"grep -E '^(Uid|Gid):' /proc/{pid}/status").split()
        expected = machine.shell("id -u resticd; id -g resticd").split()
        assert ids == ["Uid:", *[expected[0]] * 4, "Gid:", *[expected[1]] * 4]
        machine.shell(f"kill {pid}; while test -e /srv/t/pid; do sleep 0.1; done")
    assert "listening on http://127.0.0.1:9000/" in machine.run("journalctl", "-t", "backups", "-o", "cat").stdout
    assert machine.shell("stat -c '%U:%G' /srv/t/log").strip() == "resticd:resticd"
    assert machine.shell("find /srv/t ! -user resticd -o -perm /027 ! -path /srv/t") == ""


def test_an_upgrade_under_socket_activation(machine: Machine, installed: str, newer: Path) -> None:
    """No connection is refused and no transfer is lost while the package is replaced."""
    machine.shell("systemctl stop resticd; systemctl -q enable --now resticd.socket; systemctl start resticd")
    before = property_of(machine, "MainPID")
    shutil.copy(newer, machine.root / "root/newer.deb")
    shutil.copy(Path(__file__).with_name("traffic.py"), machine.root / "root/traffic.py")
    login = machine.shell("sed -n 's,.*//\\(.*\\)@.*,\\1,p' /etc/resticd/first-login").strip()
    traffic = machine.begin("python3", "/root/traffic.py", "8080", login)
    try:
        assert json.loads(traffic.stdout.readline())["uploads"] > 0
        machine.run("dpkg", "-i", "/root/newer.deb")
        machine.wait(lambda: is_active(machine))
        said, _ = traffic.communicate("stop\n", timeout=180)
    finally:
        traffic.kill()
        traffic.wait()
    report = json.loads(said)
    assert report["wrong"] == []
    assert report["uploads"] > 3
    assert property_of(machine, "MainPID") != before
    assert machine.shell("dpkg-query -W -f '${Version}' resticd").endswith(".1")
    restic(machine, "restic check -q")


def test_the_watchdog(machine: Machine, installed: str) -> None:
    """A service that gives no sign of life is started anew; under socket activation clients only wait."""
    machine.shell(
        "mkdir -p /run/systemd/system/resticd.service.d; cd /run/systemd/system/resticd.service.d;"
        "printf '[Service]\\nWatchdogSec=3s\\n' >watchdog.conf; systemctl daemon-reload; systemctl restart resticd"
    )
    machine.shell(f"kill -STOP {property_of(machine, 'MainPID')}")
    machine.wait(lambda: property_of(machine, "NRestarts") == "1" and is_active(machine))
    assert "Watchdog timeout" in machine.journal()
    restic(machine, "restic snapshots -q")
    machine.shell("rm -r /run/systemd/system/resticd.service.d; systemctl daemon-reload; systemctl restart resticd")


def test_removal(machine: Machine, installed: str) -> None:
    """Settings, passwords and backups stay; nothing runs."""
    before = machine.shell("cd /var/lib/resticd; find . -type f | sort | xargs sha256sum")
    machine.shell("apt-get -q remove -y resticd")
    assert not is_active(machine)
    listening = machine.run("systemctl", "is-active", "resticd.socket", status=None).stdout.strip()
    assert listening != "active"
    machine.shell("test -e /etc/resticd/htpasswd; test -e /etc/resticd/resticd.toml; test ! -e /usr/bin/resticd")
    machine.shell("test ! -e /usr/lib/resticd")
    assert machine.shell("cd /var/lib/resticd; find . -type f | sort | xargs sha256sum") == before


def test_purge(machine: Machine, installed: str) -> None:
    """Asks nothing, leaves the backups and their owner, and nothing else."""
    before = machine.shell("cd /var/lib/resticd; find . -type f | sort | xargs sha256sum")
    said = machine.shell("apt-get -q purge -y resticd", DEBIAN_FRONTEND="dialog")
    assert "the backups in /var/lib/resticd are left" in said
    assert machine.shell("cd /var/lib/resticd; find . -type f | sort | xargs sha256sum") == before
    assert "  " in before
    machine.shell("test ! -e /etc/resticd; test ! -e /var/log/resticd; test ! -e /etc/logrotate.d/resticd")
    machine.shell("getent passwd resticd")


def test_installing_again_finds_the_backups(machine: Machine, installed: str) -> None:
    """A new login for the same backups."""
    machine.shell("apt-get -q install -y /root/resticd.deb")
    assert "restic repository" not in restic(machine, "restic snapshots -q; restic check -q")
    machine.shell("apt-get -q purge -y resticd")
