"""Logins by a client's certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from resticd.auth.login import ILogin
from resticd.auth.names import is_user, presentable
from resticd.errors import Unauthorized

if TYPE_CHECKING:
    from resticd.interfaces import Introduction


@implementer(ILogin)
class CertificateLogin:
    """Takes the common name of the client's certificate for the user, as rclone does.

    TLS has verified the certificate. A listener without TLS has none, so nobody can log in there.
    """

    challenge: str | None = None

    def identify(self, introduction: Introduction, address: str) -> Deferred[str | None]:
        """See ``ILogin``."""
        name = introduction.common_name
        if name is None:
            return fail(Unauthorized("no client certificate", address=address))
        if not is_user(name):
            return fail(Unauthorized("a certificate without a usable common name", presentable(name), address))
        return succeed(name)

    def recall(self, introduction: Introduction, address: str) -> str | None:
        """See ``ILogin``."""
        name = introduction.common_name
        return name if name is not None and is_user(name) else None

    def era(self) -> object:
        """See ``ILogin``."""
        return self
