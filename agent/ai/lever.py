"""A lever: one way in which a pool gives up power, and takes it back. What each promises is measured, never reckoned from limits.

`promise` is pure. `act`, `verify` and `restore` talk to the machinery and say what reading back showed; whether the
watts came is judged by the desk from the pool's own meter, never by the lever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent.ai.work import PoolWork
from agent.ai.workload import Order, Step
from gridpivot.vocabulary import AiPriority, LeverName, LeverOutcome


@dataclass(frozen=True, slots=True)
class PoolPower:
    """A pool's power at one instant, at its circuit [W]. `node_w`: by node where nodes are metered or modelled."""

    read_at_s: float
    power_w: float | None
    limit_w: float
    min_w: float  # at the lowest limits
    idle_w: float  # nodes on, nothing running
    gpu_count: int
    node_w: Mapping[str, float] = field(default_factory=dict)
    held: bool = False  # limits hold back at least one GPU

    @property
    def idle_w_per_gpu(self) -> float:
        """What stays of a GPU with its share of the host [W]."""
        return self.idle_w / max(1, self.gpu_count)


@dataclass(frozen=True, slots=True)
class Promise:
    """What pulling a lever should bring. `reserve_w` is what limits may be lowered by besides: room, not power."""

    lever: LeverName
    asked_w: float
    promised_w: float  # max(0, measured draw - what remains)
    seconds: float  # until the power should be gone
    work_lost_gpu_h: float = 0.0
    reserve_w: float = 0.0
    subjects: tuple[str, ...] = ()  # nodes or jobs
    why_not: str = ""  # when nothing is promised: what stands against it


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a lever, subject by subject."""

    lever: LeverName
    steps: tuple[Step, ...]

    @property
    def outcome(self) -> LeverOutcome:
        """The worst of its steps; nothing to do is done."""
        return max((s.outcome for s in self.steps), key=list(LeverOutcome).index, default=LeverOutcome.DONE)


class Lever(Protocol):
    """One way to give up power. Two calls do what one does; only what is ours is given back; every hold has an end."""

    @property
    def name(self) -> LeverName:
        """Its word."""
        ...

    def observe(self, work: PoolWork | None, power: PoolPower) -> None:
        """What is seen now, at every look; a lever that learns from what it brought does so here."""
        ...

    def promise(self, work: PoolWork | None, power: PoolPower, asked_w: float) -> Promise:
        """What it would bring now, at most about `asked_w` [W]. Pure. Unknown power promises nothing."""
        ...

    async def act(self, order: Order, promise: Promise) -> Report:
        """Do it. Raises WorkloadRefused when the machinery as a whole does not answer."""
        ...

    async def verify(self, order: Order, promise: Promise) -> Report:
        """Whether it is done, by reading back: `under_way` until then."""
        ...

    async def restore(self, order: Order) -> Report:
        """Give back what this order took, and nothing else."""
        ...


# Gentle to hard, by class of work. Guaranteed work knows two, and those only when physics forces it. A node is switched off
# by a person's word alone: `node_off` stands on no ladder.
LADDER: Mapping[AiPriority, tuple[LeverName, ...]] = {
    AiPriority.GUARANTEED: (LeverName.POWER_LIMIT, LeverName.CLOCK_LOCK),
    AiPriority.STANDARD: (
        LeverName.PARK_IDLE,
        LeverName.POWER_LIMIT,
        LeverName.CLOCK_LOCK,
        LeverName.ADMISSION,
        LeverName.REQUEUE,
    ),
    AiPriority.SPOT: (
        LeverName.PARK_IDLE,
        LeverName.POWER_LIMIT,
        LeverName.CLOCK_LOCK,
        LeverName.ADMISSION,
        LeverName.REQUEUE,
    ),
}
