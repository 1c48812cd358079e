"""What the servers are asked to do, and what is measured meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from attrs import define, evolve, field, frozen

from bench import load
from bench.clients import restic, stdio
from bench.corpus import MIB, Corpus, warm
from bench.crowd import crowd
from bench.guarded import login, tls
from bench.processes import TICK, Children, Daemon
from bench.servers import Guard, Peer, serve, settle

GIB = 1 << 30
CORES = os.cpu_count() or 1
#: A directory beside the scratch directory, which is removed at the end.
KEPT = "kept"


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
class Override:
    """What is measured of a block, where that is not how long it takes, in seconds."""

    value: float | None = None


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
    def serving(self, directory: Path, guard: Guard | None = None) -> Iterator[tuple[Daemon, int]]:
        """The server over ``directory``, at rest after its start and the disk with it."""
        with serve(self.peer, directory, self.scratch, guard) as (daemon, port):
            os.sync()
            settle(daemon)
            try:
                yield daemon, port
            except load.Unexpected as error:
                error.add_note(f"{self.peer.name} said:\n{daemon.output()[-4000:]}")
                raise

    @contextlib.contextmanager
    def empty(self, guard: Guard | None = None, *, keep: bool = False) -> Iterator[tuple[Daemon, int]]:
        """The server over a new repository at ``/r/``.

        :param keep: whether its files stay until the end of the benchmark. ext4 looks at each inode that was freed
            within the last minute before it takes another one, which would be the next server's time.
        """
        store = self.scratch / "store"
        for kind in ("", "keys", "locks", "snapshots", "index", *(f"data/{number:02x}" for number in range(256))):
            (store / "r" / kind).mkdir(parents=True)
        with self.serving(store, guard) as (daemon, port):
            yield daemon, port
        if keep:
            kept = self.scratch.with_name(KEPT)
            kept.mkdir(exist_ok=True)
            store.rename(kept / str(time.time_ns()))
        else:
            shutil.rmtree(store)

    @contextlib.contextmanager
    def measure(self, daemon: Daemon | Children, row: str, *, size: int = 0, requests: int = 0) -> Iterator[Override]:
        """Add a sample of what happens inside: ``size`` bytes that move, ``requests``, or the time alone, unless the
        block says another one.
        """
        daemon.reset_peak()
        cpu, own, busy, start = daemon.cpu(), _own_cpu(), _busy(), time.perf_counter()
        override = Override()
        yield override
        seconds = time.perf_counter() - start
        cpu, own, busy = daemon.cpu() - cpu, _own_cpu() - own, _busy() - busy
        others = max(0, busy - own - cpu)
        unit, value = "s", seconds
        if size:
            unit, value, cpu = "MB/s", size / 1e6 / seconds, cpu * GIB / size
        elif requests:
            unit, value, cpu = "req/s", requests / seconds, cpu * 1000 / requests
        if override.value is not None:
            value = override.value
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
    with stage.empty(keep=True) as (daemon, port), stage.measure(daemon, "PUT 4 KiB", requests=len(requests)):
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


def million(stage: Stage) -> None:
    """List a million blobs: what of it is in memory at most, above what the server has at rest."""
    count = stage.corpus.million()
    with stage.serving(stage.corpus.place) as (daemon, port):
        before = daemon.resident() / MIB
        with stage.measure(daemon, "list of 1,000,000"):
            body = load.fetch(port, "GET", "/million/data/", f"Accept: {load.LIST_V2}")
        stage.samples[-1] = evolve(stage.samples[-1], peak=stage.samples[-1].peak - before)
        if (names := body.count(b'"name"')) != count:
            raise load.Unexpected(f"the list has {names} names, not {count}")


WORK: dict[str, Callable[[Stage], None]] = {
    "start": start,
    "put": put,
    "put-small": put_small,
    "get": get,
    "ranges": ranges,
    "head": head,
    "list": listing,
    "million": million,
    "login": login,
    "tls": tls,
    "crowd": crowd,
    "restic": partial(restic, "restic-new"),
    "restic-old": partial(restic, "restic-old"),
    "stdio": stdio,
}
#: What the server that does nothing cannot do.
REAL_ONLY = {"start", "list", "million", "login", "tls", "crowd", "restic", "restic-old", "stdio"}


#: What takes the most time by far, and has half of the rounds.
LONG = {"million", "restic", "restic-old", "stdio"}


def long_rounds(rounds: int) -> int:
    """How many rounds that is."""
    return (rounds + 1) // 2


def prepare(corpus: Corpus, names: list[str]) -> None:
    """Make what the work ``names`` reads, and read it once."""
    if {"put", "get", "ranges", "head", "tls", "crowd"} & set(names):
        corpus.bulk()
    if "list" in names:
        corpus.many()
    if "million" in names:
        corpus.million()
    if {"restic", "restic-old", "stdio"} & set(names):
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
