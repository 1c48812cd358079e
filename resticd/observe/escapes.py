"""Words of clients, made fit for a line of a log."""

from __future__ import annotations

from functools import lru_cache

_NOT_IN_TOKENS = frozenset(' "\\')


def printable(text: str) -> str:
    """``text`` with escapes for whatever a terminal or a reader of lines could take for more than text.

    Line feeds and tabs stay, and so do backslashes: this is for whole messages, where what is quoted was ``quoted``.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in "\n\t" else _escape(character) for character in text
    )


def quoted(text: str) -> str:
    """``text`` between double quotes, on one line, with backslashes before quotes and backslashes inside."""
    inner = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(character if character.isprintable() else _escape(character) for character in inner) + '"'


@lru_cache(maxsize=256)
def token(text: str) -> str:
    """``text`` as one word of printable ASCII without quotes, as Apache writes a user; ``-`` for an empty one."""
    if text == "-":
        return r"\x2d"
    plain = text.isascii() and text.isprintable() and not _NOT_IN_TOKENS.intersection(text)
    return (text if plain else _escaped(text, _NOT_IN_TOKENS)) or "-"


def field(text: str) -> str:
    r"""``text`` for between the double quotes of Apache's log formats (mod_log_config): ASCII, all else ``\xhh``."""
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return text if text.isascii() and text.isprintable() else _escaped(text, frozenset())


def shown_uri(uri: str) -> str:
    """A request's target without the values in its query, which may be somebody's credentials, but for ``create``."""
    path, mark, query = uri.partition("?")
    return path + mark + "&".join(map(_shown_pair, query.split("&"))) if mark else path


def _shown_pair(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    if name == "create" or not pair:
        return pair
    return f"{name}=***" if equals else "***"


def _escaped(text: str, also: frozenset[str]) -> str:
    return "".join(
        character
        if character.isascii() and character.isprintable() and character not in also
        else "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogatepass"))
        for character in text
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
