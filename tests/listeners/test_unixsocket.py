"""Unix sockets at a path."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import threading

import pytest
from twisted.internet import reactor

from resticd.errors import ConfigurationError
from resticd.listeners.unixsocket import bind_unix, parse_group, parse_mode


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


def is_alive(path):
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def leave_stale(path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))


def test_only_the_owner_by_default(path):
    """A socket is its owner's alone unless something else is asked for, whatever the umask."""
    old = os.umask(0)
    try:
        bound = bind_unix(reactor, str(path))
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert is_alive(path)
    bound.close()
    assert list(path.parent.iterdir()) == []


def test_mode_and_group(path):
    """Mode and group are set as asked for."""
    group = max(os.getgroups() or [os.getgid()]) if os.getuid() else 12345
    bound = bind_unix(reactor, str(path), 0o660, group)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert path.stat().st_gid == group
    bound.close()


def test_stale_is_replaced(path):
    """A socket file that nobody listens to is replaced."""
    leave_stale(path)
    bound = bind_unix(reactor, str(path))
    assert is_alive(path)
    bound.close()


def test_live_is_not_replaced(path):
    """A socket that somebody listens to is left alone, and works on."""
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen()
        with pytest.raises(OSError, match="another server listens there") as caught:
            bind_unix(reactor, str(path))
        assert caught.value.errno == errno.EADDRINUSE
        assert is_alive(path)


def test_busy_is_live(path):
    """A server whose backlog is full is alive."""
    clients = []
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        while True:
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].setblocking(False)
            if clients[-1].connect_ex(str(path)) == errno.EAGAIN:
                break
        with pytest.raises(OSError, match="another server listens there"):
            bind_unix(reactor, str(path))
        for client in clients:
            client.close()


@pytest.mark.parametrize("kind", ["file", "directory", "symbolic link"])
def test_other_files_are_not_replaced(path, tmp_path, kind):
    """What is no socket is left alone."""
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        leave_stale(tmp_path / "target")
        path.symlink_to(tmp_path / "target")
    before = path.lstat()
    with pytest.raises(FileExistsError):
        bind_unix(reactor, str(path))
    assert os.path.samestat(before, path.lstat())


def test_replaced_file_is_not_removed(path):
    """Closing leaves a file that another server has put there meanwhile."""
    bound = bind_unix(reactor, str(path))
    path.unlink()
    other = bind_unix(reactor, str(path))
    bound.close()
    assert is_alive(path)
    other.close()
    assert not path.exists()


def test_failure_leaves_nothing(path):
    """When the group cannot be set there is no socket."""
    with pytest.raises((OSError, OverflowError)):
        bind_unix(reactor, str(path), 0o660, 2**40)
    assert list(path.parent.iterdir()) == []


def test_one_at_a_time(path):
    """While another server looks at the place, this one does not start."""
    with (path.parent / "s.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="just starting there"):
            bind_unix(reactor, str(path))
    # It ended without removing its lock.
    bind_unix(reactor, str(path)).close()


def test_many_at_once(path):
    """Of many servers that find a stale socket exactly one gets the place, and it can be reached."""
    for _ in range(20):
        leave_stale(path)
        barrier = threading.Barrier(6)
        bound = []

        def start(barrier=barrier, bound=bound):
            barrier.wait()
            try:
                bound.append(bind_unix(reactor, str(path)))
            except OSError as error:
                assert error.errno == errno.EADDRINUSE

        threads = [threading.Thread(target=start) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(bound) == 1
        assert is_alive(path)
        bound[0].close()


@pytest.mark.parametrize(("text", "mode"), [("660", 0o660), ("0600", 0o600), ("0o777", 0o777), ("0", 0)])
def test_parse_mode(text, mode):
    """Modes are octal."""
    assert parse_mode(text) == mode


@pytest.mark.parametrize("text", ["", "999", "1777", "-1", "rw", "0x10"])
def test_parse_mode_refuses(text):
    """What is no mode is refused by the flag's name."""
    with pytest.raises(ConfigurationError, match=r"^--unix-socket-mode: "):
        parse_mode(text)


def test_parse_group():
    """Groups are names or numbers."""
    assert parse_group("root") == 0
    assert parse_group("123") == 123
    for text in ("no-such-group", "4294967295"):
        with pytest.raises(ConfigurationError) as caught:
            parse_group(text)
        assert str(caught.value) == f"--unix-socket-group: {text!r}: no such group"
