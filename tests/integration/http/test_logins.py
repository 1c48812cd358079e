"""Logins by password, over the real daemon: files that change, private repositories, guesses."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest
import pytest_twisted
from support.asking import ask, basic, blob
from support.daemons import Server
from support.peers import ROOT
from support.restic import Restic
from support.sequences import make_files, restore_and_compare
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from resticd.auth import fileaccounts
from resticd.auth.chain import make_authenticator
from resticd.events import RequestDone
from resticd.http.gate import Gate
from resticd.http.site import Site
from resticd.remotes.memory import MemoryRemote
from resticd.repository.operations import Repositories
from resticd.repository.policy import Policy
from resticd.workers import Workers

Start = Callable[..., Server]


def write_users(path: Path, **users: str) -> Path:
    """Put a password file in place in one step."""
    fresh = path.with_name("htpasswd.new")
    lines = (f"{user}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(5)).decode()}\n" for user, word in users.items())
    fresh.write_text("# users\n\n" + "".join(lines))
    return fresh.replace(path)


def as_user(server: Server, user: str, password: str, path: str) -> str:
    return f"rest:http://{user}:{password}@127.0.0.1:{server.port}/{path}"


def test_a_password_file_that_changes_while_a_backup_runs(start_resticd: Start, tmp_path: Path) -> None:
    """From the next request on the new password counts and the old one does not; the backup of another user goes on."""
    users = write_users(tmp_path / "htpasswd", alice="first", bob="steady")
    store = tmp_path / "store"
    server = start_resticd(store, "--htpasswd", str(users))
    bob = Restic(as_user(server, "bob", "steady", "bob/"), tmp_path)
    bob("init")
    assert ask(server.port, "GET", "/keys/", login=("alice", "first")).status == 200
    data = os.urandom(40 * 1024 * 1024)
    half = len(data) // 2
    with subprocess.Popen(
        [bob.program, "backup", "--stdin", "--pack-size", "4"],
        env=bob.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as backup:
        backup.stdin.write(data[:half])
        backup.stdin.flush()
        deadline = time.monotonic() + 60
        while not list(store.glob("bob/data/*/[0-9a-f]*")):
            assert time.monotonic() < deadline, "the backup begins"
            time.sleep(0.02)
        write_users(users, alice="second", bob="steady")
        assert ask(server.port, "GET", "/keys/", login=("alice", "first")).status == 401
        assert ask(server.port, "GET", "/keys/", login=("alice", "second")).status == 200
        users.write_text("alice, and then the disk is full")
        assert ask(server.port, "GET", "/keys/", login=("alice", "second")).status == 200
        users.unlink()
        assert ask(server.port, "GET", "/keys/", login=("alice", "second")).status == 200
        backup.communicate(data[half:])
    assert backup.returncode == 0
    bob("check", "--read-data")
    write_users(users, bob="steady")
    assert ask(server.port, "GET", "/keys/", login=("alice", "second")).status == 401
    assert "--htpasswd: " in server.output()
    assert "Traceback" not in server.output()


def test_private_repositories(start_resticd: Start, tmp_path: Path) -> None:
    """A user has what lies below the own name, and nothing else by whatever spelling."""
    users = write_users(tmp_path / "htpasswd", **{"alice": "pw", "a/b": "pw", "..": "pw", "böb": "pw"})
    server = start_resticd(tmp_path / "store", "--htpasswd", str(users), "--private-repos")
    files = make_files(tmp_path / "files", count=3, big=100_000)
    own = Restic(as_user(server, "alice", "pw", "alice/laptop/"), tmp_path)
    own("init")
    own("backup", files)
    restore_and_compare(own, files, tmp_path / "restored")
    for user, path in (("alice", "other/"), ("a%2Fb", "a/b/")):
        assert "403" in Restic(as_user(server, user, "pw", path), tmp_path)("init", status=1).stderr

    def status(user: str, path: str) -> int:
        return ask(server.port, "POST", path, login=(user, "pw")).status

    assert status("alice", "/alice/?create=true") == 200
    assert status("böb", "/b%C3%B6b/?create=true") == 200
    assert status("alice", "/?create=true") == 403
    assert status("alice", "/Alice/?create=true") == 403
    assert status("alice", "/alice2/?create=true") == 403
    assert status("alice", "/other/alice/?create=true") == 403
    for path in ("/alice/../other/", "/alice/%2e%2e/other/", "/alice%2F..%2Fother/", "//alice/", "/./alice/"):
        assert status("alice", f"{path}?create=true") == 400
    for user in ("a/b", ".."):
        for path in ("/a/b/", "/a/", "/", "/alice/"):
            assert status(user, f"{path}?create=true") == 403
        for path in ("/a%2Fb/", "/../", "/%2e%2e/", "/a%5Cb/"):
            assert status(user, f"{path}?create=true") == 400
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["alice", "böb"]


@pytest_twisted.ensureDeferred
async def test_a_restore_checks_the_password_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow hash is worked out for the first request of an address, not for each of them."""
    checked: list[str] = []

    def verify(password: str, stored: str) -> bool:
        checked.append(password)
        return bcrypt.checkpw(password.encode(), stored.encode())

    monkeypatch.setattr(fileaccounts, "verify", verify)
    events: list[object] = []

    class Sink:
        emit = staticmethod(events.append)

    users = write_users(tmp_path / "htpasswd", alice="pw")
    workers = Workers(reactor)
    workers.start()
    authenticator = make_authenticator(workers=workers, clock=reactor, htpasswd=str(users))
    repositories = Repositories(MemoryRemote(), Policy(), workers, Sink())
    site = Site(Gate(repositories, authenticator).resource(), reactor, workers, Sink())
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    files = make_files(tmp_path / "files", count=10)
    url = f"rest:http://alice:pw@127.0.0.1:{port.getHost().port}/"

    def client() -> None:
        restic = Restic(url, tmp_path)
        restic("init")
        restic("backup", files)
        restore_and_compare(restic, files, tmp_path / "restored")

    try:
        await deferToThread(client)
    finally:
        await port.stopListening()
        await site.finish(0)
        workers.stop()
    assert len([event for event in events if isinstance(event, RequestDone)]) > 20
    assert checked == ["pw"]


def test_the_sample_of_a_password_file(start_resticd: Start) -> None:
    server = start_resticd(":memory:", "--htpasswd", str(ROOT / "conf/htpasswd.sample"))
    for user in ("laptop", "printer"):
        assert ask(server.port, "GET", "/keys/", login=(user, "change-me")).status == 200
        assert ask(server.port, "GET", "/keys/", login=(user, "changed")).status == 401


def test_guesses_are_slowed_down(start_resticd: Start, tmp_path: Path) -> None:
    """Each wrong password makes the next attempt from there wait longer; a known login does not wait."""
    server = start_resticd(":memory:", "--user", "alice", "--pass", "pw")
    assert ask(server.port, "GET", "/keys/", login=("alice", "pw")).status == 200
    start = time.monotonic()
    for number in range(4):
        assert ask(server.port, "GET", "/keys/", login=("alice", f"guess {number}")).status == 401
        assert ask(server.port, "GET", "/keys/", login=("alice", "pw")).status == 200
    assert time.monotonic() - start > 0.25 + 0.5 + 1


def test_whatever_bytes_a_login_has_it_is_refused(start_resticd: Start) -> None:
    """Not an error of the server's, not a line of log for an error."""
    server = start_resticd(":memory:", "--user", "alice", "--pass", "pw")
    values = (b"\xff\xfe", b"Basic \xe9\xe9", b"Basic !!!!", b"Bearer x", b"", b"Basic " + b"A" * 3000, b"\x80" * 3000)
    for value in values:
        answer = ask(server.port, "GET", "/keys/", headers={"Authorization": value})
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Basic realm="resticd", charset="UTF-8"'
    forwarded = {"X-Forwarded-For": b"\xff", "Forwarded": b"for=\xff", "Authorization": basic("alice", "pw")}
    assert ask(server.port, "GET", "/keys/", headers=forwarded).status == 200
    assert "Traceback" not in server.output()


def test_a_refused_upload_leaves_nothing(start_resticd: Start, tmp_path: Path) -> None:
    server = start_resticd(tmp_path / "store", "--user", "alice", "--pass", "pw")
    body = os.urandom(100_000)
    for login in (None, ("alice", "wrong"), ("bob", "pw")):
        assert ask(server.port, "POST", blob(body), body, login=login).status == 401
    assert list((tmp_path / "store").iterdir()) == []
    assert ask(server.port, "POST", blob(body), body, login=("alice", "pw")).status == 200
