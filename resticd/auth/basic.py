"""Logins by user name and password: the Basic scheme of HTTP (RFC 7617)."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from resticd.auth.cache import VerifiedPasswords
from resticd.auth.login import ILogin
from resticd.auth.names import is_user, presentable
from resticd.auth.throttle import network_of
from resticd.errors import ConfigurationError, Unauthorized

if TYPE_CHECKING:
    from resticd.auth.login import IAccounts
    from resticd.auth.throttle import IThrottle
    from resticd.interfaces import Introduction

DEFAULT_REALM = "resticd"
#: In bytes; libpass refuses to hash more.
LONGEST_PASSWORD = 4096

# RFC 9110, section 11.4: the scheme in any case, spaces, token68. The padding of base64 is checked by its decoder.
_BASIC = re.compile(r"basic +([A-Za-z0-9+/]+={0,2})", re.IGNORECASE | re.ASCII)

# Unicode's control characters (Cc), and surrogates, which stand for bytes of the command line that are no UTF-8.
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Malformed(ValueError):
    """An Authorization header that is no Basic login. ``user`` is the name in it, as far as there is one."""

    def __init__(self, message: str, user: str = "") -> None:
        super().__init__(message)
        self.user = user


@frozen
class Credentials:
    """What somebody claims."""

    user: str
    password: str = field(repr=False)


def parse_authorization(value: str) -> Credentials:
    """Read an Authorization header. Raises ``Malformed`` for whatever RFC 7617 does not allow.

    The text is UTF-8, which is what restic sends and what the challenge asks for.
    """
    match = _BASIC.fullmatch(value)
    if match is None:
        raise Malformed("not a Basic login")
    try:
        text = base64.b64decode(match[1], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Malformed("a Basic login that cannot be decoded") from None
    user, colon, password = text.partition(":")
    if not colon:
        raise Malformed("a Basic login without a colon")
    if not is_user(user):
        raise Malformed("a user name that is empty, too long or has unprintable characters", user)
    if not is_password(password):
        raise Malformed("a password that is too long or has control characters", user)
    return Credentials(user, password)


def is_password(password: str) -> bool:
    """Whether a login can carry ``password``: RFC 7617 allows no control characters, UTF-8 no surrogates."""
    return _UNFIT.search(password) is None and len(password.encode()) <= LONGEST_PASSWORD


def basic_challenge(realm: str | None) -> str:
    """The WWW-Authenticate header (RFC 7617, section 2.1). Raises ``ConfigurationError`` for an impossible realm.

    :param realm: ``--realm``; None or empty for ours.
    """
    name = realm or DEFAULT_REALM
    if not (name.isascii() and name.isprintable()):
        raise ConfigurationError(f"--realm: {name!r}: only printable ASCII characters can be sent")
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'Basic realm="{quoted}", charset="UTF-8"'


@implementer(ILogin)
class BasicLogin:
    """Asks for a user and a password that belong together.

    A password that was right from the same network before is let through at once, so that somebody else's failures
    there cannot slow down a backup that runs. All others take their turn at the ``throttle``.
    """

    def __init__(self, accounts: IAccounts, throttle: IThrottle, challenge: str) -> None:
        self.challenge: str | None = challenge
        self._accounts = accounts
        self._throttle = throttle
        self._verified = VerifiedPasswords()

    def identify(self, introduction: Introduction, address: str) -> Deferred[str | None]:
        """See ``ILogin``. A request without a login is refused at once: browsers begin with one."""
        return Deferred.fromCoroutine(self._identify(introduction.authorization, address))

    async def _identify(self, authorization: str | None, address: str) -> str | None:
        if authorization is None:
            raise Unauthorized("no login", address=address)
        try:
            credentials = parse_authorization(authorization)
        except Malformed as error:
            raise Unauthorized(str(error), presentable(error.user), address) from None
        if not await self._knows(credentials, network_of(address)):
            raise Unauthorized("wrong user or password", presentable(credentials.user), address)
        return credentials.user

    def recall(self, introduction: Introduction, address: str) -> str | None:
        """See ``ILogin``. A password that was right from the same network before."""
        try:
            credentials = parse_authorization(introduction.authorization or "")
        except Malformed:
            return None
        stored = None if self._accounts.era() is None else self._accounts.stored(credentials.user)
        if stored is None or not self._verified.holds(network_of(address), credentials, stored):
            return None
        return credentials.user

    def era(self) -> object | None:
        """See ``ILogin``."""
        return self._accounts.era()

    async def _knows(self, credentials: Credentials, network: str) -> bool:
        await self._accounts.refresh()
        stored = self._accounts.stored(credentials.user)
        if stored is not None and self._verified.holds(network, credentials, stored):
            return True
        return await self._throttle.attempt(network, lambda: self._check(credentials, network))

    async def _check(self, credentials: Credentials, network: str) -> bool:
        # The turn may have come late: the password may be another one by now, or the same login may have been here.
        await self._accounts.refresh()
        stored = self._accounts.stored(credentials.user)
        if stored is not None and self._verified.holds(network, credentials, stored):
            return True
        right = await self._accounts.check(credentials, stored)
        if right and stored is not None:
            self._verified.add(network, credentials, stored)
        return right
