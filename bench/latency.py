"""``python -m bench.latency``: resticd beside ``rclone serve restic`` over S3 that is 50 ms away.

Both serve the same SeaweedFS on this machine through ``bench.delay``. Measured in turn (A B A B …): a list of 20,000
objects, and a restic that backs up 1 GiB and checks it. What is measured can be narrowed by the environment:

- ``ROUNDS=3``: how often each server does each work.
- ``MILLISECONDS=50``: how long a round trip takes.
- ``MIB=1024``, ``OBJECTS=20000``: how much is backed up and listed.
- ``OUTPUT=docs/benchmarks.md``: where the section is rewritten; nowhere where any of the others was given.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from attrs import field, frozen

from bench import load
from bench.corpus import MIB, Corpus, alone, warm
from bench.pages import PAGE, write_section
from bench.ports import free_port
from bench.processes import Daemon
from bench.report import machine, shorten
from bench.s3_server import S3Server, seaweedfs
from bench.servers import RESULTS, ROOT, program, settle, versions

PEERS = ("rclone", "resticd")
#: What each server should reach, as speed relative to rclone's.
TARGETS = {"list": 3.0, "backup": 1.0, "check": 1.0}

#: Seconds by work and server.
Times = dict[str, dict[str, list[float]]]


@frozen
class Scene:
    """An S3 server that is far away, and what is done with it."""

    s3: S3Server
    #: leads to it, with the latency
    line: int
    corpus: Corpus
    scratch: Path
    objects: int
    times: Times = field(factory=dict)

    def remote(self, path: str, port: int) -> str:
        """The name of a place in the bucket, as both servers take it."""
        options = self.s3.options("SeaweedFS") | {"endpoint": f"http://127.0.0.1:{port}"}
        return ":s3," + ",".join(f"{name}='{value}'" for name, value in options.items()) + f":bench/{path}"

    @contextlib.contextmanager
    def serving(self, peer: str, path: str, backend: int) -> Iterator[int]:
        """A server at rest over a place in the bucket; gives its port."""
        port = free_port()
        address = f"127.0.0.1:{port}"
        remote = self.remote(path, backend)
        command: list[str | Path]
        if peer == "rclone":
            command = [program("rclone"), "serve", "restic", "--config", "/dev/null", "--addr", address, remote]
        else:
            twistd = Path(sys.executable).with_name("twistd")
            command = [twistd, "-n", "--pidfile=", "resticd", "--addr", address, "--config", "/dev/null", remote]
        with Daemon(command, self.scratch / f"{peer}.log", cwd=self.scratch) as daemon:
            daemon.wait_for_port(port)
            settle(daemon)
            try:
                yield port
            except (load.Unexpected, subprocess.CalledProcessError) as error:
                error.add_note(f"{peer} said:\n{daemon.output()[-4000:]}")
                raise

    @contextlib.contextmanager
    def measure(self, work: str, peer: str) -> Iterator[None]:
        """Note how long the block takes."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        print(f"{work}: {peer}: {seconds:.2f} s", file=sys.stderr)
        self.times.setdefault(work, {}).setdefault(peer, []).append(seconds)

    def fill(self) -> None:
        """Store the objects that are listed."""
        print(f"storing {self.objects} objects", file=sys.stderr)
        with self.serving("resticd", "many", self.s3.port) as port:
            load.fetch(port, "POST", "/?create=true", "Content-Length: 0")
            bodies = [number.to_bytes(8, "big") for number in range(self.objects)]
            requests = [
                load.request("POST", f"/data/{hashlib.sha256(body).hexdigest()}", body=len(body)) + body
                for body in bodies
            ]
            load.exchange(port, requests, 200)

    def list(self, peer: str) -> None:
        """List the objects, for the first time since the start."""
        with self.serving(peer, "many", self.line) as port:
            with self.measure("list", peer):
                body = load.fetch(port, "GET", "/data/", f"Accept: {load.LIST_V2}")
            if (names := body.count(b'"name"')) != self.objects:
                raise load.Unexpected(f"the list has {names} names, not {self.objects}")

    def restic(self, peer: str, number: int) -> None:
        """Back up to a new repository, and check it."""
        environment = {**os.environ, "RESTIC_PASSWORD": "bench", "HOME": str(self.scratch)}
        with self.serving(peer, f"{peer}-{number}", self.line) as port:

            def run(*arguments: str | Path) -> None:
                repository = f"rest:http://127.0.0.1:{port}/"
                command = [program("restic-new"), "-q", "-r", repository, *arguments]
                cache = {"RESTIC_CACHE_DIR": str(self.scratch / f"cache-{peer}-{number}")}
                subprocess.run(
                    command,
                    env=environment | cache,
                    check=True,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )

            run("init")
            with self.measure("backup", peer):
                run("backup", self.corpus.source())
            with self.measure("check", peer):
                run("check")


@contextlib.contextmanager
def line(backend: int, milliseconds: float, scratch: Path) -> Iterator[int]:
    """A line with latency to a port; gives the port of our end."""
    port = free_port()
    command = [sys.executable, "-m", "bench.delay", str(port), str(backend), str(milliseconds)]
    with Daemon(command, scratch / "delay.log", cwd=ROOT) as daemon:
        daemon.wait_for_port(port)
        yield port


def table(times: Times) -> str:
    """Medians and ratios in Markdown."""
    lines = [
        ["work", "rclone", "", "resticd", "", "× rclone", "target"],
        ["---", "--:", "---", "--:", "---", "--:", "--:"],
    ]
    for work, peers in times.items():
        cells = [work]
        for peer in PEERS:
            values = peers[peer]
            cells += [f"{shorten(median(values))} s", f"({shorten(min(values))}–{shorten(max(values))})"]
        ratio = median(peers["rclone"]) / median(peers["resticd"])
        lines.append([*cells, f"{ratio:.2f}", f"{TARGETS[work]:g}"])
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in lines)


def section(times: Times, rounds: int, milliseconds: float, corpus: Corpus, objects: int) -> str:
    """The section of the page."""
    size = sum(count * length for count, length in corpus.source_files) // MIB
    files = sum(count for count, _ in corpus.source_files)
    return f"""\
## S3, far away

Made by `python -m bench.latency`: resticd and `rclone serve restic`, both as they come, over one SeaweedFS to which a
round trip takes {milliseconds:g} ms longer, as does opening a connection. The list is of {objects} objects, the backup
of {size} MiB in {files} files of random bytes, to a new repository, by one restic with its
defaults. Medians of {rounds} rounds in turn, in brackets the lowest and the highest.

{datetime.datetime.now(datetime.UTC):%Y-%m-%d}. {", ".join(versions())}.
{machine()}.

{table(times)}
"""


def main() -> None:
    """Measure, print, write."""
    setting = os.environ.get
    narrowed = any(map(setting, ("ROUNDS", "MILLISECONDS", "MIB", "OBJECTS")))
    rounds, objects = int(setting("ROUNDS") or 3), int(setting("OBJECTS") or 20_000)
    milliseconds, mib = float(setting("MILLISECONDS") or 50), int(setting("MIB") or 1024)
    output = setting("OUTPUT") or (not narrowed and ROOT / PAGE)
    corpus = Corpus(RESULTS / "corpus")
    if mib != 1024:
        corpus = Corpus(RESULTS / f"corpus-{mib}", source_files=((mib // 2 // 8, 8 * MIB), (mib * 8, MIB // 16)))
    scratch = RESULTS / "latency"
    with alone(RESULTS):
        warm(corpus.source())
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        with seaweedfs(program("weed"), scratch) as s3, line(s3.port, milliseconds, scratch) as port:
            scene = Scene(s3, port, corpus, scratch, objects)
            scene.fill()
            for number in range(rounds):
                for peer in PEERS:
                    scene.list(peer)
                for peer in PEERS:
                    scene.restic(peer, number)
        shutil.rmtree(scratch)
    print(table(scene.times))
    if output:
        write_section(Path(output), "latency", section(scene.times, rounds, milliseconds, corpus, objects))


if __name__ == "__main__":
    main()
