"""Checkpoint and requeue: running work saves itself, is taken off its nodes and waits. Guaranteed work is never touched.

Jobs are chosen spot first, then standard that has time left before its deadline; among equals those that ran shortest,
since they lose least. Their nodes are held first, or the queue would fill them again; jobs that know how to save are
asked to, and whatever the answer is, it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from agent.ai.lever import PoolPower, Promise, Report
from agent.ai.work import PoolWork, WorkJob
from agent.ai.workload import Order, Step, Workload
from gridpivot.clock import Clock
from gridpivot.vocabulary import AiPriority, LeverName, LeverOutcome

SLACK_S = 2 * 3600.0  # a standard job this near to its deadline is left alone
UNKNOWN_LOST_H = 1.0  # work that a job loses when nobody knows since when it runs
_RANK = {AiPriority.SPOT: 0, AiPriority.STANDARD: 1}


@dataclass(slots=True)
class Requeue:
    """Jobs of one pool. `seconds`: what the manager takes to end them (KillWait) and the meter to show it."""

    workload: Workload
    clock: Clock
    seconds: float = 60.0
    name: LeverName = LeverName.REQUEUE
    _nodes: dict[str, list[str]] = field(default_factory=dict)  # held by order: a renewal holds them for longer

    def observe(self, work: PoolWork | None, power: PoolPower) -> None:
        """Nothing to learn."""

    def promise(self, work: PoolWork | None, power: PoolPower, asked_w: float) -> Promise:
        """Measured draw of the jobs' GPUs less what idle ones draw, for as many jobs as it takes."""
        nothing = Promise(self.name, asked_w, 0.0, self.seconds)
        if work is None:
            return replace(nothing, why_not="the workload manager does not answer")
        if power.power_w is None:
            return replace(nothing, why_not="the pool's power is unknown")
        busy = sum(node.busy_gpus for node in work.nodes)
        if not busy:
            return replace(nothing, why_not="nothing runs")
        chosen: list[WorkJob] = []
        promised_w = lost_gpu_h = 0.0
        for job in candidates(work):
            if promised_w >= asked_w:
                break
            watts = _draw_w(job, work, power, busy) - job.gpus * power.idle_w_per_gpu
            if watts <= 0.0:
                continue
            chosen.append(job)
            promised_w += watts
            ran_h = UNKNOWN_LOST_H if job.running_s is None else job.running_s / 3600.0
            lost_gpu_h += 0.0 if job.checkpoints else ran_h * job.gpus
        why_not = "" if chosen else "no running job may be taken off"
        subjects = tuple(job.job_id for job in chosen)
        return replace(nothing, promised_w=promised_w, work_lost_gpu_h=lost_gpu_h, subjects=subjects, why_not=why_not)

    async def act(self, order: Order, promise: Promise) -> Report:
        """Hold the nodes, ask for checkpoints, take the jobs off."""
        work = await self.workload.observe(self.clock.now().monotonic_s)
        jobs = [job for job in work.jobs if job.job_id in promise.subjects and job.priority in _RANK]
        nodes = sorted({*self._nodes.get(order.order_id, ()), *(node for job in jobs for node in job.nodes)})
        self._nodes[order.order_id] = nodes
        steps = list(await self.workload.hold(nodes, order)) if nodes else []
        saving = [job.job_id for job in jobs if job.checkpoints]
        if saving:
            steps += await self.workload.checkpoint(saving, order)
        waiting = [job for job in promise.subjects if job in work.suspended]  # a renewal: they are to wait for longer
        if jobs or waiting:
            steps += await self.workload.requeue([*(job.job_id for job in jobs), *waiting], order)
        return Report(self.name, tuple(steps))

    async def verify(self, order: Order, promise: Promise) -> Report:
        """Done when none of them runs."""
        work = await self.workload.observe(self.clock.now().monotonic_s)
        running = {job.job_id for job in work.jobs}
        return Report(
            self.name,
            tuple(
                Step(job, LeverOutcome.UNDER_WAY if job in running else LeverOutcome.DONE) for job in promise.subjects
            ),
        )

    async def restore(self, order: Order) -> Report:
        """Give jobs and nodes back."""
        self._nodes.pop(order.order_id, None)
        return Report(self.name, await self.workload.release(order.order_id))


def candidates(work: PoolWork) -> Sequence[WorkJob]:
    """Jobs that may be taken off, those that lose least first. Jobs of unknown class count as guaranteed."""
    may = [
        job
        for job in work.jobs
        if job.priority in _RANK
        and job.requeueable
        and not (job.priority is AiPriority.STANDARD and job.due_in_s is not None and job.due_in_s < SLACK_S)
    ]
    return sorted(
        may,
        key=lambda j: (_RANK[j.priority], not j.checkpoints, (j.running_s or 3600.0 * UNKNOWN_LOST_H) * j.gpus),
    )


def _draw_w(job: WorkJob, work: PoolWork, power: PoolPower, busy: int) -> float:
    """What a job's GPUs draw with their share of the host [W]: by node where nodes are known, else the pool's mean."""
    assert power.power_w is not None
    idle_gpus = max(0, power.gpu_count - busy)
    mean_w = max(0.0, power.power_w - idle_gpus * power.idle_w_per_gpu) / busy
    if not job.nodes or any(node not in power.node_w for node in job.nodes):
        return mean_w * job.gpus
    gpus = {node.name: node for node in work.nodes}
    watts, share = 0.0, job.gpus / len(job.nodes)
    for name in job.nodes:
        node = gpus.get(name)
        if node is None or not node.busy_gpus:
            return mean_w * job.gpus
        resting_w = (node.gpus - node.busy_gpus) * power.idle_w_per_gpu
        watts += max(0.0, power.node_w[name] - resting_w) / node.busy_gpus * share
    return watts
