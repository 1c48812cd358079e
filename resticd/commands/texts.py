"""``resticd help`` and ``resticd version``."""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Sequence

from resticd import __version__
from resticd.cli import COMMANDS, WITH_FLAGS, Command, find_command, plain_arguments
from resticd.commands.pages import PAGES
from resticd.config.flags import Flag, flags_of, format_value
from resticd.config.settings import GROUPS, LogSettings, RemoteSettings
from resticd.config.sources import SETTINGS
from resticd.errors import ConfigurationError

WIDTH = 100
_INDENT = "    "
_SOURCES = (
    "Every flag can also come from the environment (RESTICD_ADDR, then RCLONE_ADDR) and from the file that --settings "
    "names; the command line comes first, then the environment, then the file. Durations are written 90s, 1h30m or "
    "off; sizes and rates 10M or 1G, and in KiB without a letter."
)


def version(argv: Sequence[str]) -> int:
    """Print what is installed."""
    import twisted

    if plain_arguments(argv):
        raise ConfigurationError("version: takes no argument")
    print(f"resticd {__version__}")  # noqa: T201 - what the user asked for
    print(f"- python {platform.python_version()}, twisted {twisted.__version__}, {platform.platform()}")  # noqa: T201
    return 0


def help(argv: Sequence[str]) -> int:
    """Print all commands, or one of them with its flags."""
    words = plain_arguments(argv)
    if not words:
        print(overview())  # noqa: T201 - what the user asked for
        return 0
    command, rest = find_command(list(words))
    if words == ("serve",):
        command, rest = COMMANDS[0], []
    if command is None or rest:
        raise ConfigurationError(f"help: unknown command: {' '.join(words)}; see resticd help")
    print(explain(command))  # noqa: T201 - what the user asked for
    return 0


def overview() -> str:
    """The text of ``resticd help``."""
    lines = ["resticd serves restic backups over a local directory or a remote.", "", "Commands:"]
    width = max(len(command.usage) for command in COMMANDS)
    lines += [f"  {command.usage:{width}}  {command.help}" for command in COMMANDS]
    lines += ["", "'resticd help COMMAND' explains a command and its flags. The daemon is 'twistd resticd'."]
    return "\n".join(lines)


def explain(command: Command) -> str:
    """The text of ``resticd help COMMAND``, in the order of a manual page."""
    page = PAGES[command.words]
    name = " ".join(("resticd", *command.words))
    lines = ["NAME", f"{_INDENT}{name} - {command.help[0].lower()}{command.help[1:].rstrip('.')}"]
    lines += ["", "SYNOPSIS", f"{_INDENT}{command.usage}", "", "DESCRIPTION"]
    for number, paragraph in enumerate(page.paragraphs):
        lines += [""] * bool(number) + _wrapped(paragraph)
    if command.words in WITH_FLAGS:
        lines += ["", "FLAGS", *_wrapped(_SOURCES), "", *flag_lines([SETTINGS])]
        for title, flags in _groups_of(command):
            lines += ["", f"  {title}", *flag_lines(flags)]
    if page.examples:
        lines += ["", "EXAMPLES"]
        for number, example in enumerate(page.examples):
            lines += [""] * bool(number) + _wrapped(f"{example.what}:")
            lines += [f"{_INDENT}    {line}" for line in example.line.splitlines()]
    for title, terms in page.sections:
        lines += ["", title]
        for term, meaning in terms:
            lines += [f"{_INDENT}{term}", *_wrapped(meaning, 2 * _INDENT)]
    return "\n".join(lines)


def _groups_of(command: Command) -> Sequence[tuple[str, Sequence[Flag]]]:
    """The groups of flags that mean something to it."""
    if command.words in (("lsd",), ("ls",)):
        return [group for group in GROUPS if group[1] in (flags_of(RemoteSettings), flags_of(LogSettings))]
    return GROUPS


def _wrapped(text: str, indent: str = _INDENT) -> list[str]:
    # Not at hyphens: a flag that is cut in two is not found.
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def flag_lines(flags: Sequence[Flag]) -> list[str]:
    """Flags with what they mean and their defaults."""
    lines = []
    for flag in flags:
        letter = f"-{flag.short}, " if flag.short else "    "
        lines.append(f"  {letter}--{flag.name}" + (f" {flag.metavar}" if flag.metavar else ""))
        text = flag.help + default_of(flag)
        lines += _wrapped(text, " " * 10)
    return lines


def default_of(flag: Flag) -> str:
    """What to say behind the help of ``flag`` of its default; empty where that goes without saying."""
    if flag.default in (None, "", False, 0, ()) or flag.secret:
        return ""
    return f" (default {format_value(flag, flag.default)})"
