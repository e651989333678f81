"""GPU pools over NVML: implements `agent.backends.Pools`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.backends import PoolReading
from agent.settings import GpuSettings
from gridpivot.clock import Instant
from gridpivot.curves import AiPool


class NvmlPools:
    """Pools of this host's GPUs. `run()` must be awaited by the service."""

    def read(self, now: Instant) -> Sequence[PoolReading]:
        """Newest reading per pool."""
        return ()

    def set_limit(self, pool: int, limit_w: float, now: Instant) -> None:
        """Ask for enforced limits that allow at most `limit_w` at the wall."""

    async def run(self) -> None:
        """Scan until cancelled."""

    def close(self) -> None:
        """Let go of NVML."""


@dataclass(frozen=True, slots=True)
class GpuSide:
    """What was found: pools to govern, how they are declared, and what is missing, a line each."""

    pools: NvmlPools | None
    declared: tuple[AiPool, ...]
    missing: list[str]


def open_pools(settings: GpuSettings) -> GpuSide:
    """Open NVML and deal the GPUs to the pools of the settings. Never raises for what the machine lacks."""
    return GpuSide(None, (), ["GPUs through NVML are not built yet"])
