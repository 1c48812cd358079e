"""The remotes file: reads what rclone reads, and finds it where rclone finds it.

rclone parses it with github.com/unknwon/goconfig, whose dialect this follows to the letter: keys before any section
belong to ``DEFAULT``, a section ``a.b`` inherits from ``a``, and ``%(key)s`` in a value stands for another one.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from attrs import field, frozen

from resticd.config.encryption import decrypt, file_password, sealed_part
from resticd.errors import ConfigurationError

#: Where a system-wide file lies, looked for last.
SYSTEM_FILE = "/etc/resticd/rclone.conf"

_DEFAULT = "DEFAULT"
#: A key that goconfig puts into every section that has a header; never listed.
_HEADER = " "
#: What Go's ``strings.TrimSpace`` takes away; ``str.strip`` would take U+001C to U+001F too.
_SPACE = "".join(char for char in map(chr, range(0x3001)) if char.isspace() and not "\x1c" <= char <= "\x1f")
_BOM = b"\xef\xbb\xbf"
_ASSIGN = re.compile("[=:]")
_VARIABLE = re.compile(r"%\([^)]+\)s")
_MAX_FILE = 16 << 20
#: Bounds for values that refer to each other: steps as in goconfig, length and depth of our own.
_MAX_STEPS = 200
_MAX_VALUE = 1 << 20
_MAX_DEPTH = 32


class _Entry(NamedTuple):
    value: str
    line: int


@frozen
class RemotesFile:
    """A remotes file that was read. Bytes that are no UTF-8 are kept as surrogate escapes.

    :ivar path: the file, or None where there is none.
    :ivar missing: nothing lies at ``path``.
    """

    path: str | None
    missing: bool = False
    _sections: Mapping[str, Mapping[str, _Entry]] = field(factory=dict, repr=False)

    def __str__(self) -> str:
        if self.path is None:
            return "no remotes file"
        return f"{self.path} (which does not exist)" if self.missing else self.path

    @property
    def sections(self) -> tuple[str, ...]:
        """The names of all sections, in the file's order."""
        return tuple(self._sections)

    def keys(self, section: str) -> tuple[str, ...]:
        """The keys that stand in ``section`` itself, in the file's order."""
        return tuple(key for key in self._sections.get(section, ()) if key != _HEADER)

    def options(self, section: str) -> dict[str, str]:
        """All keys and values that ``section`` has, inherited ones too, without the empty ones: rclone skips these."""
        names = {key for name in self._lineage(section) for key in self.keys(name)}
        values = ((key, self.get(section, key)) for key in sorted(names))
        return {key: value for key, value in values if value}

    def get(self, section: str, key: str) -> str | None:
        """The value of ``key``, as ``goconfig.GetValue`` has it, or None."""
        return self._expanded(section, key, 0)

    def where(self, section: str, key: str = _HEADER) -> str:
        """The file and the line of a key, or of the section's header, for messages."""
        for name in self._lineage(section):
            if entry := self._sections[name].get(key):
                return f"{self.path}:{entry.line}: [{section}]"
        return f"{self.path}: [{section}]"

    def _lineage(self, section: str) -> Iterator[str]:
        """The section and those that it inherits from: up to the first that does not exist."""
        while section in self._sections:
            yield section
            parent, dot, _ = section.rpartition(".")
            if not dot:
                return
            section = parent or _DEFAULT

    def _expanded(self, section: str, key: str, depth: int) -> str | None:
        for name in self._lineage(section):
            entry = self._sections[name].get(key)
            if entry is not None:
                return self._substituted(name, entry, depth)
        return None

    def _substituted(self, section: str, entry: _Entry, depth: int) -> str:
        value = entry.value
        for _ in range(_MAX_STEPS):
            match = _VARIABLE.search(value)
            if match is None:
                break
            # Sic: goconfig strips characters, not the prefix and suffix, so a name never begins or ends with these.
            name = match[0].lstrip("%(").rstrip(")s")
            if depth == _MAX_DEPTH:
                raise ConfigurationError(f"{self.path}:{entry.line}: the value refers to itself")
            found = self._expanded(_DEFAULT, name, depth + 1)
            if found is None and section != _DEFAULT:
                own = self._sections[section].get(name)
                found = own.value if own else None
            found = found or ""
            if len(value) + value.count(match[0]) * len(found) > _MAX_VALUE:
                raise ConfigurationError(f"{self.path}:{entry.line}: the value refers to others without end")
            value = value.replace(match[0], found)
        return value


def read_remotes_file(config: str | None, environ: Mapping[str, str], password_command: str = "") -> RemotesFile:
    """Find, read, decrypt and parse the remotes file. Blocks; for start-up, and for a worker at a reload.

    A file that does not exist is not an error, as in rclone: remotes may come from the environment alone. Raises
    ``ConfigurationError``, which never shows a value.

    :param config: the value of ``--config``; None where it was not given.
    :param password_command: the value of ``--password-command``.
    """
    path = find_remotes_file(config, environ)
    if path is None:
        return RemotesFile(None)
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        return RemotesFile(path, missing=True)
    except OSError as error:
        raise ConfigurationError(f"--config: cannot read {path}: {error.strerror}") from None
    if len(data) > _MAX_FILE:
        raise ConfigurationError(f"--config: {path} is larger than {_MAX_FILE >> 20} MiB")
    try:
        sealed = sealed_part(data)
        if sealed is not None:
            password = file_password(password_command, environ)
            if password is None:
                raise ValueError("it is encrypted: give its password by RCLONE_CONFIG_PASS or --password-command")
            data = decrypt(sealed, password)
    except ValueError as error:
        raise ConfigurationError(f"--config: {path}: {error}") from None
    return parse_remotes_file(data, path)


def find_remotes_file(config: str | None, environ: Mapping[str, str]) -> str | None:
    """The path of the remotes file: as ``makeConfigPath`` in rclone's ``fs/config/config.go``, then ``SYSTEM_FILE``.

    None where ``--config`` or ``RCLONE_CONFIG`` say that there is none (empty, ``/dev/null``, ``notfound``), and
    where there is none anywhere.
    """
    if config is None:
        config = environ.get("RCLONE_CONFIG")
    if config is not None:
        in_memory = config in ("", os.devnull) or Path(config).name == "notfound"
        return None if in_memory else str(Path(config).absolute())
    for place in _usual_places(environ):
        if place.exists():
            return str(place)
    return None


def _usual_places(environ: Mapping[str, str]) -> Iterator[Path]:
    program = shutil.which("rclone", path=environ.get("PATH"))
    if program:
        yield Path(program).resolve().parent / "rclone.conf"
    if base := environ.get("XDG_CONFIG_HOME"):
        yield Path(base, "rclone", "rclone.conf")
    if home := environ.get("HOME") or _home():
        yield Path(home, ".config", "rclone", "rclone.conf")
        yield Path(home, ".rclone.conf")
    yield Path(SYSTEM_FILE)


def _home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def parse_remotes_file(data: bytes, path: str) -> RemotesFile:
    """Parse a plain remotes file. Raises ``ConfigurationError`` with file and line.

    :param path: what to call the file in messages.
    """
    sections: dict[str, dict[str, _Entry]] = {}
    section = _DEFAULT
    counter = 0
    for number, raw in enumerate(data.removeprefix(_BOM).split(b"\n"), 1):
        line = raw.decode("utf-8", "surrogateescape").strip(_SPACE)
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            section = line[1:-1].strip(_SPACE)
            sections.setdefault(section or _DEFAULT, {})[_HEADER] = _Entry(_HEADER, number)
            counter = 0
            continue
        if not section:
            raise ConfigurationError(f"{path}:{number}: the section above has no name")
        try:
            key, value = _assignment(line)
        except ValueError as error:
            raise ConfigurationError(f"{path}:{number}: {error}") from None
        if key == "-":
            counter += 1
            key = f"#{counter}"
        if key:
            sections.setdefault(section, {})[key] = _Entry(value, number)
    return RemotesFile(path, sections=sections)


def _assignment(line: str) -> tuple[str, str]:
    """Key and value of a line. Keys may stand in `"`, `\"\"\"` or backquotes, values in `\"\"\"` or backquotes."""
    quote = _quote(line, '"""', '"', "`")
    start, key_end = len(quote), 0
    if quote:
        key_end = line.find(quote, start)
        if key_end < 0:
            raise ValueError("the quote of the key does not end")
    assign = _ASSIGN.search(line, key_end)
    if assign is None or assign.start() == 0:
        raise ValueError('neither a [section] nor "key = value"')
    key = line[start:key_end] if quote else line[: assign.start()].strip(_SPACE)
    value = line[assign.end() :].strip(_SPACE)
    if len(value) > 1 and (quote := _quote(value, "`", '"""')):
        end = value.rfind(quote, len(quote))
        if end < 0:
            raise ValueError("the quote of the value does not end")
        value = value[len(quote) : end]
    return key, value


def _quote(text: str, *quotes: str) -> str:
    """Which of ``quotes`` begins ``text``, or nothing; three quotes count from six bytes on."""
    for quote in quotes:
        if text.startswith(quote) and (len(quote) == 1 or len(text.encode("utf-8", "surrogateescape")) >= 6):
            return quote
    return ""
