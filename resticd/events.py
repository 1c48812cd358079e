"""What happened, as frozen values for an ``IEventSink``."""

from __future__ import annotations

from attrs import field, frozen

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
