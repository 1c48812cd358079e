"""A place for one worker, which is never empty for long."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from resticd.errors import ResticdError, StorageError
from resticd.observe.report import Snapshot
from resticd.processes.backoff import Backoff
from resticd.processes.channel import ChannelClosed
from resticd.processes.totals import NOTHING, closed, total, unpacked

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from resticd.processes.child import Child

#: How long a worker may take to answer what takes it no time, in seconds …
ANSWERS_WITHIN = 60.0
#: … and to end when its connections have.
ENDS_WITHIN = 15.0

_log = Logger(namespace="resticd.processes")


class Slot:
    """Keeps one worker running.

    :param index: from 0; the log counts from 1.
    :param hire: starts a process for this slot.
    :param assignment: what to tell a worker that starts now, and a number that is another one after each reload.
    :param gone: called when a worker is gone.
    :param catch_up: brings a worker up to date that a reload passed over; called with the slot.
    :ivar child: the worker, None where there is none at the time.
    :ivar is_serving: whether it accepts connections.
    """

    def __init__(
        self,
        reactor: Any,
        index: int,
        *,
        hire: Callable[[Slot], Child],
        assignment: Callable[[int], tuple[str, int]],
        gone: Callable[[Slot], object],
        catch_up: Callable[[Slot], Deferred[None]],
    ) -> None:
        self.index = index
        self.child: Child | None = None
        self.is_serving = False
        self.generation = 0
        self._reactor = reactor
        self._hire = hire
        self._assignment = assignment
        self._gone = gone
        self._catch_up = catch_up
        self._backoff = Backoff()
        self._began = 0.0
        self._again: IDelayedCall | None = None
        self._keeps = False
        self._past = NOTHING
        self._present = NOTHING

    @property
    def name(self) -> str:
        """For the log."""
        return f"worker {self.index + 1}"

    @property
    def numbers(self) -> Snapshot:
        """Of this worker, as far as it has told, and of those before it."""
        return total((self._past, self._present), 0.0)

    async def start(self) -> None:
        """Start the first worker; later ones follow by themselves once this has returned.

        Raises what keeps it from serving.
        """
        await self._begin()
        self._keeps = True

    def tell(self, name: str, **arguments: object) -> None:
        """Tell the worker, if there is one."""
        if self.child is not None:
            self.child.channel.tell(name, **arguments)

    async def poll(self) -> None:
        """Ask for the worker's numbers. One that does not answer is killed."""
        child = self.child
        if child is None or not self.is_serving:
            return
        deadline = self._reactor.callLater(ANSWERS_WITHIN, self._too_late, child, "does not answer")
        try:
            self._present = unpacked(await child.channel.call("numbers"))
        except ResticdError:
            return  # its end is heard of elsewhere
        finally:
            if deadline.active():
                deadline.cancel()

    async def stop(self, seconds: float) -> None:
        """Let the worker's connections come to their end, those that are left after ``seconds`` excepted.

        Returns when the process has ended.
        """
        self._keeps = False
        if self._again is not None:
            self._again.cancel()
            self._again = None
        child = self.child
        if child is None:
            return
        if not self.is_serving:
            child.kill()
        else:
            deadline = self._reactor.callLater(seconds + ENDS_WITHIN, self._too_late, child, "does not end")
            try:
                self._present = unpacked(await child.channel.call("stop", seconds=seconds))
                child.channel.close()
            except ResticdError:
                pass
            await _waiting_for(child)
            if deadline.active():
                deadline.cancel()
        await _waiting_for(child)

    def abort(self) -> None:
        """Break the worker's connections off. It is killed where that does not end it."""
        child = self.child
        if child is not None:
            child.channel.tell("abort")
            self._reactor.callLater(ENDS_WITHIN, self._too_late, child, "does not end")

    async def _begin(self) -> None:
        """Start a worker; returns when it serves."""
        self._began = self._reactor.seconds()
        self.child = child = self._hire(self)
        child.ended.addCallback(self._ended, child)
        assignment, self.generation = self._assignment(self.index)
        try:
            await child.channel.call("serve", assignment=assignment)
        except ChannelClosed:
            how = await _waiting_for(child)
            raise StorageError(f"{self.name} ended while it was starting: {how}") from None
        if child is self.child:
            self.is_serving = True
            await self._catch_up(self)

    def _too_late(self, child: Child, what: str) -> None:
        if child is self.child:
            _log.error("{name} (process {pid}) {what}; it is killed", name=self.name, pid=child.pid, what=what)
            child.kill()

    def _ended(self, how: str, child: Child) -> str:
        self._past = total((self._past, closed(self._present)), 0.0)
        self._present = NOTHING
        self.child, self.is_serving = None, False
        self._gone(self)
        if self._keeps:
            wait = self._backoff.after(self._reactor.seconds() - self._began)
            _log.error(
                "{name} (process {pid}) has ended: {how}; another one is started in {wait} s",
                name=self.name,
                pid=child.pid,
                how=how,
                wait=wait,
            )
            self._again = self._reactor.callLater(wait, self._restart)
        return how

    def _restart(self) -> None:
        self._again = None
        Deferred.fromCoroutine(self._begin()).addCallbacks(self._restarted, self._not_restarted)

    def _restarted(self, _: None) -> None:
        if self.child is not None:
            _log.warn("{name} serves again (process {pid})", name=self.name, pid=self.child.pid)

    def _not_restarted(self, failure: Failure) -> None:
        if failure.check(ResticdError):
            _log.error("{name}: {reason}", name=self.name, reason=str(failure.value))
        else:
            _log.failure("{name}", failure, name=self.name)
        if self.child is not None:
            self.child.kill()  # and so another one is started


def _waiting_for(child: Child) -> Deferred[str]:
    """Fires with how it ended, for one of several who wait."""
    waiting: Deferred[str] = Deferred()

    def tell(how: str) -> str:
        waiting.callback(how)
        return how

    child.ended.addCallback(tell)
    return waiting
