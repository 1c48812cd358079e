"""The fast lane: restic's commonest requests, HEAD, small GETs and small POSTs of blobs, answered as they come.

``HTTPChannel``, ``Request``, the gate and Klein cost 300 µs before anything was done. What is left out here is only
machinery: the grammar (``repository.names``), the login (``IAuthenticator.recall``), the policy and the look at the
remote (``Repositories``) and the fields of an answer (``http.blobs``) are those of the routes. The lane gives one kind
of answer, a success. Whatever is unusual in a request (a header that is not on the list below, a body that is not in
yet, another request right behind it), is not known at once, or would be refused goes to ``HTTPChannel`` as if nobody
had looked at it; an upload that fails goes there afterwards.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.defer import Deferred
from twisted.web.http import RESPONSES
from twisted.web.http_headers import Headers

from resticd.errors import ResticdError
from resticd.events import RequestDone, Transfer, TransferDone
from resticd.http.direct import send_now
from resticd.http.fields import allow_origin, blob_lines, common_fields, date
from resticd.http.ranges import parse_range
from resticd.repository.names import Blob, parse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resticd.http.channel import Channel
    from resticd.http.gate import Gate
    from resticd.http.site import SiteSettings
    from resticd.interfaces import Caller
    from resticd.repository.operations import Repositories
    from resticd.streams import Span

#: Longest body that is read and sent in the reactor, in bytes.
MOST = 128 * 1024

_LINE = re.compile(rb"(HEAD|GET|POST) (/[!-~]*) HTTP/1\.1\r\n")
_RANGE = re.compile(rb"\r\nRange: ([!-~]+)\r\n")
_LENGTH = re.compile(rb"\r\nContent-Length: (0|[1-9][0-9]{0,5})\r\n")
_FIELD = re.compile(rb"([A-Za-z-]+): ([!-~]|[!-~][\t -~]*[!-~])")
#: Headers that say nothing, to a request of this kind, that ``Gate.introduce`` does not ask for.
_KNOWN = {
    *(b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language", b"referer", b"authorization"),
    b"content-type",
    *(b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-real-ip", b"forwarded"),
}
_OWN = {"server", "date", "content-type", "content-length", "content-range", "accept-ranges", "connection"}


class Memory(NamedTuple):
    """What the last request on a connection showed, but for its first line, range and length: the next one will too."""

    lane: Lane
    fields: bytes
    #: see ``IAuthenticator.era``
    era: object
    caller: Caller
    referer: str
    agent: str


class Asked(NamedTuple):
    """A request that may be answered here."""

    method: bytes
    uri: bytes
    #: its lines of headers, without a range and a length, between two line feeds
    fields: bytes
    span: Span | None = None
    #: of a POST
    body: bytes = b""


class Turn(NamedTuple):
    """A request that is being answered."""

    channel: Channel
    memory: Memory
    asked: Asked
    #: when it came, by the site's clock
    started: float

    def report(self, status: int, sent: int) -> None:
        """Tell the sink that it was answered."""
        site, asked, memory = self.channel.site, self.asked, self.memory
        path, upload = asked.uri.decode(), asked.method == b"POST"
        if asked.method != b"HEAD":
            size = len(asked.body) if upload else sent
            site.sink.emit(TransferDone(Transfer(path, size, upload, moved=size), ok=True))
        site.sink.emit(
            RequestDone(
                caller=memory.caller,
                method=asked.method.decode(),
                uri=path,
                protocol="HTTP/1.1",
                status=status,
                received=len(asked.body),
                sent=sent,
                duration=site.clock.seconds() - self.started,
                referer=memory.referer,
                agent=memory.agent,
            )
        )


class Found(NamedTuple):
    """An answer."""

    status: int
    #: lines
    fields: bytes
    body: bytes | memoryview


def _read(data: bytes) -> Asked | None:
    """The request that ``data`` is, where it can be one of those that are answered here."""
    line = _LINE.match(data)
    if line is None:
        return None
    begin = line.end() - 2
    end = data.find(b"\r\n\r\n", begin) + 4
    if line[1] == b"POST":
        header = _LENGTH.search(data, begin, end)
        if header is None or len(data) != end + int(header[1]):
            return None
        return Asked(line[1], line[2], data[begin : header.start()] + data[header.end() - 2 : end], body=data[end:])
    if end != len(data):
        return None
    at = data.find(b"\r\nRange: ", begin)
    if at < 0:
        return Asked(line[1], line[2], data[begin:])
    header = _RANGE.match(data, at)
    span = parse_range(header[1].decode()) if header is not None else None
    if header is None or span is None:
        return None
    return Asked(line[1], line[2], data[begin:at] + data[header.end() - 2 :], span)


class Lane:
    """Answers requests that ``gate`` would let pass.

    :param repositories: what is behind the gate.
    """

    def __init__(self, gate: Gate, repositories: Repositories) -> None:
        self._gate = gate
        self._base = f"/{gate.base}" if gate.base else ""
        self._repositories = repositories
        self._known = _KNOWN | ({gate.user_header.lower().encode()} if gate.user_header else set())
        self._settings: SiteSettings | None = None
        self._common = (b"", b"")
        #: Where ``--response-header`` sets one of an answer's own fields, only the routes know which one wins.
        self._closed = False

    def answer(self, channel: Channel, data: bytes) -> bool:
        """Answer the request that is ``data``, which came on a connection at rest. Whether that was done."""
        site = channel.site
        if site.settings is not self._settings:
            self._adopt(site.settings)
        asked = None if self._closed else _read(data)
        if asked is None or len(data) - len(asked.body) > site.settings.max_header_bytes:
            return False
        started = site.clock.seconds()
        memory = channel.memory
        if memory is None or not self._holds(memory, asked.fields):
            memory = channel.memory = self._remember(channel, asked.fields)
            if memory is None:
                return False
        blob = self._blob(asked.uri.decode())
        if blob is None:
            return False
        turn = Turn(channel, memory, asked, started)
        if asked.method == b"POST":
            return self._store(turn, blob, data)
        found = self._find(memory.caller, asked, blob)
        if found is None:
            return False
        status, own, body = found
        channel.resetTimeout()
        send_now(channel.transport, [self._head(status, own), body])
        turn.report(status, len(body))
        return True

    def _store(self, turn: Turn, blob: Blob, data: bytes) -> bool:
        """Begin to store the body, if that can be done in one step. The connection waits meanwhile."""
        channel = turn.channel
        try:
            storing = self._repositories.prompt_store(turn.memory.caller, blob, turn.asked.body)
        except ResticdError:
            return False
        if storing is None:
            return False

        def over(stored: bool) -> None:
            if not stored:
                channel.release(data)
                return
            own = b"Content-Length: 0\r\n" + (b"Connection: close\r\n" if channel.finishing else b"")
            send_now(channel.transport, [self._head(200, own), b""])
            turn.report(200, 0)
            channel.release()

        channel.hold()
        Deferred.fromCoroutine(storing).addCallback(over)
        return True

    def _blob(self, path: str) -> Blob | None:
        try:
            target = parse(path[len(self._base) :]) if path.startswith(self._base) else None
        except ResticdError:
            return None
        return target if isinstance(target, Blob) else None

    def _find(self, caller: Caller, asked: Asked, blob: Blob) -> Found | None:
        """What to answer, where it is known at once and is a success."""
        try:
            if asked.method == b"HEAD":
                stat = self._repositories.prompt_stat(caller, blob)
                return None if stat is None else Found(200, blob_lines(stat.size), b"")
            piece = self._repositories.prompt_read(caller, blob, asked.span, MOST)
        except ResticdError:
            return None
        if piece is None:
            return None
        if asked.span is None:
            return Found(200, blob_lines(piece.size), piece.data)
        return Found(206, blob_lines(len(piece.data), (piece.offset, piece.size)), piece.data)

    def _adopt(self, settings: SiteSettings) -> None:
        self._settings = settings
        self._closed = any(name.lower() in _OWN for name, _ in settings.response_headers)
        self._common = _common_lines(settings.response_headers, self._gate.allow_origin)

    def _holds(self, memory: Memory, fields: bytes) -> bool:
        return memory.fields == fields and memory.lane is self and memory.era is self._gate.authenticator.era()

    def _remember(self, channel: Channel, fields: bytes) -> Memory | None:
        """What a request with these fields shows; None where something in them, or in its sender, is unusual."""
        headers = Headers()
        for line in fields[2:-4].split(b"\r\n"):
            field = _FIELD.fullmatch(line)
            if field is None or field[1].lower() not in self._known:
                return None
            headers.addRawHeader(field[1], field[2])
        authenticator = self._gate.authenticator
        era = authenticator.era()
        caller = authenticator.recall(self._gate.introduce(headers, channel)) if era is not None else None
        if caller is None:
            return None
        referer, agent = (headers.getRawHeaders(name, [b""])[-1].decode() for name in (b"referer", b"user-agent"))
        return Memory(self, fields, era, caller, referer, agent)

    def _head(self, status: int, own: bytes) -> bytes:
        before, after = self._common
        return b"HTTP/1.1 %d %b\r\n%b%b%b%b\r\n" % (status, RESPONSES[status], before, date(), after, own)


def _common_lines(response_headers: Iterable[tuple[str, str]], origin: str | None) -> tuple[bytes, bytes]:
    """The lines of the fields that all answers have, before and after the date."""
    headers, date = Headers(), b"@"
    common_fields(headers, date, response_headers)
    if origin is not None:
        allow_origin(headers, origin)
    lines = [b"%b: %b\r\n" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]
    at = lines.index(b"Date: @\r\n")
    return b"".join(lines[:at]) + b"Date: ", b"\r\n" + b"".join(lines[at + 1 :])
