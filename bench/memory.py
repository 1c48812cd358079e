"""How much memory a server takes under 50 uploads of 128 MiB at once, and under 50 readers of 10 KiB/s.

``python -m bench.memory [PEER…]``, with peers as in ``PEERS`` of ``make bench``; without any, all three.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time

from bench import load
from bench.corpus import MIB, Corpus, alone
from bench.servers import DEFAULT, RESULTS, Peer, serve, settle

CLIENTS = 50
#: bytes that a slow reader takes each second, and for how many seconds it does
PACE = 10 * 1024
SECONDS = 20


def main() -> None:
    """Measure each peer and print a line for it."""
    peers = [Peer.parse(text) for text in sys.argv[1:] or DEFAULT[:3]]
    print(f"{'MiB resident':24} {'idle':>8} {CLIENTS:>4} uploads of 128 MiB {CLIENTS:>4} readers of 10 KiB/s")
    for peer in peers:
        with alone(RESULTS):
            idle, uploads, readers = _measure(peer)
        print(f"{peer.name:24} {idle:8.0f} {uploads:24.0f} {readers:25.0f}", flush=True)


def _measure(peer: Peer) -> tuple[float, float, float]:
    """At rest, and the peaks under uploads and under readers, each of a server just started; in MiB."""
    corpus = Corpus(RESULTS / "corpus")
    blob = corpus.large()
    scratch = RESULTS / "scratch"
    store = scratch / "store"
    shutil.rmtree(scratch, ignore_errors=True)
    store.mkdir(parents=True)
    try:
        with serve(peer, store, scratch) as (daemon, port):
            settle(daemon)
            idle = daemon.resident()
            # One file in many repositories: the client needs no other names.
            for number in range(CLIENTS):
                load.fetch(port, "POST", f"/{number}/?create=true", "Content-Length: 0")
            load.upload(port, [(f"/{number}/data/{blob.name}", blob) for number in range(CLIENTS)], CLIENTS)
            uploads = daemon.peak()
        with serve(peer, corpus.place, scratch) as (daemon, port):
            settle(daemon)
            _read_slowly(port, f"/large/data/{blob.name}")
            readers = daemon.peak()
    finally:
        shutil.rmtree(scratch)
    return idle / MIB, uploads / MIB, readers / MIB


def _read_slowly(port: int, path: str) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(load.connect(port)) for _ in range(CLIENTS)]
        for connection in connections:
            connection.sendall(load.request("GET", path))
        for _ in range(SECONDS):
            for connection in connections:
                if not connection.recv(PACE):
                    raise load.Unexpected(f"GET {path}: closed too early")
            time.sleep(1)


if __name__ == "__main__":
    main()
