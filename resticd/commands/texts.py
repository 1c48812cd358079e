"""``resticd help``, ``resticd version`` and ``resticd completion``."""

from __future__ import annotations

import platform
import sys
import textwrap
from collections.abc import Sequence

from resticd import __version__
from resticd.cli import COMMANDS, Command, find_command
from resticd.config.flags import Flag, format_value
from resticd.config.settings import GROUPS
from resticd.config.sources import SETTINGS
from resticd.errors import ConfigurationError

WIDTH = 100

#: Commands that take the flags of the settings.
_WITH_FLAGS = {("serve", "restic"), ("check-config",), ("lsd",), ("ls",)}


def version(argv: Sequence[str]) -> int:
    """Print what is installed."""
    import twisted

    print(f"resticd {__version__}")  # noqa: T201 - what the user asked for
    print(f"- python {platform.python_version()}, twisted {twisted.__version__}, {platform.platform()}")  # noqa: T201
    return 0


def help(argv: Sequence[str]) -> int:
    """Print all commands, or one of them with its flags."""
    if not argv:
        print(overview())  # noqa: T201 - what the user asked for
        return 0
    command, rest = find_command(list(argv))
    if command is None and argv[0] == "serve":
        command, rest = COMMANDS[0], list(argv[1:])
    if command is None or rest:
        raise ConfigurationError(f"help: unknown command: {' '.join(argv)}")
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
    """The text of ``resticd help COMMAND``."""
    lines = [f"Usage: {command.usage}", "", command.help]
    if command.words in _WITH_FLAGS:
        lines += [
            "",
            *textwrap.wrap(
                "Every flag can also come from the environment (RESTICD_ADDR, then RCLONE_ADDR) and from the file that "
                "--settings names. Flags of rclone that mean nothing here are taken and ignored.",
                WIDTH,
            ),
            "",
            *flag_lines([SETTINGS]),
        ]
        for title, flags in GROUPS:
            lines += ["", title, *flag_lines(flags)]
    return "\n".join(lines)


def flag_lines(flags: Sequence[Flag]) -> list[str]:
    """Flags with what they mean and their defaults."""
    lines = []
    for flag in flags:
        letter = f"-{flag.short}, " if flag.short else "    "
        lines.append(f"  {letter}--{flag.name}" + (f" {flag.metavar}" if flag.metavar else ""))
        text = flag.help + default_of(flag)
        lines += textwrap.wrap(text, WIDTH, initial_indent=" " * 10, subsequent_indent=" " * 10)
    return lines


def default_of(flag: Flag) -> str:
    """What to say behind the help of ``flag`` of its default; empty where that goes without saying."""
    if flag.default in (None, "", False, 0, ()) or flag.secret:
        return ""
    return f" (default {format_value(flag, flag.default)})"


def completion(argv: Sequence[str]) -> int:
    """Print a completion script."""
    scripts = {"bash": _BASH, "zsh": _ZSH}
    if len(argv) != 1 or argv[0] not in scripts:
        raise ConfigurationError("completion: bash or zsh?")
    flags = " ".join(f"--{flag.name}" for _, group in GROUPS for flag in group)
    commands = " ".join(command.words[0] for command in COMMANDS)
    sys.stdout.write(scripts[argv[0]].replace("@FLAGS@", flags).replace("@COMMANDS@", commands))
    return 0


_BASH = """\
# bash completion for resticd
_resticd() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "@COMMANDS@" -- "$word"))
    elif [ "$before" = serve ]; then
        COMPREPLY=($(compgen -W "restic" -- "$word"))
    elif [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "@FLAGS@" -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}
complete -o filenames -F _resticd resticd
"""

_ZSH = """\
#compdef resticd
# zsh completion for resticd
_resticd() {
    if (( CURRENT == 2 )); then
        compadd -- @COMMANDS@
    elif [[ $words[CURRENT-1] == serve ]]; then
        compadd -- restic
    elif [[ $words[CURRENT] == -* ]]; then
        compadd -- @FLAGS@
    else
        _files
    fi
}
if [ "$funcstack[1]" = _resticd ]; then
    _resticd "$@"
else
    compdef _resticd resticd
fi
"""
