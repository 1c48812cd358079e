"""Unix sockets at a path: who may connect, what to do with what lies there, and who takes it away."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from resticd.errors import ConfigurationError
from resticd.listeners.boundsocket import BACKLOG, BoundSocket

if TYPE_CHECKING:
    from resticd.interfaces import IReactor

#: Who may connect needs no login, so nobody but the server's own user may, unless the administrator says more.
DEFAULT_MODE = 0o600


def parse_mode(text: str) -> int:
    """The value of ``--unix-socket-mode``: octal digits such as ``660``. Raises ``ConfigurationError``."""
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ConfigurationError(f"--unix-socket-mode: {text!r}: not an octal mode such as 660")
    return mode


def parse_group(text: str) -> int:
    """The group id for ``--unix-socket-group``, a name or a number. Raises ``ConfigurationError``."""
    try:
        # The last 32-bit number means no group at all to chown(2).
        if text.isascii() and text.isdigit() and int(text) < 2**32 - 1:
            return int(text)
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ConfigurationError(f"--unix-socket-group: {text!r}: no such group") from None


def bind_unix(reactor: IReactor, path: str, mode: int = DEFAULT_MODE, group: int | None = None) -> BoundSocket:
    """A socket that listens at ``path``.

    A socket file that nobody listens to is replaced, anything else is left alone. Closing removes the file, unless it
    was replaced meanwhile. Raises ``OSError``: EADDRINUSE where a server is alive there or is just starting.
    """
    with _starting(path):
        _remove_stale(path)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(path)
            file = _SocketFile.at(path)
            try:
                # Before listen(2) every connect is refused, so nobody slips in with the wrong mode.
                if group is not None:
                    os.chown(path, -1, group)
                Path(path).chmod(mode)
                bound.listen(BACKLOG)
            except BaseException:
                file.remove()
                raise
        except BaseException:
            bound.close()
            raise
    return BoundSocket(reactor, bound, file.remove)


@frozen
class _SocketFile:
    """The file of a socket of ours. While the socket is open no other file can get its number."""

    path: str
    device: int
    inode: int

    @classmethod
    def at(cls, path: str) -> _SocketFile:
        status = os.lstat(path)
        return cls(path, status.st_dev, status.st_ino)

    def remove(self) -> None:
        """Take the file away if it is still ours."""
        with contextlib.suppress(OSError):
            if self == _SocketFile.at(self.path):
                Path(self.path).unlink()


@contextlib.contextmanager
def _starting(path: str) -> Iterator[None]:
    """Only one process at a time looks at what lies at ``path`` and binds there.

    The lock is a file beside it that is gone afterwards: two servers that start at once must not both take the other's
    socket, bound but not listening yet, for a stale one.
    """
    lock_path = Path(f"{path}.lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        lock = os.open(lock_path, flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise OSError(errno.EADDRINUSE, "another server is just starting there") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.lstat(lock_path)):
                break
        # Its owner removed it between open and flock.
        os.close(lock)
    try:
        yield
    finally:
        lock_path.unlink(missing_ok=True)
        os.close(lock)


def _remove_stale(path: str) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(errno.EEXIST, "something that is not a socket lies there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # a full backlog: somebody listens
    raise OSError(errno.EADDRINUSE, "another server listens there")
