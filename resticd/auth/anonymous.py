"""Where nobody is asked who they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resticd.interfaces import Caller, IAuthenticator

if TYPE_CHECKING:
    from resticd.auth.proxies import TrustedProxies
    from resticd.interfaces import Introduction


@implementer(IAuthenticator)
@frozen
class AnonymousAuthenticator:
    """Lets everybody in, without a name."""

    proxies: TrustedProxies
    challenge: None = None

    def authenticate(self, introduction: Introduction) -> Deferred[Caller]:
        """See ``IAuthenticator``."""
        return succeed(Caller(None, self.proxies.client_address(introduction)))


@implementer(IAuthenticator)
@frozen
class UnixSocketsFree:
    """Lets in whoever may open the unix socket, as its permissions decide; ``inner`` asks all others."""

    inner: IAuthenticator
    proxies: TrustedProxies

    @property
    def challenge(self) -> str | None:
        """See ``IAuthenticator``."""
        return self.inner.challenge

    def authenticate(self, introduction: Introduction) -> Deferred[Caller]:
        """See ``IAuthenticator``."""
        if isinstance(introduction.peer, UNIXAddress):
            return succeed(Caller(None, self.proxies.client_address(introduction)))
        return self.inner.authenticate(introduction)
