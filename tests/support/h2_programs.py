"""Other people's HTTP/2: Debian's nghttp2-client (h2load, nghttp) and nghttp2-proxy (nghttpx)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from attrs import frozen

from support.daemons import Server
from support.ports import free_port


def program(name: str) -> str:
    """The path of an installed program; its package is among the Makefile's TEST_PACKAGES."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    assert path is not None, f"{name} is not installed; run `make peers`"
    return path


def h2c_bridge(port: int, scratch: Path) -> Server:
    """nghttpx, which takes HTTP/1.1, as restic speaks it without TLS, and speaks HTTP/2 to ``port`` without asking."""
    own = free_port()
    server = Server(
        [
            program("nghttpx"),
            "--conf=/dev/null",
            f"--frontend=127.0.0.1,{own};no-tls",
            f"--backend=127.0.0.1,{port};;proto=h2",
            "--workers=1",
            "--errorlog-file=/dev/stderr",
        ],
        scratch / f"nghttpx-{own}.log",
        cwd=scratch,
    )
    server.port = own
    server.wait_for_port(own)
    return server


@frozen
class Load:
    """What h2load counted."""

    succeeded: int
    failed: int
    errored: int
    timeout: int
    #: answers from 200 to 299
    good: int
    text: str


def h2load(url: str, *arguments: str | Path) -> Load:
    """A run of h2load, which must end by itself."""
    command = [program("h2load"), *map(str, arguments), url]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240)
    text = done.stdout + done.stderr
    counted = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    codes = re.search(r"status codes: (\d+) 2xx", text)
    assert counted, text
    assert codes, text
    return Load(*map(int, counted.groups()), good=int(codes[1]), text=text)
