"""One command of a workload manager: no shell, its own deadline, bounded output, ended for certain, also when we are cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.ai.workload import WorkloadRefused
from gridpivot.vocabulary import LeverOutcome

MOST_BYTES = 4 * 2**20
MOST_ERROR_BYTES = 4096
END_S = 1.0  # for pipes to close once everything that held them was killed


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. An exit code is not evidence of anything."""

    code: int
    output: bytes
    error: str


async def run_command(
    command: Sequence[str],
    deadline_s: float,
    environ: Mapping[str, str] | None = None,
    most_bytes: int = MOST_BYTES,
) -> Ended:
    """Run it to its end. Raises WorkloadRefused: `slow` at the deadline, `unsupported` when it is not there,
    `no_permission` when it may not run, `failed` for output beyond bounds.

    `environ` None is ours with LC_ALL=C and TZ=UTC.
    """
    process = await _start(command, os.environ | {"LC_ALL": "C", "TZ": "UTC"} if environ is None else environ)
    assert process.stdout is not None and process.stderr is not None
    try:
        async with asyncio.timeout(deadline_s):
            output, said, code = await asyncio.gather(
                _bounded(process, process.stdout, most_bytes), _some(process.stderr), process.wait()
            )
    except TimeoutError:
        _kill(process)  # also when it has ended and a child of it keeps the pipe open
        raise WorkloadRefused(LeverOutcome.SLOW, f"{command[0]}: no answer within {deadline_s:g} s") from None
    finally:
        await _end(process)
    if output is None:
        raise WorkloadRefused(LeverOutcome.FAILED, f"{command[0]}: more than {most_bytes // 2**20} MiB of output")
    return Ended(code, output, said)


async def _start(command: Sequence[str], environ: Mapping[str, str]) -> asyncio.subprocess.Process:
    """In a session of its own, so that what it starts can be ended with it."""
    spawned = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(spawned)
    except asyncio.CancelledError:  # it may have been born already
        with contextlib.suppress(OSError, ValueError):
            await _end(await spawned)
        raise
    except FileNotFoundError:
        said = f"{command[0]}: not found; install it or correct the path"
        raise WorkloadRefused(LeverOutcome.UNSUPPORTED, said) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise WorkloadRefused(LeverOutcome.NO_PERMISSION, f"{command[0]}: {why}") from None


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a command that still runs, with its session; a pipe that is still full keeps it from counting as ended."""
    if process.returncode is not None:
        return
    _kill(process)
    assert process.stdout is not None and process.stderr is not None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            await asyncio.gather(_some(process.stdout), _some(process.stderr), process.wait())


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


async def _bounded(process: asyncio.subprocess.Process, stream: asyncio.StreamReader, most: int) -> bytes | None:
    """All of it; None when it was too much, and then the process is ended."""
    parts: list[bytes] = []
    size = 0
    while part := await stream.read(65_536):
        size += len(part)
        if size > most:
            _kill(process)
            parts.clear()
        else:
            parts.append(part)
    return None if size > most else b"".join(parts)


async def _some(stream: asyncio.StreamReader) -> str:
    """The beginning of what it says; the rest is read and dropped, so that it does not hang on a full pipe."""
    kept = b""
    while part := await stream.read(65_536):
        kept = (kept + part)[:MOST_ERROR_BYTES]
    return kept.decode("utf-8", "replace").strip()
