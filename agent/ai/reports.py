"""What the desk stands for, as a pool's roll-up carries it."""

from __future__ import annotations

from agent.ai.desk import PoolDesk, Pull
from agent.ai.runner import AiDesk
from agent.ai.work import Waiting
from gridpivot.v1 import telemetry_pb2 as pb


def add_levers(rollup: pb.PoolRollup, ai: AiDesk) -> None:
    """Levers, work and backlog of the pool that the roll-up names."""
    side, desk = ai.sides.get(rollup.name), ai.desks.get(rollup.name)
    if side is None or desk is None:
        return
    rollup.levers.extend(_lever(pull) for pull in (*desk.pulls, *side.apart()))
    rollup.promised_total_w, rollup.delivered_total_w = _totals(desk)
    rollup.workload_trouble = side.trouble
    if side.learner is not None:
        rollup.curve.extend(side.learner.points())
    if side.work is None or side.trouble:
        return
    rollup.work.extend(_work(waiting) for waiting in side.work.waiting)
    rollup.admitting = side.work.admitting
    if side.work.nodes and all(node.answers for node in side.work.nodes):
        rollup.busy_gpus = sum(node.busy_gpus for node in side.work.nodes)
    if side.defer_s is not None:
        rollup.defer_within_s = side.defer_s
    deferrable = [w.deferrable_gpu_h for w in side.work.waiting if w.deferrable_gpu_h is not None]
    if deferrable:
        rollup.backlog_gpu_h = sum(deferrable)


def _totals(desk: PoolDesk) -> tuple[float, float]:
    return desk.promised_total_w, desk.delivered_total_w


def _lever(pull: Pull) -> pb.LeverRollup:
    return pb.LeverRollup(
        order_id=pull.order_id,
        lever=pull.lever.value,
        state=pull.state.value,
        outcome=pull.outcome.value,
        promised_w=pull.promise.promised_w,
        delivered_w=pull.delivered_w,
        promised_s=pull.promise.seconds,
        work_lost_gpu_h=pull.promise.work_lost_gpu_h,
        subjects=len(pull.promise.subjects),
        detail=pull.detail,
    )


def _work(waiting: Waiting) -> pb.WorkRollup:
    return pb.WorkRollup(
        priority=waiting.priority.value,
        running_gpu_h=waiting.running_gpu_h,
        pending_gpu_h=waiting.pending_gpu_h,
        deferrable_gpu_h=waiting.deferrable_gpu_h,
    )
