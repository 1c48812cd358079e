"""Many connections at once: most of them idle, many busy, and somebody whose lock must not grow old."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from contextlib import ExitStack
from http.client import HTTPConnection
from statistics import quantiles
from typing import TYPE_CHECKING

from bench import load

if TYPE_CHECKING:
    from bench.work import Stage

IDLE = 1000
BUSY = 200
LENGTH = 64 * 1024
#: restic refreshes each of its locks every five minutes; here somebody does so without a pause.
REFRESHES = 200


def crowd(stage: Stage) -> None:
    """Refresh a lock while a thousand connections are idle and two hundred fetch parts of blobs."""
    names = list(stage.corpus.bulk())
    dice = random.Random(stage.round)
    with stage.serving(stage.corpus.place) as (daemon, port), ExitStack() as stack:
        for _ in range(IDLE):
            idle = stack.enter_context(load.connect(port))
            idle.sendall(load.request("HEAD", f"/bulk/data/{names[0]}"))
            if not idle.recv(4096).startswith(b"HTTP/1.1 200 "):
                raise load.Unexpected("a connection that is to be idle was not answered")
        over = threading.Event()
        failures: list[BaseException] = []

        def parts() -> list[bytes]:
            made = []
            for _ in range(2000):
                first = dice.randrange(stage.corpus.blob_size - LENGTH)
                header = f"Range: bytes={first}-{first + LENGTH - 1}"
                made.append(load.request("GET", f"/bulk/data/{dice.choice(names)}", header))
            return made

        def be_busy() -> None:
            requests = parts()
            try:
                while not over.is_set():
                    load.exchange(port, requests, 206, LENGTH, connections=BUSY)
            except BaseException as error:
                failures.append(error)

        busy = threading.Thread(target=be_busy)
        busy.start()
        try:
            with stage.measure(daemon, "lock refresh in a crowd, p99") as sample:
                sample.value = quantiles(refresh(port), n=100)[98]
        finally:
            over.set()
            busy.join()
        if failures:
            raise failures[0]


def refresh(port: int) -> list[float]:
    """Store a new lock and delete the one before, many times; how long each took, in seconds."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    times, before = [], None
    for _ in range(REFRESHES):
        body = random.randbytes(200)
        path = f"/bulk/locks/{hashlib.sha256(body).hexdigest()}"
        started = time.perf_counter()
        for method, target, data in (("POST", path, body), ("DELETE", before, None)):
            if target is None:
                continue
            connection.request(method, target, data)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise load.Unexpected(f"{method} {target}: {response.status}")
        times.append(time.perf_counter() - started)
        before = path
    connection.request("DELETE", str(before))
    connection.getresponse().read()
    connection.close()
    return times
