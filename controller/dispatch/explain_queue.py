"""What queues of AI work have to do with a site's plan: how much runs and waits, what is expected of it, who is let in. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controller.dispatch.constraints import mw
from controller.dispatch.inputs import FleetState, PoolState, SiteDecision, SiteState
from controller.dispatch.terms import Backlog, Queue

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class QueuePart:
    """One pool's queue as the plan was made with it. Watts at the wall; None = not known, or not said.

    `backlog` names the one that its deferrable work is planned in; "" = none, it is demand like the rest.
    """

    pool: str
    queue: Queue
    backlog: str
    due_in_s: float | None  # of the oldest deferrable work
    demand_w: float | None
    demand_in_1_h_w: float | None
    demand_in_4_h_w: float | None
    admits: bool | None

    def sentence(self) -> str:
        """For a person."""
        q = self.queue
        said = f"{self.pool}: {q.running_gpu_h:,.0f} GPU-h run and {q.pending_gpu_h:,.0f} wait"
        if q.deferrable_gpu_h > 0.0:
            due = "" if self.due_in_s is None else f", the oldest of them {_when(self.due_in_s)}"
            said += f", {q.deferrable_gpu_h:,.0f} of them deferrable{due}"
        if self.demand_in_1_h_w is not None and self.demand_in_4_h_w is not None:
            said += (
                f"; it is expected to want {mw(self.demand_in_1_h_w)} in an hour and {mw(self.demand_in_4_h_w)} in four"
            )
        said += "."
        if self.admits is False:
            said += " The plan lets no new work in."
        elif not q.admitting:
            said += " Its door is closed at the site."
        return said


def queue_parts(state: SiteState, chosen: SiteDecision, fleet: FleetState) -> tuple[QueuePart, ...]:
    """Every pool of the site whose queue is known, in its order."""
    admits = {p.name: p.admits for p in chosen.pools}
    backlogs = {b.name: b for b in fleet.backlogs}
    return tuple(
        QueuePart(
            p.pool.name,
            p.queue,
            p.backlog,
            _due_in_s(backlogs.get(p.backlog), fleet.speed),
            p.demand_w,
            _demand_w(p, HOUR_S / fleet.speed),
            _demand_w(p, 4 * HOUR_S / fleet.speed),
            admits.get(p.pool.name),
        )
        for p in state.pools
        if p.queue is not None
    )


def own_backlogs(backlogs: Iterable[Backlog]) -> frozenset[str]:
    """Names of those that are one pool's own."""
    return frozenset(b.name for b in backlogs if b.follows_demand)


def _due_in_s(backlog: Backlog | None, speed: float) -> float | None:
    if backlog is None or backlog.work_gpu_h <= 0.0:
        return None
    return speed * min((d.due_in_s for d in backlog.due), default=backlog.due_in_s)


def _demand_w(state: PoolState, ahead_s: float) -> float | None:
    """The step in force at a time ahead [real s]."""
    return next((s.power_w for s in reversed(state.demand) if s.starts_in_s <= ahead_s), None)


def _when(due_in_s: float) -> str:
    return "late already" if due_in_s <= 0.0 else f"due in {due_in_s / HOUR_S:.1f} h"
