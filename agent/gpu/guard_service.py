"""The GPU guard's process: a Unix socket, the NVML write access, and nothing else. `agent/gpu/guard.py` decides.

One line of JSON in, one out. A request is checked whole, its fallbacks are fsynced, its limits written and read back, and
then answered. Every half second leases that ran out are made good. The driver has a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import structlog

from agent.gpu.bindings import load_bindings
from agent.gpu.guard import (
    MOST_LINE_BYTES,
    GuardAnswer,
    Lease,
    answer,
    check,
    clocks_of,
    due,
    keep_fallbacks,
    load_fallbacks,
    parse,
    renewed,
)
from agent.gpu.nvml import NvmlReader
from agent.gpu.outcomes import LimitOutcome, NvmlRefused
from agent.gpu.reading import GpuReading, Scan
from agent.gpu.worker import Worker
from gridpivot.clock import Clock, SystemClock
from gridpivot.errors import GridpivotError, Refused

log = structlog.get_logger("agent.gpu.guard")
BEAT_S = 0.5
DEADLINE_S = 5.0
MOST_CONNECTIONS = 8
IDLE_S = 300.0


class Guard:
    """Holds leases and enforces them."""

    def __init__(self, worker: Worker, reader: NvmlReader, state_dir: Path, clock: Clock) -> None:
        self._worker, self._reader, self._state_dir, self._clock = worker, reader, state_dir, clock
        self.leases, trouble = load_fallbacks(state_dir)
        if trouble:
            log.error("fallbacks", trouble=trouble)
        self.readings: dict[str, GpuReading] = {}
        self._lapsed: frozenset[str] = frozenset()
        self._turn = asyncio.Lock()
        self._connections = 0

    async def run(self) -> None:
        """Make good what has run out, for ever."""
        while True:
            with contextlib.suppress(GridpivotError, TimeoutError):
                async with self._turn:
                    await self._enforce()
            await asyncio.sleep(BEAT_S)

    async def _enforce(self) -> None:
        await self._scan({})
        now_s = self._clock.now().monotonic_s
        lapsed = frozenset(uuid for uuid, lease in self.leases.items() if lease.ends_s <= now_s)
        if lapsed - self._lapsed:
            log.warning("lease ended: fallbacks hold", gpus=len(lapsed))
        self._lapsed = lapsed
        limits = due({u: self.leases[u] for u in lapsed}, self.readings, now_s)
        if limits:
            attempts = (await self._scan(limits)).attempts
            bad = {u: a.outcome.value for u, a in attempts.items() if a.outcome not in _GOOD}
            log.warning("fallback", gpus=len(limits), refused=bad)

    async def _scan(self, limits: Mapping[str, float], clocks: Mapping[str, int] | None = None) -> Scan:
        """Set and read; raises NvmlRefused and TimeoutError."""
        job = self._worker.submit(self._reader.scan, dict(limits), self._clock.now().monotonic_s, clocks)
        async with asyncio.timeout(DEADLINE_S):
            scan: Scan = await asyncio.wrap_future(job)
        self.readings = {r.uuid: r for r in scan.readings}
        return scan

    async def ask(self, line: bytes) -> GuardAnswer:
        """One request; an error changed nothing."""
        try:
            request = parse(line)
            async with self._turn:
                if not self.readings:
                    await self._scan({})
                check(request, self.readings)
                now_s = self._clock.now().monotonic_s
                after = renewed(self.leases, request, now_s)
                if _fallbacks(after) != _fallbacks(self.leases):
                    await asyncio.to_thread(keep_fallbacks, self._state_dir, after)
                self.leases = after
                live = {uuid: after[uuid] for uuid in request.gpus}
                scan = await self._scan(due(live, self.readings, now_s), clocks_of(request))
                return answer(scan.attempts, scan.locks)
        except (Refused, NvmlRefused) as error:
            return GuardAnswer(error=str(error))
        except TimeoutError:
            return GuardAnswer(error="the NVIDIA driver does not answer: look for Xid in the kernel log")
        except OSError as error:
            return GuardAnswer(error=f"{self._state_dir}: {error.strerror or error}; nothing was changed")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self._connections += 1
        try:
            if self._connections > MOST_CONNECTIONS:
                return
            while True:
                async with asyncio.timeout(IDLE_S):
                    line = await reader.readline()
                if not line.endswith(b"\n"):
                    return
                reply = await self.ask(line)
                if reply.error:
                    log.warning("refused", why=reply.error)
                writer.write(reply.line())
                async with asyncio.timeout(DEADLINE_S):
                    await writer.drain()
        except (TimeoutError, OSError, ValueError):
            return  # idle, gone, or a line past the limit
        finally:
            self._connections -= 1
            writer.close()


_GOOD = (LimitOutcome.OK, LimitOutcome.UNCHANGED, LimitOutcome.CLAMPED)


def _fallbacks(leases: Mapping[str, Lease]) -> dict[str, float]:
    return {uuid: lease.fallback_w for uuid, lease in leases.items()}


async def serve(socket: Path, state_dir: Path) -> None:
    """Run until SIGTERM or SIGINT; then the fallbacks are left to the next start. Raises GridpivotError."""
    bindings, said = load_bindings()
    if bindings is None:
        raise GridpivotError("; ".join(said))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    worker = Worker("nvml")
    guard = Guard(worker, NvmlReader(bindings), state_dir, SystemClock())
    lock = _alone(state_dir, socket)
    before = os.umask(0o117)  # the socket is 0660 from its first moment
    try:
        server = await asyncio.start_unix_server(guard.serve, socket, limit=MOST_LINE_BYTES)
    except OSError as error:
        raise GridpivotError(f"{socket}: {error.strerror or error}; does its directory exist?") from error
    finally:
        os.umask(before)
    beat = asyncio.create_task(guard.run())
    stopping = asyncio.ensure_future(stop.wait())
    log.info("gpu guard up", socket=str(socket), fallbacks=len(guard.leases))
    try:
        done, _ = await asyncio.wait([stopping, beat], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
    finally:
        for task in (stopping, beat):
            task.cancel()
        await asyncio.gather(stopping, beat, return_exceptions=True)
        server.close()
        worker.close(1.0)
        lock.close()


def _alone(state_dir: Path, socket: Path) -> TextIO:
    """One guard per machine: its lock; a socket that a killed one left behind is taken away. Raises GridpivotError."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = (state_dir / "lock").open("a")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        socket.unlink(missing_ok=True)
    except BlockingIOError:
        raise Refused(f"{state_dir}: another GPU guard is running here; stop it first") from None
    except OSError as error:
        raise GridpivotError(f"{error.filename}: {error.strerror}; correct its owner") from None
    return lock
