"""`gridpivot-agent gpu-guard`: the small privileged process that limits GPUs and outlives the agent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_SOCKET = Path("/run/gridpivot-gpu-guard/guard.sock")
DEFAULT_STATE = Path("/var/lib/gridpivot/gpu-guard")


def gpu_guard(
    socket: Annotated[Path, typer.Option(help="Where the agent finds it (gpu.guard_socket).")] = DEFAULT_SOCKET,
    state_dir: Annotated[Path, typer.Option(help="Directory of its one file, the fallbacks.")] = DEFAULT_STATE,
) -> None:
    """Set GPU power limits for the agent, and fall back to the plan's own when the agent is gone. Needs CAP_SYS_ADMIN."""
    from agent.gpu.guard_service import serve
    from gridpivot.observability import configure

    configure("json", "info")
    asyncio.run(serve(socket, state_dir))
