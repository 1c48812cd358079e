"""The ``resticd`` command, which also takes rclone's place for restic (``restic -o rclone.program=resticd``)."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from attrs import frozen

from resticd.config.flags import Flag
from resticd.errors import ConfigurationError, ResticdError

HELP = Flag("help", bool, False, "Show this text.", short="h")


@frozen
class Command:
    """One sub-command.

    :ivar words: how it is called.
    :ivar arguments: for its usage line.
    :ivar help: one sentence.
    :ivar place: the module below ``resticd.commands`` and the function in it, which takes the rest of the command line
        and returns the exit status; imported when it is called.
    """

    words: tuple[str, ...]
    arguments: str
    help: str
    place: str

    @property
    def usage(self) -> str:
        """The usage line."""
        return f"resticd {' '.join(self.words)} {self.arguments}".rstrip()

    def function(self) -> Callable[[Sequence[str]], int]:
        """What it does."""
        module, _, name = self.place.partition(":")
        found: Callable[[Sequence[str]], int] = getattr(import_module(f"resticd.commands.{module}"), name)
        return found


COMMANDS = (
    Command(("serve", "restic"), "[flags] REMOTE", "Serve restic's REST API in the foreground.", "serve:serve"),
    Command(
        ("check-config",), "[flags] [REMOTE]", "Show what is in force, and where it comes from.", "check:check_config"
    ),
    Command(("lsd",), "[flags] REMOTE", "List the directories at the root of a remote.", "listing:lsd"),
    Command(("ls",), "[flags] REMOTE", "List all files of a remote, with their sizes.", "listing:ls"),
    Command(
        ("obscure",),
        "PASSWORD",
        "Obscure a password for rclone.conf; - reads it from standard input.",
        "passwords:obscure",
    ),
    Command(
        ("htpasswd",),
        "USER",
        "Print a line for --htpasswd; the password comes from standard input.",
        "passwords:htpasswd",
    ),
    Command(("version",), "", "Show the versions.", "texts:version"),
    Command(("completion",), "bash|zsh", "Print a completion script for a shell.", "completions:completion"),
    Command(("help",), "[COMMAND]", "Explain a command and its flags.", "texts:help"),
)


#: Those that take the flags of the settings. The others take rclone's global flags, which mean nothing to them.
WITH_FLAGS = (("serve", "restic"), ("check-config",), ("lsd",), ("ls",))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. A mistake is one line on standard error and status 1."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["--version"], ["-V"]):
        words[0] = "version"
    if not words or words[0] in ("-h", "--help"):
        words = ["help"]
    try:
        command, rest = find_command(words)
        if command is None:
            named = next((word for word in words if not word.startswith("-")), words[0])
            raise ConfigurationError(f"unknown command: {named}; see resticd help")
        flags = rest[: rest.index("--")] if "--" in rest else rest
        if "--help" in flags or "-h" in flags:
            command, rest = COMMANDS[-1], list(command.words)
        function = command.function()
        gc.freeze()
        gc.enable()
        return function(rest)
    except ResticdError as error:
        print(f"resticd: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except BrokenPipeError:
        # Whoever read it has enough. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def find_command(words: Sequence[str]) -> tuple[Command | None, list[str]]:
    """The command that ``words`` name, and the other words. Flags may stand before it, as in rclone.

    Raises ``ConfigurationError`` where a flag before it is not known.
    """
    positions = tuple(range(len(words)))
    if words and words[0].startswith("-"):
        from resticd.config.commandline import parse_command_line
        from resticd.config.settings import FLAGS
        from resticd.config.sources import SETTINGS

        positions = parse_command_line(words, (*FLAGS, SETTINGS, HELP)).positions
    for command in COMMANDS:
        found = positions[: len(command.words)]
        if tuple(words[position] for position in found) == command.words:
            return command, [word for position, word in enumerate(words) if position not in found]
    return None, list(words)


def plain_arguments(argv: Sequence[str]) -> tuple[str, ...]:
    """The arguments of a command that has no flags of its own. Raises ``ConfigurationError`` for an unknown flag."""
    from resticd.config.commandline import parse_command_line
    from resticd.config.settings import FLAGS
    from resticd.config.sources import SETTINGS

    return parse_command_line(argv, (*FLAGS, SETTINGS)).arguments


def run() -> None:
    """The entry point of the program."""
    # What imports make stays; looking through it for garbage would be a tenth of the start.
    gc.disable()
    sys.exit(main())
