"""The password hashes of Apache's htpasswd files that are safe enough to be taken."""

from __future__ import annotations

import re

from passlib.context import CryptContext

# Exactly these three: libpass knows plain text and DES too, and would take them.
_CONTEXT = CryptContext(["bcrypt", "apr_md5_crypt", "ldap_sha1"])
# libpass looks for its backend at first use; here that cannot happen in two workers at once.
_CONTEXT.handler("bcrypt").get_backend()

_ACCEPTED = re.compile(
    r"\$2[aby]\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}"
    r"|\$apr1\$[./A-Za-z0-9]{0,8}\$[./A-Za-z0-9]{22}"
    r"|\{SHA\}[A-Za-z0-9+/]{27}="
)
_DES = re.compile(r"[./A-Za-z0-9]{13}")
# "$id$…" of crypt(5) and "{SCHEME}…" of RFC 2307
_OTHER_SCHEME = re.compile(r"\$([0-9a-z-]{1,16})\$|\{([A-Za-z0-9-]{1,16})\}")
_OURS = re.compile(r"\$(2[aby]|apr1)\$|\{SHA\}")

#: bcrypt uses no more of a password, in bytes; Apache cuts, the bcrypt package raises.
_BCRYPT_LONGEST = 72


def complaint(stored: str) -> str | None:
    """What is wrong with a hash, without repeating it; None for one that can be checked."""
    if _ACCEPTED.fullmatch(stored):
        return None
    if _OURS.match(stored):
        return "the hash is damaged"
    if other := _OTHER_SCHEME.match(stored):
        return f"{other[1] or other[2]} hashes are not supported; use bcrypt (htpasswd -B)"
    if _DES.fullmatch(stored):
        return "a DES hash (or a password in plain text); use bcrypt (htpasswd -B)"
    return "a password in plain text; use bcrypt (htpasswd -B)"


def cost(stored: str) -> str:
    """What the time of a check depends on: the scheme, and the rounds of bcrypt."""
    return stored[3:6] if stored.startswith("$2") else stored[:5]


def verify(password: str, stored: str) -> bool:
    """Whether ``password`` hashes to ``stored``. Takes as long as the hash is made to take: for workers."""
    secret = password.encode()
    if stored.startswith("$2"):
        secret = secret[:_BCRYPT_LONGEST]
    return bool(_CONTEXT.verify(secret, stored))
