"""The last line of defence against secrets in logs. The first is that nobody logs them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

#: What stands where a secret stood.
MASK = "***"

# All repetitions are bounded or possessive: clients choose some of the texts.

#: Names whose values are secrets: in query strings, environments, connection strings and reprs of dictionaries.
_SECRET_NAME = re.compile(
    r"(?i)passw(or)?d|passphrase|(?<![a-z])pass2?(?![a-z])|secret|signature|credential|token"
    r"|(access|account|private|api)[_-]?key"
)
#: In a URL's query these are too.
_SHORT_NAMES = ("sig", "key")
_NAME = re.compile(r"(?<![\w.-])([\w.-]{1,100}+)([\"']?\s{0,2}+[:=]\s{0,2}+)")
_QUOTED = re.compile(r"b?([\"'])(?=[^\s\"'])((?:\\.|(?!\1).)*)\1")
# A value ends at the first character that cannot be part of one; at a quote above all, so that a client who gets
# "token=" into a quoted field cannot hide what comes behind the field.
_VALUE = r"[^\s\"'\\&,;<>(){}\[\]]+"
_BARE = re.compile(f"({_VALUE})")

#: ``Authorization: SCHEME TOKEN``, as a header and in the repr of one.
_AUTHORIZATION = re.compile(
    r"(?i)(authorization[\"']?\s{0,4}[:=,]\s{0,4}[\[(]?(?:b?[\"'])?"
    rf"(?:(?:basic|bearer|digest|negotiate|sharedkey\w{{0,8}}|aws4-hmac-sha256) )?){_VALUE}(?: {_VALUE})?"
)
_SCHEME = re.compile(rf"\b([Bb]earer |[Bb]asic (?=[a-z0-9+/]*[A-Z0-9+/=])){_VALUE}")
#: ``scheme://user:password@host``
_USERINFO = re.compile(r"(://)[^/\s\"'<>\\]+@")

#: Shorter ones are also ordinary words; masking those would tell readers what they are.
_SHORTEST = 8


class Scrubber:
    """Replaces secrets in texts: those that look like one, and those that it was told.

    :param secrets: values that never may be shown, such as passwords of the settings; those of less than eight
        characters are left to the other rules.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: set[str] = set()
        self._told: re.Pattern[str] | None = None
        self.hide(*secrets)

    def hide(self, *secrets: str) -> None:
        """Never show these from now on."""
        self._secrets.update(secret for secret in secrets if len(secret) >= _SHORTEST)
        if self._secrets:
            # The longest first: a secret may begin with another one.
            texts = map(re.escape, sorted(self._secrets, key=len, reverse=True))
            self._told = re.compile(rf"(?<!\w)(?:{'|'.join(texts)})(?!\w)")

    def scrub(self, text: str) -> str:
        """``text`` without secrets."""
        if self._told is not None and any(secret in text for secret in self._secrets):
            text = self._told.sub(MASK, text)
        # Each rule only where it can match: most lines have nothing for any of them.
        if "://" in text and "@" in text:
            text = _USERINFO.sub(rf"\1{MASK}@", text)
        if "uthorization" in text or "UTHORIZATION" in text:
            text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
        if "earer " in text or "asic " in text:
            text = _SCHEME.sub(rf"\1{MASK}", text)
        if "=" in text or "':" in text or '":' in text:
            text = _mask_values(text)
        return text

    def scrub_all(self, value: Any) -> Any:
        """A value of JSON without secrets in its strings."""
        if isinstance(value, str):
            return self.scrub(value)
        if isinstance(value, dict):
            return {key: self.scrub_all(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.scrub_all(inner) for inner in value]
        return value


def _mask_values(text: str) -> str:
    """Mask ``NAME=value``, ``name="value"`` and ``'name': 'value'`` for names of secrets."""
    parts = []
    done = 0
    for found in _NAME.finditer(text):
        name, separator = found.groups()
        if found.start() < done or not _is_secret(name, text[found.start() - 1 : found.start()]):
            continue
        value = _QUOTED.match(text, found.end())
        group = 2
        if value is None and "=" in separator:
            value = _BARE.match(text, found.end())
            group = 1
        if value is not None:
            parts += [text[done : value.start(group)], MASK]
            done = value.end(group)
    return "".join([*parts, text[done:]])


def names_secret(name: str) -> bool:
    """Whether the value of an option, variable or parameter of this name is a secret."""
    return _SECRET_NAME.search(name) is not None


def _is_secret(name: str, before: str) -> bool:
    return names_secret(name) or (before in ("?", "&") and name.lower() in _SHORT_NAMES)
