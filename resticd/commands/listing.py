"""``resticd lsd`` and ``resticd ls``: what a remote holds, to see that it can be reached."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from resticd.bandwidth import Bandwidth, Limits
from resticd.config.connection import shown
from resticd.config.settings import Settings
from resticd.errors import ConfigurationError, ResticdError
from resticd.interfaces import IRemote
from resticd.options import read_settings
from resticd.remotes.directories import directories


def lsd(argv: Sequence[str]) -> int:
    """Print the directories at the remote's root, one a line."""
    return _with_remote(read_settings(argv), _print_directories)


def ls(argv: Sequence[str]) -> int:
    """Print size and path of every file."""
    return _with_remote(read_settings(argv), _print_files)


async def _print_directories(remote: IRemote) -> None:
    async with aclosing(directories(remote, "")) as pages:
        async for page in pages:
            for name in page:
                print(name)  # noqa: T201 - what the user asked for


async def _print_files(remote: IRemote) -> None:
    async with aclosing(remote.list("")) as pages:
        async for page in pages:
            for entry in page:
                print(f"{entry.size:>9} {entry.key}")  # noqa: T201 - what the user asked for


def _with_remote(settings: Settings, work: Callable[[IRemote], Awaitable[None]]) -> int:
    """Start the remote, do the work, stop it. Returns the exit status."""
    from twisted.internet import reactor

    from resticd.assembly import make_remote, resolve_remote
    from resticd.workers import Workers

    resolved = resolve_remote(settings)
    if resolved.spec.type == "local" and not Path(resolved.spec.path).is_dir():
        # A server would make it.
        raise ConfigurationError(f"{shown(settings.remote)}: there is no such directory")
    loop: Any = reactor
    workers = Workers(loop)
    remote = make_remote(settings, resolved, loop, workers, Bandwidth(loop, Limits()))
    failures: list[Failure] = []

    async def run() -> None:
        try:
            await remote.start()
            await work(remote)
            sys.stdout.flush()
        finally:
            await remote.stop()

    def end(result: object) -> None:
        if isinstance(result, Failure):
            failures.append(result)
        workers.stop()
        loop.stop()

    def begin() -> None:
        workers.start()
        Deferred.fromCoroutine(run()).addBoth(end)

    loop.callWhenRunning(begin)
    loop.run()
    if not failures:
        return 0
    error = failures[0].value
    if isinstance(error, BrokenPipeError):
        raise error
    if isinstance(error, ResticdError):
        raise ConfigurationError(f"{shown(settings.remote)}: {error}") from None
    failures[0].printTraceback(sys.stderr)
    return os.EX_SOFTWARE
