"""Sockets from the service manager."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_twisted
from listeners.exchange import ask, fetch
from support.certificates import client_context
from support.ports import free_port

from resticd.errors import ConfigurationError
from resticd.listeners.systemd import InheritedSocket, take_inherited_sockets
from resticd.listeners.tls import configure_tls

HERE = Path(__file__).parent


def listening_socket(family=socket.AF_INET, address=("127.0.0.1", 0)):
    bound = socket.socket(family)
    bound.bind(address)
    bound.listen()
    return bound


def passed(*sockets):
    """Duplicates of the sockets under consecutive numbers, as a child finds them; the first number."""
    first = 200
    for number, one in enumerate(sockets, first):
        os.dup2(one.fileno(), number, inheritable=True)
    return first


def environment(count, names=None, pid=None):
    variables = {"LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDS": str(count), "HOME": "/"}
    if names is not None:
        variables["LISTEN_FDNAMES"] = names
    return variables


def test_names(tmp_path):
    """Sockets keep their order and names, are non-blocking and not inheritable, and the variables are gone."""
    tcp, unix = listening_socket(), listening_socket(socket.AF_UNIX, str(tmp_path / "s"))
    variables = environment(2, "web:local")
    taken = take_inherited_sockets(variables, passed(tcp, unix))
    assert [(one.name, one.is_unix) for one in taken] == [("web", False), ("local", True)]
    assert variables == {"HOME": "/"}
    for one in taken:
        assert not one.socket.getblocking()
        assert not one.socket.get_inheritable()
        one.socket.close()


@pytest.mark.parametrize("names", [None, "", "a:b"])
def test_without_names(names):
    """Without names, or with too many, every socket is unknown."""
    (taken,) = take_inherited_sockets(environment(1, names), passed(listening_socket()))
    assert taken.name == "unknown"
    taken.socket.close()


def test_for_another_process():
    """Variables that are meant for another process count for nothing, and do not reach children either."""
    variables = environment(1, pid=1)
    assert take_inherited_sockets(variables) == []
    assert variables == {"HOME": "/"}


def test_nothing_passed():
    """Usually nothing is passed."""
    assert take_inherited_sockets({}) == []
    assert take_inherited_sockets() == []


@pytest.mark.parametrize("kind", ["closed", "file", "datagram", "connected"])
def test_what_is_no_listening_socket(kind, tmp_path):
    """What is no listening stream socket is refused in one line with its name."""
    first = 200
    with contextlib.ExitStack() as open_files:
        if kind == "file":
            first = passed(open_files.enter_context((tmp_path / "f").open("w")))
        elif kind == "datagram":
            first = passed(open_files.enter_context(socket.socket(type=socket.SOCK_DGRAM)))
        elif kind == "connected":
            first = passed(*map(open_files.enter_context, socket.socketpair()))
        with pytest.raises(ConfigurationError, match=r"^LISTEN_FDS: descriptor 200 \('web'\): "):
            take_inherited_sockets(environment(1, "web"), first)
        for number in (200, 201):
            with contextlib.suppress(OSError):
                os.close(number)


def test_bad_count():
    """A count that is no number is refused."""
    with pytest.raises(ConfigurationError, match=r"^LISTEN_FDS: 'x': not a number of sockets$"):
        take_inherited_sockets(environment("x"))


@pytest_twisted.ensureDeferred
async def test_tls_by_name(authority, listeners):
    """With a certificate every name has TLS but the whole name http."""
    pair = authority.server()
    sources = [
        InheritedSocket(name, listening_socket()) for name in ("unknown", "http-backup.socket", "https", "tls", "http")
    ]
    made = listeners(*sources, tls=configure_tls(str(pair.cert), str(pair.key)))
    await made.start()
    schemes = {listening.name: listening.url.partition(":")[0] for listening in made.ports}
    assert schemes == {
        "unknown": "https",
        "http-backup.socket": "https",
        "https": "https",
        "tls": "https",
        "http": "http",
    }
    for listening in made.ports:
        assert (await ask(listening.url, client_context(authority.file))).seen["host"] == "IPv4Address"


def test_tls_by_name_without_certificate(listeners):
    """A name that insists on TLS refuses to start without a certificate."""
    with contextlib.closing(listening_socket()) as bound, pytest.raises(ConfigurationError) as caught:
        listeners(InheritedSocket("https", bound))
    assert str(caught.value) == "the service manager's socket 'https': TLS needs --cert and --key"


@pytest_twisted.ensureDeferred
async def test_unix_socket_stays_the_service_managers(tmp_path, listeners):
    """A passed unix socket keeps its mode and its file, and still listens for its owner when we are gone."""
    path = tmp_path / "s"
    owner = listening_socket(socket.AF_UNIX, str(path))
    path.chmod(0o620)
    made = listeners(InheritedSocket("local", owner.dup()))
    await made.start()
    assert made.ports[0].url == f"unix://{path}"
    assert (await ask(made.ports[0].url)).seen["host"] == "UNIXAddress"
    assert path.stat().st_mode & 0o777 == 0o620
    await made.stop()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        owner.accept()[0].close()
    owner.close()


@pytest.mark.parametrize("names", [None, "web:local"])
@pytest.mark.parametrize("imported", ["resticd.listeners.systemd", "twisted.internet.endpoints"])
def test_socket_activation(tmp_path, authority, names, imported):
    """systemd-socket-activate starts the server on the first connection, whatever was imported before."""
    pair = authority.server()
    port = free_port()
    command = ["systemd-socket-activate", f"--listen=127.0.0.1:{port}", f"--listen={tmp_path / 's'}"]
    command += [] if names is None else [f"--fdname={names}"]
    search = os.pathsep.join([str(HERE.parent), str(HERE.parent.parent)])
    command += [f"--setenv=PYTHONPATH={search}", sys.executable, str(HERE / "serve_inherited.py"), imported]
    with subprocess.Popen([*command, pair.cert, pair.key], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as manager:
        try:
            # Its first words come when it listens.
            assert b"Listening on" in manager.stderr.readline()
            assert b"Listening on" in manager.stderr.readline()
            answer = fetch(f"https://127.0.0.1:{port}/", client_context(authority.file))
            assert answer.seen["secure"]
            assert fetch(f"unix://{tmp_path / 's'}").seen["host"] == "UNIXAddress"
            report = json.loads(manager.stdout.readline())
        finally:
            manager.kill()
    assert report == {
        "urls": [f"https://127.0.0.1:{port}/", f"unix://{tmp_path / 's'}"],
        "names": ["unknown", "unknown"] if names is None else ["web", "local"],
        "variables": [],
        "again": 0,
    }
