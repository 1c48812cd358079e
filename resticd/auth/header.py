"""Logins that a proxy has checked: it names the user in a header."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from resticd.auth.login import ILogin
from resticd.auth.names import LONGEST, presentable
from resticd.errors import ConfigurationError, Unauthorized

if TYPE_CHECKING:
    from resticd.auth.proxies import TrustedProxies
    from resticd.interfaces import Introduction

# RFC 9110, section 5.6.2
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@implementer(ILogin)
class HeaderLogin:
    """Believes the header of a trusted proxy, and takes it for missing when it comes from anybody else.

    :param header: ``--user-from-header``; raises ``ConfigurationError`` where no header can have this name.
    """

    challenge: str | None = None

    def __init__(self, header: str, proxies: TrustedProxies) -> None:
        if not _HEADER_NAME.fullmatch(header):
            raise ConfigurationError(f"--user-from-header: {header!r} cannot be the name of a header")
        self._proxies = proxies

    def identify(self, introduction: Introduction, address: str) -> Deferred[str | None]:
        """See ``ILogin``."""
        user = (introduction.header_user or "").strip()
        if not self._proxies.trusts(introduction.peer):
            return fail(Unauthorized("not from a trusted proxy", presentable(user), address))
        if not _is_header_user(user):
            return fail(Unauthorized("the proxy names no user, or none that is allowed", presentable(user), address))
        return succeed(user)

    def recall(self, introduction: Introduction, address: str) -> str | None:
        """See ``ILogin``."""
        user = (introduction.header_user or "").strip()
        return user if _is_header_user(user) and self._proxies.trusts(introduction.peer) else None

    def era(self) -> object:
        """See ``ILogin``."""
        return self


def _is_header_user(user: str) -> bool:
    """The rule of rclone (``validUsernameRegexp`` in ``lib/http/middleware.go``): letters, digits, ``@._-``."""
    return 0 < len(user) <= LONGEST and all(c.isalpha() or c in "0123456789@._-" for c in user)
