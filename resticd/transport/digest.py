"""Digest logins (RFC 7616): proof that one knows a password, without sending it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from resticd.transport.challenges import Challenge

#: From the strongest to the one that every server knows.
_ALGORITHMS = {"SHA-512-256": "sha512_256", "SHA-256": "sha256", "MD5": "md5"}


class Digest:
    """Answers to one nonce of a server, which counts how often it is used.

    :param algorithm: a key of ``_ALGORITHMS``.
    :param qop: whether the server takes ``qop=auth``; otherwise the answer is that of RFC 2069.
    """

    def __init__(self, challenge: Challenge, algorithm: str, *, session: bool, qop: bool) -> None:
        self.realm = challenge.parameters.get("realm", "")
        self.nonce = challenge.parameters["nonce"]
        self._opaque = challenge.parameters.get("opaque")
        self._userhash = challenge.parameters.get("userhash", "").lower() == "true"
        self._named = "algorithm" in challenge.parameters
        self._algorithm = algorithm
        self._session = session
        self._qop = qop
        self._count = 0

    @classmethod
    def choose(cls, challenges: Iterable[Challenge]) -> Self | None:
        """The strongest that is offered; None where there is none that can be answered.

        Bodies are not signed (``qop=auth-int``): they are still on their way when the header is sent.
        """
        found: dict[str, Self] = {}
        for challenge in challenges:
            name = challenge.parameters.get("algorithm", "MD5").upper()
            algorithm = name.removesuffix("-SESS")
            if challenge.scheme != "digest" or "nonce" not in challenge.parameters or not _usable(algorithm):
                continue
            offered = challenge.parameters.get("qop")
            qop = offered is not None and "auth" in [word.strip().lower() for word in offered.split(",")]
            session = name != algorithm
            if (offered is not None and not qop) or (session and not qop):  # a session needs the client's nonce
                continue
            found.setdefault(algorithm, cls(challenge, algorithm, session=session, qop=qop))
        return next((found[algorithm] for algorithm in _ALGORITHMS if algorithm in found), None)

    def renew(self, nonce: str) -> None:
        """Go on with another nonce (``nextnonce``)."""
        self.nonce = nonce
        self._count = 0

    def authorize(self, user: str, password: str, method: str, uri: str, cnonce: str | None = None) -> str:
        """The Authorization header for one request.

        :param uri: the path and query that are asked for, as they are sent.
        :param cnonce: our own nonce, random unless it is given.
        """
        hashed = self._hash
        self._count += 1
        cnonce = cnonce or secrets.token_hex(16)
        count = f"{self._count:08x}"
        first = hashed(f"{user}:{self.realm}:{password}")
        if self._session:
            first = hashed(f"{first}:{self.nonce}:{cnonce}")
        second = hashed(f"{method}:{uri}")
        middle = f"{self.nonce}:{count}:{cnonce}:auth" if self._qop else self.nonce
        shown = hashed(f"{user}:{self.realm}") if self._userhash else user
        fields = {
            "username": _quote(shown),
            "realm": _quote(self.realm),
            "nonce": _quote(self.nonce),
            "uri": _quote(uri),
            "response": _quote(hashed(f"{first}:{middle}:{second}")),
        }
        if self._named:
            fields["algorithm"] = self._algorithm + ("-sess" if self._session else "")
        if self._qop:
            fields |= {"qop": "auth", "nc": count, "cnonce": _quote(cnonce)}
        if self._opaque is not None:
            fields["opaque"] = _quote(self._opaque)
        if self._userhash:
            fields["userhash"] = "true"
        return "Digest " + ", ".join(f"{name}={value}" for name, value in fields.items())

    @property
    def _hash(self) -> Callable[[str], str]:
        name = _ALGORITHMS[self._algorithm]
        return lambda text: hashlib.new(name, text.encode("utf-8"), usedforsecurity=False).hexdigest()


def _usable(algorithm: str) -> bool:
    return _ALGORITHMS.get(algorithm) in hashlib.algorithms_available


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
