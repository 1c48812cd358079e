"""``resticd obscure`` and ``resticd htpasswd``."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence

from resticd.auth.basic import is_password
from resticd.auth.names import is_user
from resticd.config import obscure as obscuring
from resticd.errors import ConfigurationError


def obscure(argv: Sequence[str]) -> int:
    """Print a password as rclone.conf holds it."""
    if len(argv) != 1:
        raise ConfigurationError("obscure: give one password, or - to read it from standard input")
    password = sys.stdin.readline().rstrip("\n") if argv[0] == "-" else argv[0]
    print(obscuring.obscure(password))  # noqa: T201 - what the user asked for
    return 0


def htpasswd(argv: Sequence[str]) -> int:
    """Print a line of an htpasswd file, with bcrypt. The password is never an argument, which other users could see."""
    # In the file a line that begins with # is a comment, and white space around it does not count.
    if len(argv) != 1 or not is_user(argv[0]) or ":" in argv[0] or argv[0] != argv[0].strip() or argv[0][0] == "#":
        raise ConfigurationError("htpasswd: give one user name, without a colon")
    import bcrypt

    if sys.stdin.isatty():
        password = getpass.getpass(f"password for {argv[0]}: ")
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
    print(f"{argv[0]}:{hashed.replace('$2b$', '$2y$', 1)}")  # noqa: T201 - what the user asked for
    return 0
