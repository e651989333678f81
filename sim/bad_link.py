"""A link that can go dark: a TCP proxy on loopback that stops passing bytes without telling either side.

Dark means what a failed radio means: connections stay open and take bytes, new ones are accepted by the network, and
nothing arrives. No reset, no close; both sides have to find out by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib

CHUNK_BYTES = 64 * 1024
CONNECT_DEADLINE_S = 5.0


class BadLink:
    """Forwards 127.0.0.1:port to a controller; `dark()` and `light()` switch it."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._target_port = host, port
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> int:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    def dark(self) -> None:
        """From now on nothing passes."""
        self._passing.clear()

    def light(self) -> None:
        """What waited passes, and what follows."""
        self._passing.set()

    async def stop(self) -> None:
        """Close every connection."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._passing.wait()
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                far_reader, far_writer = await asyncio.open_connection(self._host, self._target_port)
        except (OSError, TimeoutError, asyncio.CancelledError):
            writer.close()
            return
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer)),
            asyncio.create_task(self._pump(far_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            await self._passing.wait()  # a dark link does not even pass on that one side has hung up
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, far_writer):
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                await self._passing.wait()
                writer.write(chunk)
                await writer.drain()
