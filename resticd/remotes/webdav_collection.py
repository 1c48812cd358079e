"""What lies in one collection, read while the server says it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from resticd.errors import BadGateway
from resticd.remotes.webdav_errors import CollectionMissing
from resticd.remotes.webdav_xml import LISTED, MultistatusParser, Resource, parse_date
from resticd.transport.errors import Refused

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer
    from twisted.python.failure import Failure

    from resticd.remotes.webdav_api import WebDavApi

#: The server is not let to send more while this many resources wait.
_WAITING = 2000


class Child(NamedTuple):
    """One resource of a collection.

    :ivar name: decoded; None where no key can have it.
    """

    name: str | None
    resource: Resource


class Batch(NamedTuple):
    """Some of the resources of a collection.

    :ivar now: the server's time, or ours, when it began to answer.
    """

    children: list[Child]
    now: float


async def read_collection(api: WebDavApi, key: str) -> AsyncGenerator[Batch, None]:
    """Ask once, with ``Depth: 1``. An iteration that ends by itself has seen everything.

    Raises ``CollectionMissing`` where the server answers 404, and a ``StorageError`` for whatever could be an answer
    that is not whole: one that breaks off, is no multistatus, does not speak of the collection itself (which comes
    with its members: RFC 4918, section 9.1), or leaves open what a member is.
    """
    response = await api.propfind(key, "1", LISTED)
    if response is None:
        raise CollectionMissing(f"webdav: there is no directory {key}")
    now = parse_date(response.header("Date")) or api.seconds()
    here = (*api.base, *(key.rstrip("/").split("/") if key else ()))
    seen = False
    reader = _Reader(key)
    delivering = response.deliver(reader)
    delivering.addCallbacks(reader.ended, reader.failed)
    try:
        while (resources := await reader.some()) is not None:
            children = []
            for resource in resources:
                if resource.path == here:
                    seen = True
                    _check_itself(resource, key)
                elif resource.status != 404:  # gone meanwhile
                    children.append(_child(resource, here))
            if children:
                yield Batch(children, now)
    finally:
        delivering.cancel()
    if not seen:
        raise BadGateway(f"webdav: the list of {key or '/'} is not whole: it does not name the directory itself")


async def children_of(api: WebDavApi, key: str) -> list[Child]:
    """All that lies in a collection that is known to be small. Raises as ``read_collection``, after repetitions."""

    async def attempt(_: int) -> list[Child]:
        found: list[Child] = []
        async with aclosing(read_collection(api, key)) as batches:
            async for batch in batches:
                found += batch.children
        return found

    return await api.retrying(attempt)


def _check_itself(resource: Resource, key: str) -> None:
    if resource.status == 404:
        raise CollectionMissing(f"webdav: there is no directory {key}")
    if resource.status != 200:
        # 507 marks a list that was cut off.
        raise Refused(f"webdav: the server cannot list {key or '/'} (status {resource.status})")
    if not resource.is_collection:
        raise Refused(f"webdav: {key or '/'} is not a directory")


def _child(resource: Resource, here: tuple[str, ...]) -> Child:
    path = resource.path
    if path is None:
        return Child(None, resource)
    if path[:-1] != here:
        there = "/".join(path[:-1])
        raise Refused(
            f"webdav: the server lists what lies under /{there}/ when it is asked for /{'/'.join(here)}/; "
            "perhaps url has to name the server as it names itself"
        )
    if resource.status != 200:
        raise Refused(f"webdav: the server does not say what {path[-1]} is (status {resource.status})")
    return Child(None if "/" in path[-1] else path[-1], resource)


@implementer(IConsumer)
class _Reader:
    """Parses what a connection brings, and pauses it while nobody takes the outcome."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._parser = MultistatusParser()
        self._ready: list[Resource] = []
        self._over = False
        self._error: Exception | None = None
        self._producer: IPushProducer | None = None
        self._paused = False
        self._waiting: Deferred[None] | None = None

    async def some(self) -> list[Resource] | None:
        """What has arrived since the last call, at least one; None behind the last one."""
        while not self._ready:
            if self._error is not None:
                raise self._error
            if self._over:
                return None
            if self._paused and self._producer is not None:
                self._paused = False
                self._producer.resumeProducing()
                continue  # it may have brought something at once
            self._waiting = Deferred()
            await self._waiting
        ready, self._ready = self._ready, []
        return ready

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        self._producer = cast(IPushProducer, producer)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        if self._error is not None:
            return
        try:
            self._ready += self._parser.feed(data)
        except ValueError as error:
            self._refuse(error)
            return
        if len(self._ready) >= _WAITING and not self._paused and self._producer is not None:
            self._paused = True
            self._producer.pauseProducing()
        if self._ready:
            self._wake()

    def ended(self, _: None) -> None:
        """The whole body was read."""
        try:
            self._parser.finish()
        except ValueError as error:
            self._refuse(error)
            return
        self._over = True
        self._wake()

    def failed(self, failure: Failure) -> None:
        """The connection broke off, or nobody wants it any more."""
        if self._error is None:
            self._error = failure.value if isinstance(failure.value, Exception) else BadGateway(str(failure.value))
        self._wake()

    def _refuse(self, error: ValueError) -> None:
        self._error = BadGateway(f"webdav: the list of {self._key or '/'} cannot be used: {error}")
        if self._producer is not None:
            self._producer.stopProducing()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)
