"""Whether a node may be shut down without losing anybody's work: what stands against it, in words. Pure.

Its workload manager has to list it, hold it for us and show no work on it, and its GPUs have to rest: work that no manager
knows of counts too. What is not known stands against it.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.ai.work import PoolWork
from gridpivot.vocabulary import AiPriority

BUSY_RATIO = 0.3  # of a GPU's most: idle ones draw 10-15 %, and somewhat more with a context open


def work_against(work: PoolWork, node: str) -> str:
    """Jobs, busy GPUs, or that the manager does not know the node; empty when nothing stands against it."""
    jobs = work.jobs_on(node)
    if jobs:
        kind = "guaranteed " if any(job.priority is AiPriority.GUARANTEED for job in jobs) else ""
        names = ", ".join(job.job_id for job in jobs[:5])
        return f"{len(jobs)} {kind}jobs run on it ({names}); wait for them, or have them requeued first"
    found = next((one for one in work.nodes if one.name == node), None)
    if found is None:
        return "its workload manager does not list it, so nobody can say that nothing runs there"
    if found.busy_gpus:
        return f"its workload manager counts {found.busy_gpus} of its GPUs as busy"
    if found.others:
        return f"{found.others} pods without GPUs run on it; drain it first"
    if not found.answers:
        return "its workload manager does not hear it, so nobody can say that nothing runs there"
    return ""


def held_against(work: PoolWork, node: str) -> str:
    """Why it may still be given work."""
    found = next((one for one in work.nodes if one.name == node), None)
    if found is None or not found.held:
        return "it is not held: it may be given work at any moment"
    return "" if found.ours else f"it is held by somebody else ({found.held_by})"


def boards_against(power_w: Sequence[float | None], max_w: Sequence[float]) -> str:
    """Whether a GPU works [W each]; unknown power is no rest."""
    for row, (watts, most_w) in enumerate(zip(power_w, max_w, strict=True)):
        if watts is None:
            return f"GPU {row} tells no power, so nobody can say that it rests"
        if watts > BUSY_RATIO * most_w:
            return f"GPU {row} draws {watts:.0f} W: something runs there that its workload manager does not show"
    return ""
