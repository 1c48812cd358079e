"""How a WebDAV server is told who asks: basic, digest and bearer logins."""

from __future__ import annotations

import base64
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.utils import getProcessOutputAndValue
from twisted.logger import Logger

from resticd.errors import RemoteTimeout
from resticd.remotes.single_flight import SingleFlight
from resticd.transport.challenges import parse_challenges, parse_parameters
from resticd.transport.digest import Digest
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from resticd.remotes.webdav_options import WebDavOptions
    from resticd.transport.response import Response

#: A nonce of this age, in seconds, is not trusted with a body that cannot be sent twice: Apache's live for 300 s.
_FRESH = 30.0
#: Seconds that a command may take to print a token.
_LONGEST_COMMAND = 60.0
_log = Logger(namespace="resticd.remotes.webdav")


class Login(Protocol):
    """Says who asks."""

    async def prepare(self, streamed: bool) -> None:
        """Find out what has to be known before a request can be sent.

        :param streamed: its body cannot be sent a second time.
        """

    def header(self, method: str, target: str) -> str | None:
        """The Authorization header for one request.

        :param target: path and query as they are sent.
        """

    async def refused(self, response: Response, sent: str | None, number: int) -> bool:
        """The server answered 401. Whether the request may be let in when it is sent again.

        :param sent: the header that came with it.
        :param number: how often it has been sent again already.
        """

    def answered(self, response: Response) -> None:
        """The server let a request in."""


def make_login(
    options: WebDavOptions, ask: Callable[[], Awaitable[Response]], reactor: Any, clock: IReactorTime
) -> Login:
    """The login that the options describe; a header named Authorization among them is one by itself.

    :param ask: sends a small request without a login.
    """
    if any(name.lower() == "authorization" for name, _ in options.headers):
        return NoLogin()
    if options.user or options.password:
        return PasswordLogin(options.user, options.password, ask, clock)
    if options.bearer_token or options.bearer_token_command:
        return BearerLogin(options.bearer_token, options.bearer_token_command, reactor)
    return NoLogin()


class NoLogin:
    """None, or one that the configured headers bring."""

    async def prepare(self, streamed: bool) -> None:
        """See ``Login``."""

    def header(self, method: str, target: str) -> str | None:
        """See ``Login``."""
        return None

    async def refused(self, response: Response, sent: str | None, number: int) -> bool:
        """See ``Login``."""
        return False

    def answered(self, response: Response) -> None:
        """See ``Login``."""


class BearerLogin:
    """A token (RFC 6750), which a command may fetch and fetch again."""

    def __init__(self, token: str, command: tuple[str, ...], reactor: Any) -> None:
        self._token = token
        self._command = command
        self._reactor = reactor
        self._fetching = SingleFlight(self._fetch)

    async def prepare(self, streamed: bool) -> None:
        """See ``Login``."""
        if not self._token:
            await self._fetching.join()

    def header(self, method: str, target: str) -> str | None:
        """See ``Login``."""
        return f"Bearer {self._token}"

    async def refused(self, response: Response, sent: str | None, number: int) -> bool:
        """See ``Login``."""
        if not self._command or number:
            return False
        if sent == f"Bearer {self._token}":
            await self._fetching.join()
        return True

    def answered(self, response: Response) -> None:
        """See ``Login``."""

    async def _fetch(self) -> None:
        program, *arguments = self._command
        running = getProcessOutputAndValue(program, arguments, env=os.environ, reactor=self._reactor)
        try:
            output, errors, status = await running.addTimeout(_LONGEST_COMMAND, self._reactor)
        except DeferredTimeout:
            raise RemoteTimeout(f"webdav: bearer_token_command did not end within {_LONGEST_COMMAND:g} s") from None
        token = output.decode("utf-8", "replace").strip()
        # What the command says may hold the token, or what it was fetched with.
        if status != 0:
            _log.debug("bearer_token_command wrote {count} bytes to its standard error", count=len(errors))
            raise Refused(f"webdav: bearer_token_command ended with status {status}")
        if not token or not token.isascii() or len(token.split()) != 1:
            raise Refused("webdav: bearer_token_command did not print a token")
        self._token = token


class PasswordLogin:
    """User and password, as the server wants them.

    Before the first request the server is asked for something without a login: it says then what it wants, so that
    no body has to be sent twice and no password goes to a server that would do with a digest. One that wants nothing
    gets the password nevertheless (RFC 7617), as from rclone.
    """

    def __init__(self, user: str, password: str, ask: Callable[[], Awaitable[Response]], clock: IReactorTime) -> None:
        self._user = user
        self._password = password
        self._ask = ask
        self._clock = clock
        self._asking = SingleFlight(self._challenge)
        self._basic: str | None = None
        self._digest: Digest | None = None
        #: whether the nonce came in place of one that was too old
        self._stale = False
        #: when it came
        self._since = float("-inf")

    async def prepare(self, streamed: bool) -> None:
        """See ``Login``."""
        if self._basic is not None:
            return
        if self._digest is None or (streamed and self._clock.seconds() - self._since > _FRESH):
            await self._asking.join()

    def header(self, method: str, target: str) -> str | None:
        """See ``Login``."""
        if self._digest is not None:
            return self._digest.authorize(self._user, self._password, method, target)
        return self._basic

    async def refused(self, response: Response, sent: str | None, number: int) -> bool:
        """See ``Login``."""
        if self._basic is not None and sent == self._basic:
            # What a server wanted a basic login for may want another one for something else.
            self._take(response)
            return self._digest is not None
        if self._digest is not None and sent is not None and f'"{self._digest.nonce}"' not in sent:
            return True  # another request has got a new nonce meanwhile
        self._take(response)
        # Not every server says that a nonce was too old, so a first refusal says nothing about the password.
        return number == 0 or self._stale

    def answered(self, response: Response) -> None:
        """See ``Login``; a server may hand the next nonce out with an answer (RFC 7616, section 3.5)."""
        following = response.header("Authentication-Info")
        if following is not None and self._digest is not None:
            nonce = parse_parameters(following).get("nextnonce")
            if nonce:
                self._digest.renew(nonce)
                self._since = self._clock.seconds()

    async def _challenge(self) -> None:
        response = await self._ask()
        try:
            if response.status == 401:
                self._take(response)
            elif self._digest is None:
                self._use_basic()
        finally:
            response.discard()

    def _take(self, response: Response) -> None:
        """Do what the server asks for. Raises ``Refused`` where that is not possible."""
        challenges = parse_challenges(response.headers("WWW-Authenticate"))
        digest = Digest.choose(challenges)
        if digest is not None:
            self._digest, self._basic = digest, None
            self._stale = any(each.parameters.get("stale", "").lower() == "true" for each in challenges)
            self._since = self._clock.seconds()
        elif self._digest is not None:
            # Somebody in between could ask for the password itself.
            raise Refused("webdav: the server asked for a digest login before and does not any more")
        elif any(challenge.scheme == "basic" for challenge in challenges):
            self._use_basic()
        else:
            offered = ", ".join(dict.fromkeys(challenge.scheme for challenge in challenges)) or "no login at all"
            raise Refused(f"webdav: the server takes neither basic nor digest logins (it offers {offered})")

    def _use_basic(self) -> None:
        if ":" in self._user:
            raise Refused("webdav: a user's name with a colon cannot be sent in a basic login")
        encoded = base64.b64encode(f"{self._user}:{self._password}".encode()).decode("ascii")
        self._basic = f"Basic {encoded}"
