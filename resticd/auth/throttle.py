"""Slowing down who guesses passwords."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

#: Seconds before the second refusal from an address; doubled for each that follows.
FIRST_DELAY = 0.25
#: Seconds.
LONGEST_DELAY = 4.0
#: Seconds after the last failure.
FORGET_AFTER = 900.0


@define(eq=False)
class _Record:
    failures: int = 0
    last: float = 0.0
    turn: DeferredLock = field(factory=DeferredLock)


class Throttle:
    """Lets one address try one password at a time, and makes it wait longer for each refusal.

    The turn is kept while the refusal waits, or guesses over many connections would cost no more than the first one.
    The first refusal is given at once, for the sake of typing errors. IPv6 addresses count by /64, which is the least
    that one customer is given (RFC 6177).

    :param capacity: of how many addresses failures are remembered; the ones that tried least recently are forgotten.
    """

    def __init__(self, clock: IReactorTime, capacity: int = 10_000) -> None:
        self._clock = clock
        self._capacity = capacity
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def clear(self, address: str) -> None:
        """Forget the failures of ``address``: somebody there has logged in."""
        if self._records:
            self._records.pop(_network(address), None)

    async def attempt(self, address: str, check: Callable[[], Deferred[bool]]) -> bool:
        """What ``check()`` fires with, after the address's earlier attempts and, where it is False, after the delay."""
        record = self._record(_network(address))
        await record.turn.acquire()
        try:
            if await check():
                self.clear(address)
                record.failures = 0
                return True
            record.failures += 1
            record.last = self._clock.seconds()
            delay = _delay(record.failures)
            if delay:
                await deferLater(self._clock, delay)
            return False
        finally:
            record.turn.release()
            if not record.failures and not record.turn.locked:
                self._drop(address, record)

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

    def _drop(self, address: str, record: _Record) -> None:
        network = _network(address)
        if self._records.get(network) is record:
            del self._records[network]


def _delay(failures: int) -> float:
    # the exponent is bounded because failures are not
    return 0.0 if failures <= 1 else min(FIRST_DELAY * 2.0 ** min(failures - 2, 16), LONGEST_DELAY)


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
