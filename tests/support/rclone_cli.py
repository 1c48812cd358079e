"""The real rclone as a command, to compare our reading of its configuration with."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path

from resticd.interfaces import IRemote
from resticd.remotes.registry import Driver, Loan, Option, Registry, RemoteSpec
from support.peers import peer


def rclone(*arguments: str, config: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run rclone with this remotes file, and with nothing else in its environment but what is given by keyword."""
    return subprocess.run(
        [str(peer("rclone")), *arguments],
        env={"RCLONE_CONFIG": str(config or ""), "HOME": "/nonexistent", **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@cache
def rclone_options() -> dict[str, dict[str, Option]]:
    """The options of each type that rclone knows, by name, ``description`` left out: every type has it."""
    return {
        provider["Name"]: {
            option["Name"]: Option(
                option["Name"],
                option["DefaultStr"],
                obscured=option["IsPassword"],
                prefixed=not option["NoPrefix"],
            )
            for option in provider["Options"]
            if option["Name"] != "description"
        }
        for provider in json.loads(rclone("config", "providers").stdout)
    }


@cache
def rclone_registry() -> Registry:
    """Drivers that honour every option of every type, as rclone does, but make nothing."""

    def make(spec: RemoteSpec, loan: Loan) -> IRemote:
        raise AssertionError("not made here")

    return Registry(Driver(type, make, tuple(options.values())) for type, options in rclone_options().items())
