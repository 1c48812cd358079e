"""Bandwidth limits with real restic: what goes through is what was sent, and no faster than told."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h2.config
import h2.connection
import pytest
from support.asking import ask, blob
from support.daemons import Server
from support.restic import Restic
from support.sequences import restore_and_compare
from support.waiting import wait_until

Start = Callable[..., Server]
MIB = 1024 * 1024
SIZE = 3 * MIB


def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "noise").write_bytes(os.urandom(SIZE))
    return folder


def test_a_limited_backup_and_restore(start_resticd: Start, tmp_path: Path) -> None:
    """At 1 MiB/s neither can take less than three seconds, whatever the machine."""
    server = start_resticd(tmp_path / "store", "--bwlimit", "1M")
    restic = Restic(server.repository(), tmp_path, options=("--no-cache",))
    restic("init")
    folder = files(tmp_path)
    begin = time.monotonic()
    restic("backup", folder)
    assert time.monotonic() - begin > SIZE / MIB * 0.9
    begin = time.monotonic()
    restore_and_compare(restic, folder, tmp_path / "restored")
    assert time.monotonic() - begin > SIZE / MIB * 0.9
    restic("check", "--read-data")


def test_one_direction_and_the_toggle(start_resticd: Start, tmp_path: Path) -> None:
    """``off:1M`` leaves uploads alone, and SIGUSR2 takes the limit away from a restore that runs."""
    server = start_resticd(tmp_path / "store", "--bwlimit", "off:1k")
    restic = Restic(server.repository(), tmp_path, options=("--no-cache",))
    os.kill(server.pid, signal.SIGUSR2)
    restic("init")
    folder = files(tmp_path)
    restic("backup", folder)
    restore_and_compare(restic, folder, tmp_path / "restored")


def test_over_standard_input(tmp_path: Path) -> None:
    """The same over HTTP/2, where resticd is rclone's stand-in."""
    program = Path(sys.executable).with_name("resticd")
    options = ("--no-cache", "-o", f"rclone.program={program}")
    restic = Restic(f"rclone:{tmp_path}/store", tmp_path, options=options)
    restic("init")
    restic.environment["RESTICD_BWLIMIT"] = "1M"
    folder = files(tmp_path)
    begin = time.monotonic()
    restic("backup", folder)
    assert time.monotonic() - begin > SIZE / MIB * 0.9
    begin = time.monotonic()
    restore_and_compare(restic, folder, tmp_path / "restored")
    assert time.monotonic() - begin > SIZE / MIB * 0.9


def test_each_file_alone(start_resticd: Start) -> None:
    """``--bwlimit-file`` holds for each transfer, however many there are."""
    server = start_resticd(":memory:", "--bwlimit-file", "1M")
    bodies = [os.urandom(2 * MIB) for _ in range(4)]
    begin = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda body: ask(server.port, "POST", blob(body), body), bodies))
    assert time.monotonic() - begin > 2 * 0.9
    assert [answer.status for answer in answers] == [200] * 4
    begin = time.monotonic()
    assert ask(server.port, "GET", blob(bodies[0])).body == bodies[0]
    assert time.monotonic() - begin > 2 * 0.9


def test_a_reload_changes_a_running_transfer(start_resticd: Start, tmp_path: Path) -> None:
    """What would take an hour is over once the limit is gone."""
    settings = tmp_path / "resticd.toml"
    settings.write_text('bwlimit = "1k"\n')
    server = start_resticd(":memory:", "--settings", str(settings))
    body = os.urandom(4 * MIB)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server.port, "POST", blob(body), body)
        os.kill(server.pid, signal.SIGUSR1)
        wait_until(lambda: "upload" in server.output() or os.kill(server.pid, signal.SIGUSR1))
        assert not answer.done()
        settings.write_text('bwlimit = "off"\n')
        os.kill(server.pid, signal.SIGHUP)
        assert answer.result(60).status == 200


def test_requests_a_second(start_resticd: Start, tmp_path: Path) -> None:
    """``--tpslimit`` holds up what goes to the remote; a burst is saved up."""
    server = start_resticd(tmp_path / "store", "--tpslimit", "5", "--tpslimit-burst", "3", "--cache-objects=false")
    begin = time.monotonic()
    for _ in range(13):
        assert ask(server.port, "HEAD", "/config").status == 404
    assert time.monotonic() - begin > 10 / 5 * 0.9


# Nothing is held in memory for want of bandwidth.

LARGE = 64 * MIB


def over_http1(port: int) -> Iterator[int]:
    """Uploads ``LARGE`` bytes; gives how many the other side has taken whenever it takes no more for now."""
    with socket.create_connection(("127.0.0.1", port)) as wire:
        wire.sendall(f"POST /data/{'0' * 64} HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n".encode())
        wire.setblocking(False)
        taken = 0
        while True:
            with contextlib.suppress(BlockingIOError):
                while taken < LARGE:
                    taken += wire.send(bytes(min(LARGE - taken, MIB)))
            yield taken


def over_http2(port: int) -> Iterator[int]:
    with socket.create_connection(("127.0.0.1", port)) as wire:
        peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        peer.initiate_connection()
        headers = [(":method", "POST"), (":path", f"/data/{'0' * 64}"), (":scheme", "http"), (":authority", "x")]
        peer.send_headers(1, [*headers, ("content-length", str(LARGE))])
        wire.settimeout(0.05)
        taken = 0
        while True:
            wire.sendall(peer.data_to_send())
            while size := min(peer.local_flow_control_window(1), peer.max_outbound_frame_size, LARGE - taken):
                peer.send_data(1, bytes(size))
                taken += size
                wire.sendall(peer.data_to_send())
            try:
                peer.receive_data(wire.recv(65536))
            except TimeoutError:
                yield taken


@pytest.mark.parametrize("upload", [over_http1, over_http2])
def test_a_limited_upload_waits_at_the_client(start_resticd: Start, tmp_path: Path, upload) -> None:
    """Eight clients push as much as they can; what they get rid of lies in sockets and windows, not in the process."""
    server = start_resticd(tmp_path / "store", "--bwlimit", "64k")
    assert ask(server.port, "GET", "/data/").status == 200
    before = server.peak()
    uploads = [upload(server.port) for _ in range(8)]
    begin = time.monotonic()
    while time.monotonic() - begin < 3:
        taken = [next(running) for running in uploads]
    assert max(taken) < LARGE / 2
    assert server.peak() - before < 32 * MIB
    for running in uploads:
        running.close()
    server.kill()  # it would wait for them: who does not read does not see that a client is gone


def test_a_limited_download_waits_at_the_remote(start_resticd: Start, tmp_path: Path) -> None:
    """Eight clients read as much as they can of a large file."""
    server = start_resticd(tmp_path / "store", "--bwlimit", "off:64k")
    body = os.urandom(LARGE)
    assert ask(server.port, "POST", blob(body), body).status == 200
    server.reset_peak()
    before = server.peak()
    with contextlib.ExitStack() as wires:
        clients = [wires.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(8)]
        for wire in clients:
            wire.sendall(f"GET {blob(body)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        received = [0] * len(clients)
        while min(received) < 20_000:
            for number, wire in enumerate(clients):
                received[number] += len(wire.recv(65536))
    assert server.peak() - before < 32 * MIB
