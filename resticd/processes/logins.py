"""One throttle for the logins of all processes: who guesses passwords finds no more of them at several.

The supervisor has the ``Throttle``. A worker asks it for the turn of an attempt, checks the password itself, and tells
what came out. Logins that are known to be right need no turn, so they cost no message.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred

from resticd.auth.sharing import shielded
from resticd.auth.throttle import crowded
from resticd.errors import TooManyLogins
from resticd.processes.channel import ChannelClosed

if TYPE_CHECKING:
    from resticd.auth.throttle import Throttle
    from resticd.processes.channel import Channel, Handlers


class SharedThrottle:
    """A worker's side; takes the place of ``auth.throttle.Throttle``."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def attempt(self, network: str, check: Callable[[], Coroutine[Deferred[Any], Any, bool]]) -> bool:
        """See ``Throttle``."""
        number = self._channel.unique()
        try:
            granted = await self._channel.call("login.turn", number=number, network=network)
        except BaseException:
            self._channel.tell("login.over", number=number, right=None)
            raise
        if not granted:
            raise crowded()
        return await shielded(Deferred.fromCoroutine(self._hear(number, check)))

    async def _hear(self, number: int, check: Callable[[], Coroutine[Deferred[Any], Any, bool]]) -> bool:
        right: bool | None = None
        try:
            right = await check()
        finally:
            self._channel.tell("login.over", number=number, right=right)
        return right


class LoginDesk:
    """The supervisor's side, for one worker."""

    def __init__(self, throttle: Throttle) -> None:
        self._throttle = throttle
        #: attempts that wait for their turn, and what they are going to be told
        self._waiting: dict[int, tuple[Deferred[bool], Deferred[None]]] = {}
        #: attempts whose passwords are being checked
        self._checking: dict[int, Deferred[bool]] = {}

    @property
    def handlers(self) -> Handlers:
        """What the worker asks for."""
        return {"login.turn": self.turn, "login.over": self.over}

    def turn(self, number: int, network: str) -> Deferred[bool]:
        """Fires with True when it is the turn of attempt ``number``, with False where too many wait."""
        granted: Deferred[bool] = Deferred()

        async def check() -> bool:
            self._waiting.pop(number, None)
            verdict = self._checking[number] = Deferred()
            granted.callback(True)
            return await verdict

        async def attempt() -> None:
            try:
                await self._throttle.attempt(network, check)
            except (TooManyLogins, ChannelClosed, CancelledError):
                if not granted.called:
                    granted.callback(False)
            finally:
                self._waiting.pop(number, None)
                self._checking.pop(number, None)

        running = Deferred.fromCoroutine(attempt())
        if not granted.called:
            self._waiting[number] = granted, running
        return granted

    def over(self, number: int, right: bool | None) -> None:
        """Attempt ``number`` came to an end; None where nothing was checked."""
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            waiting[1].cancel()
        verdict = self._checking.pop(number, None)
        if verdict is None:
            return
        if right is None:
            verdict.errback(ChannelClosed("not checked"))
        else:
            verdict.callback(right)

    def close(self) -> None:
        """The worker is gone: others have their turn."""
        for number in [*self._waiting, *self._checking]:
            self.over(number, None)
