"""Many streams at once, from other people's clients and from one that stalls them all."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.asking import ask, blob
from support.certificates import Authority
from support.daemons import Server
from support.h2_client import H2Client
from support.h2_programs import h2load

from resticd.http.h2_engine import FIRST_WINDOW, STREAM_WINDOW

Start = Callable[..., Server]
MIB = 1024 * 1024
SMALL = os.urandom(10_000)
LARGE = os.urandom(3 * MIB)


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(params=["h2c", "tls"])
def url(request: pytest.FixtureRequest, start_resticd: Start, tmp_path: Path) -> str:
    """The root of a server that holds SMALL and LARGE."""
    flags: tuple[str, ...] = ()
    if request.param == "tls":
        pair = Authority(tmp_path).server()
        flags = ("--cert", str(pair.cert), "--key", str(pair.key), "--http2=prefer")
    server = start_resticd(tmp_path / "store", *flags)
    for body in (SMALL, LARGE):
        path = tmp_path / "store" / blob(body)[1:]
        path = path.parent / path.name[:2] / path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return f"{'https' if flags else 'http'}://127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("body", "arguments"),
    [(SMALL, ("-n3000", "-c4", "-m100")), (LARGE, ("-n200", "-c4", "-m20")), (SMALL, ("-n1000", "-c20", "-m5"))],
    ids=["small", "large", "connections"],
)
def test_downloads(url: str, body: bytes, arguments: tuple[str, ...]) -> None:
    load = h2load(url + blob(body), *arguments)
    count = int(arguments[0][2:])
    assert (load.good, load.failed, load.errored, load.timeout) == (count, 0, 0, 0), load.text
    assert "Application protocol: h2" in load.text


@pytest.mark.parametrize(
    ("size", "arguments"),
    [(5000, ("-n1000", "-c4", "-m100")), (4 * MIB, ("-n60", "-c3", "-m10"))],
    ids=["small", "large"],
)
def test_uploads(url: str, tmp_path: Path, size: int, arguments: tuple[str, ...]) -> None:
    """Many of the same file at once, all of which succeed."""
    body = os.urandom(size)
    (tmp_path / "body").write_bytes(body)
    load = h2load(url + blob(body), "-d", tmp_path / "body", *arguments)
    count = int(arguments[0][2:])
    assert (load.good, load.failed, load.errored, load.timeout) == (count, 0, 0, 0), load.text
    stored = [path for path in (tmp_path / "store").rglob(blob(body)[6:]) if path.is_file()]
    assert [path.read_bytes() for path in stored] == [body]
    assert not list((tmp_path / "store").rglob(".resticd-*"))


def test_early_refusals(url: str, tmp_path: Path) -> None:
    """Answers that come before the body has."""
    (tmp_path / "body").write_bytes(LARGE)
    load = h2load(f"{url}/data/no-name", "-d", tmp_path / "body", "-n300", "-c2", "-m20")
    assert "300 4xx" in load.text, load.text
    assert (load.errored, load.timeout) == (0, 0), load.text


def test_memory_with_100_stalled_downloads(start_resticd: Start, tmp_path: Path) -> None:
    """The client opens every window and reads nothing, then it leaves: everything is given back."""
    server = start_resticd(tmp_path / "store")
    body = os.urandom(8 * MIB)
    assert ask(server.port, "POST", blob(body), body).status == 200
    assert ask(server.port, "GET", blob(body)).body == body
    files = server.descriptors()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        client = H2Client.on_socket(connection, window=16 * MIB)
        assert client.ask("HEAD", blob(body)).status == 200
        before = server.resident()
        server.reset_peak()
        for _ in range(100):
            client.begin("GET", blob(body))
        eventually(lambda: server.descriptors() > files + 100)
        assert ask(server.port, "GET", blob(body)).body == body
        assert server.peak() - before < 100 * MIB
    eventually(lambda: server.descriptors() <= files)


def test_memory_with_100_stalled_uploads(start_resticd: Start, tmp_path: Path) -> None:
    """The server takes them slowly: the client is held back, other requests are not."""
    server = start_resticd(tmp_path / "store", "--bwlimit-file", "16k")
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        client = H2Client.on_socket(connection)
        assert client.ask("GET", "/config").status == 404
        before = server.resident()
        server.reset_peak()
        length = ("content-length", str(4 * MIB))
        streams = [client.begin("POST", blob(b"%d" % number), length, end=False) for number in range(99)]
        sent = 0
        for _ in range(10):
            for stream in streams:
                while room := min(client.h2.local_flow_control_window(stream), client.h2.max_outbound_frame_size):
                    client.h2.send_data(stream, bytes(room))
                    sent += room
                    client.flush()
            assert client.ask("GET", "/config").status == 404
        assert 99 * FIRST_WINDOW <= sent <= 99 * (STREAM_WINDOW + FIRST_WINDOW)
        assert server.peak() - before < 150 * MIB
        assert not any(client.responses[stream].complete for stream in streams)
    eventually(lambda: not list((tmp_path / "store").rglob(".resticd-*")))
