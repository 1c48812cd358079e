"""No logins: everybody may come, and nobody has a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resticd.interfaces import Caller, IAuthenticator, Introduction

if TYPE_CHECKING:
    from collections.abc import Callable


@implementer(IAuthenticator)
class Anonymous:
    """Lets everybody in.

    :param address_of: the address to log for an introduction.
    """

    challenge: str | None = None

    def __init__(self, address_of: Callable[[Introduction], str]) -> None:
        self._address_of = address_of

    def authenticate(self, introduction: Introduction) -> Deferred[Caller]:
        """See ``IAuthenticator``."""
        return succeed(Caller(None, self._address_of(introduction)))
