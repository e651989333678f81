"""One command of a workload manager: no shell, its own deadline, bounded output, ended for certain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from agent.ai.workload import WorkloadRefused
from gridpivot.vocabulary import LeverOutcome

MOST_BYTES = 4 * 2**20
MOST_ERROR_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. An exit code is not evidence of anything."""

    code: int
    output: bytes
    error: str


async def run_command(command: Sequence[str], deadline_s: float) -> Ended:
    """Run it to its end. Raises WorkloadRefused: `slow` at the deadline, `unsupported` when it is not there,
    `no_permission` when it may not run, `failed` for output beyond bounds."""
    environ = os.environ | {"LC_ALL": "C", "TZ": "UTC"}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise WorkloadRefused(
            LeverOutcome.UNSUPPORTED, f"{command[0]}: not found; install it or correct the path"
        ) from None
    except OSError as error:
        raise WorkloadRefused(LeverOutcome.NO_PERMISSION, f"{command[0]}: {error.strerror}") from None
    assert process.stdout is not None and process.stderr is not None
    try:
        async with asyncio.timeout(deadline_s):
            output, said, code = await asyncio.gather(
                _bounded(process, process.stdout), _some(process.stderr), process.wait()
            )
    except TimeoutError:
        raise WorkloadRefused(LeverOutcome.SLOW, f"{command[0]}: no end within {deadline_s:g} s") from None
    finally:
        if process.returncode is None:
            _kill(process)
            # A pipe that is still full keeps the process from counting as ended.
            await asyncio.gather(_some(process.stdout), _some(process.stderr), process.wait())
    if output is None:
        raise WorkloadRefused(LeverOutcome.FAILED, f"{command[0]}: more than {MOST_BYTES // 2**20} MiB of output")
    return Ended(code, output, said)


def _kill(process: asyncio.subprocess.Process) -> None:
    """Its own session: what it started goes with it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


async def _bounded(process: asyncio.subprocess.Process, stream: asyncio.StreamReader) -> bytes | None:
    """All of it; None when it was too much, and then the process is ended."""
    parts: list[bytes] = []
    size = 0
    while part := await stream.read(65_536):
        size += len(part)
        if size > MOST_BYTES:
            _kill(process)
            parts.clear()
        else:
            parts.append(part)
    return None if size > MOST_BYTES else b"".join(parts)


async def _some(stream: asyncio.StreamReader) -> str:
    """The beginning of what it says; the rest is read and dropped, so that it does not hang on a full pipe."""
    kept = b""
    while part := await stream.read(65_536):
        kept = (kept + part)[:MOST_ERROR_BYTES]
    return kept.decode("utf-8", "replace").strip()
