"""What an AI pool will draw as its queue tells it: running jobs end, waiting ones take their place, new ones come. Pure.

A fluid picture, since a roll-up brings sums and no jobs. While work waits, GPUs that fall free are taken again; after
that what is known ends with the time constant of what runs, and what the pool usually wants comes in its place with
the same one. Time limits bound the GPU-hours from above, so that both times are the longest ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from controller.dispatch.terms import Queue, WattStep
from controller.markets.ai_demand import HOUR_S
from gridpivot.curves import AiPool
from gridpivot.v1 import telemetry_pb2 as pb

# `make bench-demand`: nearer than this the present draw is the better forecast, from here on the queue is.
USED_FROM_S = 900.0
SHORTEST_H, LONGEST_H = 0.25, 6.0  # of jobs' mean time left: users ask for more than they need
LEAST_SPARE = 0.1  # of the GPUs: a queue that grows as fast as it is worked off lasts ten times as long, not for ever
SLACK = 0.5  # with fewer GPUs busy than this share, what waits is about to start; with more, it does not fit
STARTS_H = 0.25  # how soon such work has started
EDGES_H = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # of the steps; then every hour


def queue_of(rollup: pb.PoolRollup) -> Queue | None:
    """A pool's queue, all classes together; None while what runs or waits is unknown, or no number of hours.

    What is not said to be deferrable is not.
    """
    running = [w.running_gpu_h if w.HasField("running_gpu_h") else math.nan for w in rollup.work]
    pending = [w.pending_gpu_h if w.HasField("pending_gpu_h") else math.nan for w in rollup.work]
    deferrable = [w.deferrable_gpu_h if w.HasField("deferrable_gpu_h") else 0.0 for w in rollup.work]
    sums = sum(running), sum(pending), sum(deferrable)
    if not rollup.work or not all(math.isfinite(s) and s >= 0.0 for s in sums):
        return None
    busy = float(rollup.busy_gpus) if rollup.HasField("busy_gpus") else None
    admitting = rollup.admitting or not rollup.HasField("admitting")
    return Queue(sums[0], sums[1], min(sums[1], sums[2]), busy, admitting)


def busy_gpus(queue: Queue, pool: AiPool, present_w: float) -> float:
    """GPUs that work: as told, else as many as the present draw [W] is worth at full power."""
    if queue.busy_gpus is not None:
        return min(float(pool.gpu_count), max(0.0, queue.busy_gpus))
    span_w = max(1.0, pool.max_w - pool.baseline_w)
    return pool.gpu_count * min(1.0, max(0.0, (present_w - pool.baseline_w) / span_w))


def queue_w(
    queue: Queue, pool: AiPool, present_w: float, usual_w: Callable[[float], float | None]
) -> Callable[[float], float]:
    """Demand [W at the wall] as a function of the time ahead [s], while the deferrable part waits.

    `usual_w` tells what the pool usually wants at a time ahead [s]; None = nothing is known of its habits, and what
    it wants now stands for that.
    """
    busy, gpus = busy_gpus(queue, pool, present_w), max(1, pool.gpu_count)
    room_w = max(1.0, pool.max_w - pool.baseline_w)
    drawn_w = max(0.0, present_w - pool.baseline_w)
    full_w = min(room_w, drawn_w * gpus / busy) if busy > 0.0 and drawn_w > 0.0 else room_w
    left_h = min(LONGEST_H, max(SHORTEST_H, queue.running_gpu_h / busy)) if busy > 0.0 else SHORTEST_H
    waits_gpu_h = max(0.0, queue.pending_gpu_h - queue.deferrable_gpu_h)
    now = min(1.0, drawn_w / full_w)
    starts = waits_gpu_h > 0.0 and (not queue.admitting or busy < SLACK * gpus)

    def ahead_w(ahead_s: float) -> float:
        hours, usual_watts = ahead_s / HOUR_S, usual_w(ahead_s)
        usual = now if usual_watts is None else min(1.0, max(0.0, (usual_watts - pool.baseline_w) / full_w))
        fed_h = waits_gpu_h / gpus / max(LEAST_SPARE, 1.0 - usual)
        held = now + (1.0 - now) * (1.0 - math.exp(-min(hours, fed_h) / STARTS_H)) if starts else now
        keep = math.exp(-max(0.0, hours - fed_h) / left_h)
        return pool.baseline_w + full_w * min(1.0, keep * held + (1.0 - keep) * usual)

    return ahead_w


def forecast_from_queue(
    queue: Queue,
    pool: AiPool,
    present_w: float,
    now_unix_s: float,
    habit: Sequence[float] | None,
    horizon_s: float = 48 * HOUR_S,
    speed: float = 1.0,
) -> tuple[WattStep, ...]:
    """Demand ahead in steps [W, real s from now]: the present for a quarter of an hour, then what the queue says.

    `habit` is what `ai_demand.habit_w` made of the history [W by hour of the day, UTC]; None = never seen.
    """

    def usual_w(ahead_s: float) -> float | None:
        return None if habit is None else habit[int((now_unix_s + ahead_s) // HOUR_S) % 24]

    ahead_w = queue_w(queue, pool, present_w, usual_w)
    edges = [h * HOUR_S for h in EDGES_H]
    while edges[-1] < horizon_s:
        edges.append(edges[-1] + HOUR_S)
    steps = [WattStep(0.0, min(pool.max_w, present_w))]
    for begins_s, ends_s in pairwise(edges):
        if begins_s >= USED_FROM_S:
            steps.append(WattStep(begins_s / speed, ahead_w((begins_s + ends_s) / 2)))
    return tuple(steps)
