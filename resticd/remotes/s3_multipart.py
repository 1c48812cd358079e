"""Uploads in parts, for large bodies and for those whose size or hash nobody knows, and the sweeping of dead ones."""

from __future__ import annotations

import base64
import hashlib
import re
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from resticd.errors import AlreadyExists, BadGateway, Corrupt, NotFound, ResticdError, StorageError
from resticd.interfaces import IUpload, Stat
from resticd.remotes.s3_api import S3Api, key_headers, object_headers
from resticd.remotes.s3_errors import NotUnderstood, error_in
from resticd.remotes.s3_upload import S3Upload, Stored, Target, put_bytes
from resticd.remotes.s3_xml import child_text, children, complete_multipart, parse_xml

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer

_MIB = 1024 * 1024
#: Unfinished uploads that began longer ago, in seconds, have no writer any more.
_DEAD = 24 * 3600.0
#: Only what restic names is swept.
_RESTIC = re.compile(r"(?:\A|/)(?:config|[0-9a-f]{64})\Z")
_log = Logger(namespace="resticd.remotes.s3")


@implementer(IUpload)
class MultipartUpload(S3Upload):
    """A body in parts; nothing is visible before they are put together in ``commit``.

    In memory are the parts that are being sent (``upload_concurrency``) and the next one. Each is repeated by
    itself. A body of less than one part becomes a plain PUT.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        options = target.api.options
        self._part_size = part_size(target.size, options.chunk_size, options.max_parts)
        self._concurrency = options.upload_concurrency
        self._producer: IPushProducer | None = None
        self._paused = False
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._received = 0
        self._etags: dict[int, str] = {}
        self._number = 0
        self._running: set[Deferred[None]] = set()
        self._idle: Deferred[None] | None = None
        self._upload_id: str | None = None
        self._creating = DeferredLock()
        self._failure: Failure | None = None

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``; push producers only."""
        if not streaming:
            raise TypeError("an upload takes push producers only")
        self._producer = cast(IPushProducer, producer)
        self._paused = False
        if self._failure is not None:
            self._stop_producer()

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        if self._failure is not None:
            return
        self._received += len(data)
        if self._target.size is not None and self._received > self._target.size:
            self._fail(Failure(Corrupt(f"more than the announced {self._target.size} bytes arrived")))
            return
        self._buffer.append(data)
        self._buffered += len(data)
        self._pump()

    def _pump(self) -> None:
        # Not at the very end of a part: the whole of a small body stays here until commit.
        while self._buffered > self._part_size and len(self._running) < self._concurrency:
            self._send(self._cut(self._part_size))
        if self._producer is None:
            return
        full = self._buffered > self._part_size
        if full and not self._paused:
            self._paused = True
            self._producer.pauseProducing()
        elif not full and self._paused:
            self._paused = False
            self._producer.resumeProducing()

    def _cut(self, length: int) -> bytes:
        data = b"".join(self._buffer)
        part, rest = data[:length], data[length:]
        self._buffer = [rest] if rest else []
        self._buffered = len(rest)
        return part

    def _send(self, data: bytes) -> None:
        self._number += 1
        if self._number > self._target.api.options.max_parts:
            self._fail(Failure(StorageError("s3: the file has too many parts: a larger chunk_size is needed")))
            return
        sending = Deferred.fromCoroutine(self._part(self._number, data))
        self._running.add(sending)

        def done(result: Failure | None) -> None:
            self._running.discard(sending)
            if result is not None:
                self._fail(result)
            else:
                self._pump()
            if not self._running and self._idle is not None:
                idle, self._idle = self._idle, None
                idle.callback(None)

        sending.addBoth(done)

    async def _part(self, number: int, data: bytes) -> None:
        api = self._target.api
        async with self._creating:
            if self._upload_id is None:
                self._upload_id = await self._create()
        sha256, md5 = await self._target.workers.run(_digests, data)
        response = await api.call(
            "PUT",
            self._target.key,
            query=(("partNumber", str(number)), ("uploadId", self._upload_id)),
            headers=(("Content-MD5", md5), *key_headers(api.options)),
            data=data,
            sha256=sha256,
        )
        response.discard()
        etag = response.header("ETag")
        if not etag:
            raise BadGateway("s3: the server does not confirm a part")
        self._etags[number] = etag

    async def _create(self) -> str:
        api = self._target.api

        async def attempt(_: int) -> str:
            response = await api.attempt(
                "POST", self._target.key, query=(("uploads", ""),), headers=object_headers(api.options)
            )
            try:
                # The second name is that of ``rclone serve s3``.
                created = parse_xml(await response.read(), "InitiateMultipartUploadResult", "InitiateMultipartUpload")
            except ValueError as error:
                raise BadGateway(f"s3: starting an upload in parts: {error}") from None
            upload_id = child_text(created, "UploadId")
            if not upload_id:
                raise BadGateway("s3: starting an upload in parts: the server gives it no name")
            return upload_id

        # An answer that is lost leaves an upload without parts, which the next sweep removes.
        return await api.client.retries.run(attempt)

    async def _store(self) -> Stat:
        target = self._target
        if self._failure is None:
            target.check_size(self._received)
            if self._number == 0:
                return await put_bytes(target, self._cut(self._buffered), target.sha256)
            if self._buffered:
                self._send(self._cut(self._buffered))
            if self._running:
                self._idle = Deferred(self._forget_idle)
                await self._idle
        if self._failure is not None:
            self._failure.raiseException()
        await target.check_free(look=True)
        etag = await target.api.client.retries.run(self._complete)
        return await target.confirm(self._received, Stored(etag), proven=False)

    async def _complete(self, number: int, conditional: bool = True) -> str:
        target = self._target
        condition = target.condition if conditional else ()
        assert self._upload_id is not None  # a part was sent
        body = complete_multipart([self._etags[part] for part in range(1, self._number + 1)])
        try:
            answer = await target.api.post(target.key, (("uploadId", self._upload_id),), condition, body)
            try:
                result = parse_xml(answer, "CompleteMultipartUploadResult")
            except ValueError as error:
                # A fault that comes up late is told in the body of a 200.
                raise error_in(answer, f"POST {target.key}", str(error)) from None
        except NotUnderstood:
            if not condition:
                raise
            return await self._complete(number, conditional=False)
        except (NotFound, AlreadyExists):
            # Where the answer to an earlier attempt was lost, what is found is our own.
            if number == 0 or (await target.lookup.head(target.key)).stat.size != self._received:
                raise
            return ""
        return child_text(result, "ETag") or ""

    async def _discard(self) -> None:
        self._fail(Failure(CancelledError()))
        api = self._target.api
        if self._upload_id is None or api.options.leave_parts_on_error:
            return
        try:
            await abort_upload(api, self._target.key, self._upload_id)
        except ResticdError as error:
            _log.warn("an upload in parts could not be aborted: {reason}", reason=str(error))

    def _fail(self, failure: Failure) -> None:
        if self._failure is None:
            self._failure = failure
        self._buffer, self._buffered = [], 0
        for sending in list(self._running):
            sending.cancel()
        self._stop_producer()

    def _forget_idle(self, _: Deferred[None]) -> None:
        self._idle = None

    def _stop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()


def part_size(size: int | None, wanted: int, max_parts: int) -> int:
    """Bytes of one part, such that ``size`` bytes need no more than ``max_parts`` of them; whole MiB where larger than
    ``wanted``.
    """
    needed = -(-(size or 0) // max_parts)
    return wanted if needed <= wanted else -(-needed // _MIB) * _MIB


def _digests(data: bytes) -> tuple[str, str]:
    md5 = hashlib.md5(data, usedforsecurity=False).digest()
    return hashlib.sha256(data).hexdigest(), base64.b64encode(md5).decode("ascii")


async def abort_upload(api: S3Api, key: str, upload_id: str) -> None:
    """Throw an unfinished upload away; one that is gone already is a success."""
    with suppress(NotFound):
        await api.call("DELETE", key, query=(("uploadId", upload_id),))


async def sweep_uploads(api: S3Api, prefix: str) -> int:
    """Abort what restic, through whatever server, began to upload under ``prefix`` more than a day ago.

    Returns how many there were.
    """
    swept = 0
    markers: tuple[tuple[str, str], ...] = ()
    while True:
        query = (("uploads", ""), ("prefix", prefix), *markers)
        try:
            listed = parse_xml(await api.fetch(query=query), "ListMultipartUploadsResult")
        except ValueError as error:
            raise BadGateway(f"s3: listing unfinished uploads: {error}") from None
        for upload in children(listed, "Upload"):
            key, upload_id = child_text(upload, "Key") or "", child_text(upload, "UploadId")
            began = _seconds(child_text(upload, "Initiated"))
            if upload_id and key.startswith(prefix) and _RESTIC.search(key) and began < api.seconds() - _DEAD:
                await abort_upload(api, key, upload_id)
                swept += 1
        following = (
            ("key-marker", child_text(listed, "NextKeyMarker") or ""),
            ("upload-id-marker", child_text(listed, "NextUploadIdMarker") or ""),
        )
        if child_text(listed, "IsTruncated") != "true" or following == markers:
            return swept
        markers = following


def _seconds(text: str | None) -> float:
    """Seconds since the epoch of a time that S3 wrote; the far future for one that cannot be read."""
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except ValueError:
        return float("inf")
