"""One Slurm partition as a `Workload`: reading runs beside everything, what changes something runs one after another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from agent.ai.slurm.calls import Commands
from agent.ai.slurm.checkpoint import Checkpoints
from agent.ai.slurm.holds import Holds
from agent.ai.slurm.reading import look
from agent.ai.slurm.requeue import Requeues
from agent.ai.slurm.settings import SlurmSettings
from agent.ai.slurm.view import Cluster, pool_work
from agent.ai.work import PoolWork
from agent.ai.workload import Order, Step


class SlurmPool:
    """A pool under Slurm. Give it to levers as their Workload; `close` it when the agent stops (nothing is given back)."""

    def __init__(self, settings: SlurmSettings, unix_clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._unix_clock = unix_clock
        self._commands = Commands(settings)
        self._holds = Holds(settings, self._commands, self._look)
        self._requeues = Requeues(settings, self._commands, self._look)
        self._checkpoints = Checkpoints(settings, self._commands, self._look)
        self._acting = asyncio.Lock()

    async def observe(self, now_s: float) -> PoolWork:
        """Nodes, jobs of every partition on them, and the queue; four commands beside each other."""
        return pool_work(await self._look(), self._settings, now_s)

    async def hold(self, nodes: Sequence[str], order: Order) -> tuple[Step, ...]:
        """Reserve until the order's end, then drain (setting `drain`), read both back."""
        async with self._acting:
            return await self._holds.hold(nodes, order)

    async def checkpoint(self, jobs: Sequence[str], order: Order) -> tuple[Step, ...]:
        """Signal and wait for evidence. Others of the pool's acts may run meanwhile."""
        return await self._checkpoints.checkpoint(jobs, order)

    async def requeue(self, jobs: Sequence[str], order: Order) -> tuple[Step, ...]:
        """Take jobs off, defer them to the order's end. Guaranteed ones are refused here, whatever is asked."""
        async with self._acting:
            return await self._requeues.requeue(jobs, order)

    async def close_admission(self, order: Order) -> tuple[Step, ...]:
        """Reserve the partition's nodes until the order's end, but none that guaranteed work may use."""
        async with self._acting:
            return await self._holds.close(order)

    async def release(self, order_id: str | None) -> tuple[Step, ...]:
        """Nodes, admission and jobs of an order back; None = all that carries this pool's mark, whose order is known or not."""
        async with self._acting:
            cluster = await self._look()
            return (
                *await self._holds.release(cluster, order_id),
                *await self._requeues.release(cluster, order_id),
            )

    async def close(self) -> None:
        """Let go of the thread that looks at files."""
        self._checkpoints.close()

    async def _look(self) -> Cluster:
        return await look(self._commands, self._settings.partition, self._unix_clock)
