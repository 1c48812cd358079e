"""The line with latency."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

from bench.latency import line


def test_bytes_and_ends_are_carried(tmp_path: Path) -> None:
    """Whatever is sent arrives whole, in both directions at once, and the end after it."""
    data = os.urandom(3_000_000)
    with socket.create_server(("127.0.0.1", 0)) as listener, line(listener.getsockname()[1], 20, tmp_path) as port:

        def echo() -> None:
            # The first connection is that of the one who waits for the port.
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    while part := connection.recv(65536):
                        connection.sendall(part)

        server = threading.Thread(target=echo, daemon=True)
        server.start()
        with socket.create_connection(("127.0.0.1", port), 30) as connection:
            connection.settimeout(60)
            sender = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
            sender.start()
            got = b""
            while part := connection.recv(1 << 20):
                got += part
            sender.join(60)
        server.join(60)
    assert got == data
