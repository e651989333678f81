"""A process of a bench that answers each line with one line, and what it uses of the machine."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from sim.children import Child

HERE = Path(__file__).parent


class Partner:
    """`role` is a file beside this one; it is told what it is for by one JSON argument."""

    def __init__(self, name: str, place: Path, role: str, asked: dict[str, Any]) -> None:
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.child = Child(name, place / f"{name}.log", self._answers.put_nowait)
        self._command = [sys.executable, str(HERE / role), json.dumps(asked)]

    async def start(self, deadline_s: float = 60.0) -> dict[str, Any]:
        """Until it is up; what it says of itself."""
        await self.child.start(self._command)
        return await self._answer(deadline_s)

    async def ask(self, deadline_s: float = 60.0, **line: Any) -> dict[str, Any]:
        """Tell, and wait for the answer."""
        self.child.tell(**line)
        return await self._answer(deadline_s)

    async def _answer(self, deadline_s: float) -> dict[str, Any]:
        until_s = time.monotonic() + deadline_s
        while self._answers.empty():
            self.child.check()
            if time.monotonic() > until_s:
                raise SystemExit(f"{self.child.name} gave no answer in {deadline_s:.0f} s: {self.child.tail()}")
            await asyncio.sleep(0.02)
        return self._answers.get_nowait()

    def cpu_s(self) -> float:
        """User and system, so far [s]."""
        return cpu_s(self.child)

    def rss_mib(self) -> float:
        """Resident now [MiB]."""
        return process(self.child).memory_info().rss / 2**20


def process(child: Child) -> psutil.Process:
    """A child as the system sees it."""
    assert child.process is not None
    return psutil.Process(child.process.pid)


def cpu_s(child: Child) -> float:
    """User and system CPU of a child, so far [s]."""
    times = process(child).cpu_times()
    return times.user + times.system
