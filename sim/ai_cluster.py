"""A cluster of GPUs with jobs, in virtual time: what really happens behind a workload manager and a pool's meter.

Stands for hardware that cannot be had; the manager's face is `agent.ai.workload.Workload`, so levers pull here what they pull
at a site. Jobs draw what they want or what the limit lets them, times what the boards really do with a limit; a job that
is taken off ends after the manager's KillWait and its GPUs idle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from agent.ai.work import PoolWork, Waiting, WorkJob, WorkNode
from agent.ai.workload import Order, Step
from agent.backends import ClockState
from gridpivot.clock import Instant
from gridpivot.vocabulary import AiPriority, LeverOutcome

FULL_MHZ = 1980
LAG_S = 1.0  # power follows work and limits
NOISE_TAU_S = 8.0  # of the second-scale noise of a job's power


@dataclass(slots=True)
class SimJob:
    """One job: what its GPUs want [W each] and how it ends. `deaf`: ignores checkpoint signals."""

    job_id: str
    priority: AiPriority
    nodes: tuple[str, ...]
    gpus: int
    wants_w: float
    checkpoints: bool = True
    deaf: bool = False
    running: bool = True
    ends_s: float | None = None  # being taken off
    started_s: float = 0.0
    killed: bool = False
    noise: float = 0.0


@dataclass(slots=True)
class SimNode:
    """One node and who holds it."""

    name: str
    gpus: int
    held_by: str = ""
    until_unix_s: float = float("inf")


@dataclass
class SimCluster:
    """One pool: nodes, jobs, limits, power. `held_ratio`: what boards draw over a limit that holds them."""

    priority: AiPriority
    nodes: list[SimNode]
    jobs: list[SimJob]
    idle_w: float = 60.0
    host_w: float = 0.0
    max_w: float = 400.0
    min_w: float = 100.0
    held_ratio: float = 0.97
    lock_mhz: int | None = None  # clocks of the whole pool
    locked_share: float = 0.75  # of board power above idle that memory-bound work keeps under the lock
    kill_wait_s: float = 30.0
    start_s: float = 20.0  # from release to running again
    noise_sd: float = 0.0
    seed: int = 1
    now: Instant = field(default_factory=lambda: Instant(0.0, 0.0))
    closed_by: str = ""

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self.limit_w = self.max_w
        self.power_w = self._goal_w()
        self.orders: dict[str, list[str]] = {}

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    def _job_w(self, job: SimJob) -> float:
        if not job.running:
            return self.idle_w * job.gpus
        held = self.held_ratio * self.limit_w
        if self.lock_mhz is not None:
            held = min(held, self.idle_w + self.locked_share * (job.wants_w - self.idle_w))
        return job.gpus * max(self.idle_w, min(job.wants_w * (1.0 + job.noise), held * (1.0 + 0.2 * job.noise)))

    def _goal_w(self) -> float:
        busy = sum(job.gpus for job in self.jobs)
        return sum(map(self._job_w, self.jobs)) + self.idle_w * (self.gpus - busy) + self.host_w * self.gpus

    def advance(self, now: Instant) -> float:
        """Move to `now`; returns the pool's true power [W]."""
        elapsed_s = max(0.0, now.monotonic_s - self.now.monotonic_s)
        self.now = now
        keep = float(np.exp(-elapsed_s / NOISE_TAU_S))
        for job in self.jobs:
            if self.noise_sd:
                job.noise = keep * job.noise + float(self._random.normal(0.0, self.noise_sd * (1 - keep**2) ** 0.5))
            if job.ends_s is not None and now.monotonic_s >= job.ends_s:
                job.running, job.ends_s = False, None
            elif not job.running and not self._is_held(job.job_id) and now.monotonic_s >= job.started_s:
                job.running = self._may_run(job)
        for node in self.nodes:
            if now.unix_s >= node.until_unix_s:
                node.held_by, node.until_unix_s = "", float("inf")
        self.power_w += (self._goal_w() - self.power_w) * (1.0 - float(np.exp(-elapsed_s / LAG_S)))
        return self.power_w

    def clocks(self) -> ClockState:
        """As GPUs tell: their highest clock while anything runs."""
        if not any(job.running for job in self.jobs):
            return ClockState()
        return ClockState(1e6 * (FULL_MHZ if self.lock_mhz is None else self.lock_mhz))

    def _is_held(self, job_id: str) -> bool:
        return any(job_id in held for held in self.orders.values())

    def _may_run(self, job: SimJob) -> bool:
        free = {node.name for node in self.nodes if not node.held_by}
        return not self.closed_by and all(name in free for name in job.nodes)

    # ---- agent.ai.workload.Workload ---------------------------------------------------------------------------------

    async def observe(self, now_s: float) -> PoolWork:
        """As the manager tells it."""
        running = [job for job in self.jobs if job.running]
        nodes = tuple(
            WorkNode(
                node.name,
                node.gpus,
                min(node.gpus, sum(job.gpus // len(job.nodes) for job in running if node.name in job.nodes)),
                held=bool(node.held_by),
                held_by=node.held_by,
            )
            for node in self.nodes
        )
        jobs = tuple(
            WorkJob(job.job_id, job.priority, job.nodes, job.gpus, now_s - job.started_s, True, job.checkpoints)
            for job in running
        )
        waiting = (Waiting(self.priority, None, None, None),)
        ours = self.closed_by.startswith("gridpivot")
        held = tuple(job.job_id for job in self.jobs if not job.running and self._is_held(job.job_id))
        return PoolWork(now_s, nodes, jobs, waiting, not self.closed_by, ours, held)

    async def hold(self, nodes: Sequence[str], order: Order) -> tuple[Step, ...]:
        """Owned, and until the order ends."""
        steps = []
        for node in self.nodes:
            if node.name not in nodes:
                continue
            if node.held_by and not node.held_by.startswith("gridpivot"):
                steps.append(Step(node.name, LeverOutcome.NOT_OURS, node.held_by))
                continue
            node.held_by, node.until_unix_s = node.held_by or order.mark, order.until_unix_s
            steps.append(Step(node.name, LeverOutcome.DONE))
        return tuple(steps)

    async def checkpoint(self, jobs: Sequence[str], order: Order) -> tuple[Step, ...]:
        """Those that listen save their work at once."""
        named = [job for job in self.jobs if job.job_id in jobs]
        return tuple(Step(j.job_id, LeverOutcome.IGNORED if j.deaf else LeverOutcome.DONE) for j in named)

    async def requeue(self, jobs: Sequence[str], order: Order) -> tuple[Step, ...]:
        """They end after KillWait."""
        steps = []
        for job in self.jobs:
            if job.job_id not in jobs:
                continue
            if job.priority is AiPriority.GUARANTEED:
                steps.append(Step(job.job_id, LeverOutcome.UNSUPPORTED, "guaranteed"))
                continue
            held = self.orders.setdefault(order.order_id, [])
            if job.job_id not in held:
                held.append(job.job_id)
                job.ends_s = self.now.monotonic_s + self.kill_wait_s
                job.killed = job.killed or job.deaf
            steps.append(Step(job.job_id, LeverOutcome.UNDER_WAY))
        return tuple(steps)

    async def close_admission(self, order: Order) -> tuple[Step, ...]:
        """Nothing starts."""
        if self.closed_by and not self.closed_by.startswith("gridpivot"):
            return (Step("pool", LeverOutcome.NOT_OURS, self.closed_by),)
        self.closed_by = self.closed_by or order.mark
        return (Step("pool", LeverOutcome.DONE),)

    async def release(self, order_id: str | None) -> tuple[Step, ...]:
        """What is ours of this order; None = all of it."""
        steps = []
        for name in [n for n in self.orders if order_id in (None, n)]:
            for job in self.jobs:
                if job.job_id in self.orders[name]:
                    job.started_s = self.now.monotonic_s + self.start_s
                    steps.append(Step(job.job_id, LeverOutcome.DONE))
            del self.orders[name]
        mark = "gridpivot" if order_id is None else f"gridpivot:{order_id}"
        for node in self.nodes:
            if node.held_by.startswith(mark):
                node.held_by, node.until_unix_s = "", float("inf")
                steps.append(Step(node.name, LeverOutcome.DONE))
        if self.closed_by.startswith(mark):
            self.closed_by = ""
            steps.append(Step("pool", LeverOutcome.DONE))
        return tuple(steps)

    async def close(self) -> None:
        """Nothing stands open."""
