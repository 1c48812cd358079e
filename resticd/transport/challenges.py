"""What a server asks for when it refuses a request for want of a login (RFC 9110, section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from attrs import field, frozen

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
#: ``name=value`` with what may stand around it
_PARAMETER = re.compile(rf'\s*({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))\s*(?=,|\Z)', re.DOTALL)
_SCHEME = re.compile(rf"\s*({_WORD})(?:[ \t]+|(?=\s*(?:,|\Z)))")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*\s*(?=,|\Z)")


def _read_only(mapping: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(mapping))


@frozen
class Challenge:
    """One way to log in that a server offers.

    :ivar scheme: in lower case, such as ``basic``.
    :ivar parameters: by their names in lower case, unquoted.
    """

    scheme: str
    parameters: Mapping[str, str] = field(factory=dict, converter=_read_only)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of the WWW-Authenticate headers, in order; what cannot be read ends its header."""
    return [challenge for header in headers for challenge in _parse(header)]


def parse_parameters(text: str) -> dict[str, str]:
    """``name=value, name="value"``, as in Authentication-Info; what cannot be read ends it."""
    return _parameters(text, 0)[0]


def _parse(header: str) -> list[Challenge]:
    found = []
    position = 0
    while position < len(header):
        if header[position] in ", \t":
            position += 1
            continue
        match = _SCHEME.match(header, position)
        if match is None:
            break
        position = match.end()
        token = _TOKEN68.match(header, position)
        if token is not None and _PARAMETER.match(header, position) is None and _SCHEME.match(header, position) is None:
            parameters: dict[str, str] = {}
            position = token.end()
        else:
            parameters, position = _parameters(header, position)
        found.append(Challenge(match[1].lower(), parameters))
    return found


def _parameters(text: str, position: int) -> tuple[dict[str, str], int]:
    parameters: dict[str, str] = {}
    while (match := _PARAMETER.match(text, position)) is not None:
        name, quoted, plain = match.groups()
        parameters[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
        position = match.end()
        comma = re.compile(r"[\s,]*").match(text, position)
        assert comma is not None  # it matches nothing, too
        position = comma.end()
    return parameters, position
