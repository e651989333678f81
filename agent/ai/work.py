"""The work of one AI pool as its workload manager tells it: nodes, jobs, what waits. Values only, parsed at the edge.

A figure that is None is unknown; an empty tuple means that the manager said so. Nodes and jobs go by the manager's names.
"""

from __future__ import annotations

from dataclasses import dataclass

from gridpivot.vocabulary import AiPriority

OWNER = "gridpivot"


@dataclass(frozen=True, slots=True)
class WorkNode:
    """One node of a pool."""

    name: str
    gpus: int
    busy_gpus: int
    answers: bool = True  # False: the manager does not hear it; what it draws is unknown, not zero
    held: bool = False  # takes no new work, whoever wanted that
    held_by: str = ""  # who and why, as the manager keeps it; starts with "gridpivot" when it is ours
    others: int = 0  # what else runs there and holds no GPU, where the manager shows it beside jobs

    @property
    def ours(self) -> bool:
        """Whether we hold it."""
        return self.held and self.held_by.startswith(OWNER)

    @property
    def idle(self) -> bool:
        """Whether nothing runs on it."""
        return self.answers and self.busy_gpus == 0


@dataclass(frozen=True, slots=True)
class WorkJob:
    """One running job. `checkpoints`: it can be told to save its work first."""

    job_id: str
    priority: AiPriority
    nodes: tuple[str, ...]
    gpus: int
    running_s: float | None = None
    requeueable: bool = True
    checkpoints: bool = False
    due_in_s: float | None = None  # until its deadline; None = none known


@dataclass(frozen=True, slots=True)
class Waiting:
    """Work of one class that runs or waits [GPU-hours at full throughput]; None = the manager does not tell."""

    priority: AiPriority
    running_gpu_h: float | None
    pending_gpu_h: float | None
    deferrable_gpu_h: float | None


@dataclass(frozen=True, slots=True)
class PoolWork:
    """A pool's work at one instant [monotonic s]. `admitting` False: new work waits, whoever wanted that."""

    read_at_s: float
    nodes: tuple[WorkNode, ...]
    jobs: tuple[WorkJob, ...]
    waiting: tuple[Waiting, ...] = ()
    admitting: bool = True
    admission_ours: bool = False
    suspended: tuple[str, ...] = ()  # jobs that we took off and have not given back

    def jobs_on(self, node: str) -> tuple[WorkJob, ...]:
        """Running jobs that touch a node."""
        return tuple(job for job in self.jobs if node in job.nodes)
