"""From what an S3 server says to the errors of ``resticd.errors``."""

from __future__ import annotations

import email.utils
from typing import TYPE_CHECKING

from attrs import frozen

from resticd.errors import (
    AlreadyExists,
    BadGateway,
    Corrupt,
    NotFound,
    OutOfSpace,
    RangeNotSatisfiable,
    RemoteTimeout,
    ResticdError,
    StorageError,
    Unavailable,
)
from resticd.remotes.s3_xml import child_text, parse_xml
from resticd.transport.errors import Refused, status_error

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from resticd.transport.response import Response

_MISSING = frozenset({"NoSuchKey", "NoSuchUpload"})
_FULL = frozenset(
    {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "StorageFull", "InsufficientStorage"}
)
_BUSY = frozenset({"SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "Busy", "TooManyRequests"})
_LATE = frozenset({"RequestTimeout", "OperationTimedOut"})
_FAULTS = frozenset({"InternalError", "OperationAborted", "ConditionalRequestConflict", "IncompleteBody"})
_MISMATCH = frozenset(
    {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "ContentSHA256Mismatch", "InvalidDigest"}
)
#: By how many seconds clocks may differ (Amazon's "Authenticating requests", and all others alike).
_ALLOWED_SKEW = 15 * 60
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})


@frozen
class Complaint:
    """The body of an error, as far as it could be read."""

    status: int
    code: str = ""
    message: str = ""
    #: the size of an object of which too much was asked
    size: int | None = None
    #: the region that the bucket is in
    region: str = ""
    #: the server's time, in seconds since the epoch
    time: float | None = None
    retry_after: str | None = None

    @property
    def expired(self) -> bool:
        """Whether the credentials are too old."""
        return self.code in _EXPIRED


class NotUnderstood(Refused):
    """The server does not understand what it was asked, a header perhaps."""


class BucketTaken(Refused):
    """There is a bucket of that name already.

    :ivar ours: whether the server says that it belongs to us.
    """

    def __init__(self, message: str, ours: bool) -> None:
        super().__init__(message)
        self.ours = ours


def error_in(body: bytes, what: str, problem: str) -> ResticdError:
    """The error that is told in the body of a success; ``problem`` where there is none."""
    try:
        error = parse_xml(body, "Error")
    except ValueError:
        return BadGateway(f"s3: {what}: {problem}")
    complaint = Complaint(500, child_text(error, "Code") or "", child_text(error, "Message") or "")
    return error_for(complaint, what, 0.0)


def read_complaint(response: Response, body: bytes) -> Complaint:
    """What an answer with an error status says. The answer to HEAD has headers alone."""
    code, message, size, region = "", "", None, ""
    try:
        error = parse_xml(body, "Error")
    except ValueError:
        pass
    else:
        code = child_text(error, "Code") or ""
        message = child_text(error, "Message") or ""
        region = child_text(error, "Region") or ""
        size = _number(error, "ActualObjectSize")
    total = (response.header("Content-Range") or "").rpartition("/")[2]
    if size is None and total.isdecimal():
        size = int(total)
    return Complaint(
        status=response.status,
        code=code,
        message=" ".join(message.split())[:200],
        size=size,
        region=response.header("x-amz-bucket-region") or region,
        time=_date(response.header("Date")),
        retry_after=response.header("Retry-After"),
    )


def error_for(complaint: Complaint, what: str, now: float) -> ResticdError:
    """The domain error. ``NotFound`` is said only where the server named the object as what is missing.

    S3 hides a missing object behind 403 from those who may not list, so that 403 says nothing about it.

    :param what: was asked, such as ``GET data/21/2159…``.
    :param now: this machine's time, to measure how far the server's is away.
    """
    code, status = complaint.code, complaint.status
    said = f"{code}: {complaint.message}".strip(": ") if code else f"status {status}"
    text = f"s3: {what}: {said}"
    if code in _MISSING:
        return NotFound(f"s3: {what}: there is no such object")
    if status == 416 or code == "InvalidRange":
        return StorageError(text) if complaint.size is None else RangeNotSatisfiable(complaint.size)
    if status == 412:
        return AlreadyExists("a file is stored under this name")
    if code in _FULL or status == 507:
        return OutOfSpace(text)
    if code in _MISMATCH:
        return Corrupt("the bytes do not hash to the name")
    if code == "RequestTimeTooSkewed" or (status == 403 and not code and _is_skewed(complaint, now)):
        return Refused(_skew(complaint, now))
    if code in _BUSY or status in (429, 503):
        return status_error(503, text, complaint.retry_after)
    if code in _LATE:
        return RemoteTimeout(text)
    if code in _FAULTS:
        return StorageError(text)
    if code in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists", "BucketNameUnavailable"):
        return BucketTaken(text, ours=code == "BucketAlreadyOwnedByYou")
    if status == 404:
        # NoSuchBucket, or an answer that is not S3's
        return Refused(text)
    if status in (400, 405, 501):
        return NotUnderstood(text)
    error = status_error(status, text, complaint.retry_after)
    return error if isinstance(error, StorageError | Unavailable | BadGateway) else Refused(text)


def _is_skewed(complaint: Complaint, now: float) -> bool:
    """Whether the clocks differ by more than is allowed: the answer to HEAD cannot say so itself."""
    return complaint.time is not None and abs(now - complaint.time) > _ALLOWED_SKEW


def _skew(complaint: Complaint, now: float) -> str:
    if complaint.time is None:
        return "s3: this machine's clock and the server's differ too much"
    seconds = round(now - complaint.time)
    return f"s3: this machine's clock is {abs(seconds)} s {'ahead of' if seconds > 0 else 'behind'} the server's"


def _date(value: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp() if value else None
    except ValueError:
        return None


def _number(element: Element, name: str) -> int | None:
    text = child_text(element, name)
    return int(text) if text and text.isdecimal() else None
