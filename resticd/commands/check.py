"""``resticd check-config``: what is in force, and where each value came from."""

from __future__ import annotations

import os
from collections.abc import Sequence

from resticd.config.connection import shown
from resticd.config.settings import FLAGS
from resticd.config.sources import REMOTE, read_sources


def check_config(argv: Sequence[str]) -> int:
    """Print a line for each setting: name, value, origin. Secrets are masked. Mistakes end it with their one line."""
    reading = read_sources(argv, os.environ)
    rows = []
    for flag in (REMOTE, *FLAGS):
        value = getattr(reading.settings, flag.attribute)
        if flag is REMOTE:
            value = shown(value)
        text = "(hidden)" if flag.secret and value else show(value)
        rows.append((flag.name, text, reading.origins[flag.name]))
    rows += [(name, "(no meaning here)", f"--{name}") for name in sorted(reading.line.foreign)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, origin in rows:
        print(f"{name:{widths[0]}}  {value:{widths[1]}}  {origin}")  # noqa: T201 - what the user asked for
    return 0


def show(value: object) -> str:
    """A value as it would be written."""
    if value in (None, (), ""):
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(": ".join(item) if isinstance(item, tuple) else str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
