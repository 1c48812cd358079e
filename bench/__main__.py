"""``make bench``, or ``python -m bench``. What is measured can be narrowed by the environment, or after ``make bench``.

- ``WORK="put get"``: some of start, put, put-small, get, ranges, head, list, million, login, tls, crowd, restic,
  restic-old, stdio.
- ``PEERS="rest-server,resticd,resticd:--workers 2"``: the servers, with flags.
- ``RESTICD_FLAGS="-v"``: flags for every resticd.
- ``ROUNDS=5``: how often each server does each work; restic's work, and the list of a million, half as often.

The table goes to standard output, every sample to ``bench/results/samples.json``. The section of ``docs/benchmarks.md``
and the picture beside it are rewritten when nothing was narrowed, or when ``OUTPUT=docs/benchmarks.md`` says so.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from attrs import asdict

from bench import plot, report
from bench.corpus import Corpus, alone
from bench.pages import PAGE, write_section
from bench.servers import DEFAULT, RESULTS, ROOT, Peer
from bench.work import KEPT, LONG, REAL_ONLY, WORK, long_rounds, perform, prepare


def measure(names: list[str], peers: list[Peer], rounds: int) -> report.Results:
    """Every piece of work in turn, in each of its rounds with every peer in turn.

    Each round begins with another peer: what one leaves to the disk is the next one's burden.
    """
    corpus = Corpus(RESULTS / "corpus")
    prepare(corpus, names)
    results: report.Results = {}
    for name in names:
        for number in range(long_rounds(rounds) if name in LONG else rounds):
            first = number % len(peers)
            for peer in (*peers[first:], *peers[:first]):
                if peer.kind == "null" and name in REAL_ONLY:
                    continue
                print(f"{name}, round {number + 1}: {peer.name}", file=sys.stderr)
                report.collect(results, peer, perform(name, peer, corpus, RESULTS / "scratch", number))
    shutil.rmtree(RESULTS / KEPT, ignore_errors=True)
    return results


def main() -> None:
    """Measure, print, write."""
    setting = os.environ.get
    names = setting("WORK", "").split() or list(WORK)
    peers = [Peer.parse(text) for text in (setting("PEERS") or ",".join(DEFAULT)).split(",")]
    rounds = int(setting("ROUNDS") or 5)
    whole = not (setting("WORK") or setting("PEERS") or setting("RESTICD_FLAGS"))
    output = setting("OUTPUT") or (whole and ROOT / PAGE)
    if unknown := set(names) - set(WORK):
        raise SystemExit(f"bench: no work {', '.join(unknown)}; there is {', '.join(WORK)}")

    with alone(RESULTS):
        results = measure(names, peers, rounds)
    samples = {row: {peer: [asdict(s) for s in taken] for peer, taken in of.items()} for row, of in results.items()}
    (RESULTS / "samples.json").write_text(json.dumps(samples, indent=1))
    print(report.table(results))
    if output:
        write_section(Path(output), "local", report.section(results, rounds))
        Path(output).with_suffix(".svg").write_text(plot.picture(results))


if __name__ == "__main__":
    main()
