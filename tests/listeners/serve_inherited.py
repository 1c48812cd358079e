"""A server on the sockets that the service manager passes. ``argv``: what to import before, then --cert and --key."""

import importlib
import json
import os
import sys

importlib.import_module(sys.argv[1])

from listeners.exchange import mirror_site  # noqa: E402
from twisted.internet import reactor  # noqa: E402
from twisted.python.failure import Failure  # noqa: E402

from resticd.listeners.listening import Listeners  # noqa: E402
from resticd.listeners.systemd import take_inherited_sockets  # noqa: E402
from resticd.listeners.tls import configure_tls  # noqa: E402


def started(_: None) -> None:
    report = {
        "urls": [listening.url for listening in listeners.ports],
        "names": [listening.name for listening in listeners.ports],
        "variables": sorted(name for name in os.environ if name.startswith("LISTEN_")),
        "again": len(take_inherited_sockets()),
    }
    print(json.dumps(report), flush=True)


def failed(failure: Failure) -> None:
    failure.printTraceback()
    os._exit(1)


listeners = Listeners(reactor, take_inherited_sockets(), mirror_site(), configure_tls(*sys.argv[2:4] or ("", "")))
reactor.callWhenRunning(lambda: listeners.start().addCallback(started).addErrback(failed))
reactor.run()
