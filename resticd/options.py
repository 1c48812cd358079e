"""``twistd resticd``'s options: every flag of the settings, and what to serve."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from twisted.python import usage

from resticd import __version__
from resticd.config.flags import Flag
from resticd.config.settings import FLAGS, Settings
from resticd.config.sources import SETTINGS, read_sources
from resticd.errors import ConfigurationError

_HELP = Flag("help", bool, False, "Show this text.", short="h")
_VERSION = Flag("version", bool, False, "Show the version.")


class Options(usage.Options):
    """A ``usage.Options`` that reads rclone's flags. ``settings`` holds the result of ``parseOptions``."""

    synopsis = "[flags] REMOTE"
    longdesc = "Serve the restic repositories on REMOTE: a directory, or remote:path as in rclone."

    settings: Settings
    #: reads the same command line and every other source anew
    reread: Callable[[], Settings]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line. A mistake ends the program with one line on standard error and status 1."""
        argv = sys.argv[1:] if options is None else options
        self.reread = partial(read_settings, argv)
        try:
            self.settings = self.reread()
        except ConfigurationError as error:
            fail(str(error))

    def __str__(self) -> str:
        return help_text()


def read_settings(argv: Sequence[str]) -> Settings:
    """The settings in force. ``--help`` and ``--version`` print and exit."""
    reading = read_sources(argv, os.environ, (_HELP, _VERSION))
    if reading.line.values.get("help"):
        print(help_text())  # noqa: T201 - what the user asked for
        sys.exit(0)
    if reading.line.values.get("version"):
        print(f"resticd {__version__}")  # noqa: T201 - what the user asked for
        sys.exit(0)
    if not reading.settings.remote:
        raise ConfigurationError("say what to serve: a directory or remote:path")
    return reading.settings


def fail(sentence: str) -> NoReturn:
    """End the program as a user expects it: one line, status 1, no traceback."""
    sys.exit(f"resticd: {sentence}")


def help_text() -> str:
    """The text of ``twistd resticd --help``: the flags are those of ``resticd serve restic``."""
    from resticd.commands.texts import flag_lines

    lines = [f"Usage: twistd [twistd's options] resticd {Options.synopsis}", "", Options.longdesc, ""]
    return "\n".join([*lines, *flag_lines((SETTINGS, *FLAGS, _HELP, _VERSION))])
