"""Behind nginx, as ``conf/nginx.conf`` sets it up: who a request is from is the proxy's word, and only its."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.asking import ask, connect, read_answer
from support.certificates import Authority, client_context
from support.daemons import Daemon, Server
from support.peers import ROOT, peer
from support.ports import free_port
from support.restic import Restic
from support.sequences import make_files, restore_and_compare
from support.waiting import wait_until

Start = Callable[..., Server]
HEADER = "X-Remote-User"


class Nginx:
    """nginx in front of ``upstream`` (``127.0.0.1:PORT`` or ``unix:/path``)."""

    def __init__(self, scratch: Path, authority: Authority) -> None:
        self._scratch = scratch
        self._pair = authority.server("nginx")
        self.port = free_port()
        self.daemon: Daemon | None = None

    def start(self, upstream: str) -> None:
        config = (ROOT / "conf/nginx.conf").read_text()
        for ours, theirs in (
            ("server 127.0.0.1:8000;", f"server {upstream};"),
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.port} ssl;"),
            ("/etc/ssl/certs/backup.pem", str(self._pair.cert)),
            ("/etc/ssl/private/backup.key", str(self._pair.key)),
            ("/etc/resticd/htpasswd", str(ROOT / "conf/htpasswd.sample")),
            ("worker_processes auto;", "worker_processes 1; daemon off; pid nginx.pid; user root;"),
            ("http {", "http { access_log off;" + self._places()),
        ):
            assert config.count(ours) >= 1
            config = (
                config.replace(f"    {ours}", f"    {theirs}")
                if ours.startswith("listen")
                else _last(config, ours, theirs)
            )
        path = self._scratch / "nginx.conf"
        path.write_text(config)
        command = [peer("nginx"), "-p", self._scratch, "-c", path, "-e", self._scratch / "nginx-error.log"]
        self.daemon = Daemon(command, self._scratch / "nginx.log", cwd=self._scratch)
        self.daemon.wait_for_port(self.port)

    def _places(self) -> str:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        return "".join(f" {kind}_temp_path {self._scratch}/{kind};" for kind in kinds)


def _last(text: str, old: str, new: str) -> str:
    """Replace the last place alone: the comments at the top name some of them too."""
    before, _, after = text.rpartition(old)
    return before + new + after


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def nginx(tmp_path: Path, authority: Authority) -> Iterator[Nginx]:
    proxy = Nginx(tmp_path, authority)
    yield proxy
    if proxy.daemon is not None:
        proxy.daemon.stop()


def test_nginx_names_the_user(start_resticd: Start, nginx: Nginx, authority: Authority, tmp_path: Path) -> None:
    """A whole backup with the users of the sample file, their own repositories, and their addresses in the log."""
    flags = ("--user-from-header", HEADER, "--trusted-proxy", "127.0.0.1", "--private-repos", "-v")
    server = start_resticd(tmp_path / "store", *flags)
    nginx.start(f"127.0.0.1:{server.port}")

    def client(path: str) -> Restic:
        url = f"rest:https://laptop:change-me@localhost:{nginx.port}/{path}"
        return Restic(url, tmp_path, options=("--cacert", str(authority.file)))

    files = make_files(tmp_path / "files", count=5)
    client("laptop/")("init")
    client("laptop/")("backup", files)
    restore_and_compare(client("laptop/"), files, tmp_path / "restored")
    assert "403" in client("printer/")("init", status=1).stderr

    context = client_context(authority.file)
    for login, status in ((("printer", "change-me"), 200), (("printer", "wrong"), 401), (None, 401)):
        lies = {HEADER: "printer", "X-Forwarded-For": "203.0.113.9"}
        answer = ask(
            nginx.port, "GET", "/printer/keys/", login=login, headers=lies, context=context, source="127.0.0.2"
        )
        assert answer.status == status
    wait_until(lambda: re.search(r'127\.0\.0\.2 - printer \[.*\] "GET /printer/keys/ ', server.output()))
    assert "203.0.113.9" not in server.output()


def test_who_is_no_trusted_proxy_is_not_believed(start_resticd: Start) -> None:
    """Neither a user nor an address; and a proxy that names nobody, or somebody twice, lets nobody in."""
    server = start_resticd(":memory:", "--user-from-header", HEADER, "--trusted-proxy", "127.0.0.1", "-v")
    lies = {HEADER: "laptop", "X-Forwarded-For": "203.0.113.9"}
    assert ask(server.port, "GET", "/a/keys/", headers=lies, source="127.0.0.3").status == 401
    assert "203.0.113.9" not in server.output()
    assert ask(server.port, "GET", "/b/keys/", headers=lies).status == 200
    wait_until(lambda: re.search(r'203\.0\.113\.9 - laptop \[.*\] "GET /b/keys/ ', server.output()))
    for value in (b"", b" ", b"a/b", b"..\xff", b"\xff", "läptop".encode("latin-1")):
        assert ask(server.port, "GET", "/keys/", headers={HEADER: value}).status == 401
    assert ask(server.port, "GET", "/keys/", headers={HEADER: "läptop".encode()}).status == 200
    with connect(server.port) as wire:
        wire.sendall(f"GET /keys/ HTTP/1.1\r\nHost: x\r\n{HEADER}: laptop\r\n{HEADER}: printer\r\n\r\n".encode())
        assert wire.recv(100).startswith(b"HTTP/1.1 401 ")
    assert "Traceback" not in server.output()


def test_a_proxy_s_connection_is_many_users(start_resticd: Start) -> None:
    """Each request is from whom the proxy says, whatever the one before it on the same connection was."""
    server = start_resticd(":memory:", "--user-from-header", HEADER, "--private-repos", "-v")
    body = b"config"
    asked = [("laptop", "laptop", 200), ("printer", "laptop", 403), ("printer", "printer", 404), (None, "laptop", 401)]
    with connect(server.port) as wire:

        def status(method: str, user: str | None, path: str, body: bytes = b"") -> int:
            header = "" if user is None else f"{HEADER}: {user}\r\nX-Forwarded-For: 192.0.2.{len(user)}\r\n"
            length = f"Content-Length: {len(body)}\r\n" if body else ""
            wire.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{header}{length}\r\n".encode() + body)
            return read_answer(wire).status

        assert status("POST", "laptop", "/laptop/config", body) == 200
        for user, owner, expected in asked * 3:
            assert status("GET", user, f"/{owner}/config") == expected
    wait_until(lambda: server.output().count(" /laptop/config ") == 10)
    assert not re.search(r"192\.0\.2\.6 - printer|192\.0\.2\.7 - laptop|192\.0\.2\.\d - - ", server.output())


def test_nginx_at_a_unix_socket(start_resticd: Start, nginx: Nginx, authority: Authority, tmp_path: Path) -> None:
    """The proxy is asked for a user there too."""
    path = tmp_path / "http.sock"
    flags = ("--addr", f"unix://{path}", "--user-from-header", HEADER, "--trusted-proxy", "unix", "--private-repos")
    start_resticd(":memory:", *flags)
    nginx.start(f"unix:{path}")
    context = client_context(authority.file)
    login = ("laptop", "change-me")
    assert ask(nginx.port, "GET", "/laptop/keys/", login=login, context=context).status == 200
    assert ask(nginx.port, "GET", "/printer/keys/", login=login, context=context).status == 403
    assert "401" in Restic(f"rest:http+unix://{path}:/laptop/", tmp_path)("init", status=1).stderr
