"""What a flag is, and the texts that flags take (rclone's: ``fs/config/flags`` and ``fs/parseduration.go``)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import attrs
from attrs import frozen

T = TypeVar("T")


@frozen
class Flag:
    """One flag.

    :ivar name: without dashes, as on the command line.
    :ivar parse: makes a value of the text; raises ``ValueError`` that says what is wrong with it.
    :ivar default: the value where nobody says anything.
    :ivar help: one sentence.
    :ivar metavar: what to call the argument; empty for a switch.
    :ivar repeats: the flag may be given several times; its value is a tuple.
    :ivar counts: a switch whose value is how often it is given.
    :ivar short: one letter, or empty.
    :ivar secret: the value is never shown.
    """

    name: str
    parse: Callable[[str], Any]
    default: Any
    help: str
    metavar: str = ""
    repeats: bool = False
    counts: bool = False
    short: str = ""
    secret: bool = False

    @property
    def attribute(self) -> str:
        """The name of the field that holds the value."""
        return attribute_of(self.name)

    @property
    def takes_numbers(self) -> bool:
        """Whether the settings file may have a number for it; its default would be text otherwise, or nothing."""
        return not isinstance(self.default, str | None)

    @property
    def is_switch(self) -> bool:
        """Whether it stands without an argument (``--name=false`` is allowed nevertheless)."""
        return not self.metavar


def attribute_of(name: str) -> str:
    """The Python identifier for a flag's name."""
    return "pass_" if name == "pass" else name.replace("-", "_")


def flag(
    default: T,
    parse: Callable[[str], Any],
    metavar: str,
    help: str,
    *,
    repeats: bool = False,
    short: str = "",
    secret: bool = False,
) -> T:
    """A field of the settings that is a flag with an argument. See ``Flag``."""
    return _field(default, parse=parse, metavar=metavar, help=help, repeats=repeats, short=short, secret=secret)


def switch(help: str, *, default: bool = False, short: str = "") -> bool:
    """A field of the settings that is a flag without an argument."""
    return _field(default, parse=parse_bool, help=help, short=short)


def counter(help: str, *, short: str = "") -> int:
    """A field of the settings that counts how often its flag is given."""
    return _field(0, parse=int, help=help, short=short, counts=True)


def _field(default: T, **about: Any) -> T:
    # attrs.field returns T for type checkers, as this function does.
    made: T = attrs.field(default=default, metadata={"flag": about})
    return made


def flags_of(settings: type) -> tuple[Flag, ...]:
    """The flags of an attrs class of settings, in their order."""
    return tuple(
        Flag(name=field.name.rstrip("_").replace("_", "-"), default=field.default, **field.metadata["flag"])
        for field in attrs.fields(settings)
        if "flag" in field.metadata
    )


def parse_bool(text: str) -> bool:
    """As Go's ``strconv.ParseBool``, which rclone uses; ``on`` and ``off`` too."""
    if text in ("1", "t", "T", "true", "TRUE", "True", "on"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False", "off"):
        return False
    raise ValueError("neither true nor false")


def parse_text(text: str) -> str:
    """Any text but an empty one."""
    if not text:
        raise ValueError("empty")
    return text


def one_of(*words: str) -> Callable[[str], str]:
    """A ``parse`` for one of ``words``, in any case."""
    by_case = {word.lower(): word for word in words}

    def parse(text: str) -> str:
        try:
            return by_case[text.lower()]
        except KeyError:
            raise ValueError(f"not {', '.join(words[:-1])} or {words[-1]}") from None

    return parse


def parse_count(text: str) -> int:
    """A whole number above zero."""
    if not re.fullmatch(r"[1-9]\d{0,17}", text):
        raise ValueError("not a whole number above zero")
    return int(text)


def parse_workers(text: str) -> int:
    """A number of processes, up to 64; ``auto`` is that of the processors that this process may use."""
    if text == "auto":
        return min(len(os.sched_getaffinity(0)), 64)
    if not re.fullmatch(r"[1-9]\d?", text) or int(text) > 64:
        raise ValueError("neither auto nor a whole number from 1 to 64")
    return int(text)


def parse_number(text: str) -> float:
    """A number of at least zero."""
    if not re.fullmatch(r"\d{1,15}(\.\d{1,15})?", text):
        raise ValueError("not a number")
    return float(text)


def parse_http2(text: str) -> str:
    """``on``, ``off`` or ``prefer``; what is true or false elsewhere is ``on`` or ``off`` here."""
    if text == "prefer":
        return text
    try:
        return "on" if parse_bool(text) else "off"
    except ValueError:
        raise ValueError("neither on, off nor prefer") from None


def parse_header(text: str) -> tuple[str, str]:
    """``Name: value`` (RFC 9110, section 5)."""
    name, colon, value = text.partition(":")
    if (
        not colon
        or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)
        or not re.fullmatch(r"[\t\x20-\x7e]*", value)
    ):
        raise ValueError("not a header such as 'Name: value'")
    return name, value.strip()


def parse_base(text: str) -> str:
    """A path without slashes at its ends, percent-encoded as Go's clients send it; as in rclone ``text`` is plain."""
    segments = text.strip("/").split("/")
    if segments == [""]:
        return ""
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError("empty segments and dot segments are never served")
    if re.search(r"[\x00-\x1f\x7f\\\ud800-\udfff]", text):
        raise ValueError("not a path such as /backups")
    return quote("/".join(segments), safe="/!$&'()*+,;=:@")


def parse_origin(text: str) -> str:
    """An origin as browsers send it (RFC 6454, section 6.1), ``null``, or ``*`` for all."""
    if text not in ("*", "null") and not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._:\[\]-]+", text):
        raise ValueError("not an origin such as https://host or http://host:8080, without a path")
    return text


_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d|w|M|y)")
_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 7 * 86400.0,
    "M": 30 * 86400.0,
    "y": 365 * 86400.0,
}


def parse_duration(text: str) -> float:
    """Seconds from ``1h30m``, ``250ms``, ``2d``; a plain number is seconds; ``off`` is 0."""
    if text == "off":
        return 0.0
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("not a duration such as 90s, 1h30m or 250ms")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """A text for ``parse_duration``: ``1h30m``, ``250ms``, ``0s``."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    parts = []
    for unit in "hm":
        count, seconds = divmod(seconds, _SECONDS[unit])
        parts += [f"{count:g}{unit}"] if count else []
    return "".join(parts) + (f"{seconds:g}s" if seconds or not parts else "")


def format_value(flag: Flag, value: Any) -> str:
    """A value as it could be written on the command line; of a flag that repeats all of them; empty for nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(": ".join(item) if isinstance(item, tuple) else str(item) for item in value)
    if isinstance(value, float):
        return format_duration(value) if flag.parse is parse_duration else f"{value:g}"
    return str(value)


_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:([bkmgtpe])(?:ib?|b)?)?\Z", re.IGNORECASE)
_POWERS = {"b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}


def parse_size(text: str) -> int | None:
    """Bytes from ``10M``, ``1.5G``, ``64KiB``; a plain number is KiB, as in rclone; ``off`` is None."""
    if text.lower() == "off":
        return None
    match = _SIZE.match(text)
    if match is None:
        raise ValueError("not a size such as 512, 10M or 1G")
    number, unit = match.groups()
    return int(float(number) * 1024 ** _POWERS[(unit or "k").lower()])
