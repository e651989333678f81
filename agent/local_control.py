"""The site's own control: a Unix socket beside the state, for whoever its file permissions let in.

One JSON line in, one out, bounded in size and time; who asks is told by the kernel (SO_PEERCRED), not by the caller. What
the requests mean is not decided here: `handlers` do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from gridpivot.errors import GridpivotError, Refused, Unreachable

SOCKET = "control.sock"
MODE = 0o660  # owner and group; the group decides who may shed by hand
MOST_BYTES = 64 * 1024
DEADLINE_S = 10.0
MOST_CALLERS = 16
log = structlog.get_logger("agent.control")


@dataclass(frozen=True, slots=True)
class Asker:
    """Who is at the other end of the socket."""

    uid: int
    name: str


Handler = Callable[[Mapping[str, Any], Asker], Awaitable[dict[str, Any]]]


class LocalControl:
    """Listens on `state_dir/control.sock`."""

    def __init__(self, state_dir: Path, handlers: Mapping[str, Handler]) -> None:
        self.path = state_dir / SOCKET
        self._handlers = handlers
        self._callers = 0

    async def run(self) -> None:
        """Serve until cancelled; a socket that cannot be made is said, and the agent goes on without it."""
        try:
            self.path.unlink(missing_ok=True)
            server = await asyncio.start_unix_server(self._serve, path=self.path, limit=MOST_BYTES)
            self.path.chmod(MODE)
        except OSError as error:
            log.error("no local control", path=str(self.path), why=str(error))
            return
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._callers += 1
        try:
            async with asyncio.timeout(DEADLINE_S):
                answer = await self._answer(reader, asker_of(writer.get_extra_info("socket")))
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, OSError, ValueError):
            pass  # whoever hangs up, or sends no line, gets no answer
        finally:
            self._callers -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, asker: Asker) -> dict[str, Any]:
        if self._callers > MOST_CALLERS:
            return {"error": "too many are asking; try again"}
        line = await reader.readline()
        try:
            request = json.loads(line)
        except ValueError:
            return {"error": "one line of JSON is wanted"}
        handler = self._handlers.get(str(request.get("op"))) if isinstance(request, dict) else None
        if handler is None:
            return {"error": f"unknown request; known: {', '.join(sorted(self._handlers))}"}
        try:
            return await handler(request, asker)
        except GridpivotError as error:
            return {"error": str(error)}
        except Exception as error:  # a defect here must not end the governor beside it
            log.exception("local request failed", op=request.get("op"))
            return {"error": f"{type(error).__name__}: {error}"}


def asker_of(connection: socket.socket) -> Asker:
    """The peer's user, from the kernel."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid = struct.unpack("3i", raw)[1]
    with contextlib.suppress(KeyError):
        return Asker(uid, pwd.getpwuid(uid).pw_name)
    return Asker(uid, f"uid-{uid}")


def ask(state_dir: Path, request: Mapping[str, Any], deadline_s: float = DEADLINE_S) -> dict[str, Any]:
    """One request from a command line; raises Unreachable or Refused."""
    path = state_dir / SOCKET
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(deadline_s)
            connection.connect(str(path))
            connection.sendall(json.dumps(dict(request)).encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n") and (part := connection.recv(MOST_BYTES)):
                answer += part
        found = json.loads(answer)
    except PermissionError as error:
        raise Refused(f"{path}: your user may not order here; join the group of the file, or use sudo") from error
    except FileNotFoundError as error:
        raise Unreachable(f"{path}: no agent is running here; start it, or give its --state-dir") from error
    except (OSError, ValueError) as error:
        raise Unreachable(f"{path}: the agent does not answer: {error}") from error
    if not isinstance(found, dict) or "error" in found:
        raise Refused(str(found.get("error")) if isinstance(found, dict) else "the agent's answer makes no sense")
    return found
