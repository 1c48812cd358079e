"""The ``resticd`` command, which also takes rclone's place for restic (``restic -o rclone.program=resticd``)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from attrs import frozen

from resticd.errors import ResticdError


@frozen
class Command:
    """One sub-command.

    :ivar words: how it is called.
    :ivar arguments: for its usage line.
    :ivar help: one sentence.
    :ivar place: the module below ``resticd.commands`` and the function in it, which takes the rest of the command
        line and
        returns the exit status; imported when it is called.
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
    Command(("completion",), "bash|zsh", "Print a completion script for a shell.", "texts:completion"),
    Command(("help",), "[COMMAND]", "Explain a command and its flags.", "texts:help"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. A mistake is one line on standard error and status 1."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["--version"], ["-V"]):
        words[0] = "version"
    if not words or words[0] in ("-h", "--help"):
        words = ["help"]
    command, rest = find_command(words)
    if command is None:
        print(f"resticd: unknown command: {words[0]}; see resticd help", file=sys.stderr)  # noqa: T201
        return 1
    if "--help" in rest or "-h" in rest:
        command, rest = COMMANDS[-1], list(command.words)
    try:
        return command.function()(rest)
    except ResticdError as error:
        print(f"resticd: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except BrokenPipeError:
        return 1


def find_command(words: Sequence[str]) -> tuple[Command | None, list[str]]:
    """The command that ``words`` begin with, and the words behind it. Flags may stand before it, as in rclone."""
    for command in COMMANDS:
        length = len(command.words)
        if tuple(words[:length]) == command.words:
            return command, list(words[length:])
    return None, list(words)


def run() -> None:
    """The entry point of the program."""
    sys.exit(main())
