"""Command lines as rclone's users write them: GNU style, flags and arguments in any order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import frozen

from resticd.config.flags import Flag
from resticd.errors import ConfigurationError


@frozen
class CommandLine:
    """What a command line says.

    :ivar values: by the flag's name; only for flags that were given.
    :ivar arguments: what is no flag.
    """

    values: dict[str, Any]
    arguments: tuple[str, ...]


def parse_command_line(argv: Sequence[str], flags: Iterable[Flag]) -> CommandLine:
    """Read ``argv`` (without the program's name). Raises ``ConfigurationError`` that names the flag.

    ``--name value``, ``--name=value``, ``--switch``, ``--switch=false``, ``-vv``, ``-o value``; ``--`` ends the
    flags. Of a flag that is given twice the last one counts, unless it repeats or counts.
    """
    by_name = {flag.name: flag for flag in flags}
    by_letter = {flag.short: flag for flag in by_name.values() if flag.short}
    values: dict[str, Any] = {}
    arguments: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            arguments += rest
            break
        if word.startswith("--"):
            name, equals, text = word[2:].partition("=")
            flag = by_name.get(name.replace("_", "-"))
            if flag is None:
                raise ConfigurationError(f"unknown flag: --{name}")
            _take(values, flag, text if equals else None, rest)
        elif word.startswith("-") and word != "-":
            _take_letters(values, by_letter, word[1:], rest)
        else:
            arguments.append(word)
    return CommandLine(values, tuple(arguments))


def _take_letters(values: dict[str, Any], by_letter: dict[str, Flag], letters: str, rest: list[str]) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        flag = by_letter.get(letter)
        if flag is None:
            raise ConfigurationError(f"unknown flag: -{letter}")
        if flag.is_switch:
            _take(values, flag, None, rest)
        else:
            _take(values, flag, letters.removeprefix("=") or None, rest)
            return


def _take(values: dict[str, Any], flag: Flag, text: str | None, rest: list[str]) -> None:
    """Put one occurrence of ``flag`` into ``values``, its argument from ``text`` or the next word."""
    if text is None and flag.is_switch:
        values[flag.name] = values.get(flag.name, 0) + 1 if flag.counts else True
        return
    if text is None:
        if not rest:
            raise ConfigurationError(f"--{flag.name}: {flag.metavar} is missing")
        text = rest.pop(0)
    value = parse_value(flag, text, f"--{flag.name}")
    values[flag.name] = (*values.get(flag.name, ()), value) if flag.repeats else value


def parse_value(flag: Flag, text: str, where: str) -> Any:
    """The value of ``text`` for ``flag``; ``where`` begins the sentence of the ``ConfigurationError``."""
    try:
        return flag.parse(text)
    except ValueError as error:
        shown = "the value" if flag.secret else repr(text)
        raise ConfigurationError(f"{where}: {shown}: {error}") from None
