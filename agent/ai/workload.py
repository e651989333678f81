"""What a workload manager must offer, so that levers can use it: Slurm, Kubernetes, plain commands look alike from here.

Every call has a deadline of its own, reads back what it did and says that; exit codes are not evidence. A call that is
made twice does what it does once. Nothing that another owner holds is touched, and what is held has an end that works
without us.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.ai.work import OWNER, PoolWork
from gridpivot.errors import GridpivotError
from gridpivot.vocabulary import LeverOutcome


class WorkloadRefused(GridpivotError):
    """The workload manager said no, or nothing; `outcome` is the word, the text what to do."""

    def __init__(self, outcome: LeverOutcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Order:
    """Why something is held: identity, a sentence for a person, and until when at most [Unix s]."""

    order_id: str
    reason: str
    until_unix_s: float

    @property
    def mark(self) -> str:
        """How a held thing is marked as ours."""
        return f"{OWNER}:{self.order_id}"


@dataclass(frozen=True, slots=True)
class Step:
    """What became of one subject (a node, a job, the pool), by reading it back."""

    subject: str
    outcome: LeverOutcome
    detail: str = ""


class Workload(Protocol):
    """One pool under its workload manager. Coroutines raise WorkloadRefused when the manager as a whole says no."""

    async def observe(self, now_s: float) -> PoolWork:
        """Nodes, jobs and the queue now."""
        ...

    async def hold(self, nodes: Sequence[str], order: Order) -> tuple[Step, ...]:
        """Keep nodes from taking new work until the order ends. Running work goes on. `not_ours`: another holds it."""
        ...

    async def checkpoint(self, jobs: Sequence[str], order: Order) -> tuple[Step, ...]:
        """Ask jobs to save their work. Done only with evidence that they did; else `ignored` at the deadline."""
        ...

    async def requeue(self, jobs: Sequence[str], order: Order) -> tuple[Step, ...]:
        """Take jobs off and keep them waiting until the order is released. Done when they no longer run."""
        ...

    async def close_admission(self, order: Order) -> tuple[Step, ...]:
        """Let no new work of the pool start; what runs goes on."""
        ...

    async def release(self, order_id: str | None) -> tuple[Step, ...]:
        """Give back what an order holds: nodes, jobs, admission; None = all that is ours. Others' holds stay."""
        ...

    async def close(self) -> None:
        """Let go of connections; nothing is given back."""
        ...
