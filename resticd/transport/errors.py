"""From what can go wrong on the way to a remote to the errors of ``resticd.errors``."""

from __future__ import annotations

import email.utils
import time
from typing import TYPE_CHECKING

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error as internet_error
from twisted.internet.defer import CancelledError
from twisted.web import client, http

from resticd.errors import (
    BadGateway,
    NotFound,
    OutOfSpace,
    RemoteTimeout,
    ResticdError,
    StorageError,
    Unavailable,
)

if TYPE_CHECKING:
    from twisted.python.failure import Failure


class Refused(StorageError):
    """The remote refuses for a reason that repeating at once does not change: a login, a permission, a certificate.

    It is no ``Forbidden``, which is a final answer to the client: the administrator may set it right meanwhile.
    """


class Busy(Unavailable):
    """The remote said itself when to come back."""


_LOST = (
    internet_error.ConnectionLost,
    internet_error.ConnectionDone,
    internet_error.ConnectionAborted,
    client.ResponseFailed,
    client.RequestTransmissionFailed,
    client.RequestGenerationFailed,
)


def connection_error(failure: Failure, host: str) -> ResticdError | CancelledError:
    """The domain error for a failure of Twisted's HTTP client.

    :param host: of the remote, for the message.
    """
    cause = _root(failure)
    if isinstance(cause, ResticdError | CancelledError):
        return cause
    if isinstance(cause, VerificationError):
        return Refused(f"{host} shows a certificate for another name")
    if isinstance(cause, SSL.Error):
        reasons = [entry[-1] for entry in cause.args[0]] if cause.args and isinstance(cause.args[0], list) else []
        return Refused(f"no TLS connection to {host}: {', '.join(map(str, reasons)) or 'the handshake failed'}")
    if isinstance(cause, internet_error.TimeoutError | internet_error.TCPTimedOutError):
        return RemoteTimeout(f"cannot connect to {host}: it did not answer in time")
    if isinstance(cause, internet_error.ConnectError | internet_error.DNSLookupError):
        return Unavailable(f"cannot connect to {host}: {cause}")
    if isinstance(cause, http.PotentialDataLoss):
        return BadGateway(f"{host} sent an answer of unknown length")
    if isinstance(cause, _LOST):
        return StorageError(f"the connection to {host} was lost")
    return StorageError(f"no answer from {host}: {type(cause).__name__}")


def _root(failure: Failure) -> BaseException:
    """The innermost exception that says something: Twisted wraps what happened in lists of reasons."""
    cause: BaseException = failure.value  # type: ignore[assignment]  # None only in a Failure never raised
    for inner in getattr(cause, "reasons", ()):
        found = _root(inner)
        if not isinstance(found, internet_error.ConnectionDone):
            return found
    if isinstance(cause, internet_error.SSLError) and cause.__cause__ is not None:
        return cause.__cause__
    return cause


def status_error(status: int, message: str, retry_after: str | None = None) -> ResticdError:
    """The domain error for a status that no finer knowledge of the protocol explains.

    404 becomes ``NotFound``: a driver that is asked for what may be hidden behind it must look closer before.

    :param message: what was asked of whom, and what the remote said; free of secrets.
    :param retry_after: the header of that name.
    """
    if status in (404, 410):
        return NotFound(message)
    if status == 507:
        return OutOfSpace(message)
    if status in (429, 503):
        seconds = parse_retry_after(retry_after)
        return Unavailable(message) if seconds is None else Busy(message, seconds)
    if status in (408, 504):
        return RemoteTimeout(message)
    if status >= 500:
        return BadGateway(message)
    return Refused(message)


def parse_retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds to wait, from a Retry-After header (RFC 9110, section 10.2.3); None where it says nothing usable."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        then = email.utils.parsedate_to_datetime(value).timestamp()
    except ValueError:
        return None
    return max(0.0, then - (time.time() if now is None else now))
