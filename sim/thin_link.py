"""A thin link: a TCP proxy on loopback that passes bytes as a satellite or mobile link would.

Each direction has a rate, a delay and a share of segments that are lost; TCP makes good what is lost a round trip
later and everything behind it waits. What a modem buffers is bounded, so that the sender feels the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections import deque
from dataclasses import dataclass

SEGMENT_BYTES = 1_400
MODEM_BUFFER_BYTES = 64 * 1024
CONNECT_DEADLINE_S = 5.0


@dataclass(frozen=True, slots=True)
class Shape:
    """Of one direction: rate [bytes/s], one-way delay [s], share of segments lost."""

    bytes_per_s: float
    delay_s: float
    loss_ratio: float = 0.0


# 64 kbit/s, 800 ms round trip, 5 % loss
VSAT = Shape(8_000.0, 0.4, 0.05)


class ThinLink:
    """Forwards 127.0.0.1:port to a controller under a shape."""

    def __init__(self, host: str, port: int, shape: Shape, seed: int = 1) -> None:
        self._host, self._target_port, self.shape = host, port, shape
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.passed_bytes = [0, 0]  # towards the controller, towards the site

    async def start(self) -> int:
        """Listen on a free port."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)  # accepted sockets inherit it
        listener.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=16 * 1024)
        self.port = listener.getsockname()[1]
        return self.port

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
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                far_reader, far_writer = await asyncio.open_connection(self._host, self._target_port)
        except (OSError, TimeoutError):
            writer.close()
            return
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, 0)),
            asyncio.create_task(self._pump(far_reader, writer, 1)),
        ]
        try:
            with contextlib.suppress(
                asyncio.CancelledError
            ):  # only `stop` cancels, and the streams' machinery would complain
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, far_writer):
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: int) -> None:
        loop, shape = asyncio.get_running_loop(), self.shape
        waiting: deque[tuple[float, bytes]] = deque()
        arrived = asyncio.Event()
        buffered = 0
        free_s = due_s = loop.time()

        async def deliver() -> None:
            nonlocal buffered
            while True:
                if not waiting:
                    arrived.clear()
                    await arrived.wait()
                at_s, chunk = waiting[0]
                await asyncio.sleep(max(0.0, at_s - loop.time()))
                waiting.popleft()
                buffered -= len(chunk)
                self.passed_bytes[direction] += len(chunk)
                writer.write(chunk)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        try:
            with contextlib.suppress(OSError):
                while chunk := await reader.read(SEGMENT_BYTES):
                    free_s = max(loop.time(), free_s) + len(chunk) / shape.bytes_per_s
                    lost = self._random.random() < shape.loss_ratio
                    due_s = max(due_s, free_s + shape.delay_s + (2.0 * shape.delay_s if lost else 0.0))
                    waiting.append((due_s, chunk))
                    buffered += len(chunk)
                    arrived.set()
                    if buffered > MODEM_BUFFER_BYTES:  # no more is read until the modem has room
                        await asyncio.sleep((buffered - MODEM_BUFFER_BYTES) / shape.bytes_per_s)
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)
