"""What rclone writes to its standard error, in our log."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger, LogLevel

_log = Logger(namespace="resticd.rclone")

#: What fails for a request comes as the answer to it too, and is an error of ours if it is one at all: so rclone's
#: ERROR is less here. Its INFO tells of each file.
# Any: Twisted's constants have no types.
_LEVELS: dict[str, Any] = {
    "emergency": LogLevel.critical,
    "alert": LogLevel.critical,
    "critical": LogLevel.critical,
    "error": LogLevel.warn,
    "warning": LogLevel.warn,
    "notice": LogLevel.warn,
}
#: Sources of lines that say no more than an answer does: the remote control's errors, lists of what is not there, the
#: two sockets.
_REPEATED = ("rcserver/", "walk/", "restic/restic.go", "atexit/", "http/server.go")


class RcloneLog:
    """Takes lines of ``--use-json-log`` and others, such as those of a crash.

    :param name: of the remote, for our log.
    :param clean: takes secrets out of a text.
    :ivar last: what was the matter, as rclone said it last; for errors that end it.
    """

    def __init__(self, name: str, clean: Callable[[str], str]) -> None:
        self.last = ""
        self._name = name
        self._clean = clean

    def line(self, text: str) -> None:
        """Take a line."""
        level, message = self._read(text)
        message = " ".join(self._clean(message).split())
        if level is not LogLevel.debug:
            self.last = message
        # Whether it ends the program is for us to say.
        level = LogLevel.warn if level is LogLevel.critical else level
        _log.emit(level, "{name}: rclone: {message}", name=self._name, message=message)

    def _read(self, text: str) -> tuple[Any, str]:
        try:
            entry = json.loads(text)
            level, message = str(entry["level"]), str(entry["msg"])
        except (ValueError, KeyError, TypeError):
            return LogLevel.warn, text
        known = _LEVELS.get(level, LogLevel.debug)
        source = str(entry.get("source", ""))
        if known is LogLevel.warn and source.startswith(_REPEATED):
            known = LogLevel.debug
        about = entry.get("object")
        return known, f"{about}: {message}" if about else message
