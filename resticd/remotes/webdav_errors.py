"""From what a WebDAV server says to the errors of ``resticd.errors``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from resticd.errors import AlreadyExists, OutOfSpace, ResticdError, Unavailable
from resticd.transport.errors import Refused, status_error

if TYPE_CHECKING:
    from resticd.transport.response import Response

#: What sabre/dav, which is in ownCloud and Nextcloud, says in words.
_MESSAGE = re.compile(rb"<(?:[\w-]+:)?message(?:\s[^>]*)?>([^<]{1,300})<")


class Conflict(Refused):
    """The collection that something is to be put into is missing (RFC 4918, sections 9.3.1 and 9.7.1)."""


class CollectionMissing(Refused):
    """The server says that a collection is not there, which may be true."""


class NotUnderstood(Refused):
    """The server does not do what it was asked for."""


def error_for(response: Response, body: bytes, what: str) -> ResticdError:
    """The domain error for an answer. ``NotFound`` is not among them: 404 has to be looked into.

    :param body: the beginning of it.
    :param what: was asked, such as ``PUT data/21/2159…``.
    """
    status = response.status
    said = _MESSAGE.search(body)
    reason = f"status {status}"
    if said is not None:
        reason += ": " + " ".join(said[1].decode("utf-8", "replace").split())
    text = f"webdav: {what}: {reason}"
    if status == 401:
        return Refused(f"webdav: {what}: the server does not accept the login")
    if status == 412:
        return AlreadyExists("a file is stored under this name")
    if status == 413:
        return Refused(f"{text}: a body is larger than the server, or a proxy before it, allows")
    # Locked, and what ownCloud and Nextcloud say while they work on a file.
    if status in (423, 425):
        return Unavailable(text, 1.0)
    if status == 507:
        return OutOfSpace(text)
    if status == 409:
        return Conflict(text)
    if status in (400, 405, 501):
        return NotUnderstood(text)
    if status in (404, 410):
        return Refused(text)
    if status < 400:
        return Refused(f"{text}: the server does not do what it was asked")
    return status_error(status, text, response.header("Retry-After"))
