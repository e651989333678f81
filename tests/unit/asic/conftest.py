"""What the ASIC tests share: waiting for a condition, servers that misbehave, recorded replies."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

Until = Callable[..., Awaitable[None]]
Serve = Callable[[Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]], Awaitable[int]]


@pytest.fixture
def until() -> Until:
    """Wait until a condition holds; fails at the deadline."""

    async def wait(condition: Callable[[], bool], deadline_s: float = 15.0) -> None:
        async with asyncio.timeout(deadline_s):
            while not condition():
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a TCP server from one connection handler; returns its port."""
    servers: list[asyncio.Server] = []

    async def start(handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> int:
        async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handler(reader, writer)
            except ConnectionError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(closing, "127.0.0.1", 0)
        servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def recorded() -> Callable[[str], bytes]:
    """Bytes of a recorded reply by its path under data/asic_replies; skips where the recordings are absent."""
    root = Path(os.environ.get("GRIDPIVOT_SHARED", Path(__file__).parents[3].parent / "shared"))
    replies = root / "data" / "asic_replies"
    if not replies.is_dir():
        told = f"recorded miner replies are missing (no {replies.name} under GRIDPIVOT_SHARED)"
        if os.environ.get("CI") == "true":
            pytest.fail(told)
        pytest.skip(told)
    return lambda path: (replies / path).read_bytes()
