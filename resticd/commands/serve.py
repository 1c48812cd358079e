"""``resticd serve restic``: the service in the foreground, with its log on standard error."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import partial

from resticd.errors import ConfigurationError
from resticd.options import read_settings


def serve(argv: Sequence[str]) -> int:
    """Serve until a signal comes or, with ``--stdio``, until standard input is closed. Returns the exit status."""
    gc.disable()  # as in ``cli.run``
    settings = read_settings(argv)
    from resticd.reactor import install

    reactor = install()
    from resticd.assembly import make_log
    from resticd.service import make_service

    try:
        log = make_log(settings, reactor, None)
        log.begin()
        service = make_service(reactor, settings, partial(read_settings, argv), log)
    except ConfigurationError as error:
        raise ConfigurationError(settings.explain(error)) from None
    reactor.callWhenRunning(service.startService)
    reactor.callWhenRunning(_collect_garbage)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return service.status


def _collect_garbage() -> None:
    """From now on, but for what the start has made: to look through that again and again was 7 % of the CPU time of
    bodies over HTTP/2.
    """
    gc.freeze()
    gc.enable()
