"""Passwords as rclone hides them in its configuration.

AES-256 in counter mode under a key that everybody knows (rclone's ``fs/config/obscure/obscure.go``): it keeps a
password from being read over a shoulder, not from whoever has the file.
"""

from __future__ import annotations

import base64
import os
import re

_KEY = bytes.fromhex("9c935b48730a554d6bfd7c63c886a92bd390198eb8128afbf4de162b8b95f638")
_IV_LENGTH = 16
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


def obscure(text: str) -> str:
    """``text`` as it may stand in the remotes file; different each time."""
    iv = os.urandom(_IV_LENGTH)
    return base64.urlsafe_b64encode(iv + _crypt(iv, text.encode())).rstrip(b"=").decode()


def reveal(text: str) -> str:
    """What ``obscure``, or ``rclone obscure``, made ``text`` of.

    Raises ``ValueError``, which does not show ``text``. A text that was never obscured is not always noticed.
    """
    if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise ValueError("not an obscured value: it has characters or a length that base64 does not")
    sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if len(sealed) < _IV_LENGTH:
        raise ValueError("not an obscured value: too short")
    try:
        return _crypt(sealed[:_IV_LENGTH], sealed[_IV_LENGTH:]).decode()
    except UnicodeDecodeError:
        raise ValueError("not an obscured value: it hides no text") from None


def _crypt(iv: bytes, data: bytes) -> bytes:
    """Both directions are one operation."""
    # Most servers have nothing obscured.
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    cipher = Cipher(algorithms.AES(_KEY), modes.CTR(iv)).encryptor()
    return cipher.update(data) + cipher.finalize()
