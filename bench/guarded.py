"""Work behind a login and an access log, and over TLS."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING

from bench import load
from bench.servers import Guard

if TYPE_CHECKING:
    from bench.work import Stage

#: In bytes, of what restic reads most often without a range: snapshots, keys, indexes of small repositories.
SMALL = 2000


def login(stage: Stage) -> None:
    """Ask for the size of small blobs, and fetch them, as a user whose requests are logged."""
    guard = Guard(stage.scratch, login=True)
    directory = stage.scratch / "store/r/data/00"
    directory.mkdir(parents=True)
    names = [f"{number:064x}" for number in range(200)]
    for name in names:
        (directory / name).write_bytes(b"x" * SMALL)
    with stage.serving(stage.scratch / "store", guard) as (daemon, port):
        # resticd looks again and again into a password file that has just been written.
        time.sleep(4)
        for row, method, length in (("HEAD, login, log", "HEAD", 0), ("GET 2 KB, login, log", "GET", SMALL)):
            requests = [load.request(method, f"/r/data/{name}", guard.header) for name in names] * 150
            load.exchange(port, requests[:500], 200, length)
            with stage.measure(daemon, row, requests=len(requests)):
                load.exchange(port, requests, 200, length)


def tls(stage: Stage) -> None:
    """Store and fetch blobs of 16 MiB over TLS."""
    guard = Guard(stage.scratch, tls=True)
    bulk, size = stage.corpus.bulk(), stage.corpus.blob_size
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with stage.empty(guard) as (daemon, port), stage.measure(daemon, "PUT 16 MiB, TLS", size=len(bulk) * size):
        load.upload(port, [(f"/r/data/{name}", path) for name, path in bulk.items()], context=context)
    paths = [f"/bulk/data/{name}" for name in bulk]
    with stage.serving(stage.corpus.place, guard) as (daemon, port):
        load.download(port, paths[:5], size, context)
        with stage.measure(daemon, "GET 16 MiB, TLS", size=len(paths) * size):
            load.download(port, paths, size, context)
