"""The agent's GPU side as a process of its own, governed and renewing until it is killed; over the stand-in NVML.

    python guarded.py SOCKET LIMIT_W FALLBACK_W LEASE_S

Limit and fallback are watts per board; each renewal that the guard took prints a line.
"""

import asyncio
import sys
import time

from agent.gpu.opening import open_pools
from agent.settings import GpuSettings
from gridpivot.clock import Instant

HOST_W = 3200.0


async def main(socket: str, limit_w: float, fallback_w: float, lease_s: float) -> None:
    given = {"pools": [{"name": "inference"}], "beat_s": 0.2, "guard_socket": socket, "guard_lease_s": lease_s}
    side = open_pools(GpuSettings.model_validate(given))
    assert side.pools is not None, side.missing
    work = asyncio.create_task(side.pools.run())
    while not work.done():
        now = Instant(time.monotonic(), time.time())
        side.pools.set_limit(0, HOST_W + 8 * limit_w, now)
        side.pools.hold([HOST_W + 8 * fallback_w], now)
        limits = {r.limit_requested_w for r in side.pools.readings}
        print(side.pools.counters["limits"], sorted(map(str, limits)), flush=True)
        await asyncio.sleep(0.2)
    await work


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(float, sys.argv[2:5])))
