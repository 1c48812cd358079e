"""Threads for calls that may block, with Deferreds that can be cancelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from resticd.errors import StorageError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorThreads

T = TypeVar("T")
P = ParamSpec("P")


class Workers:
    """A bounded pool of threads of our own: the reactor's pool also looks up host names and must never be full.

    :param reactor: where results are handed back.
    :param size: how many calls run at once; more of them wait in order.
    """

    def __init__(self, reactor: IReactorThreads, size: int = 16, name: str = "resticd") -> None:
        self.reactor = reactor
        self._pool = ThreadPool(0, size, name)

    def start(self) -> None:
        """Take work from now on."""
        self._pool.start()

    def stop(self) -> None:
        """Wait for the calls that run, then end the threads."""
        self._pool.stop()

    def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Fires on the reactor thread with what ``call`` returns in a worker, or fails with what it raises.

        Fails with ``StorageError`` after ``stop``.
        Cancelling it does not stop the call, which cannot be stopped: its result is dropped. Where the result holds
        something that must be released use ``run_releasing``.
        """
        return self.run_releasing(_nothing, call, *args, **kwargs)

    def run_releasing(
        self, release: Callable[[T], object], call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """As ``run``; when it was cancelled and ``call`` returns nevertheless, ``release(result)`` runs in the worker.

        ``release`` must not raise.
        """
        if self._pool.joined:
            return fail(StorageError("the server is stopping"))
        cancelled = False

        def cancel(_: Deferred[T]) -> None:
            nonlocal cancelled
            cancelled = True

        result: Deferred[T] = Deferred(cancel)

        def finish(value: T | Failure) -> None:
            if not cancelled:
                result.callback(value)  # a Failure goes down the errback side
            elif not isinstance(value, Failure):
                # The reactor thread alone sets and reads ``cancelled``, so nothing is released twice or never.
                self._pool.callInThread(release, value)

        self._pool.callInThreadWithCallback(
            lambda _, value: self.reactor.callFromThread(finish, value), call, *args, **kwargs
        )
        return result


def _nothing(_: object) -> None:
    """What has nothing to release."""
