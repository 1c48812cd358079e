"""A server that stores nothing and checks nothing: what the load client could do if the server were free.

``python -m bench.null PORT DIRECTORY``. Every connection is served by a process of its own with blocking calls.
It takes any POST, drops the body in the kernel, and sends files by ``sendfile``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

_SINK = bytearray(1 << 20)


def serve(port: int, directory: Path) -> None:
    """Answer until a signal ends the process."""
    # Waited for, not ignored: only so does their CPU time count.
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _converse(connection, directory)
                os._exit(0)
            connection.close()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _converse(connection: socket.socket, directory: Path) -> None:
    files: dict[bytes, tuple[int, int]] = {}
    data = b""
    while True:
        while (end := data.find(b"\r\n\r\n")) < 0:
            part = connection.recv(65536)
            if not part:
                return
            data += part
        head, data = data[:end], data[end + 4 :]
        method, target, _ = head.split(b" ", 2)
        if method == b"POST":
            rest = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0] or 0) - len(data)
            while rest > 0:
                got = connection.recv_into(_SINK, min(rest, len(_SINK)), socket.MSG_TRUNC | socket.MSG_WAITALL)
                if not got:
                    return
                rest -= got
            data = b""
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            continue
        if target not in files:
            repository, kind, name = target.decode().strip("/").rsplit("/", 2)
            file = os.open(directory / repository / kind / name[:2] / name, os.O_RDONLY)
            files[target] = file, os.fstat(file).st_size
        file, size = files[target]
        first, last, status = 0, size - 1, b"200 OK"
        if b"\r\nRange: bytes=" in head:
            first, last = map(int, head.partition(b"Range: bytes=")[2].split(b"\r\n")[0].split(b"-"))
            status = b"206 Partial Content\r\nContent-Range: bytes %d-%d/%d" % (first, last, size)
        answer = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status, last + 1 - first)
        if method == b"HEAD":
            connection.send(answer)
            continue
        connection.send(answer, socket.MSG_MORE)
        while first <= last:
            first += os.sendfile(connection.fileno(), file, first, last + 1 - first)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
