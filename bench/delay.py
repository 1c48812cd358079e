"""A line to a server that is far away: ``python -m bench.delay PORT BACKEND MILLISECONDS``.

What comes to PORT of 127.0.0.1 goes to BACKEND, another port there, and back. The round trip takes so many
milliseconds more, and so does the opening of a connection, as it does in TCP. The line is as wide as the machine lets
it be.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque

#: Bytes on their way in one direction of one connection, at most: more than fits into 50 ms.
_IN_FLIGHT = 32 << 20
_CHUNK = 1 << 18


class Line:
    """One direction of one connection."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry everything up to the end, which is passed on too."""
        filling = asyncio.create_task(self._fill(reader))
        try:
            await self._empty(writer)
        finally:
            filling.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await filling

    async def _fill(self, reader: asyncio.StreamReader) -> None:
        loop = asyncio.get_running_loop()
        data = b"-"
        while data:
            while self._bytes > _IN_FLIGHT:
                await self._change()
            try:
                data = await reader.read(_CHUNK)
            except OSError:
                data = b""
            self._chunks.append((loop.time() + self._delay, data))
            self._bytes += len(data)
            self._changed.set()

    async def _empty(self, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._chunks:
                await self._change()
            due, data = self._chunks[0]
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            self._chunks.popleft()
            self._bytes -= len(data)
            self._changed.set()
            if not data:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, backend: int, delay: float) -> None:
    """Serve one connection."""
    await asyncio.sleep(delay)
    far_writer = None
    try:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", backend, limit=_CHUNK)
        there, back = Line(delay / 2), Line(delay / 2)
        await asyncio.gather(there.run(reader, far_writer), back.run(far_reader, writer))
    except OSError:
        pass
    finally:
        for each in (writer, far_writer):
            if each is not None:
                each.close()


async def serve(port: int, backend: int, delay: float) -> None:
    """Carry until a signal ends the process. ``delay`` is in seconds."""
    server = await asyncio.start_server(
        lambda reader, writer: carry(reader, writer, backend, delay), "127.0.0.1", port, limit=_CHUNK
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000))
