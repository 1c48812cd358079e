"""No secret reaches the log, not even at the highest level, nor the audit log or a command line; over every driver."""

from __future__ import annotations

import base64
import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import field, frozen
from support.asking import ask, blob
from support.daemons import resticd
from support.peers import peer
from support.ports import free_port
from support.restic import Restic
from support.s3_servers import ACCESS_KEY, SECRET_KEY, rclone_s3
from support.sequences import make_files

from bench.processes import Daemon
from resticd.config.obscure import obscure
from resticd.remotes.drivers import REGISTRY

USER = "somebody"


@frozen
class Place:
    """A remote with secrets.

    :ivar remote: its name.
    :ivar file: the text of the remotes file.
    :ivar secrets: what must not be seen, in clear and obscured.
    :ivar go: makes the remote unreachable, or breaks it.
    """

    remote: str
    go: Callable[[], object]
    file: str = ""
    secrets: tuple[str, ...] = field(factory=tuple)


@contextlib.contextmanager
def local(scratch: Path) -> Iterator[Place]:
    store = scratch / "store"
    store.mkdir()
    yield Place(str(store), go=lambda: store.rename(scratch / "gone"))


@contextlib.contextmanager
def memory(scratch: Path) -> Iterator[Place]:
    yield Place(":memory:", go=lambda: None)


@contextlib.contextmanager
def s3(scratch: Path) -> Iterator[Place]:
    """The access key is an identifier, but a log is no place for it either."""
    with rclone_s3(scratch) as server:
        token = f"SESSION/{secrets.token_urlsafe(16)}"
        section = server.options("Other", session_token=token)
        file = "[store]\ntype = s3\n" + "".join(f"{name} = {value}\n" for name, value in section.items())
        yield Place("store:bucket/place", server.kill, file, (SECRET_KEY, token))


@contextlib.contextmanager
def webdav(scratch: Path) -> Iterator[Place]:
    password = secrets.token_urlsafe(16)
    port = free_port()
    data = scratch / "dav"
    data.mkdir()
    command = [peer("rclone"), "serve", "webdav", "--config", "/dev/null", "--addr", f"127.0.0.1:{port}"]
    environment = {"RCLONE_USER": USER, "RCLONE_PASS": password}
    with Daemon([*command, data], scratch / "dav.log", environment=environment) as server:
        server.wait_for_port(port)
        hidden = obscure(password)
        file = (
            f"[store]\ntype = webdav\nurl = http://127.0.0.1:{port}\nvendor = other\nuser = {USER}\npass = {hidden}\n"
        )
        yield Place("store:place", server.kill, file, (password, hidden, basic(USER, password)))


@contextlib.contextmanager
def bridge(scratch: Path) -> Iterator[Place]:
    """rclone's encryption over a directory: a type that only rclone knows."""
    store = scratch / "store"
    store.mkdir()
    words = [secrets.token_urlsafe(16) for _ in range(2)]
    hidden = [obscure(word) for word in words]
    file = f"[store]\ntype = crypt\nremote = {store}\npassword = {hidden[0]}\npassword2 = {hidden[1]}\n"
    yield Place("store:place", lambda: store.rename(scratch / "gone"), file, (*words, *hidden))


#: How to make a remote of each type. A new driver needs an entry.
PLACES = {"local": local, "memory": memory, "s3": s3, "webdav": webdav}


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def command_lines(pid: int) -> list[str]:
    """Those of a process and all that it started."""
    children = [child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    own = Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
    return [own, *(line for child in children for line in command_lines(int(child)))]


CASES = [(driver, "text") for driver in REGISTRY.drivers] + [(REGISTRY.drivers[0], "json")]


@pytest.mark.parametrize(("driver", "form"), CASES, ids=lambda value: getattr(value, "type", value))
def test_no_secret_is_written(tmp_path: Path, driver, form: str) -> None:
    """A backup, wrong logins, hostile requests, a remote that breaks, and a reload, all at DEBUG."""
    place_of = bridge if driver.options is None else PLACES.get(driver.type)
    assert place_of is not None, f"tell PLACES how to make a remote of type {driver.type}"
    password, wrong = (f"{word}/{secrets.token_urlsafe(16)}" for word in ("right", "wrong"))
    with place_of(tmp_path) as place:
        remotes = tmp_path / "rclone.conf"
        remotes.write_text(place.file)
        flags = [
            "-vv",
            "--config",
            str(remotes),
            "--log-file",
            "log",
            "--audit-log",
            "audit",
            "--low-level-retries",
            "2",
        ]
        flags += ["--use-json-log"] if form == "json" else []
        environment = {"RESTICD_USER": USER, "RESTICD_PASS": password, "RESTICD_RCLONE": str(peer("rclone"))}
        with resticd(place.remote, tmp_path, *flags, environment=environment) as server:
            address = f"127.0.0.1:{server.port}/laptop/"
            restic = Restic(f"rest:http://{address}", tmp_path, password="the repository's")
            login = {"RESTIC_REST_USERNAME": USER, "RESTIC_REST_PASSWORD": password}
            restic.environment |= login
            restic("init")
            restic("backup", make_files(tmp_path / "files", count=5, big=300_000))
            seen = command_lines(server.pid)
            assert (len(seen) > 1) == (driver.options is None)
            for given in (wrong, password + "x"):
                assert ask(server.port, "GET", "/laptop/config", login=(USER, given)).status == 401
            query = "?sig=SIGNATURE&token=TOKEN&X-Amz-Signature=SIGNATURE"
            assert ask(server.port, "GET", f"/laptop/config{query}", login=(USER, password)).status == 200
            ask(server.port, "GET", f"/laptop/{password}", login=(USER, password))
            ask(server.port, "POST", blob(b"x", repository="/laptop/"), b"y", login=(USER, password))
            place.go()
            ask(server.port, "GET", "/laptop/snapshots/", login=(USER, password))
            ask(server.port, "POST", blob(b"x", repository="/laptop/"), b"x", login=(USER, password))
        written = "".join((tmp_path / name).read_text() for name in ("log", "audit")) + server.output()
    assert "GET /laptop/config" in written
    assert USER in written
    hidden = (*place.secrets, password, wrong, basic(USER, password), basic(USER, wrong), "SIGNATURE", "TOKEN")
    for secret in (*hidden, ACCESS_KEY if driver.type == "s3" else "the repository's"):
        assert secret not in written
    for secret in (*place.secrets, password):
        assert secret not in " ".join(seen)
