"""Slowing down who guesses passwords."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater

from resticd.auth.sharing import shielded
from resticd.errors import TooManyLogins

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

#: Seconds to wait after the first failure; doubled with each that follows …
FIRST_DELAY = 0.25
#: … up to this.
LONGEST_DELAY = 4.0
#: Seconds after the last failure.
FORGET_AFTER = 900.0
#: Attempts from one network that may wait.
LONGEST_LINE = 64
#: Seconds that an attempt may wait, before it is sent away without having been looked at.
PATIENCE = 30.0


@define(eq=False)
class _Record:
    """One network: its failures since the last success, when the last one was, and whose turn it is."""

    failures: int = 0
    last: float = 0.0
    turn: DeferredLock = field(factory=DeferredLock)

    @property
    def delay(self) -> float:
        """Seconds between the last failure and the next attempt."""
        # the exponent is bounded because failures are not
        return min(FIRST_DELAY * 2.0 ** min(self.failures - 1, 16), LONGEST_DELAY) if self.failures else 0.0


class IThrottle(Protocol):
    """Slows attempts down; ``processes.logins`` has one for several processes."""

    async def attempt(self, network: str, check: Callable[[], Coroutine[Deferred[Any], Any, bool]]) -> bool:
        """See ``Throttle``."""


class Throttle:
    """Lets one network try one password at a time, and makes it wait after a failure before the next is looked at.

    Were only the refusal late, a client could hang up on every wrong guess and lose no time. The networks never wait
    for one another.

    :param capacity: how many networks are remembered; the ones that tried least recently are forgotten.
    """

    def __init__(self, clock: IReactorTime, capacity: int = 10_000) -> None:
        self._clock = clock
        self._capacity = capacity
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    async def attempt(self, network: str, check: Callable[[], Coroutine[Deferred[Any], Any, bool]]) -> bool:
        """What ``check()`` returns, called when it is the turn of this attempt.

        It may be cancelled while it waits; once it is checked, it counts. Raises ``TooManyLogins`` where too many wait:
        restic comes back then, while it takes a 401 for final.
        """
        record = self._record(network)
        if len(record.turn.waiting) >= LONGEST_LINE:
            raise crowded()
        deadline = self._clock.seconds() + PATIENCE
        await record.turn.acquire()
        try:
            now = self._clock.seconds()
            pause = record.last + record.delay - now
            if now + pause > deadline:
                raise crowded()
            if pause > 0:
                await deferLater(self._clock, pause)
        except BaseException:
            self._release(network, record)
            raise
        return await shielded(Deferred.fromCoroutine(self._hear(network, record, check)))

    async def _hear(
        self, network: str, record: _Record, check: Callable[[], Coroutine[Deferred[Any], Any, bool]]
    ) -> bool:
        try:
            right = await check()
            record.failures = 0 if right else record.failures + 1
            record.last = self._clock.seconds()
        finally:
            self._release(network, record)
        return right

    def _record(self, network: str) -> _Record:
        record = self._records.get(network)
        if record is None:
            record = self._records[network] = _Record()
            if len(self._records) > self._capacity:
                self._records.popitem(last=False)
        elif self._clock.seconds() - record.last > FORGET_AFTER:
            record.failures = 0
        self._records.move_to_end(network)
        return record

    def _release(self, network: str, record: _Record) -> None:
        record.turn.release()
        if not record.failures and not record.turn.locked and self._records.get(network) is record:
            del self._records[network]


def crowded() -> TooManyLogins:
    """The error for one attempt too many."""
    return TooManyLogins("too many logins from this address at the same time", retry_after=LONGEST_DELAY)


@lru_cache(maxsize=1024)
def network_of(address: str) -> str:
    """What one client commands: an IPv4 address, or the /64 of an IPv6 address (RFC 6177 gives no customer less)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
