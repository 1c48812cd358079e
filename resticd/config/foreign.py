"""rclone's flags that have no meaning here: taken, so that a command line moves over unchanged."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def foreign_flags() -> dict[str, bool]:
    """Whether each takes an argument, by name: ``--fast-list``, ``--drive-chunk-size`` …

    The table is read only when a command line has a flag that is not resticd's own.
    """
    return {name: kind == "value" for name, _, kind in _rows()}


@cache
def foreign_letters() -> dict[str, str]:
    """The names of those that have a letter, by the letter."""
    return {letter: name for name, letter, _ in _rows() if letter != "-"}


def _rows() -> list[tuple[str, str, str]]:
    text = files("resticd.config").joinpath("rclone-flags.txt").read_text()
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return [(name, letter, kind) for name, letter, kind in rows]
