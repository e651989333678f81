"""JSON lines between the demo and its children: what a child says, hears, and uses of the machine."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def say(kind: str, **figures: Any) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps({"kind": kind, **figures}) + "\n")
    sys.stdout.flush()


async def hear(on_line: Callable[[dict[str, Any]], None]) -> None:
    """Lines from the parent until it closes or dies."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        with suppress(json.JSONDecodeError):
            on_line(json.loads(line))


def own_use() -> dict[str, float]:
    """Memory and CPU of this process."""
    import psutil

    process = psutil.Process()
    times = process.cpu_times()
    return {"rss_mb": process.memory_info().rss / 2**20, "cpu_s": times.user + times.system}
