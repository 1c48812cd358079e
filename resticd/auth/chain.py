"""Which login is asked for, as the flags say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from resticd.auth.basic import BasicLogin, basic_challenge
from resticd.auth.certificate import CertificateLogin
from resticd.auth.header import HeaderLogin
from resticd.auth.login import IAccounts, ILogin
from resticd.auth.proxies import TrustedProxies, address_text
from resticd.auth.singleaccount import DEFAULT_SALT, SingleAccount
from resticd.auth.throttle import IThrottle, Throttle
from resticd.errors import ConfigurationError
from resticd.interfaces import Caller, IAuthenticator, Introduction

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from resticd.workers import Workers

_log = Logger()


@implementer(IAuthenticator)
class Authenticator:
    """Asks for one kind of login, and finds out where a request comes from.

    Who can open a unix socket needs no password and no certificate: the file's permissions decide. A login by a
    proxy's header is asked for there too: who opens the socket is the proxy, for anybody.

    :param login: what is asked for.
    :param proxies: who is believed about the addresses of clients.
    """

    def __init__(self, login: ILogin, proxies: TrustedProxies) -> None:
        self.challenge: str | None = login.challenge
        self._login = login
        self._proxies = proxies

    def authenticate(self, introduction: Introduction) -> Deferred[Caller]:
        """See ``IAuthenticator``."""
        return Deferred.fromCoroutine(self._authenticate(introduction))

    async def _authenticate(self, introduction: Introduction) -> Caller:
        address = self._address(introduction)
        if self._is_free(introduction):
            return Caller(address=address)
        return Caller(await self._login.identify(introduction, address), address)

    def recall(self, introduction: Introduction) -> Caller | None:
        """See ``IAuthenticator``."""
        address = self._address(introduction)
        if self._is_free(introduction):
            return Caller(address=address)
        user = self._login.recall(introduction, address)
        return None if user is None else Caller(user, address)

    def era(self) -> object | None:
        """See ``IAuthenticator``."""
        return self._login.era()

    def _address(self, introduction: Introduction) -> str:
        peer = introduction.peer
        forwarded = self._proxies.forwarded_address(peer, introduction.forwarded_for, introduction.forwarded)
        return address_text(peer) if forwarded is None else forwarded

    def _is_free(self, introduction: Introduction) -> bool:
        if isinstance(self._login, NoLogin):
            return True
        return isinstance(introduction.peer, UNIXAddress) and not isinstance(self._login, HeaderLogin)


@implementer(ILogin)
class NoLogin:
    """Asks for nothing."""

    challenge: str | None = None

    def identify(self, introduction: Introduction, address: str) -> Deferred[str | None]:
        """See ``ILogin``."""
        return succeed(None)

    def recall(self, introduction: Introduction, address: str) -> str | None:
        """See ``ILogin``."""
        return None

    def era(self) -> object:
        """See ``ILogin``."""
        return self


def make_authenticator(
    *,
    workers: Workers,
    clock: IReactorTime,
    htpasswd: str | None = None,
    user: str | None = None,
    password: str | None = None,
    salt: str = DEFAULT_SALT,
    realm: str | None = None,
    user_from_header: str | None = None,
    trusted_proxies: TrustedProxies | None = None,
    client_ca: bool = False,
    throttle: IThrottle | None = None,
) -> IAuthenticator:
    """The authenticator for the flags of the same names; None is a flag that was not given.

    As in rclone (``initAuth`` in ``lib/http/server.go``) ``--htpasswd`` comes before ``--user``, that before
    ``--user-from-header``, and that before the common name of client certificates; with none of them everybody is let
    in. Unlike there, a flag with an empty value, such as one from a variable that is not set, and half a login are
    errors, because the server would be open by accident. Reads the password file before it returns.

    :param workers: where passwords are checked and the password file is read again.
    :param clock: times the delays after failures.
    :param password: ``--pass``
    :param trusted_proxies: ``--trusted-proxy``, None for loopback and unix sockets.
    :param client_ca: whether ``--client-ca`` is given.
    :param throttle: where it is shared with other processes.
    """
    for flag, value in (("--htpasswd", htpasswd), ("--user", user), ("--pass", password)):
        if value == "":
            raise ConfigurationError(f"{flag}: the value is empty")
    if (user is None) != (password is None):
        raise ConfigurationError("--user: needs --pass" if password is None else "--pass: needs --user")
    challenge = basic_challenge(realm)
    proxies = TrustedProxies() if trusted_proxies is None else trusted_proxies
    if user_from_header is not None and proxies.is_empty:
        raise ConfigurationError("--user-from-header: --trusted-proxy trusts nobody, so nobody could log in")
    header = None if user_from_header is None else HeaderLogin(user_from_header, proxies)
    accounts = _accounts(htpasswd, user, password, salt, workers)
    login: ILogin
    if accounts is not None:
        if header is not None:
            _log.warn("--user-from-header is not used: there is a login by password")
        login = BasicLogin(accounts, throttle or Throttle(clock), challenge)
    elif header is not None:
        login = header
    elif client_ca:
        login = CertificateLogin()
    else:
        login = NoLogin()
    return Authenticator(login, proxies)


def _accounts(
    htpasswd: str | None, user: str | None, password: str | None, salt: str, workers: Workers
) -> IAccounts | None:
    if htpasswd is not None:
        # libpass takes a sixth of a second to import
        from resticd.auth.fileaccounts import FileAccounts
        from resticd.auth.htpasswd import HtpasswdFile

        if user is not None:
            _log.warn("--user and --pass are not used: there is --htpasswd")
        return FileAccounts(HtpasswdFile(htpasswd), workers)
    if user is not None and password is not None:
        return SingleAccount(user, password, salt)
    return None
