"""``python -m bench.rates``: how well ``--bwlimit`` is kept by a real daemon, over several connections at once.

For each limit ten seconds' worth of blobs is uploaded (the time runs until the last of them is stored), and what
arrives within ten seconds of downloads is counted. Then small uploads are timed beside twenty large ones at 1 MiB/s.
Limits as arguments are measured instead: ``python -m bench.rates 3M 50M``. The exit status is 1 when a rate is off by
more than 5 % or a small upload took more than 2 seconds.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import TypeVar

from bench.corpus import MIB, alone
from bench.load import CONNECTIONS, Unexpected
from bench.servers import RESULTS, Peer, serve
from resticd.config.flags import parse_size

LIMITS = ("64k", "1M", "20M", "200M")
#: seconds
WINDOW = 10
TOLERANCE = 0.05
LATENCY = 2.0

_BLOCK = memoryview(random.Random(0).randbytes(16 * MIB))

Result = TypeVar("Result")
Blob = tuple[str, list[bytes | memoryview], int]


def main(limits: list[str]) -> int:
    """Measure, print; returns the exit status."""
    fine = True
    print(f"over {room()}\n{'limit':>8} {'direction':>10} {'measured':>14} {'of the limit':>13}")
    rates = {text: parse_size(text) or 0 for text in limits}
    for text, limit in rates.items():
        for direction, rate in measure(text, limit):
            print(f"{text:>8} {direction:>10} {rate / MIB:8.3f} MiB/s {rate / limit:13.1%}", flush=True)
            fine = fine and abs(rate / limit - 1) <= TOLERANCE
    # What the same path does when no limit holds it up: where that is below a limit, the machine is the limit.
    for direction, rate in measure("1T", max(rates.values())):
        print(f"{'none':>8} {direction:>10} {rate / MIB:8.3f} MiB/s", flush=True)
    slowest = measure_latency()
    print(f"200 bytes beside 20 uploads at 1 MiB/s: {slowest:.2f} s at most")
    return 0 if fine and slowest <= LATENCY else 1


def measure(text: str, expected: int) -> list[tuple[str, float]]:
    """The rates of both directions under the limit ``text``, where about ``expected`` bytes per second pass."""
    with daemon("--bwlimit", text) as port:
        paths, up = measure_upload(port, expected)
        return [("up", up), ("down", measure_download(port, paths))]


def room() -> Path:
    """Where the blobs lie: in memory if there is room, since a disk may be slower than a limit."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 4 * 1024 * MIB else RESULTS


@contextmanager
def daemon(*flags: str) -> Iterator[int]:
    """A daemon with ``flags`` over an empty directory; gives its port."""
    with TemporaryDirectory(prefix="resticd-rates-", dir=room()) as made:
        scratch = Path(made)
        directory = scratch / "store"
        directory.mkdir()
        with serve(Peer("resticd", "resticd", flags), directory, scratch) as (_, port):
            yield port


def measure_upload(port: int, limit: int) -> tuple[list[str], float]:
    """Upload about ``WINDOW`` seconds' worth. Returns the paths and the rate in bytes per second."""
    size = min(limit * WINDOW // CONNECTIONS, len(_BLOCK))
    blobs = [blob(number, size) for number in range(limit * WINDOW // size)]
    waiting = deque(blobs)

    def work(connection: HTTPConnection) -> None:
        while waiting:
            post(connection, waiting.popleft())

    begin = time.monotonic()
    in_parallel(port, CONNECTIONS, work)
    return [path for path, _, _ in blobs], size * len(blobs) / (time.monotonic() - begin)


def measure_download(port: int, paths: list[str]) -> float:
    """Download for ``WINDOW`` seconds. Returns the rate in bytes per second."""
    deadline = time.monotonic() + WINDOW

    def work(connection: HTTPConnection) -> int:
        count = 0
        while True:
            connection.request("GET", random.choice(paths))
            answer = connection.getresponse()
            while part := answer.read1(MIB):
                count += len(part)
                if time.monotonic() > deadline:
                    return count
            answer.read()  # without it read1 leaves an answer that counts as unread

    begin = time.monotonic()
    count = sum(in_parallel(port, CONNECTIONS, work))
    return count / (time.monotonic() - begin)


def measure_latency() -> float:
    """The longest time, in seconds, that one of five small uploads took beside twenty large ones."""
    over = Event()
    serial = iter(range(20))

    def work(connection: HTTPConnection) -> None:
        try:
            post(connection, blob(next(serial), 16 * MIB))
        except (OSError, HTTPException):
            if not over.is_set():
                raise

    with daemon("--bwlimit", "1M") as port, ThreadPoolExecutor(1) as background:
        small = HTTPConnection("127.0.0.1", port)
        connections = [HTTPConnection("127.0.0.1", port) for _ in range(20)]
        large = background.submit(each, connections, work)
        time.sleep(2)
        times = []
        for number in range(5):
            begin = time.monotonic()
            post(small, blob(100 + number, 200, "locks"))
            times.append(time.monotonic() - begin)
        if large.done():
            raise Unexpected("the large uploads ended before the small ones")
        over.set()
        for connection in connections:
            connection.sock.shutdown(2)
        large.result()
    return max(times)


def blob(number: int, size: int, kind: str = "data") -> Blob:
    """A path, the parts of the body whose SHA-256 it names, and its size."""
    parts: list[bytes | memoryview] = [number.to_bytes(8, "big"), _BLOCK[8:size]]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return f"/{kind}/{digest.hexdigest()}", parts, size


def post(connection: HTTPConnection, what: Blob) -> None:
    """Upload one blob; the answer must be 200."""
    path, parts, size = what
    connection.request("POST", path, iter(parts), {"Content-Length": str(size)})
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise Unexpected(f"{path}: {answer.status}")


def in_parallel(port: int, count: int, work: Callable[[HTTPConnection], Result]) -> list[Result]:
    """Call ``work`` for each of ``count`` connections, in threads."""
    return each([HTTPConnection("127.0.0.1", port) for _ in range(count)], work)


def each(connections: list[HTTPConnection], work: Callable[[HTTPConnection], Result]) -> list[Result]:
    """Call ``work`` for each of ``connections``, in threads, and close them."""
    with ThreadPoolExecutor(len(connections)) as pool:
        futures = [pool.submit(work, connection) for connection in connections]
        results = [future.result() for future in futures]
    for connection in connections:
        connection.close()
    return results


if __name__ == "__main__":
    with alone(RESULTS):
        sys.exit(main(sys.argv[1:] or list(LIMITS)))
