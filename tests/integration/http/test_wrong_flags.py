"""Flags that cannot work: one line that names the flag, status 1, no traceback, whichever program reads them."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from support.certificates import Authority

BIN = Path(sys.executable).parent
PROGRAMS = {
    "twistd": (BIN / "twistd", "-n", "--pidfile=", "resticd"),
    "resticd": (BIN / "resticd", "serve", "restic"),
}

CERT = ("--cert", "server.cert.pem")
KEY = ("--key", "server.key.pem")

Case = tuple[tuple[str, ...], str]

#: What is asked for, and the line without ``resticd: `` that must come; BUSY is a port on which somebody listens.
BOTH: list[Case] = [
    (KEY, "--key: --cert is missing"),
    (CERT, "--cert: --key is missing"),
    (("--client-ca", "authority.pem"), "--client-ca: --cert and --key are missing"),
    (("--addr", "tls://127.0.0.1:0"), "--addr: tls://127.0.0.1:0: TLS needs --cert and --key"),
    (("--cert", "missing.pem", *KEY), "--cert: missing.pem: No such file or directory"),
    ((*CERT, "--key", "other.key.pem"), "--key: other.key.pem: does not fit the certificate in server.cert.pem"),
    ((*CERT, *KEY, "--min-tls-version", "1.2"), "--min-tls-version: '1.2': not tls1.0, tls1.1, tls1.2 or tls1.3"),
    (("--addr", "nonsense"), "--addr: 'nonsense': not HOST:PORT"),
    (("--addr", "127.0.0.1:BUSY"), "--addr: 127.0.0.1:BUSY: cannot listen: Address already in use"),
    (("--addr", "192.0.2.1:0"), "--addr: 192.0.2.1:0: cannot listen: Cannot assign requested address"),
    (("--addr", "unix:///nosuch/x"), "--addr: unix:///nosuch/x: cannot listen: No such file or directory"),
    (("--unix-socket-group", "nosuch"), "--unix-socket-group: 'nosuch': no such group"),
    (("--htpasswd", "missing"), "--htpasswd: missing: No such file or directory"),
    (("--htpasswd", "plain"), "--htpasswd: plain:3: a password in plain text"),
    (("--pass", "s3cr3t"), "--pass: needs --user"),
    (("--user-from-header", "X-User", "--trusted-proxy", "none"), "--user-from-header: --trusted-proxy trusts nobody"),
    (("--private-repos",), "--private-repos: there is no login, so nobody would see anything"),
    (("--server-read-timeout", "soon"), "--server-read-timeout: 'soon': not a duration such as"),
    (("--bogus",), "unknown flag: --bogus"),
]
#: What differs from the above in the flag alone, so one program is enough.
MORE: list[Case] = [
    # TLS
    (("--addr", "127.0.0.1:0", "--addr", "https://[::1]:0"), "--addr: tls://[::1]:0: TLS needs --cert and --key"),
    ((*CERT, "--key", "missing.pem"), "--key: missing.pem: No such file or directory"),
    (("--cert", "directory", *KEY), "--cert: directory: Is a directory"),
    (("--cert", "junk", *KEY), "--cert: junk: holds no certificate in PEM form"),
    ((*CERT, "--key", "junk"), "--key: junk: holds no private key in PEM form"),
    ((*CERT, "--key", "encrypted.pem"), "--key: encrypted.pem: is encrypted"),
    ((*CERT, *KEY, "--client-ca", "missing.pem"), "--client-ca: missing.pem: No such file or directory"),
    ((*CERT, *KEY, "--client-ca", "junk"), "--client-ca: junk: holds no certificates in PEM form"),
    (("--cert", "", "--key", ""), "--cert: '': empty"),
    # Addresses
    (("--addr", "127.0.0.1:99999"), "--addr: '127.0.0.1:99999': ports end at 65535"),
    (("--addr", "[zz]:1"), "--addr: '[zz]:1': not an IPv6 address"),
    (("--addr", "unix://relative"), "--addr: 'unix://relative': a unix socket needs an absolute path"),
    (("--addr", "tls:///run/x"), "--addr: 'tls:///run/x': a unix socket takes no tls://"),
    (("--addr", "ftp://127.0.0.1:1"), "--addr: 'ftp://127.0.0.1:1': the prefixes are http://, tls:// and unix://"),
    (("--addr", "tcp:1:bogus=1"), "--addr: tcp:1:bogus=1: Twisted cannot make this endpoint"),
    (("--addr", ""), "--addr: '': empty"),
    (("--addr",), "--addr: the argument is missing"),
    (("--unix-socket-mode", "999"), "--unix-socket-mode: '999': not an octal mode such as 660"),
    # Logins
    (("--htpasswd", "directory"), "--htpasswd: directory: Is a directory"),
    (("--htpasswd", "des"), "--htpasswd: des:1: a DES hash"),
    (("--htpasswd", ""), "--htpasswd: '': empty"),
    (("--user", "alice"), "--user: needs --pass"),
    (("--user", "a:b", "--pass", "s3cr3t"), "--user: empty, too long, or with a colon"),
    (("--user", "alice", "--pass", "s3cr3t\n"), "--pass: empty, too long, or with control characters"),
    (("--user", "", "--pass", "s3cr3t"), "--user: '': empty"),
    (("--user", "alice", "--pass", ""), "--pass: the value: empty"),
    (("--realm", "büro"), "--realm: 'büro': only printable ASCII characters can be sent"),
    (("--user-from-header", "X User"), "--user-from-header: 'X User' cannot be the name of a header"),
    (("--trusted-proxy", "nonsense"), "--trusted-proxy: 'nonsense' does not appear to be an IPv4 or IPv6 network"),
    (("--trusted-proxy", "10.0.0.1/8"), "--trusted-proxy: 10.0.0.1/8 has host bits set"),
    (
        ("--stdio", "--user", "alice", "--pass", "s3cr3t", "--private-repos"),
        "--private-repos: there is no login, so nobody would see anything",
    ),
    # Requests
    (("--max-header-bytes", "4K"), "--max-header-bytes: '4K': not a whole number above zero"),
    (("--server-write-timeout", "-1s"), "--server-write-timeout: '-1s': not a duration such as"),
    (("--response-header", "no colon"), "--response-header: 'no colon': not a header such as 'Name: value'"),
    (("--response-header", "X: a\r\nY: b"), r"--response-header: 'X: a\r\nY: b': not a header"),
    (("--baseurl", "a/../b"), "--baseurl: 'a/../b': empty segments and dot segments are never served"),
    (("--allow-origin", "https://host/path"), "--allow-origin: 'https://host/path': not an origin such as"),
    (("--append-only=perhaps",), "--append-only: 'perhaps': neither true nor false"),
]
CASES = [(program, *case) for case in BOTH for program in PROGRAMS] + [("resticd", *case) for case in MORE]


class Runs:
    """The command lines of ``wanted``, each run once and a few at a time, in the order in which tests ask for them."""

    def __init__(self, room: Path, busy: int, wanted: set[tuple[str, tuple[str, ...]]]) -> None:
        self._room = room
        self.busy = busy
        self._pool = ThreadPoolExecutor(4)
        cases = [(program, flags) for program, flags, _ in CASES if (program, flags) in wanted]
        self._done = {case: self._pool.submit(self._run, *case) for case in cases}

    def __getitem__(self, key: tuple[str, tuple[str, ...]]) -> subprocess.CompletedProcess[str]:
        done: Future[subprocess.CompletedProcess[str]] = self._done[key]
        return done.result()

    def stop(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _run(self, program: str, flags: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        words = [word.replace("BUSY", str(self.busy)) for word in flags]
        where = [] if "--addr" in flags else ["--addr", "127.0.0.1:0"]
        command = [*PROGRAMS[program], *where, ":memory:", *words]
        return subprocess.run(
            command, cwd=self._room, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
        )


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    wanted = {
        (item.callspec.params["program"], item.callspec.params["flags"])
        for item in request.session.items
        if item.path == request.path
    }
    room = tmp_path_factory.mktemp("wrong-flags")
    authority = Authority(room)
    pair = authority.server()
    authority.server("other")
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    (room / "encrypted.pem").write_bytes(pem)
    (room / "directory").mkdir()
    (room / "junk").write_text("-----BEGIN JUNK-----\n")
    (room / "plain").write_text("# users\n\nalice:s3cr3t\n")
    (room / "des").write_text("alice:rl0uE5Jt9SZ2I\n")
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        made = Runs(room, busy.getsockname()[1], wanted)
        yield made
        made.stop()


@pytest.mark.xdist_group("wrong flags")
@pytest.mark.parametrize(
    ("program", "flags", "message"),
    CASES,
    ids=[f"{program} {' '.join(flags)}".encode("unicode_escape").decode() for program, flags, _ in CASES],
)
def test_one_line_names_the_flag(runs: Runs, program: str, flags: tuple[str, ...], message: str) -> None:
    done = runs[program, flags]
    assert done.returncode == 1
    assert done.stdout == "" or program == "twistd"  # twistd's log
    said = done.stdout + done.stderr
    message = message.replace("BUSY", str(runs.busy))
    (line,) = [line for line in said.splitlines() if message in line]
    assert len(line) < 300
    assert "Traceback" not in said
    assert "s3cr3t" not in said
    if line.startswith("resticd: "):
        assert line.startswith(f"resticd: {message}")
        assert said == f"{line}\n"
