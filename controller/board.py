"""The plan in force at every site, and what became of it: where the planner meets the sessions.

The planner publishes; a session reads `current`, subscribes for what follows and notes what the site answers. A slow
session sees only the newest plan: older ones are worth nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from gridpivot.clock import Instant
from gridpivot.v1 import plan_pb2
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import PlanState

STATUSES_KEPT = 20


class Newest:
    """A queue of one: `put` replaces what was not taken yet."""

    def __init__(self) -> None:
        self._item: plan_pb2.SignedPlan | None = None
        self._ready = asyncio.Event()

    def put(self, item: plan_pb2.SignedPlan) -> None:
        """Leave the newest plan for the session."""
        self._item = item
        self._ready.set()

    async def get(self) -> plan_pb2.SignedPlan:
        """The newest plan; waits until there is one that was not taken."""
        await self._ready.wait()
        self._ready.clear()
        assert self._item is not None
        return self._item


@dataclass(frozen=True, slots=True)
class Posted:
    """A plan in force: as signed, as read, when it was published, what the site last said of it."""

    signed: plan_pb2.SignedPlan
    plan: plan_pb2.Plan
    at: Instant
    state: PlanState
    state_reason: str
    state_at: Instant


class PlanBoard:
    """Plans by site. Versions only grow: an older plan is never put in place of a newer one."""

    def __init__(self) -> None:
        self._posted: dict[str, Posted] = {}
        self._readers: dict[str, set[Newest]] = {}
        self._statuses: dict[str, deque[pb.PlanStatus]] = {}

    def current(self, site: str) -> plan_pb2.SignedPlan | None:
        """The signed plan in force at a site."""
        posted = self._posted.get(site)
        return None if posted is None else posted.signed

    def posted(self, site: str) -> Posted | None:
        """The same with its fate."""
        return self._posted.get(site)

    def publish(self, signed: plan_pb2.SignedPlan, now: Instant) -> bool:
        """Put a plan in force and hand it to its site's sessions; False when a newer one is already there."""
        plan = plan_pb2.Plan.FromString(signed.plan)
        held = self._posted.get(plan.site)
        if held is not None and (held.plan.epoch, held.plan.version) >= (plan.epoch, plan.version):
            return False
        self._posted[plan.site] = Posted(signed, plan, now, PlanState.SENT, "", now)
        for reader in self._readers.get(plan.site, ()):
            reader.put(signed)
        return True

    def restore(self, plans: Mapping[str, plan_pb2.SignedPlan], now: Instant) -> None:
        """Plans of the last run, so that a site keeps its lease while the new planner thinks."""
        for signed in plans.values():
            self.publish(signed, now)

    @contextmanager
    def subscribe(self, site: str) -> Iterator[Newest]:
        """Plans published from here on, newest only."""
        reader = Newest()
        self._readers.setdefault(site, set()).add(reader)
        try:
            yield reader
        finally:
            self._readers[site].discard(reader)

    def note_status(self, site: str, status: pb.PlanStatus, now: Instant) -> bool:
        """What a site said of a plan; True when it is about the plan in force."""
        kept = self._statuses.setdefault(site, deque(maxlen=STATUSES_KEPT))
        kept.append(status)
        posted = self._posted.get(site)
        if posted is None or (posted.plan.epoch, posted.plan.version) != (status.epoch, status.version):
            return False
        try:
            state = PlanState(status.status)
        except ValueError:
            return False
        self._posted[site] = Posted(posted.signed, posted.plan, posted.at, state, status.reason, now)
        return True

    def remember(self, site: str, statuses: Iterable[pb.PlanStatus]) -> None:
        """Statuses of earlier runs, oldest first."""
        self._statuses[site] = deque(statuses, maxlen=STATUSES_KEPT)

    def statuses(self, site: str) -> tuple[pb.PlanStatus, ...]:
        """What a site said lately, newest last."""
        return tuple(self._statuses.get(site, ()))
