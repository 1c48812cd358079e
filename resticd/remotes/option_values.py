"""Values of remotes' options, written as rclone writes them (its ``fs/sizesuffix.go``, ``fs/tristate.go``)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from resticd.errors import ConfigurationError

_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:([bkmgtpe])(?:i?b)?i?)?\Z", re.IGNORECASE)
_POWERS = "bkmgtpe"
_DURATION = re.compile(r"(\d+(?:\.\d*)?)(ms|s|m|h|d|w)")
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


class OptionValues:
    """Reads one remote's options; every method raises ``ConfigurationError`` for a value that cannot be meant.

    :param type: of the remote, for messages.
    """

    def __init__(self, type: str, options: Mapping[str, str]) -> None:
        self._type = type
        self._options = options

    def text(self, name: str, default: str = "") -> str:
        """The value as it is."""
        return self._options.get(name, default)

    def switch(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self._options.get(name, "")
        if value == "":
            return default
        if value not in _BOOLEANS:
            raise self.error(name, "is neither true nor false")
        return _BOOLEANS[value]

    def tristate(self, name: str, default: bool) -> bool:
        """True or false, or ``unset`` for the default."""
        return default if self._options.get(name, "").lower() == "unset" else self.switch(name, default)

    def number(self, name: str, default: int) -> int:
        """A whole number that is not negative."""
        value = self._options.get(name, "")
        if value == "":
            return default
        if not value.isdecimal():
            raise self.error(name, "is not a number")
        return int(value)

    def size(self, name: str, default: int | None) -> int | None:
        """Bytes; a plain number is KiB, ``off`` is None."""
        value = self._options.get(name, "")
        if value == "":
            return default
        if value.lower() == "off":
            return None
        match = _SIZE.match(value)
        if match is None:
            raise self.error(name, "is not a size such as 512, 10M or 1G")
        number, unit = match.groups()
        return int(float(number) * 1024 ** _POWERS.index((unit or "k").lower()))

    def duration(self, name: str) -> float | None:
        """Seconds; a plain number is seconds; None where nothing, or 0, is said."""
        value = self._options.get(name, "")
        if value == "" or value.isdecimal():
            return float(value or 0) or None
        parts = _DURATION.findall(value)
        if "".join(number + unit for number, unit in parts) != value:
            raise self.error(name, "is not a duration such as 90s or 1h30m")
        return sum(float(number) * _SECONDS[unit] for number, unit in parts) or None

    def error(self, name: str, problem: str) -> ConfigurationError:
        """What to raise for an option; the value itself, which may be a secret, is not shown."""
        return ConfigurationError(f"{self._type}: {name} {problem}")
