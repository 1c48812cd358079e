"""What the servers are asked to do, and what is measured meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import define, field, frozen

from bench import load
from bench.corpus import MIB, Corpus, warm
from bench.processes import TICK, Daemon
from bench.servers import Peer, program, serve, settle

GIB = 1 << 30
CORES = os.cpu_count() or 1


@frozen
class Sample:
    """One measurement of one row of the table."""

    row: str
    #: ``MB/s``, ``req/s`` (more is better) or ``s`` (less is better)
    unit: str
    value: float
    #: the server's CPU seconds for each GiB, for 1000 requests or, where ``unit`` is ``s``, altogether
    cpu: float
    #: MiB resident at most, summed over the server's processes
    peak: float
    #: how much of the machine's CPU time the client took, and how much neither it nor the server, 0 to 1
    client: float = 0
    others: float = 0


@define
class Stage:
    """Where one server does one piece of work."""

    peer: Peer
    corpus: Corpus
    #: an empty directory on the disk that is measured
    scratch: Path
    #: counts the rounds, so that each can have bytes of its own
    round: int
    samples: list[Sample] = field(factory=list)

    @contextlib.contextmanager
    def serving(self, directory: Path) -> Iterator[tuple[Daemon, int]]:
        """The server over ``directory``, at rest after its start and the disk with it."""
        with serve(self.peer, directory, self.scratch) as (daemon, port):
            os.sync()
            settle(daemon)
            try:
                yield daemon, port
            except load.Unexpected as error:
                error.add_note(f"{self.peer.name} said:\n{daemon.output()[-4000:]}")
                raise

    @contextlib.contextmanager
    def empty(self) -> Iterator[tuple[Daemon, int]]:
        """The server over a new repository at ``/r/``."""
        store = self.scratch / "store"
        store.mkdir()
        with self.serving(store) as (daemon, port):
            if self.peer.kind != "null":
                load.fetch(port, "POST", "/r/?create=true", "Content-Length: 0")
            yield daemon, port
        shutil.rmtree(store)

    @contextlib.contextmanager
    def measure(self, daemon: Daemon, row: str, *, size: int = 0, requests: int = 0) -> Iterator[None]:
        """Add a sample of what happens inside: ``size`` bytes that move, ``requests``, or the time alone."""
        daemon.reset_peak()
        cpu, own, busy, start = daemon.cpu(), _own_cpu(), _busy(), time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        cpu, own, busy = daemon.cpu() - cpu, _own_cpu() - own, _busy() - busy
        others = max(0, busy - own - cpu)
        unit, value = "s", seconds
        if size:
            unit, value, cpu = "MB/s", size / 1e6 / seconds, cpu * GIB / size
        elif requests:
            unit, value, cpu = "req/s", requests / seconds, cpu * 1000 / requests
        all_cpu = seconds * CORES
        self.samples.append(Sample(row, unit, value, cpu, daemon.peak() / MIB, own / all_cpu, others / all_cpu))


def _own_cpu() -> float:
    # The server is a child too, but counts only once it has ended, which is outside of every measurement.
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _busy() -> float:
    """CPU seconds that the whole machine has worked since it was started."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def start(stage: Stage) -> None:
    """From the start of the process to its first answer. The peak is what is resident after it."""
    store = stage.scratch / "store"
    store.mkdir()
    started = time.perf_counter()
    with serve(stage.peer, store, stage.scratch) as (daemon, port):
        load.fetch(port, "GET", "/config", status=404)
        seconds, cpu = time.perf_counter() - started, daemon.cpu()
        settle(daemon)
        stage.samples.append(Sample("start to first answer", "s", seconds, cpu, daemon.resident() / MIB))


def put(stage: Stage) -> None:
    """Store blobs of 16 MiB."""
    files = [(f"/r/data/{name}", path) for name, path in stage.corpus.bulk().items()]
    with (
        stage.empty() as (daemon, port),
        stage.measure(daemon, "PUT 16 MiB", size=len(files) * stage.corpus.blob_size),
    ):
        load.upload(port, files)


def put_small(stage: Stage) -> None:
    """Store blobs of 4 KiB."""
    requests = [
        load.request("POST", f"/r/data/{name}", body=len(body)) + body
        for name, body in stage.corpus.small(3000, 4096, stage.round)
    ]
    with stage.empty() as (daemon, port), stage.measure(daemon, "PUT 4 KiB", requests=len(requests)):
        load.exchange(port, requests, 200)


def get(stage: Stage) -> None:
    """Fetch blobs of 16 MiB."""
    paths = [f"/bulk/data/{name}" for name in stage.corpus.bulk()] * 4
    size = stage.corpus.blob_size
    with stage.serving(stage.corpus.place) as (daemon, port):
        load.download(port, paths[:5], size)
        with stage.measure(daemon, "GET 16 MiB", size=len(paths) * size):
            load.download(port, paths, size)


def ranges(stage: Stage) -> None:
    """Fetch parts of 64 KiB from anywhere in the blobs, as a restore does."""
    length = 64 * 1024
    names = list(stage.corpus.bulk())
    dice = random.Random(stage.round)
    requests = []
    for _ in range(20_000):
        first = dice.randrange(stage.corpus.blob_size - length)
        header = f"Range: bytes={first}-{first + length - 1}"
        requests.append(load.request("GET", f"/bulk/data/{dice.choice(names)}", header))
    with stage.serving(stage.corpus.place) as (daemon, port):
        load.exchange(port, requests[:500], 206, length)
        with stage.measure(daemon, "GET 64 KiB ranges", requests=len(requests)):
            load.exchange(port, requests, 206, length)


def head(stage: Stage) -> None:
    """Ask for the size of blobs."""
    requests = [load.request("HEAD", f"/bulk/data/{name}") for name in stage.corpus.bulk()] * 700
    with stage.serving(stage.corpus.place) as (daemon, port):
        load.exchange(port, requests[:500], 200)
        with stage.measure(daemon, "HEAD", requests=len(requests)):
            load.exchange(port, requests, 200)


def listing(stage: Stage) -> None:
    """List a hundred thousand blobs: for the first time since the start, and again."""
    count = stage.corpus.many()
    with stage.serving(stage.corpus.place) as (daemon, port):
        for row in ("list of 100,000", "the same again"):
            with stage.measure(daemon, row):
                body = load.fetch(port, "GET", "/many/data/", f"Accept: {load.LIST_V2}")
            if (names := body.count(b'"name"')) != count:
                raise load.Unexpected(f"the list has {names} names, not {count}")


def restic(stage: Stage) -> None:
    """A whole backup of 1 GiB with restic, a restore of it and a check that reads everything."""
    source, target = stage.corpus.source(), stage.scratch / "restored"
    environment = {
        **os.environ,
        "RESTIC_PASSWORD": "bench",
        "RESTIC_CACHE_DIR": str(stage.scratch / "cache"),
        "HOME": str(stage.scratch),
    }
    with stage.empty() as (daemon, port):

        def run(*arguments: str) -> None:
            command = [str(program("restic-new")), "-q", "-r", f"rest:http://127.0.0.1:{port}/r/", *arguments]
            subprocess.run(command, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

        run("init")
        steps = {
            "restic backup": ("backup", str(source)),
            "restic restore": ("restore", "latest", "--target", str(target)),
            "restic check --read-data": ("check", "--read-data"),
        }
        for row, arguments in steps.items():
            os.sync()
            with stage.measure(daemon, row):
                run(*arguments)


WORK: dict[str, Callable[[Stage], None]] = {
    "start": start,
    "put": put,
    "put-small": put_small,
    "get": get,
    "ranges": ranges,
    "head": head,
    "list": listing,
    "restic": restic,
}
#: What the server that does nothing cannot do.
REAL_ONLY = {"start", "list", "restic"}


def restic_rounds(rounds: int) -> int:
    """Restic's work takes the most time by far, so it has half of the rounds."""
    return (rounds + 1) // 2


def prepare(corpus: Corpus, names: list[str]) -> None:
    """Make what the work ``names`` reads, and read it once."""
    if {"put", "get", "ranges", "head"} & set(names):
        corpus.bulk()
    if "list" in names:
        corpus.many()
    if "restic" in names:
        corpus.source()
    warm(corpus.place)


def perform(name: str, peer: Peer, corpus: Corpus, scratch: Path, number: int) -> list[Sample]:
    """Do one piece of work with one server, in the new directory ``scratch``, which is gone afterwards."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        stage = Stage(peer, corpus, scratch, number)
        WORK[name](stage)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return stage.samples
