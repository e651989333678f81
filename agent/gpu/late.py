"""GPUs that come after the start: a driver that loads later than the agent, a board that is put in. Pools are laid out anew then."""

from __future__ import annotations

import asyncio

from agent.gpu.opening import deal, open_pools
from agent.gpu.pools import NvmlPools
from agent.settings import GpuSettings
from gridpivot.clock import Clock

LOOK_S = 10.0


async def more_gpus(settings: GpuSettings, pools: NvmlPools | None, clock: Clock, look_s: float = LOOK_S) -> str:
    """Waits until GPUs answer that no pool has; says which. Without `pools` there was none at the start.

    A lost GPU that comes back is none of these: its pool has charged it all along.
    """
    while True:
        await asyncio.sleep(look_s)
        if pools is None:
            side = await asyncio.to_thread(open_pools, settings, clock)
            if side.pools is not None:
                await asyncio.to_thread(side.pools.close)
                return "GPUs answer that did not at the start"
            continue
        had = {uuid for members in pools.members for uuid in members.uuids}
        dealt, _ = deal(settings.pools, pools.readings)
        fresh = [uuid for members in dealt for uuid in members.uuids if uuid not in had]
        if fresh:
            return f"GPU {fresh[0]} came" + (f", and {len(fresh) - 1} more" if len(fresh) > 1 else "")
