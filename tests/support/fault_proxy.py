"""A proxy before a real server that does to chosen requests what networks and servers do on bad days.

It runs in a thread of its own, so that it serves tests on the reactor as well as those that wait for a child process::

    with FaultProxy(server.port) as proxy:
        proxy.inject(Fault(on="PUT", cut_answer=0))       # the server has stored it, the answer is lost
        proxy.inject(Fault(on="GET", target="list-type", edit=lambda body: body[:500] + body[900:]))
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Self

from attrs import define, frozen

CHUNK = 65536


@define
class Fault:
    """What happens to a request.

    :param on: the method it must have, empty for any.
    :param target: what its target must contain.
    :param times: to how many requests, from the next one on.
    :param delay: seconds before the server sees the request.
    :param status: answer with this status, and ``body``, without asking the server.
    :param early: answer before the request's body was read, and then close.
    :param cut_request: pass on so many bytes of the request's body, then cut both connections.
    :param cut_answer: pass on so many bytes of the answer's body (0: nothing, not even the head), then cut.
    :param edit: changes the body of the answer.
    :param hold: keep the answer until ``proxy.release()``.
    :param drop: headers of the request, in lower case, that the server does not get to see.
    """

    on: str = ""
    target: str = ""
    times: int = 1
    delay: float = 0
    status: int = 0
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    early: bool = False
    cut_request: int | None = None
    cut_answer: int | None = None
    edit: Callable[[bytes], bytes] | None = None
    hold: bool = False
    drop: tuple[str, ...] = ()
    #: how many requests it has hit
    hits: int = 0


@frozen
class Message:
    """A head and how its body is framed."""

    line: str
    headers: list[tuple[str, str]]

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def encode(self) -> bytes:
        return "\r\n".join([self.line, *(f"{key}: {value}" for key, value in self.headers), "", ""]).encode("latin-1")


class Cut(Exception):
    """Both connections are to be cut."""


class FaultProxy:
    """Listens on ``port`` of 127.0.0.1 and passes on to ``backend``, another port there.

    :ivar seen: method and target of every request, in order.
    :ivar heads: the heads of the same.
    """

    def __init__(self, backend: int, latency: float = 0) -> None:
        self.backend = backend
        self.latency = latency
        self.seen: list[tuple[str, str]] = []
        self.heads: list[Message] = []
        self._faults: list[Fault] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def inject(self, fault: Fault) -> Fault:
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        self._faults.clear()

    def release(self) -> None:
        """Let go of answers that are held."""
        self._loop.call_soon_threadsafe(self._held.set)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        self._held = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_writer = None
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.backend)
            while (request := await _read_head(reader)) is not None:
                fault = self._fault_for(request)
                await self._exchange(fault, request, reader, writer, back_reader, back_writer)
        except (Cut, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, back_writer):
                if each is not None:
                    each.transport.abort()

    def _fault_for(self, request: Message) -> Fault:
        method, target, _ = request.line.split(" ", 2)
        self.seen.append((method, target))
        self.heads.append(request)
        for fault in self._faults:
            if fault.hits < fault.times and fault.on in ("", method) and fault.target in target:
                fault.hits += 1
                return fault
        return Fault()

    async def _exchange(
        self,
        fault: Fault,
        request: Message,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back_reader: asyncio.StreamReader,
        back_writer: asyncio.StreamWriter,
    ) -> None:
        await asyncio.sleep(self.latency + fault.delay)
        length = int(request.get("content-length") or 0)
        if fault.status:
            if not fault.early:
                await _copy(reader, None, length)
            head = Message(
                f"HTTP/1.1 {fault.status} Injected", [("Content-Length", str(len(fault.body))), *fault.headers]
            )
            writer.write(head.encode() + (b"" if request.line.startswith("HEAD ") else fault.body))
            await writer.drain()
            if fault.early:
                await asyncio.sleep(0.2)
                raise Cut
            return
        headers = [(key, value) for key, value in request.headers if key.lower() not in fault.drop]
        back_writer.write(Message(request.line, headers).encode())
        if fault.cut_request is not None:
            await _copy(reader, back_writer, min(fault.cut_request, length))
            raise Cut
        # Both ways at once: the server may answer before it has the whole body.
        sending = self._loop.create_task(_copy(reader, back_writer, length))
        try:
            answer = await _read_head(back_reader)
            if answer is None:
                raise Cut
            if fault.hold:
                await self._held.wait()
            if fault.cut_answer == 0:
                raise Cut
            await self._answer(fault, request, answer, back_reader, writer)
            await sending
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
                await sending

    async def _answer(
        self,
        fault: Fault,
        request: Message,
        answer: Message,
        back_reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        status = int(answer.line.split(" ")[1])
        if request.line.startswith("HEAD ") or status in (204, 304):
            writer.write(answer.encode())
            await writer.drain()
        elif fault.edit is not None or (answer.get("transfer-encoding") or "").lower() == "chunked":
            body = await _read_body(answer, back_reader)
            if fault.edit is not None:
                body = fault.edit(body)
            framing = ("content-length", "transfer-encoding")
            headers = [(key, value) for key, value in answer.headers if key.lower() not in framing]
            head = Message(answer.line, [*headers, ("Content-Length", str(len(body)))])
            writer.write(head.encode() + (body if fault.cut_answer is None else body[: fault.cut_answer]))
            await writer.drain()
        else:
            length = int(answer.get("content-length") or 0)
            writer.write(answer.encode())
            await _copy(back_reader, writer, length if fault.cut_answer is None else min(length, fault.cut_answer))
        if fault.cut_answer is not None:
            await asyncio.sleep(0.05)  # let what was written go
            raise Cut


async def _read_head(reader: asyncio.StreamReader) -> Message | None:
    try:
        data = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    line, *lines = data.decode("latin-1").rstrip("\r\n").split("\r\n")
    return Message(line, [(key, value.strip()) for key, _, value in (each.partition(":") for each in lines)])


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, length: int) -> None:
    while length:
        data = await reader.read(min(CHUNK, length))
        if not data:
            raise Cut
        length -= len(data)
        if writer is not None:
            writer.write(data)
            await writer.drain()


async def _read_body(answer: Message, reader: asyncio.StreamReader) -> bytes:
    if (answer.get("transfer-encoding") or "").lower() != "chunked":
        return await reader.readexactly(int(answer.get("content-length") or 0))
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return body
