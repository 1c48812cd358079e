"""Lists in one value, separated by spaces, as rclone's ``SpaceSepList`` (``fs/config_list.go``)."""

from __future__ import annotations

import re

#: A field and what ends it: Go's encoding/csv with a space for the comma.
_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^" \r\n]*))( |\r?\n|\Z)')


def parse_space_list(text: str) -> list[str]:
    """The words of ``text``. ``"a b"`` is one word, ``""`` in such a word is one quote, two spaces hold an empty word.

    Raises ``ValueError``, which does not show ``text``.
    """
    text = text.lstrip("\r\n")
    words: list[str] = []
    position = 0
    end = " "
    while text and end == " ":
        match = _FIELD.match(text, position)
        if match is None:
            raise ValueError('a quote must begin and end a word, and is written "" within one')
        quoted, plain, end = match.groups()
        words.append(plain if quoted is None else quoted.replace('""', '"'))
        position = match.end()
    return words
