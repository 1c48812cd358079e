"""What happened, as frozen values for an ``IEventSink``; and ``Transfer``, the one thing here that changes."""

from __future__ import annotations

from attrs import define, field, frozen

from resticd.interfaces import Caller


@frozen
class RequestDone:
    """A request was answered, or its connection ended before."""

    caller: Caller
    method: str
    #: as the client sent it, without the query's values where they could hold secrets
    uri: str
    protocol: str
    status: int
    #: bytes of the request's body that were read
    received: int
    #: bytes of the answer's body that were handed to the transport
    sent: int
    #: seconds from the end of the headers to the last byte of the answer
    duration: float
    #: False where the connection ended before the answer was complete
    complete: bool = True
    referer: str = ""
    agent: str = ""


@frozen
class RequestFailed:
    """A request was answered with an error that the administrator should see: a fault of ours or of a remote."""

    method: str
    uri: str
    status: int
    reason: str
    #: a traceback, only for errors that no domain error explains
    traceback: str = field(default="", repr=False)


@frozen
class LoginRefused:
    """A request was refused for want of a valid login."""

    #: the client's address
    address: str
    #: the name that was attempted, empty where there was none; it is the client's word and needs escapes in a log
    user: str
    reason: str


@frozen
class Change:
    """Somebody changed what is stored, tried to, or was kept from it."""

    caller: Caller
    #: ``create`` or ``remove`` (a repository), ``store`` or ``delete`` (a file), ``read`` (only where it was refused)
    action: str
    #: the repository's path, such as ``/laptop``
    repository: str
    #: the type of the file, ``config`` included; empty for a repository
    type: str = ""
    #: the name of the file; empty for a repository and a config
    name: str = ""
    #: in bytes; None where it is not known, and where nothing was stored
    size: int | None = None
    #: ``done``; ``refused`` by policy or quota; ``failed`` for everything else
    outcome: str = "done"
    #: one sentence for what was refused or failed
    reason: str = ""


@define(eq=False)
class Transfer:
    """One body on its way between a client and a remote.

    Whoever moves its bytes adds to ``moved``, from one thread at a time, once a turn: that is all it costs. The name is
    the client's word and needs escapes.
    """

    #: such as ``/laptop/data/2159dd48…``
    name: str
    #: how many bytes are to be moved, None where it is not known
    size: int | None
    #: towards the remote
    upload: bool
    #: how many bytes were moved
    moved: int = 0


@frozen
class TransferStarted:
    """A body begins to move."""

    transfer: Transfer


@frozen
class TransferDone:
    """A body moves no more. Follows each ``TransferStarted`` once, or stands alone for one that moved in one step."""

    transfer: Transfer
    #: whether all of it arrived and, for an upload, was stored
    ok: bool
