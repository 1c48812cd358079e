"""The names of remotes, taken apart as rclone's ``fs/fspath`` does it.

``remote:path``, ``remote,option=value:path``, ``:backend,option=value:path`` or a local path. A value with ``:`` or
``,`` in it stands in quotes, ``'`` or ``"``, and such a quote in it is doubled; an option without a value is ``true``.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from attrs import field, frozen

from resticd.errors import ConfigurationError

#: rclone's pattern for names, written so that it cannot backtrack; ``\w`` is Unicode's letters, numbers and ``_``.
_NAME = re.compile(r":?[\w.+@]+(?:[ -] *[\w.+@-]+(?: +[\w.+@-]+)*)?")
_BAD_NAME = (
    "config name contains invalid characters - may only contain numbers, letters, `_`, `-`, `.`, `+`, `@` and space, "
    "while not start with `-` or space, and not end with space"
)
#: The longest parts that each of these may be; what is behind them decides.
_NAME_PART = re.compile(r":?[^:,/\\]*")
_PARAMETER = re.compile("[0-9A-Za-z_.]*")
_PLAIN_VALUE = re.compile("[^:,]*")
_QUOTED = {quote: re.compile(f"(?:[^{quote}]|{quote}{quote})*") for quote in ("'", '"')}


@frozen
class Connection:
    """A remote's name in its parts.

    :ivar name: the section, ``:backend`` for one that is described on the fly, or empty for a local path.
    :ivar path: the place on the remote as it was written, perhaps empty.
    :ivar parameters: the options in the name.
    :ivar prefix: all before the path, with the last ``:``; ``prefix + path`` is the whole name.
    """

    name: str
    path: str
    parameters: Mapping[str, str] = field(factory=dict, repr=False)
    prefix: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.name}{',…' if self.parameters else ''}:{self.path}" if self.name else self.path


def parse_connection(text: str) -> Connection:
    """Take a remote's name apart. Raises ``ConfigurationError``, with what rclone says, and without the options."""
    try:
        return _parse(text)
    except ValueError as error:
        shown = text.partition(",")[0] + ("…" if "," in text else "")
        raise ConfigurationError(f'remote "{shown}": {error}') from None


def shown(text: str) -> str:
    """``text`` for logs and messages: options in the name, which may be secrets, are left out.

    Never raises: what cannot be parsed is not shown at all.
    """
    try:
        connection = parse_connection(text)
    except ConfigurationError:
        return "(a remote's name that cannot be read)"
    if not connection.name:
        return connection.path
    more = ",…" if connection.parameters else ""
    return f"{connection.name}{more}:{connection.path}"


def join_connection(text: str, path: str) -> str:
    """The name of what lies at ``path`` on the remote named ``text``; ``..`` does not lead out of it.

    As rclone's ``fspath.JoinRootPath``, but a local path stays one.
    """
    if not path:
        return text
    rooted = path.startswith("/")
    path = _join("/", path)
    if not rooted:
        path = path.removeprefix("/")
    if text.startswith("//"):
        return "/" + _join(text, path)
    try:
        connection = _parse(text)
    except ValueError:
        return _join(text, path)
    joined = _join(connection.path, path)
    if connection.name:
        return connection.prefix + ("" if joined == "." else joined)
    # rclone loses the "./" of "./a:b", and ends up on a remote called "a".
    return f"./{joined}" if ":" in joined.partition("/")[0] else joined


def _join(*parts: str) -> str:
    """As Go's ``path.Join``: empty parts do not count, and nothing begins with two slashes."""
    text = "/".join(part for part in parts if part)
    if not text:
        return ""
    clean = posixpath.normpath(text)
    return clean[1:] if clean.startswith("//") else clean


def _parse(text: str) -> Connection:
    if not text:
        raise ValueError("can't use empty string as a path")
    if ":" not in text:
        return Connection("", text)
    name, end, position = _take(_NAME_PART, text, 0)
    if end in ("/", "\\"):
        if name.startswith(":"):
            raise ValueError(_BAD_NAME)
        return Connection("", text)
    if not end:
        raise ValueError("config name needs a trailing `:`")
    if name in ("", ":"):
        raise ValueError("config name can't be empty")
    if not _NAME.fullmatch(name):
        raise ValueError(_BAD_NAME)
    parameters: dict[str, str] = {}
    while end == ",":
        parameter, end, position = _take(_PARAMETER, text, position)
        if end and end not in "=,:":
            raise ValueError("config parameters may only contain `0-9`, `A-Z`, `a-z`, `_` and `.`")
        if not end:
            raise ValueError("config parameter must end with `,` or `:`")
        if not parameter:
            raise ValueError("config parameters can't be empty")
        value = "true"
        if end == "=":
            value, end, position = _value(text, position)
        parameters[parameter] = value
    return Connection(name, text[position:], parameters, text[:position])


def _value(text: str, position: int) -> tuple[str, str, int]:
    """The value that begins at ``position``, the character that ends it, and the position after that one."""
    quote = text[position : position + 1]
    if quote not in ("'", '"'):
        value, end, position = _take(_PLAIN_VALUE, text, position)
        if not end:
            raise ValueError("unquoted config value must end with `,` or `:`")
        return value, end, position
    value, end, position = _take(_QUOTED[quote], text, position + 1)
    if not end:
        raise ValueError("unterminated quoted config value")
    end = text[position : position + 1]
    if end not in (",", ":"):
        raise ValueError("expecting `:` or `,` or another quote after a quote")
    return value.replace(quote * 2, quote), end, position + 1


def _take(pattern: re.Pattern[str], text: str, position: int) -> tuple[str, str, int]:
    """What matches at ``position``, the character behind it (empty at the end), and the position after that one."""
    match = pattern.match(text, position)
    found = match[0] if match else ""
    position += len(found)
    return found, text[position : position + 1], position + 1
