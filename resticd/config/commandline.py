"""Command lines as rclone's users write them: GNU style, flags and arguments in any order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import frozen

from resticd.config.flags import Flag
from resticd.config.foreign import foreign_flags, foreign_letters
from resticd.errors import ConfigurationError


@frozen
class CommandLine:
    """What a command line says.

    :ivar values: by the flag's name; only for flags that were given.
    :ivar arguments: what is no flag.
    :ivar positions: where in the command line each of the arguments stands.
    :ivar foreign: rclone's flags that are not among the known ones, by name, with their texts.
    """

    values: dict[str, Any]
    arguments: tuple[str, ...]
    positions: tuple[int, ...]
    foreign: dict[str, str]


def parse_command_line(argv: Sequence[str], flags: Iterable[Flag]) -> CommandLine:
    """Read ``argv`` (without the program's name). Raises ``ConfigurationError`` that names the flag.

    ``--name value``, ``--name=value``, ``--switch``, ``--switch=false``, ``-vv``, ``-o value``; ``--`` ends the flags.
    Of a flag that is given twice the last one counts, unless it repeats or counts.
    """
    parser = _Parser(flags, argv)
    parser.run()
    return CommandLine(parser.values, tuple(parser.arguments), tuple(parser.positions), parser.foreign)


class _Parser:
    def __init__(self, flags: Iterable[Flag], argv: Sequence[str]) -> None:
        self._by_name = {flag.name: flag for flag in flags}
        self._by_letter = {flag.short: flag for flag in self._by_name.values() if flag.short}
        self._rest = list(argv)
        self.values: dict[str, Any] = {}
        self.arguments: list[str] = []
        self.positions: list[int] = []
        self.foreign: dict[str, str] = {}

    def run(self) -> None:
        length = len(self._rest)
        while self._rest:
            word = self._rest.pop(0)
            if word == "--":
                self.positions += range(length - len(self._rest), length)
                self.arguments += self._rest
                return
            if word.startswith("--"):
                self._long(word[2:])
            elif word.startswith("-") and word != "-":
                self._letters(word[1:])
            else:
                self.positions.append(length - len(self._rest) - 1)
                self.arguments.append(word)

    def _long(self, word: str) -> None:
        name, equals, text = word.partition("=")
        name = name.replace("_", "-")
        flag = self._by_name.get(name)
        if flag is not None:
            self._take(flag, text if equals else None)
        elif name in foreign_flags():
            self._take_foreign(name, text if equals else None)
        else:
            raise ConfigurationError(f"unknown flag: --{name}")

    def _letters(self, letters: str) -> None:
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self._by_letter.get(letter)
            name = flag.name if flag is not None else foreign_letters().get(letter)
            if name is None:
                raise ConfigurationError(f"unknown flag: -{letter}")
            has_argument = bool(flag.metavar) if flag is not None else foreign_flags()[name]
            text = letters.removeprefix("=") or None if has_argument else None
            if flag is None:
                self._take_foreign(name, text)
            else:
                self._take(flag, text)
            if has_argument:
                return

    def _take(self, flag: Flag, text: str | None) -> None:
        """One occurrence of a known flag, its argument from ``text`` or the next word."""
        if text is None and flag.is_switch:
            self.values[flag.name] = self.values.get(flag.name, 0) + 1 if flag.counts else True
            return
        if text is None:
            text = self._next_word(flag.name)
        value = parse_value(flag, text, f"--{flag.name}")
        self.values[flag.name] = (*self.values.get(flag.name, ()), value) if flag.repeats else value

    def _take_foreign(self, name: str, text: str | None) -> None:
        if text is None:
            text = self._next_word(name) if foreign_flags()[name] else "true"
        self.foreign[name] = text

    def _next_word(self, name: str) -> str:
        if not self._rest:
            raise ConfigurationError(f"--{name}: the argument is missing")
        return self._rest.pop(0)


def parse_value(flag: Flag, text: str, where: str) -> Any:
    """The value of ``text`` for ``flag``; ``where`` begins the sentence of the ``ConfigurationError``."""
    try:
        return flag.parse(text)
    except ValueError as error:
        shown = "the value" if flag.secret else repr(text)
        raise ConfigurationError(f"{where}: {shown}: {error}") from None
