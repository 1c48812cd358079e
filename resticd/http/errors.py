"""The one place where errors become statuses.

restic takes 401, 403, 404, 416 and 507 for final and repeats everything else; the tree in ``resticd.errors`` is made
so that only what is certain is raised as one of these.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError

from resticd import errors
from resticd.events import RequestFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.python.failure import Failure

    from resticd.http.request import StreamingRequest


class WrongMethod(errors.BadRequest):
    """What the path names has no such method; it has those of ``allowed``."""

    def __init__(self, allowed: Iterable[str]) -> None:
        super().__init__("Method Not Allowed")
        self.allowed = sorted(allowed)


_STATUS: dict[type[BaseException], int] = {
    errors.BadRequest: 400,
    WrongMethod: 405,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.TooLarge: 413,
    errors.RangeNotSatisfiable: 416,
    errors.StorageError: 500,
    errors.Unsupported: 501,
    errors.BadGateway: 502,
    errors.Unavailable: 503,
    errors.RemoteTimeout: 504,
    errors.OutOfSpace: 507,
}


def status_of(error: BaseException) -> int:
    """The HTTP status for an error; 500 for one that no domain error explains."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return 500


def answer_error(request: StreamingRequest, failure: Failure) -> None:
    """Answer ``request`` with what ``failure`` means, and finish it.

    Where the answer has begun already the connection is broken instead: a body that ends early must not look complete.
    Faults of ours or of a remote are reported to the site's sink; a client's mistakes are not, nor its guesses at
    passwords: it could fill the log with them.
    """
    error: BaseException = failure.value  # type: ignore[assignment]  # None only in a Failure never raised
    status = status_of(error)
    if request._disconnected or isinstance(error, errors.ClientGone | CancelledError):
        request.abort()
        return
    if status >= 500 and not isinstance(error, errors.Unsupported | errors.TooManyLogins):
        known = isinstance(error, errors.ResticdError)
        request.site.sink.emit(
            RequestFailed(
                method=request.method.decode("ascii", "replace"),
                uri=request.uri.decode("ascii", "backslashreplace"),
                status=status,
                reason=str(error) if known else f"{type(error).__name__}: {error}",
                traceback="" if known else failure.getTraceback(),
            )
        )
    if request.startedWriting:
        request.abort()
        return
    request.setResponseCode(status)
    if isinstance(error, errors.RangeNotSatisfiable):
        request.setHeader(b"content-range", b"bytes */%d" % error.size)
    if isinstance(error, errors.Unavailable):
        request.setHeader(b"retry-after", b"%d" % math.ceil(error.retry_after))
    if isinstance(error, WrongMethod):
        request.setHeader(b"allow", ", ".join(error.allowed).encode())
    answer_text(request, _sentence(error, status))


def answer_text(request: StreamingRequest, text: str) -> None:
    """Finish ``request`` with a line of text, at the status that was set."""
    body = text.encode() + b"\n"
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    request.setHeader(b"content-length", b"%d" % len(body))
    request.write(body)
    request.finish()


def _sentence(error: BaseException, status: int) -> str:
    """What the client may read: the sentence of a domain error, never the text of an unexpected one."""
    if isinstance(error, errors.ResticdError):
        return str(error)
    return "internal error" if status == 500 else f"status {status}"
