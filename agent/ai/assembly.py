"""Pools of the settings with their levers and workload managers, as the desk wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from agent.ai.commands import CommandWorkload
from agent.ai.curve import HeldFactor
from agent.ai.kubernetes.pool import KubernetesPool
from agent.ai.learner import Learner
from agent.ai.lever import Lever
from agent.ai.levers.clocks import ClockLock
from agent.ai.levers.hold import Admission, ParkIdle
from agent.ai.levers.limit import PowerLimit
from agent.ai.levers.requeue import Requeue
from agent.ai.runner import AiDesk, PoolSide
from agent.ai.slurm.pool import SlurmPool
from agent.ai.throughput import Throughput
from agent.ai.workload import Workload
from agent.backends import ClockLocks, Pools
from agent.settings import GpuPoolSettings
from gridpivot.clock import Clock
from gridpivot.curves import AiPool
from gridpivot.vocabulary import LeverName

METER_S = 10.0  # the pool's power shows that a job is gone after this


def make_desk(
    settings: Sequence[GpuPoolSettings],
    declared: Sequence[AiPool],
    pools: Pools,
    state_dir: Path,
    clock: Clock,
    acts: bool,
) -> AiDesk:
    """A desk over the pools that exist here; `pools` reads them in the order of `declared`."""
    by_name = {pool.name: pool for pool in settings}

    def limit_w(index: int) -> float:
        return pools.read(clock.now())[index].limit_w

    sides = [_side(pool, by_name[pool.name], partial(limit_w, n), clock) for n, pool in enumerate(declared)]
    for index, (side, pool) in enumerate(zip(sides, declared, strict=True)):
        mhz, own = by_name[pool.name].decode_clock_mhz, by_name[pool.name]
        if mhz is not None and isinstance(pools, ClockLocks):
            lock = partial(_lock, pools, index, clock)
            host_w = own.host_w_per_gpu * pool.gpu_count
            side.clocks = ClockLock(pool.name, mhz, lock, partial(pools.clocks, index), host_w)
            side.levers = {**side.levers, LeverName.CLOCK_LOCK: side.clocks}
    return AiDesk(sides, state_dir, clock, acts)


def _lock(pools: ClockLocks, index: int, clock: Clock, mhz: int | None) -> None:
    pools.lock_clocks(index, mhz, clock.now())


def _side(pool: AiPool, own: GpuPoolSettings, limit_w: Callable[[], float], clock: Clock) -> PoolSide:
    workload, ends_s = workload_of(own, clock)
    levers: dict[LeverName, Lever] = {}
    side = PoolSide(pool.name, pool.priority, levers, workload, defer_s=3600.0 * own.defer_h)

    def cap(cap_w: float | None) -> None:
        side.cap_w = cap_w

    host_w = own.host_w_per_gpu * pool.gpu_count
    if own.dcgm is None:  # nothing can be limited through an exporter
        levers[LeverName.POWER_LIMIT] = PowerLimit(pool.name, cap, limit_w, HeldFactor(), host_w)
    if own.throughput is not None:
        side.learner = Learner(pool, host_w, Throughput(own.throughput), clock)
    if workload is not None:
        levers[LeverName.PARK_IDLE] = ParkIdle(workload, clock)
        levers[LeverName.ADMISSION] = Admission(workload, clock)
        levers[LeverName.REQUEUE] = Requeue(workload, clock, ends_s + METER_S)
    return side


def workload_of(own: GpuPoolSettings, clock: Clock) -> tuple[Workload | None, float]:
    """The pool's workload manager, and within how many seconds it ends a job [s]."""
    if own.slurm is not None:
        saving_s = own.slurm.checkpoint_wait_s if own.slurm.checkpoint_evidence is not None else 0.0
        return SlurmPool(own.slurm), own.slurm.requeue_wait_s + saving_s
    if own.kubernetes is not None:
        saving_s = own.kubernetes.checkpoint_wait_s if own.kubernetes.checkpoint_evidence is not None else 0.0
        return KubernetesPool(own.kubernetes, clock), own.kubernetes.ends_within_s + saving_s
    if own.commands is not None:
        return CommandWorkload(own.commands, clock), own.commands.ends_within_s
    return None, 0.0
