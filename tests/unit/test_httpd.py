"""The HTTP endpoint answers scrapers and shrugs off everything else. Real sockets on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from gridpivot.httpd import HttpServer, Reply, answer

pytestmark = pytest.mark.unit


async def metrics() -> Reply:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"a 1\n"
        yield b""
        yield b"b 2\n"

    return 200, "text/plain; version=0.0.4", chunks()


async def broken() -> Reply:
    raise RuntimeError("no")


@asynccontextmanager
async def serving(**options: float) -> AsyncIterator[int]:
    server = HttpServer({"/healthz": answer("ok"), "/metrics": metrics, "/broken": broken}, **options)
    port = await server.start()
    try:
        yield port
    finally:
        await server.stop()


async def talk(port: int, raw: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    async with asyncio.timeout(10):
        reply = await reader.read()
    writer.close()
    return reply


async def test_plain_route_answers_with_its_length() -> None:
    async with serving() as port:
        reply = await talk(port, b"GET /healthz?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 3\r\n" in reply
    assert reply.endswith(b"\r\n\r\nok\n")


async def test_iterated_body_is_chunked_and_complete() -> None:
    async with serving() as port:
        reply = await talk(port, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert reply.endswith(b"\r\n\r\n4\r\na 1\n\r\n4\r\nb 2\n\r\n0\r\n\r\n")


async def test_http_1_0_client_gets_no_chunk_marks() -> None:
    async with serving() as port:
        assert (await talk(port, b"GET /metrics HTTP/1.0\r\n\r\n")).endswith(b"\r\n\r\na 1\nb 2\n")


async def test_head_sends_no_body() -> None:
    async with serving() as port:
        assert (await talk(port, b"HEAD /healthz HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /nowhere HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"hello there\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000, b"431"),
        (b"GET /broken HTTP/1.1\r\n\r\n", b"500"),
    ],
)
async def test_bad_request_gets_its_own_status(raw: bytes, status: bytes) -> None:
    async with serving() as port:
        assert (await talk(port, raw)).split(b" ")[1] == status


async def test_slow_request_is_cut_off_at_the_deadline() -> None:
    async with serving(request_s=0.05) as port:
        assert b" 408 " in await talk(port, b"GET /metr")


async def test_clients_over_the_bound_are_turned_away_and_the_rest_still_served() -> None:
    async with serving(clients_max=1) as port:
        _, holder = await asyncio.open_connection("127.0.0.1", port)
        holder.write(b"GET /")
        await holder.drain()
        assert b" 503 " in await talk(port, b"GET /healthz HTTP/1.1\r\n\r\n")
        holder.close()


async def test_stop_ends_open_connections() -> None:
    server = HttpServer({"/healthz": answer("ok")})
    port = await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /")
    await writer.drain()
    async with asyncio.timeout(5):
        await server.stop()
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()
