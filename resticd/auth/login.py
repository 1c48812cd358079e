"""What the ways to log in have in common."""

# ruff: noqa: N805 - methods of interfaces have no self

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from resticd.auth.basic import Credentials
    from resticd.interfaces import Introduction


class ILogin(Interface):
    """One way to find out who sent a request."""

    challenge: str | None = Attribute("The WWW-Authenticate header for a 401, None where there is none.")

    def identify(introduction: Introduction, address: str) -> Deferred[str | None]:
        """Fires with the user, None where nobody is asked. Fails with ``Unauthorized``. Can be cancelled.

        :param address: the client's address, the forwarded one behind a trusted proxy.
        """

    def recall(introduction: Introduction, address: str) -> str | None:
        """The user, where that can be told at once; None where it cannot, or where nobody is asked."""

    def era() -> object | None:
        """See ``IAuthenticator``."""


class IAccounts(Interface):
    """Users and their passwords."""

    def refresh() -> Deferred[None]:
        """Fires when what is known is what was stored at the time of the call, or later. Never fails."""

    def era() -> object | None:
        """An object that is the same one as long as all that is stored is as it was; None where ``refresh`` is due."""

    def stored(user: str) -> str | None:
        """What is stored instead of the user's password; changes whenever that does. None for nobody."""

    def check(credentials: Credentials, stored: str | None) -> Deferred[bool]:
        """Fires with whether the password matches ``stored``. Takes as long for None, which nothing matches.

        Fails with ``TooManyLogins`` where too many checks wait.
        """
