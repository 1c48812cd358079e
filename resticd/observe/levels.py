"""Levels of the log: rclone's names over ``twisted.logger``'s levels.

=========  =============================  ========
rclone     logged with                    shown by
=========  =============================  ========
CRITICAL   ``Logger.critical``            always
ERROR      ``Logger.error``               always
NOTICE     ``Logger.warn``                default
INFO       ``Logger.info``                ``-v``
DEBUG      ``Logger.debug``               ``-vv``
=========  =============================  ========

rclone logs warnings and significant events as NOTICE, so ``Logger.warn`` stands for both and no further key is needed.
What other programs' parts (Twisted itself above all: "Timing out client", "Site starting on") log as information is
DEBUG here.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionClosed
from twisted.logger import LogLevel

from resticd.errors import (
    BadRequest,
    ClientGone,
    ConfigurationError,
    Forbidden,
    NotFound,
    RangeNotSatisfiable,
    TooLarge,
    Unauthorized,
)

if TYPE_CHECKING:
    from twisted.logger import LogEvent
    from twisted.python.failure import Failure


class Level(IntEnum):
    """A level; the number is syslog's severity (RFC 5424, section 6.2.1), so less is worse."""

    OFF = -1
    CRITICAL = 2
    ERROR = 3
    NOTICE = 5
    INFO = 6
    DEBUG = 7


#: rclone's further names, as thresholds. WARNING shows what ``Logger.warn`` logs.
_ALIASES = {"EMERGENCY": Level.CRITICAL, "ALERT": Level.CRITICAL, "WARNING": Level.NOTICE}

# Any: Twisted's constants have no types.
_LEVELS: dict[Any, Level] = {
    LogLevel.debug: Level.DEBUG,
    LogLevel.info: Level.INFO,
    LogLevel.warn: Level.NOTICE,
    LogLevel.error: Level.ERROR,
    LogLevel.critical: Level.CRITICAL,
}

_TWISTED = {ours: twisted for twisted, ours in _LEVELS.items()}

#: Clients cause these whenever they like. None of them tells anything about the server, so none has a traceback.
_MISTAKES = (
    BadRequest,
    CancelledError,
    ClientGone,
    ConnectionClosed,
    Forbidden,
    NotFound,
    RangeNotSatisfiable,
    TooLarge,
    Unauthorized,
)


def parse_level(flag: str, text: str) -> Level:
    """A level by rclone's name, in any case. Raises ``ConfigurationError``."""
    name = text.upper()
    if name in _ALIASES:
        return _ALIASES[name]
    try:
        return Level[name]
    except KeyError:
        raise ConfigurationError(f"--{flag}: not DEBUG, INFO, NOTICE, ERROR, CRITICAL or OFF: {text}") from None


def twisted_level(level: Level) -> Any:
    """The level to log with, so that ``level`` is what comes out."""
    return _TWISTED[level]


def level_of(event: LogEvent) -> Level:
    """The level that an event of ``twisted.logger`` has here."""
    level = _LEVELS.get(event.get("log_level"), Level.INFO)
    failure = event.get("log_failure")
    if failure is not None and is_mistake(failure):
        return Level.DEBUG
    if level is Level.INFO and not is_ours(event):
        return Level.DEBUG
    return level


def is_ours(event: LogEvent) -> bool:
    """Whether a part of resticd logged it."""
    namespace = str(event.get("log_namespace", ""))
    return namespace == "resticd" or namespace.startswith("resticd.")


def is_mistake(failure: Failure) -> bool:
    """Whether a client can cause this failure at will."""
    return failure.check(*_MISTAKES) is not None
