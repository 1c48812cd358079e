"""Encrypted remotes files, and where their password comes from (rclone's ``fs/config/crypt.go``)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import subprocess
import unicodedata
from collections.abc import Mapping

from resticd.config.spacelist import parse_space_list
from resticd.errors import ConfigurationError

_MARK = b"RCLONE_ENCRYPT_V"
_VERSION_0 = b"RCLONE_ENCRYPT_V0:"
_NONCE_LENGTH = 24
_TAG_LENGTH = 16
#: seconds that the password command may take
PASSWORD_COMMAND_TIMEOUT = 120.0


def sealed_part(data: bytes) -> bytes | None:
    """The base64 text of an encrypted file, or None where ``data`` is a plain one.

    Raises ``ValueError`` for an encryption that is newer than ours.
    """
    rest = data
    while rest:
        line, _, rest = rest.partition(b"\n")
        line = line.strip()
        if line == _VERSION_0:
            return rest
        if line.startswith(_MARK):
            raise ValueError("it is encrypted in a way that is not known here")
        if line and not line.startswith((b";", b"#")):
            return None
    return None


def decrypt(sealed: bytes, password: str) -> bytes:
    """The plain file. ``sealed`` is what ``sealed_part`` found.

    NaCl's secretbox after a nonce, in base64; the key is the SHA-256 of the password in NFKC between two brackets.
    Raises ``ValueError``.
    """
    try:
        from nacl.exceptions import CryptoError
        from nacl.secret import SecretBox
    except ImportError:
        raise ValueError("it is encrypted; to read it: pip install 'resticd[encrypted-config]'") from None
    try:
        box = base64.b64decode(sealed.replace(b"\r", b"").replace(b"\n", b""), validate=True)
    except binascii.Error:
        raise ValueError("its encrypted part is not base64: the file is damaged") from None
    if len(box) < _NONCE_LENGTH + _TAG_LENGTH:
        raise ValueError("its encrypted part is too short: the file is damaged")
    key = hashlib.sha256(f"[{unicodedata.normalize('NFKC', password)}][rclone-config]".encode()).digest()
    try:
        return bytes(SecretBox(key).decrypt(box))
    except CryptoError:
        raise ValueError("it cannot be decrypted: most likely the password is wrong") from None


def file_password(command: str, environ: Mapping[str, str]) -> str | None:
    """The password that the user has for the remotes file: ``command``'s output, or ``RCLONE_CONFIG_PASS``.

    Blocks for as long as the command runs, at most ``PASSWORD_COMMAND_TIMEOUT``. Raises ``ConfigurationError``.

    :param command: the value of ``--password-command``; empty where there is none.
    """
    if command:
        return _checked(_run(command, environ), "--password-command")
    password = environ.get("RCLONE_CONFIG_PASS", "")
    return _checked(password, "RCLONE_CONFIG_PASS") if password else None


def _checked(password: str, where: str) -> str:
    if not password.strip():
        raise ConfigurationError(f"{where}: the password is empty")
    try:
        password.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{where}: the password is not UTF-8") from None
    return password


def _run(command: str, environ: Mapping[str, str]) -> str:
    """What the command prints. There is no shell, and no input: with ``--stdio`` that is the client's connection."""
    try:
        words = parse_space_list(command)
    except ValueError as error:
        raise ConfigurationError(f"--password-command: {error}") from None
    if not words or not words[0]:
        raise ConfigurationError("--password-command: it names no program")
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=dict(environ),
            timeout=PASSWORD_COMMAND_TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise ConfigurationError(f"--password-command: cannot run {words[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise ConfigurationError(
            f"--password-command: {words[0]} did not end within {PASSWORD_COMMAND_TIMEOUT:.0f} seconds"
        ) from None
    if done.returncode:
        raise ConfigurationError(f"--password-command: {words[0]} ended with status {done.returncode}")
    return done.stdout.decode("utf-8", "surrogateescape").strip("\r\n")
