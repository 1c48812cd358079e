"""The contracts between the rooms, and the plain values that cross them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from attrs import field, frozen
from twisted.internet.interfaces import (
    IConsumer,
    IReactorCore,
    IReactorFDSet,
    IReactorSocket,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUNIX,
)
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress

    from resticd.streams import Span


class IReactor(IReactorCore, IReactorTime, IReactorThreads, IReactorFDSet, IReactorTCP, IReactorUNIX, IReactorSocket):
    """What is asked of the reactor, all in one type; it is never checked at run time."""


class Entry(NamedTuple):
    """One object of a listing."""

    key: str
    #: in bytes
    size: int
    #: seconds since the epoch, None where the remote does not say
    modified: float | None


class Leaves(NamedTuple):
    """The objects right below one prefix, in columns: three lists instead of an ``Entry`` for each."""

    #: ends with a slash, or is empty
    prefix: str
    #: what stands behind the prefix in each key
    names: list[str]
    #: in bytes
    sizes: list[int]


@frozen
class Stat:
    """What is known of one stored object."""

    #: in bytes
    size: int
    #: seconds since the epoch, None where the remote does not say
    modified: float | None = None


class Piece(NamedTuple):
    """A part of an object, in memory."""

    #: of the whole object, in bytes
    size: int
    #: where in the object the first byte lies
    offset: int
    data: bytes | memoryview


@frozen
class Usage:
    """Room on a remote, in bytes; None where the remote does not say."""

    used: int | None
    free: int | None
    total: int | None


@frozen
class Capabilities:
    """What a remote does by itself, so that nothing above has to do it again."""

    #: ``begin(overwrite=False)`` is decided by the remote in one step; without it two writers at once may both succeed
    conditional_create: bool = False
    #: ``commit`` compares the bytes that arrived with the ``sha256`` given to ``begin``
    verifies_hash: bool = False
    #: ``usage`` works
    reports_usage: bool = False


class IBody(Interface):
    """The bytes of one stored object, or of a part of it, on their way to one consumer."""

    size: int = Attribute("Length of the whole object in bytes.")
    offset: int = Attribute("Where in the object the first byte of this body lies.")
    length: int = Attribute("How many bytes this body delivers.")

    def deliver(consumer: IConsumer) -> Deferred[None]:
        """Register a push producer with ``consumer`` and write exactly ``length`` bytes to it.

        Called once. Fires, with the producer unregistered, when the last byte was written. Fails with a
        ``StorageError`` when the remote breaks off before. Cancelling it, or ``stopProducing`` on the producer,
        stops the remote's side too; everything held is released in every case.
        """

    def close() -> None:
        """Release what is held without delivering. Does nothing after ``deliver`` was called."""


class IUpload(IConsumer):
    """A consumer of one object's bytes. Nothing is visible before ``commit`` fires.

    It pauses its producer while more than a few buffers wait. When it cannot go on (no space, the remote is gone)
    it calls ``stopProducing`` on its producer, ignores what still comes, and ``commit`` fails with the reason.
    """

    def commit() -> Deferred[Stat]:
        """Make the object visible. Called once, after the last ``write``; the producer is unregistered by then.

        Fires once the object is stored as durably as the remote can store it. Fails with ``AlreadyExists`` where
        ``overwrite`` was false and the key is taken, with ``Corrupt`` where the bytes do not match the ``size`` or
        ``sha256`` that were announced, with ``OutOfSpace`` or with a ``StorageError``; nothing of this upload is left
        behind then. Cancelling it aborts.
        """

    def abort() -> Deferred[None]:
        """Throw the bytes away. May be called at any time and more than once; after ``commit`` it does nothing.

        Fires, never fails, when nothing of *this* upload is left. Another upload of the same key, running or
        finished, is not touched.
        """


class IRemote(Interface):
    """Storage as a flat space of keys with ``/`` in them.

    Every Deferred can be cancelled. Faults are raised as the errors of ``resticd.errors``: ``NotFound`` only
    where the absence is certain, a ``StorageError`` for whatever may pass. Keys are strings without leading or
    trailing slash and without ``.``, ``..`` or empty segments; prefixes are empty or end with a slash. Both come from
    ``repository.layout`` and need no further checks.
    """

    capabilities: Capabilities = Attribute("A Capabilities value; fixed after ``start``.")

    def start() -> Deferred[None]:
        """Get ready: look at the place, sweep leftovers of dead writers in the background.

        Fails with ``ConfigurationError`` where the remote can never work as it is configured.
        """

    def stop() -> Deferred[None]:
        """Let go of threads, connections and child processes. Uploads that run are aborted."""

    def stat(key: str) -> Deferred[Stat]:
        """Size and time of an object, or ``NotFound``."""

    def list(prefix: str) -> AsyncGenerator[list[Entry], None]:
        """All objects whose key begins with ``prefix``, at every depth, in no order, as pages of bounded length.

        A prefix under which nothing lies gives no pages. An error anywhere raises: an iteration that ends by itself
        was complete. Objects that come or go meanwhile may be missed or seen; unfinished uploads are never seen.
        """

    def open(key: str, span: Span | None = None) -> Deferred[IBody]:
        """Fires with the object, or the part of it that ``span`` names. ``NotFound``, ``RangeNotSatisfiable``."""

    def begin(key: str, size: int | None, sha256: str | None, overwrite: bool = False) -> Deferred[IUpload]:
        """Start an upload of ``size`` bytes (None: not known) that hash to ``sha256`` (64 hex digits; None: not known).

        ``overwrite=False`` is decided when the upload is committed, by the remote where it can, never by a look
        before. Missing parents are made.
        """

    def delete(key: str) -> Deferred[None]:
        """Remove an object. One that is missing already is a success."""

    def make(prefix: str) -> Deferred[None]:
        """Make the place for keys under ``prefix`` where the remote has such a thing (a directory, a bucket)."""

    def tidy(prefix: str) -> Deferred[None]:
        """Remove the empty directories at and under ``prefix``, where the remote has any. Keeps every object."""

    def usage() -> Deferred[Usage]:
        """Room on the remote, or ``Unsupported``."""


class ILeafyRemote(IRemote):
    """A remote that lists whole directories faster than single objects."""

    def list_leaves(prefix: str) -> AsyncGenerator[Leaves, None]:
        """As ``list``. Each directory comes once; none of them may be changed by the caller."""


class IDirectories(Interface):
    """A remote that knows which directories there are, without walking through all that lies in them."""

    def directories(prefix: str) -> AsyncGenerator[list[str], None]:
        """The names of the directories directly below ``prefix``, without slashes, in no order, as pages.

        Empty ones too, where the remote has such. Errors as of ``IRemote.list``.
        """


class IPromptRemote(IRemote):
    """A remote that can tell some things at once, without a Deferred, because they are in memory.

    No method may wait, and all may always return None: that says nothing but to ask the other way.
    """

    def prompt_stat(key: str) -> Stat | None:
        """As ``stat``."""

    def prompt_read(key: str, span: Span | None, most: int) -> Piece | None:
        """As ``open`` and ``deliver``, of not more than ``most`` bytes. They hold until the next call."""

    def prompt_store(key: str, sha256: str | None, data: bytes) -> Coroutine[Deferred[Any], Any, bool] | None:
        """As ``begin``, ``write`` and ``commit`` of a new file. Not to be cancelled.

        Returns whether it is stored. If not, nothing is left of it, and the other way will tell why. Raises
        ``StorageError`` as ``commit`` does.
        """


@frozen
class Caller:
    """Who asks: decided by ``auth`` and ``listeners``, judged by ``repository.policy``, written down by ``observe``."""

    #: the login, None where the server asks for none
    user: str | None = None
    #: the client's address as text, for logs
    address: str = "-"


class IEventSink(Interface):
    """Where events go. Logs, statistics, metrics and the audit log are sinks."""

    def emit(event: object) -> None:
        """Take one of the frozen values of ``resticd.events``. Returns at once and never raises."""


@frozen
class Introduction:
    """What a request shows of its sender, before anybody believed it."""

    #: the address of the connection's other end (``IPv4Address``, ``IPv6Address`` or ``UNIXAddress``)
    peer: IAddress
    #: the Authorization header, if there is one
    authorization: str | None = field(default=None, repr=False)
    #: the value of the header that ``--user-from-header`` names, if the request has it
    header_user: str | None = None
    #: the common name of the client's verified certificate, if there is one
    common_name: str | None = None
    #: the X-Forwarded-For header as it came; believed only from a trusted proxy
    forwarded_for: str | None = None
    #: the Forwarded header (RFC 7239) as it came; believed only from a trusted proxy
    forwarded: str | None = None


class IAuthenticator(Interface):
    """Decides who sent a request."""

    challenge: str | None = Attribute(
        'The WWW-Authenticate header to send with a 401, such as ``Basic realm="resticd"``; None where there is none.'
    )

    def authenticate(introduction: Introduction) -> Deferred[Caller]:
        """Fires with who it is, or fails with ``Unauthorized``. Slow checks run in a worker. Can be cancelled.

        Fails with ``TooManyLogins`` where too many attempts wait.
        """

    def recall(introduction: Introduction) -> Caller | None:
        """Who it is, where that can be told at once; None says nothing but to ask ``authenticate``."""

    def era() -> object | None:
        """An object that is the same one as long as what ``recall`` said of a connection still holds for it.

        None where nothing can be said at once, since, say, the password file was changed a moment ago.
        """


class IVerifyingUpload(IUpload):
    """An upload whose bytes the remote itself compares with the ``sha256`` of ``begin`` before it stores them."""


class IBlockingSink(Interface):
    """An upload whose bytes may also be handed over by a worker itself, without a detour through the reactor.

    Either ``IUpload.write`` is used for the whole of an upload, or ``consume``.
    """

    def consume(chunks: list[bytes] | list[memoryview]) -> None:
        """Take the next bytes before returning; raises what ``commit`` would.

        Called in a worker, by one thread at a time.
        """


class IFileBody(IBody):
    """A body that is a part of an open file, so that the kernel can send it."""

    def fileno() -> int:
        """The file descriptor; it stays open until ``close``, and the file's offset is not used."""
