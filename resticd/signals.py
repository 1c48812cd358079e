"""What the services of one process and of several have in common: signals, and what they say of starts and reloads."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from resticd.errors import ResticdError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.logger import Logger
    from twisted.python.failure import Failure

    from resticd.config.settings import Settings
    from resticd.interfaces import IReactor


def on_signal(reactor: IReactor, number: signal.Signals, call: Callable[[], object]) -> None:
    """Have the reactor call ``call`` when the signal comes."""
    signal.signal(number, lambda *_: reactor.callFromThread(call))


def say_failed(failure: Failure, settings: Settings, log: Logger) -> None:
    """Log why the server cannot start: one line for what the administrator can mend."""
    if failure.check(ResticdError):
        log.critical("{reason}", reason=settings.explain(failure.value))
    else:
        log.failure("cannot start", failure)


def say_reloaded(changed: Sequence[str], log: Logger) -> None:
    """Log that other settings are in force, and which flags have ``changed`` in vain."""
    for name in changed:
        log.warn("--{name} has changed; that needs a restart", name=name)
    log.warn("reloaded")


def not_reloaded(failure: Failure, log: Logger) -> None:
    """Log why nothing has changed."""
    if failure.check(ResticdError):
        log.error("not reloaded: {reason}", reason=str(failure.value))
    else:
        log.failure("not reloaded", failure)
