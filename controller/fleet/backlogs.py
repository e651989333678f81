"""Backlogs of deferrable AI work: those that the settings name, and each other pool's own as its agent tells it. Pure.

The settings win: a pool that works on a named backlog has none of its own. A pool has one of its own while its queue is
wholly known, with what it wants now and how long its work may wait; otherwise all that waits is demand, as before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from controller.connection import PoolTerms
from controller.dispatch.inputs import PoolState
from controller.dispatch.terms import Backlog, Queue, WorkDue
from controller.markets.ai_backlog import FIRST_SHARE, Piece, due
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import AiPriority

# Of the income, for every hour late: within one period of 5 min lateness costs what the work earns, so that demand is
# cut, and lost, at the prices at which it was without a backlog, and never merely put off.
LATE_PER_H = 12.0


def waiting_gpu_h(sites: Iterable[tuple[Mapping[str, PoolTerms], pb.SiteRollup | None]]) -> dict[str, float]:
    """Deferrable work that waits, by backlog of the settings [GPU-h]; one of which no pool tells anything is not in it."""
    waiting: dict[str, float] = {}
    for terms, rollup in sites:
        for pool in rollup.pools if rollup is not None else ():
            own = terms.get(pool.name)
            if own is not None and own.backlog and pool.HasField("backlog_gpu_h"):
                waiting[own.backlog] = waiting.get(own.backlog, 0.0) + pool.backlog_gpu_h
    return waiting


def aged(backlog: Backlog, pieces: Iterable[Sequence[Piece] | None], at_unix_s: float, speed: float) -> Backlog:
    """A backlog of the settings with the ages of its pools' work; as it was where these do not make up what waits.

    Without ages its work would be due in half of its time at every look, and could be put off for ever.
    """
    known = [p for own in pieces if own is not None for p in own]
    return replace(backlog, due=_due(known, backlog.work_gpu_h, backlog.deadline_s * speed, at_unix_s, speed))


def _due(
    pieces: Sequence[Piece], waits_gpu_h: float, defer_s: float, at_unix_s: float, speed: float
) -> tuple[WorkDue, ...]:
    if not math.isclose(sum(p.gpu_h for p in pieces), waits_gpu_h, rel_tol=1e-9, abs_tol=1e-6):
        return ()
    return due(pieces, defer_s, at_unix_s, speed)


def own_name(site: str, pool: str) -> str:
    """Name of a pool's own backlog."""
    return f"{site}/{pool}"


def has_own(state: PoolState, rollup: pb.PoolRollup | None, terms: PoolTerms) -> bool:
    """Whether a pool's deferrable work is planned as a backlog of its own."""
    return (
        terms.backlog is None
        and state.pool.priority is not AiPriority.GUARANTEED
        and not state.idle_paid
        and state.queue is not None
        and state.demand_w is not None
        and rollup is not None
        and rollup.HasField("defer_within_s")
        and 0.0 < rollup.defer_within_s < math.inf
    )


def demanded(state: PoolState) -> Queue | None:
    """The queue as far as it is demand: deferrable work that no backlog takes wants to run like the rest."""
    if state.queue is None or state.backlog:
        return state.queue
    return replace(state.queue, deferrable_gpu_h=0.0)


def own_backlog(
    site: str,
    region: str,
    state: PoolState,
    defer_s: float,
    pieces: Sequence[Piece] | None,
    at_unix_s: float,
    speed: float,
) -> Backlog:
    """The backlog of one pool with a known queue. `pieces` that do not make up what waits are not believed."""
    waits_gpu_h = state.queue.deferrable_gpu_h if state.queue is not None else 0.0
    return Backlog(
        name=own_name(site, state.pool.name),
        region=region,
        work_gpu_h=waits_gpu_h,
        arrivals=(),
        deadline_s=defer_s / speed,
        due_in_s=FIRST_SHARE * defer_s / speed,
        usd_per_gpu_hour=state.income_usd_per_gpu_hour,
        late_usd_per_gpu_hour=LATE_PER_H * state.income_usd_per_gpu_hour,
        due=_due(pieces or (), waits_gpu_h, defer_s, at_unix_s, speed),
        follows_demand=True,
    )
