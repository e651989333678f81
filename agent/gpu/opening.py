"""Opens NVML at the start and deals the GPUs that are there to the pools of the settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.gpu.accounting import Members, declare
from agent.gpu.bindings import load_bindings
from agent.gpu.nvml import NvmlReader
from agent.gpu.outcomes import REMEDY, NvmlOutcome
from agent.gpu.pools import CLOSE_WAIT_S, NvmlPools
from agent.gpu.reading import GpuReading
from agent.gpu.worker import Worker
from agent.settings import GpuPoolSettings, GpuSettings
from gridpivot.clock import Clock, SystemClock
from gridpivot.curves import AiPool


@dataclass(frozen=True, slots=True)
class GpuSide:
    """What was found: pools to govern, how they are declared, and what is missing, a line each."""

    pools: NvmlPools | None
    declared: tuple[AiPool, ...]
    missing: list[str]


def open_pools(settings: GpuSettings, clock: Clock | None = None) -> GpuSide:
    """Open NVML and deal the GPUs to the pools of the settings. Never raises for what the machine lacks.

    Blocks for at most the deadline: for start-up, and for `doctor`.
    """
    clock = clock or SystemClock()
    bindings, said = load_bindings()
    if bindings is None:
        return GpuSide(None, (), [f"no GPUs: {line}" for line in said])
    worker, reader = Worker("nvml"), NvmlReader(bindings)
    started_s = clock.now().monotonic_s
    try:
        scan = worker.submit(reader.scan, {}, started_s).result(settings.deadline_s)
    except TimeoutError:
        worker.close(0.0)
        return GpuSide(None, (), [*said, f"no GPUs: {REMEDY[NvmlOutcome.SLOW]}"])
    except Exception as error:  # NvmlRefused says what to do; anything else must not keep the site from starting
        worker.close(CLOSE_WAIT_S)
        return GpuSide(None, (), [*said, f"no GPUs: {error or repr(error)}"])
    members, lines = deal(settings.pools, scan.readings)
    if not members:
        worker.submit(reader.close)
        worker.close(CLOSE_WAIT_S)
        return GpuSide(None, (), [*said, *lines])
    pools = NvmlPools(worker, reader, members, settings, clock)
    pools.take(scan, started_s)
    return GpuSide(pools, tuple(m.declared for m in members), [*said, *lines])


def deal(wanted: Sequence[GpuPoolSettings], readings: Sequence[GpuReading]) -> tuple[list[Members], list[str]]:
    """GPUs to pools: by UUID where a pool names them, and what no pool names to the first pool that names none."""
    found = {r.uuid: r for r in readings if not r.lost}
    named = {uuid for pool in wanted for uuid in pool.uuids}
    free = [uuid for uuid in found if uuid not in named]
    members: list[Members] = []
    said = [] if found else ["no GPUs: the driver is here, but no GPU answers"]
    for pool in wanted:
        uuids = [uuid for uuid in pool.uuids if uuid in found] if pool.uuids else free
        said += [
            f"pool {pool.name}: GPU {uuid} does not answer, or is in another pool"
            for uuid in pool.uuids
            if uuid not in found
        ]
        if not pool.uuids:
            free = []
        if not uuids:
            said.append(f"pool {pool.name}: no GPU for it, so there is no such pool")
            continue
        mine = [found.pop(uuid) for uuid in uuids if uuid in found]
        said += [
            f"pool {pool.name}: GPU {r.uuid} tells no limits; its power is read, not limited"
            for r in mine
            if r.limit_max_w is None
        ]
        declared = declare(pool.name, pool.priority, mine, pool.host_w_per_gpu)
        members.append(Members(declared, tuple(r.uuid for r in mine), pool.host_w_per_gpu))
    return members, said
