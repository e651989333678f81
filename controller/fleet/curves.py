"""The throughput curve that dispatch plans a pool on: what its site has learned, as far as it is known. Pure.

Income is proportional to throughput, so what a pool earns is expected on the mean, too high as often as too low. What a
guaranteed pool is promised is not: throughput under the promise costs more than the same above it brings. It is planned
on the mean less `SURE_SD` standard deviations, which makes the last watts before the top dearer the less is known of them,
so that of two guaranteed pools the one with the unknown curve is capped last. The top itself is no guess: uncapped work is
not slowed. A curve less known than the published sweeps it began from, or whose spread is not told, is no curve.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

from gridpivot.curves import AiPool
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import AiPriority

SURE_SD = 1.28  # nine times in ten, were the spread normal
WIDE_SD = 0.12  # the widest spread of the sweeps that curves begin from is 0.10 (agent/ai/curve.py, PRIOR)


def learned(pool: AiPool, rollup: pb.PoolRollup | None) -> AiPool:
    """The pool with the curve that its site has learned; as declared where that makes no curve, or is hardly known."""
    if rollup is None or not rollup.curve or not _fits(rollup, pool):
        return pool
    spread = [p.HasField("throughput_sd") for p in rollup.curve]
    sds = [p.throughput_sd for p in rollup.curve]
    told = [(p.power_w, p.throughput_ratio) for p in rollup.curve]
    sure = all(spread) and all(0.0 <= sd <= WIDE_SD for sd in sds)
    if pool.priority is AiPriority.GUARANTEED:
        if not sure:
            return pool
        told = _at_least(told, sds)
    elif any(spread) and not sure:
        return pool
    wire = pool.to_proto()
    del wire.curve[:]
    wire.curve.extend(pb.PoolPoint(power_w=w, throughput_ratio=r) for w, r in told)
    try:
        return replace(pool, curve=AiPool.from_proto(wire).curve)
    except ValueError:
        return pool


def _at_least(told: list[tuple[float, float]], sds: list[float]) -> list[tuple[float, float]]:
    """Throughput that is kept nine times in ten, to two digits: a new curve is a new matrix for the solver."""
    top = told[-1][1]
    low = [round(max(0.0, ratio - SURE_SD * sd), 2) for (_, ratio), sd in zip(told[:-1], sds, strict=False)]
    rising = [min(top, ratio) for ratio in accumulate(low, max)]
    return [(w, ratio) for (w, _), ratio in zip(told, [*rising, top], strict=True)]


def _fits(rollup: pb.PoolRollup, pool: AiPool) -> bool:
    powers, ratios = [p.power_w for p in rollup.curve], [p.throughput_ratio for p in rollup.curve]
    return (
        powers[-1] <= 1.001 * pool.max_w and powers[0] > pool.baseline_w and min(ratios) >= 0.0 and max(ratios) <= 1.0
    )
