"""Miners that no family here speaks to, through pyasic-rs: identified over the network, then asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.asic.family import LibraryRequest, Login
from gridpivot.errors import DeviceUnreachable
from gridpivot.vocabulary import Reason


async def library_answer(
    host: str, request: LibraryRequest, login: Login | None, deadline_s: float
) -> Mapping[str, Any]:
    """Reply of the library as a plain mapping; raises DeviceUnreachable."""
    raise DeviceUnreachable(Reason.UNSUPPORTED, f"{host}: {request.action} is not wired up")
