"""The table of medians and ratios, and the section around it."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from bench.servers import Peer, versions
from bench.work import Sample, long_rounds

PREAMBLE = """\
## A local directory

Made by `make bench`, which measures the servers in turn (A B C, B C A …) on the same work and rewrites this section.
Each figure is the median of its rounds, in brackets the lowest and the highest. All servers run as they come, over a
local directory, without TLS and login where the work does not say otherwise: rest-server and resticd check the hash of
each upload and sync it to the disk, rclone does neither.
"""

LEGEND = """\
- **× rest-server**, **× rclone**: speed relative to that server; above 1 is faster, also where the figure is a time.
- **CPU**: CPU time of the server with its children: seconds for each GiB, milliseconds for each request, or seconds for
  the whole.
- **peak**: memory resident at most while the work ran, summed over the server's processes. In the row of the start:
  what is resident afterwards, at rest.
- **client**: the load client's share of all CPU time of the machine, which it shares with the server.
- **null** stores nothing and checks nothing: what the load client reaches when the server costs next to nothing.
- Five connections, each with one request at a time. Everything that is read lies in the page cache. The restic rows use
  one restic with its defaults on 1 GiB in 4600 files of random bytes; there the client is most of the work.
"""

Results = dict[str, dict[str, list[Sample]]]


def collect(into: Results, peer: Peer, samples: Iterable[Sample]) -> None:
    """Add the samples of one round to ``{row: {peer: samples}}``."""
    for sample in samples:
        into.setdefault(sample.row, {}).setdefault(peer.name, []).append(sample)


def table(results: Results) -> str:
    """The results in Markdown, aligned for a terminal too."""
    lines = [["work", "server", "median", "", "× rest-server", "× rclone", "CPU", "peak", "client"]]
    lines.append(["---", "---", "--:", "---", "--:", "--:", "--:", "--:", "--:"])
    for row, peers in results.items():
        title = row
        for name, samples in peers.items():
            values = [sample.value for sample in samples]
            unit = samples[0].unit
            lines.append(
                [
                    title,
                    name,
                    f"{shorten(median(values))} {unit}",
                    f"({shorten(min(values))}–{shorten(max(values))})",
                    _ratio(peers, name, "rest-server"),
                    _ratio(peers, name, "rclone"),
                    _cpu(median(sample.cpu for sample in samples), unit),
                    f"{median(sample.peak for sample in samples):.0f} MiB",
                    f"{median(sample.client for sample in samples):.0%}",
                ]
            )
            title = ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


def section(results: Results, rounds: int) -> str:
    """The section of ``docs/benchmarks.md``."""
    others = [sample.others for peers in results.values() for samples in peers.values() for sample in samples]
    facts = [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {rounds} rounds, {long_rounds(rounds)} of the long ones",
        "(those of restic, and the list of a million).",
        ", ".join(versions()) + ".",
        f"{machine()}.",
        "Meanwhile everything else on the machine, the kernel's own threads included, took a share of its CPU time of",
        f"{median(others):.0%} (median of the samples; at most {max(others):.0%}); quieter is better.",
    ]
    picture = "![Speed relative to rest-server](benchmarks.svg)"
    return "\n".join([PREAMBLE, *facts, "", picture, "", table(results), "", LEGEND])


def _ratio(peers: dict[str, list[Sample]], name: str, other: str) -> str:
    if other not in peers or name == "null":
        return ""
    own, base = (median(sample.value for sample in peers[which]) for which in (name, other))
    return f"{base / own if peers[name][0].unit == 's' else own / base:.2f}"


def _cpu(value: float, unit: str) -> str:
    return f"{value:.2f} " + {"MB/s": "s/GiB", "req/s": "ms/req", "s": "s"}[unit]


def shorten(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def machine() -> str:
    """What all ran on."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({model or platform.machine()}), {memory:.0f} GiB, Linux {platform.release()}"
