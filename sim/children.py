"""Child processes of the demo: started tethered, spoken to in JSON lines, ended by process id, never forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gridpivot.errors import GridpivotError

Line = dict[str, Any]


class Child:
    """One child process. Its log goes to a file; JSON lines on its standard output go to `on_line`."""

    def __init__(self, name: str, log: Path, on_line: Callable[[Line], None] | None = None) -> None:
        self.name, self.log = name, log
        self._on_line = on_line
        self.process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self, command: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        """Start it so that it dies with this process."""
        tethered = [sys.executable, "-m", "sim.tether", str(os.getpid()), *command]
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *tethered,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE if self._on_line is not None else log,
                stderr=log,
                env={**os.environ, **(environ or {})},
                start_new_session=True,  # Ctrl-C is for the parent; it ends the children in order
                limit=4 * 2**20,
            )
        if self._on_line is not None:
            self._reader = asyncio.create_task(self._read(), name=f"hear {self.name}")

    async def _read(self) -> None:
        assert self.process is not None and self.process.stdout is not None and self._on_line is not None
        while line := await self.process.stdout.readline():
            with contextlib.suppress(json.JSONDecodeError):
                self._on_line(json.loads(line))

    def tell(self, **message: Any) -> None:
        """One JSON line to its standard input."""
        if self.process is not None and self.process.stdin is not None and self.process.returncode is None:
            self.process.stdin.write((json.dumps(message) + "\n").encode())

    def check(self) -> None:
        """Raise GridpivotError with the end of its log when it has ended."""
        if self.process is not None and self.process.returncode is not None:
            raise GridpivotError(f"{self.name} ended with code {self.process.returncode}: {self.tail()}")

    def tail(self) -> str:
        """Last line of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1][:500] if lines else f"no output; see {self.log}"

    async def stop(self, grace_s: float = 8.0) -> None:
        """SIGTERM, then SIGKILL after `grace_s`; by process id."""
        process = self.process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(grace_s):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)


async def wait_for_log(child: Child, event: str, deadline_s: float) -> Line:
    """First JSON log line of a child whose `event` is this; raises GridpivotError when it ends or says nothing."""
    offset = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(deadline_s):
            while True:
                child.check()
                text = child.log.read_text(encoding="utf-8", errors="replace") if child.log.exists() else ""
                complete = text.rfind("\n") + 1
                for raw in text[offset:complete].splitlines():
                    with contextlib.suppress(json.JSONDecodeError):
                        line = json.loads(raw)
                        if isinstance(line, dict) and line.get("event") == event:
                            return line
                offset = complete
                await asyncio.sleep(0.1)
    raise GridpivotError(f"{child.name} did not come up within {deadline_s:.0f} s: {child.tail()}")
