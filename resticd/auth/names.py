"""User names: which are taken, and how a refused one is shown."""

from __future__ import annotations

#: In characters. Longer names are refused and cut where they are shown.
LONGEST = 255


def is_user(name: str) -> bool:
    """Whether ``name`` may be a user: not empty, not endless, and without control or other unprintable characters.

    A name is not checked for ``/`` or ``..``: it never becomes a part of a path, it is only compared with one.
    """
    return 0 < len(name) <= LONGEST and name.isprintable()


def presentable(name: str) -> str:
    """``name`` for a log: unprintable characters and backslashes escaped, cut after ``LONGEST`` characters."""
    shown = "".join(
        character if character.isprintable() and character != "\\" else character.encode("unicode_escape").decode()
        for character in name[:LONGEST]
    )
    return shown if len(name) <= LONGEST else shown + "…"
