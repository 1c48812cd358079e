"""Where settings come from: a flag, then RESTICD_* and RCLONE_* variables, then the settings file, then the default."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from resticd.config.commandline import CommandLine, parse_command_line, parse_value
from resticd.config.flags import Flag, parse_text
from resticd.config.settings import FLAGS, Settings
from resticd.errors import ConfigurationError

SETTINGS = Flag("settings", parse_text, None, "Read settings from this file (TOML).", metavar="FILE")
#: What stands without a flag on the command line.
REMOTE = Flag("remote", parse_text, "", "What to serve: a directory, or remote:path as in rclone.", metavar="REMOTE")


@frozen
class Reading:
    """All that was said, and by whom.

    :ivar settings: what is in force.
    :ivar origins: where each value came from, by the setting's name: ``--addr``, ``RESTICD_ADDR``, ``FILE:3``,
        ``default``.
    :ivar line: the command line.
    """

    settings: Settings
    origins: Mapping[str, str]
    line: CommandLine = field(repr=False)


def read_sources(argv: Sequence[str], environ: Mapping[str, str], more: Sequence[Flag] = ()) -> Reading:
    """Read every source. Raises ``ConfigurationError`` that names the flag, the variable, or the file and line.

    :param argv: the command line without the program's name; one argument is what to serve.
    :param more: further flags that the command line may have; they are only in ``Reading.line``.
    """
    line = parse_command_line(argv, (*FLAGS, SETTINGS, *more))
    if len(line.arguments) > 1:
        raise ConfigurationError(f"one thing is served, not {len(line.arguments)}: {' '.join(line.arguments)}")
    values: dict[str, Any] = {}
    origins = dict.fromkeys((flag.name for flag in (*FLAGS, REMOTE)), "default")
    path = line.values.get("settings") or environ.get("RESTICD_SETTINGS")
    for found, origin in ((_from_file(Path(path)) if path else ({}, {})), _from_environment(environ), _from_line(line)):
        values.update(found)
        origins.update(origin)
    flags = {flag.name: flag for flag in (*FLAGS, REMOTE)}
    said = {flags[name].attribute: value for name, value in values.items()}
    settings = Settings(**said, foreign=line.foreign, origins=origins)
    return Reading(settings, origins, line)


#: Kubernetes sets these for a service that is called resticd.
_NOT_OURS = re.compile(r"RESTICD_(SERVICE|PORT)(_.*)?")


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Variables that look as if they were for resticd, but name no setting."""
    known = {"RESTICD_" + flag.attribute.rstrip("_").upper() for flag in (*FLAGS, REMOTE, SETTINGS)}
    return sorted(
        name for name in environ if name.startswith("RESTICD_") and name not in known and not _NOT_OURS.fullmatch(name)
    )


Found = tuple[dict[str, Any], dict[str, str]]


def _from_line(line: CommandLine) -> Found:
    names = {flag.name for flag in FLAGS}
    values = {name: value for name, value in line.values.items() if name in names}
    origins = {name: f"--{name}" for name in values}
    if line.arguments:
        values["remote"], origins["remote"] = line.arguments[0], "the command line"
    return values, origins


def _from_environment(environ: Mapping[str, str]) -> Found:
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for flag in (*FLAGS, REMOTE):
        for prefix in ("RESTICD_", "RCLONE_"):
            name = prefix + flag.name.upper().replace("-", "_")
            if name not in environ:
                continue
            text = environ[name]
            if flag.repeats:
                # As rclone reads lists from variables: a line of CSV.
                words = next(csv.reader([text]), [])
                values[flag.name] = tuple(parse_value(flag, word, name) for word in words)
            else:
                values[flag.name] = parse_value(flag, text, name)
            origins[flag.name] = name
            break
    return values, origins


def _from_file(path: Path) -> Found:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigurationError(f"--settings: cannot read {path}: {reason}") from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        raise ConfigurationError(f"{path}:{line[1] if line else 1}: {error}") from None
    flags = {flag.name: flag for flag in (*FLAGS, REMOTE)}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, value in table.items():
        where = f"{path}:{_line_of(key, text)}"
        flag = flags.get(key.replace("_", "-"))
        if flag is None:
            raise ConfigurationError(f"{where}: unknown setting {key!r}")
        if flag.name in values:
            raise ConfigurationError(f"{where}: {key}: it is already set, as {origins[flag.name]} says")
        values[flag.name] = _value(flag, value, f"{where}: {key}")
        origins[flag.name] = where
    return values, origins


def _line_of(key: str, text: str) -> int:
    """On which line ``key`` is set: ``tomllib`` does not say."""
    pattern = re.compile(rf"\s*(?:\[\s*)?[\"']?{re.escape(key)}[\"']?\s*(?:[=\].])")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def _value(flag: Flag, value: Any, where: str) -> Any:
    """The value of one setting; a list where the flag repeats, else a text, a number or a boolean."""
    if flag.repeats:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigurationError(f"{where}: not a list of texts")
        return tuple(parse_value(flag, item, where) for item in value)
    if flag.counts:
        if type(value) is not int or value < 0:
            raise ConfigurationError(f"{where}: not a whole number")
        return value
    if flag.is_switch:
        if not isinstance(value, bool):
            raise ConfigurationError(f"{where}: neither true nor false")
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float if flag.takes_numbers else str):
        raise ConfigurationError(f"{where}: not a text{' or a number' if flag.takes_numbers else ''}")
    return parse_value(flag, str(value), where)
