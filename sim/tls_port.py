"""HTTPS port of a stand-in (an API server, a BMC): connections stay open between requests, as clients expect; silence is possible."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Protocol

from sim.miners.web import WebAnswer, WebRequest

MOST_BYTES = 2**20


class Answers(Protocol):
    """What stands behind the port."""

    def web(self, request: WebRequest) -> WebAnswer | None:
        """Answer one request; None = silence."""
        ...


class TlsPort:
    """A server on loopback, from `open` to `close`."""

    def __init__(self, server: Answers) -> None:
        self.server = server
        self.port = 0
        self._listening: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self, tls: ssl.SSLContext, port: int = 0) -> None:
        """Listen; the system chooses a port where none is given."""
        self._listening = await asyncio.start_server(self._talk, "127.0.0.1", port, ssl=tls)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End every conversation."""
        if self._listening is not None:
            self._listening.close()
        writers = list(self._writers)
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
                while (request := await _request(reader)) is not None:
                    answer = self.server.web(request)
                    if answer is None:
                        await reader.read()  # until the client gives up
                        return
                    lines = [f"HTTP/1.1 {answer.status} Status", *(f"{k}: {v}" for k, v in answer.headers)]
                    lines += [f"Content-Length: {len(answer.body)}", "", ""]
                    writer.write("\r\n".join(lines).encode("latin-1") + answer.body)
                    await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.close()


async def _request(reader: asyncio.StreamReader) -> WebRequest | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        return None
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    words = first.split(" ")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    if len(words) != 3 or length > MOST_BYTES:
        return None
    return WebRequest(words[0], words[1], headers, await reader.readexactly(length))
