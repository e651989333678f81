"""The plan in force at every site, and what became of it: where the planner meets the sessions.

The planner publishes; a session reads `current`, subscribes for what follows and notes what the site answers. A slow
session sees only the newest plan: older ones are worth nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from weakref import WeakSet

from gridpivot.clock import Instant
from gridpivot.observability import get_logger
from gridpivot.v1 import plan_pb2
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import PlanState

STATUSES_KEPT = 20
log = get_logger(__name__)


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
    """Plans by site. Versions only grow: an older plan is never put in place of a newer one.

    `record` makes a status durable; it runs beside, since an answer to a plan must not wait for the disk.
    """

    def __init__(
        self, record: Callable[[str, pb.PlanStatus, Instant], Coroutine[None, None, None]] | None = None
    ) -> None:
        self._record = record
        self._recording: set[asyncio.Task[None]] = set()
        self._posted: dict[str, Posted] = {}
        self._readers: dict[str, WeakSet[asyncio.Queue[plan_pb2.SignedPlan]]] = {}
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
            while not reader.empty():
                reader.get_nowait()
            reader.put_nowait(signed)
        return True

    def restore(self, plans: Mapping[str, plan_pb2.SignedPlan], now: Instant) -> None:
        """Plans of the last run, so that a site keeps its lease while the new planner thinks."""
        for signed in plans.values():
            self.publish(signed, now)

    def subscribe(self, site: str) -> asyncio.Queue[plan_pb2.SignedPlan]:
        """Plans published from here on, newest only. The subscription ends when the queue is let go."""
        reader: asyncio.Queue[plan_pb2.SignedPlan] = asyncio.Queue()
        self._readers.setdefault(site, WeakSet()).add(reader)
        return reader

    def note_status(self, site: str, status: pb.PlanStatus, now: Instant) -> None:
        """What a site said of a plan; recorded, and shown when it is about the plan in force."""
        if self._record is not None:
            task = asyncio.get_running_loop().create_task(self._record(site, status, now))
            self._recording.add(task)
            task.add_done_callback(self._recorded)
        kept = self._statuses.setdefault(site, deque(maxlen=STATUSES_KEPT))
        kept.append(status)
        posted = self._posted.get(site)
        if posted is None or (posted.plan.epoch, posted.plan.version) != (status.epoch, status.version):
            return
        try:
            state = PlanState(status.status)
        except ValueError:
            return
        self._posted[site] = Posted(posted.signed, posted.plan, posted.at, state, status.reason, now)

    def _recorded(self, task: asyncio.Task[None]) -> None:
        self._recording.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("plan status not recorded", why=str(task.exception()))

    def remember(self, site: str, statuses: Iterable[pb.PlanStatus]) -> None:
        """Statuses of earlier runs, oldest first."""
        self._statuses[site] = deque(statuses, maxlen=STATUSES_KEPT)

    def statuses(self, site: str) -> tuple[pb.PlanStatus, ...]:
        """What a site said lately, newest last."""
        return tuple(self._statuses.get(site, ()))
