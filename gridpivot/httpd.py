"""A small HTTP/1.1 server for /metrics, /healthz and /readyz on the process's own event loop.

GET and HEAD only, one request per connection, bounded in size, in time and in number of clients: a scraper that
stalls costs one slot for a few seconds and nothing else. A route is an async callable; a body may be an iterator of
chunks, so that a large exposition never stands in memory whole and gives the loop room between chunks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus

Body = bytes | AsyncIterator[bytes]
Reply = tuple[int, str, Body]  # status, content type, body
Route = Callable[[], Awaitable[Reply]]

TEXT = "text/plain; charset=utf-8"
REQUEST_BYTES_MAX = 16_384

log = logging.getLogger(__name__)


class HttpServer:
    """Serves `routes` (path -> async callable) on host:port; port 0 lets the system choose.

    `request_s` bounds reading a request, `reply_s` each write to a slow reader, `clients_max` concurrent connections.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        request_s: float = 5.0,
        reply_s: float = 20.0,
        clients_max: int = 32,
    ) -> None:
        self._routes = dict(routes)
        self._host, self._port = host, port
        self._request_s, self._reply_s, self._clients_max = request_s, reply_s, clients_max
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen; returns the port. Raises OSError when the address is taken."""
        self._server = await asyncio.start_server(self._accept, self._host, self._port, limit=REQUEST_BYTES_MAX)
        self._port = int(self._server.sockets[0].getsockname()[1])
        return self._port

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        if self._server is None:
            return
        self._server.close()
        for task in tuple(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) > self._clients_max:
                # Closing over unread bytes resets the connection and the client would never see why.
                async with asyncio.timeout(1.0):
                    await reader.read(REQUEST_BYTES_MAX)
                await self._send(writer, (HTTPStatus.SERVICE_UNAVAILABLE, TEXT, b"too many clients\n"), head=False)
            else:
                await self._converse(reader, writer)
        except (TimeoutError, ConnectionError):
            pass  # the client stalled or left; there is nobody to tell
        except asyncio.CancelledError:
            pass  # stop() ends connections; asyncio's stream callback would log the cancellation as an error
        finally:
            self._clients.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._request_s):
                raw = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            await self._send(writer, (HTTPStatus.REQUEST_TIMEOUT, TEXT, b"request took too long\n"), head=False)
            return
        except asyncio.IncompleteReadError:
            return
        except asyncio.LimitOverrunError:
            too_large = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TEXT, b"request too large\n")
            await self._send(writer, too_large, head=False)
            return
        words = raw.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            await self._send(writer, (HTTPStatus.BAD_REQUEST, TEXT, b"not an HTTP/1 request\n"), head=False)
            return
        method, target, version = words
        if method not in ("GET", "HEAD"):
            await self._send(writer, (HTTPStatus.METHOD_NOT_ALLOWED, TEXT, b"GET or HEAD only\n"), head=False)
            return
        reply = await self._answer(target.split("?", 1)[0])
        await self._send(writer, reply, head=method == "HEAD", chunked=version != "HTTP/1.0")

    async def _answer(self, path: str) -> Reply:
        route = self._routes.get(path)
        if route is None:
            known = ", ".join(sorted(self._routes))
            return HTTPStatus.NOT_FOUND, TEXT, f"not here; try {known}\n".encode()
        try:
            return await route()
        except Exception:  # a broken route must not take the server down
            log.exception("http route failed: %s", path)
            return HTTPStatus.INTERNAL_SERVER_ERROR, TEXT, b"failed; see the log\n"

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply, *, head: bool, chunked: bool = True) -> None:
        status, content_type, body = reply
        lines = [f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}", f"Content-Type: {content_type}"]
        if isinstance(body, bytes):
            lines.append(f"Content-Length: {len(body)}")
        elif chunked:
            lines.append("Transfer-Encoding: chunked")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            lines.append("Allow: GET, HEAD")
        lines += ["Cache-Control: no-store", "Connection: close", "", ""]
        writer.write("\r\n".join(lines).encode("latin-1"))
        if not head:
            if isinstance(body, bytes):
                writer.write(body)
            else:
                async for chunk in body:
                    # An empty chunk would end the body early.
                    if chunk:
                        writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                        await self._drain(writer)
                if chunked:
                    writer.write(b"0\r\n\r\n")
        await self._drain(writer)

    async def _drain(self, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(self._reply_s):
            await writer.drain()


def answer(text: str, status: int = HTTPStatus.OK) -> Route:
    """A route that always gives the same plain text."""

    async def route() -> Reply:
        return status, TEXT, (text + "\n").encode()

    return route
