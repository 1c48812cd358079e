"""Everything that can go wrong, as one tree.

``ResticdError``
    ``BadRequest``: the client's request cannot be meant; repeating it will not help.
        ``InvalidName``: a path outside the grammar of ``repository.names``.
        ``Corrupt``: a body that does not hash to its name, or that falls short.
    ``NotFound``: the object is not there, and that is known for certain.
        ``NoSuchName``: a well-formed path that can never name an object.
    ``Forbidden``: policy says no.
        ``AlreadyExists``: another object is stored under the name.
        ``Unauthorized``: no valid login came with the request.
    ``RangeNotSatisfiable``: a byte range that lies outside the object.
    ``TooLarge``: a body above a limit.
    ``Unsupported``: the remote, or the settings, have no such operation.
    ``OutOfSpace``: the remote or a quota is full.
    ``ClientGone``: the client's connection ended before its request was done.
    ``StorageError``: a passing fault of a remote; the same request may succeed later.
        ``Unavailable``: the remote asks to come back later.
            ``TooManyLogins``: logins wait to be checked, and the client's is one too many.
        ``RemoteTimeout``: the remote did not answer in time.
        ``BadGateway``: the remote answered what it should not.
    ``ConfigurationError``: a flag, a setting or a file that cannot be used.

restic takes 401, 403, 404, 416 and 507 for final and repeats everything else for up to 15 minutes, so a passing
fault must never be raised as one of the final kinds. ``http.errors`` is the one place where these become statuses.
"""

from __future__ import annotations


class ResticdError(Exception):
    """The root of the tree. The first argument is one sentence for the client and for the log, free of secrets."""


class BadRequest(ResticdError):
    """The request cannot be meant; repeating it unchanged will not help."""


class InvalidName(BadRequest):
    """A path outside the grammar."""


class Corrupt(BadRequest):
    """A body that does not hash to its name, or whose length is not the one announced."""


class NotFound(ResticdError):
    """The object is not there. Never raised for an object that could not be looked at."""


class NoSuchName(NotFound):
    """A well-formed path that can never name an object, such as ``data/readme``."""


class Forbidden(ResticdError):
    """Policy refuses the operation."""


class AlreadyExists(Forbidden):
    """An object is stored under the name and was left as it is."""


class Unauthorized(ResticdError):
    """No valid login came with the request.

    :param user: the name that was attempted, empty where there was none.
    :param address: where the request came from, as it is to be logged.
    """

    def __init__(self, message: str, user: str = "", address: str = "-") -> None:
        super().__init__(message)
        self.user = user
        self.address = address


class RangeNotSatisfiable(ResticdError):
    """A byte range outside an object of ``size`` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the range lies outside of the object's {size} bytes")
        self.size = size


class TooLarge(ResticdError):
    """A body above a limit."""


class Unsupported(ResticdError):
    """The remote, or the settings, have no such operation."""


class OutOfSpace(ResticdError):
    """The remote or a quota is full. Final for the client: raise it only when it is true."""


class ClientGone(ResticdError):
    """The client's connection ended before its request was done."""


class StorageError(ResticdError):
    """A passing fault of a remote."""


class Unavailable(StorageError):
    """The remote cannot serve now. ``retry_after`` is in seconds."""

    def __init__(self, message: str, retry_after: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManyLogins(Unavailable):
    """Too many logins wait to be checked. Nothing is wrong with the server, so it is no fault to report."""


class RemoteTimeout(StorageError):
    """The remote did not answer in time."""


class BadGateway(StorageError):
    """The remote answered something that cannot be right."""


class ConfigurationError(ResticdError):
    """A flag, a setting or a file that cannot be used. The message names the flag, or the file and line."""
