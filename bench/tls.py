"""``python -m bench.tls``: restic over TLS, by HTTP/1.1 and by HTTP/2, with the same server.

``--http2=on`` and ``--http2=prefer`` take turns (A B A B …), each with a backup of ``MIB`` (512) and a restore of it
into an empty directory. Which one is faster decides which one ALPN prefers; the figures are in docs/design.md.
``ROUNDS=5`` is how often. ``WITHOUT_TLS=1`` adds HTTP/1.1 without TLS.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench.certificate import make_certificate
from bench.corpus import MIB, Corpus, alone, warm
from bench.processes import Daemon
from bench.servers import RESULTS, program, settle

SIZE = int(os.environ.get("MIB", "512"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))

#: Seconds of the whole and CPU seconds of the server, by what is done.
Round = dict[str, tuple[float, float]]


def measure(flags: list[str], authority: Path | None, source: Path, scratch: Path) -> Round:
    """One round with one server."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    start = [Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "resticd"]
    environment = {**os.environ, "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(scratch / "cache")}
    url = f"rest:http{'s' if authority else ''}://localhost:{port}/r/"
    restic = [program("restic-new"), "-q", "-r", url, *(["--cacert", authority] if authority else [])]
    found: Round = {}
    with Daemon([*start, "--addr", f"localhost:{port}", *flags, scratch / "store"], scratch / "log") as daemon:
        daemon.wait_for_port(port)
        subprocess.run([*restic, "init"], env=environment, check=True, stdout=subprocess.DEVNULL)
        settle(daemon)
        steps = {
            "backup": ["backup", source],
            "restore": ["restore", "latest", "--target", scratch / "restored"],
        }
        for what, arguments in steps.items():
            os.sync()
            began, cpu = time.perf_counter(), daemon.cpu()
            subprocess.run([*restic, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
            found[what] = time.perf_counter() - began, daemon.cpu() - cpu
    shutil.rmtree(scratch)
    return found


def main() -> None:
    """Measure and print."""
    with alone(RESULTS):
        files = ((SIZE // 2 // 32 or 1, 32 * MIB), (SIZE // 2, MIB))
        corpus = Corpus(RESULTS / f"tls-corpus-{SIZE}", source_files=files)
        source = corpus.source()
        warm(source)
        scratch = RESULTS / "tls-scratch"
        cert, key = make_certificate(RESULTS)
        tls = ["--cert", str(cert), "--key", str(key)]
        kinds: dict[str, tuple[list[str], Path | None]] = {
            "HTTP/1.1": ([*tls, "--http2=on"], cert),
            "HTTP/2": ([*tls, "--http2=prefer"], cert),
        }
        if os.environ.get("WITHOUT_TLS"):
            kinds["HTTP/1.1 without TLS"] = ([], None)
        rounds: dict[str, list[Round]] = {name: [] for name in kinds}
        for number in range(ROUNDS):
            for name, (flags, authority) in kinds.items():
                print(f"round {number + 1}: {name}", file=sys.stderr)
                rounds[name].append(measure(flags, authority, source, scratch))
    print("| work | protocol | median | | × HTTP/1.1 | server's CPU |\n|---|---|--:|---|--:|--:|")
    for what in ("backup", "restore"):
        base = median(found[what][0] for found in rounds["HTTP/1.1"])
        for name, all_found in rounds.items():
            times = [found[what][0] for found in all_found]
            cpu = median(found[what][1] for found in all_found)
            spread = f"({min(times):.1f}–{max(times):.1f})"
            print(f"| {what} | {name} | {median(times):.1f} s | {spread} | {base / median(times):.2f} | {cpu:.1f} s |")


if __name__ == "__main__":
    main()
