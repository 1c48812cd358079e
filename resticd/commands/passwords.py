"""``resticd obscure`` and ``resticd htpasswd``."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence

from resticd.auth.basic import is_password
from resticd.auth.names import is_user
from resticd.cli import plain_arguments
from resticd.config import obscure as obscuring
from resticd.errors import ConfigurationError


def obscure(argv: Sequence[str]) -> int:
    """Print a password as rclone.conf holds it."""
    words = plain_arguments(argv)
    if len(words) != 1:
        raise ConfigurationError("obscure: give one password, or - to read it from standard input")
    password = sys.stdin.readline().rstrip("\n") if words[0] == "-" else words[0]
    print(obscuring.obscure(password))  # noqa: T201 - what the user asked for
    return 0


def htpasswd(argv: Sequence[str]) -> int:
    """Print a line of an htpasswd file, with bcrypt. The password is never an argument, which other users could see."""
    words = plain_arguments(argv)
    if len(words) != 1 or not _is_name(words[0]):
        raise ConfigurationError("htpasswd: give one user name, without a colon")
    import bcrypt

    if sys.stdin.isatty():
        password = getpass.getpass(f"password for {words[0]}: ")
        if getpass.getpass("again: ") != password:
            raise ConfigurationError("htpasswd: the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise ConfigurationError("htpasswd: the password is empty")
    if not is_password(password):
        raise ConfigurationError("htpasswd: the password is too long, no UTF-8 or has control characters")
    # bcrypt looks at 72 bytes; so does Apache.
    hashed = bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(10)).decode()
    print(f"{words[0]}:{hashed.replace('$2b$', '$2y$', 1)}")  # noqa: T201 - what the user asked for
    return 0


def _is_name(text: str) -> bool:
    """Whether the file can have such a user: # begins a comment there, and white space around a line does not count."""
    return is_user(text) and ":" not in text and text == text.strip() and text[0] != "#"
