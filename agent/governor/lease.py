"""The plan in force: accepting, leasing, event windows, posture. Pure apart from `PlanJournal`, which is one file.

An event starts when either clock says so and ends only when both agree; a plan restored after a reboot has no
monotonic history, so its windows hold until a newer plan no longer names them. The lease runs on the monotonic clock
and is renewed by heartbeats that name the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.backends import SiteInventory
from agent.governor.journal import Identity, PlanJournal
from agent.governor.state import Orders
from agent.governor.windows import FIRST_PLAUSIBLE_UNIX_S, Window, accepted, restored
from gridpivot import plan as plans
from gridpivot.clock import Instant
from gridpivot.errors import BadPlan
from gridpivot.v1 import plan_pb2 as pb
from gridpivot.v1 import telemetry_pb2 as telemetry
from gridpivot.vocabulary import AiPriority, PlanRefusal, PlanState, Posture, Rung

KEEP_AGAIN_S = 5.0  # how often a refusing disk is tried again
HANGS_AFTER_S = 5.0  # a write that takes longer is a disk that refuses


@dataclass(frozen=True, slots=True)
class SitePolicy:
    """What the site itself decides about plans."""

    site: str
    ceiling_w: float
    posture: Posture
    event_lead_s: float


class PlanBook:
    """The plan in force at one site and everything that limits it."""

    def __init__(
        self,
        policy: SitePolicy,
        inventory: SiteInventory,
        keys: Mapping[str, Ed25519PublicKey],
        journal: PlanJournal,
        now: Instant | None = None,
    ) -> None:
        """`now` is the moment of the start; without it the wall clock is taken on trust."""
        self._policy, self._inventory, self._keys, self._journal = policy, inventory, keys, journal
        self._classes = {c.name: index for index, c in enumerate(inventory.classes)}
        self._pools = {p.name: index for index, p in enumerate(inventory.pools)}
        self.plan: pb.Plan | None = None
        self.accepted_at: Instant | None = None
        self._renewed_s = float("-inf")
        self._windows: dict[str, Window] = {}
        self._modes: np.ndarray | None = None
        self._value: np.ndarray | None = None
        self._next: tuple[pb.Plan, float, float] | None = None  # accepted, not yet to be applied; both clocks
        self._unkept: pb.SignedPlan | None = None  # accepted, not (yet) durable
        self._unkept_since_s = self._unkept_tried_s = float("-inf")
        self._writing: tuple[pb.SignedPlan, Future[str | None]] | None = None
        self._durable_ceiling_w = float("inf")
        self._durable_windows: dict[str, Window] = {}
        self._released: dict[str, float] = {}  # events ended by hand at the site, with the start that was meant
        self._controller_offset_s: float | None = None  # its wall clock less our monotonic one; None = not told yet
        kept = journal.load()
        if kept is not None:
            self._restore(kept, now)

    @property
    def highest(self) -> Identity:
        """(epoch, version) of the newest plan ever accepted here; (0, 0) before the first."""
        newest = self._next[0] if self._next is not None else self.plan
        return max(self._journal.fence, (0, 0) if newest is None else (newest.epoch, newest.version))

    @property
    def degraded(self) -> str | None:
        """Why nothing may be raised on the plan: the disk; None when it holds what is in force."""
        return self._journal.degraded

    def note_controller_clock(self, controller_unix_s: float, now: Instant) -> None:
        """What the controller's clock says: events are reckoned by it, whatever happens to ours."""
        if controller_unix_s >= FIRST_PLAUSIBLE_UNIX_S:
            self._controller_offset_s = controller_unix_s - now.monotonic_s

    def release(self, event_id: str) -> bool:
        """Somebody at the site ends an event; it stays ended while plans go on naming it with the same start."""
        window = next((w for w in self._all_windows() if w.event_id == event_id), None)
        if window is None:
            return False
        self._released[event_id] = window.starts_unix_s
        return True

    @property
    def released(self) -> Mapping[str, float]:
        """Events ended by hand, to be kept over a restart."""
        return dict(self._released)

    def remember_released(self, released: Mapping[str, float]) -> None:
        """What `released` said before the restart."""
        self._released = dict(released)

    def trust(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        """The planner's keys from now on; a key that went is not believed any more."""
        self._keys = keys

    def _restore(self, kept: pb.SignedPlan, now: Instant | None) -> None:
        """After a reboot: fence, ceiling and windows stand; the lease does not, until a heartbeat renews it."""
        try:
            plan = plans.verify(kept, self._keys)
        except BadPlan as error:
            self._journal.degraded = f"the plan kept from the last run is not believed: {error}"
            return
        if plan.site != self._policy.site:
            self._journal.degraded = f"the plan kept from the last run is for site {plan.site!r}; it is left out"
            return
        start_s = None if now is None else now.unix_s
        lead_s, kept_at_s = self._policy.event_lead_s, self._journal.kept_at_unix_s
        begun = self._journal.begun
        self._windows = {
            e.event_id: restored(e, kept_at_s, start_s, lead_s, begun=e.event_id in begun) for e in plan.events
        }
        self._install(plan)

    def offer(self, signed: pb.SignedPlan, now: Instant) -> telemetry.PlanStatus:
        """Take or refuse a plan. A refused one changes nothing; the same plan again renews its lease."""
        try:
            plan = plans.verify(signed, self._keys)
            newest = self._next[0] if self._next is not None else self.plan
            if newest is not None and (plan.epoch, plan.version) == self.highest and plan == newest:
                self._renewed_s = now.monotonic_s
                if self.accepted_at is None:  # after a restart: only now is the controller's clock known
                    self.accepted_at, self._windows = now, self._reckoned(plan, now)
                return self._status(PlanState.ACCEPTED)
            # With the plan itself lost, the very one that the fence names is taken again.
            floor = self.highest if newest is not None else _just_below(self.highest)
            plans.check(plan, self._policy.site, floor, self._classes, self._pools)
            if plan.fallback.posture and plan.fallback.posture not in set(Posture):
                raise BadPlan(
                    PlanRefusal.MALFORMED, f"posture {plan.fallback.posture!r} is unknown here; update the agent"
                )
        except BadPlan as error:
            epoch, version = self._identity_of(signed)
            return telemetry.PlanStatus(
                epoch=epoch, version=version, status=PlanState.REJECTED, reason=f"{error.refusal}: {error}"
            )
        if self._unkept is None:
            self._durable_ceiling_w = float("inf") if self.plan is None else self.plan.ceiling_w
            self._durable_windows = self._windows
            self._unkept_since_s = now.monotonic_s
        self._unkept, self._unkept_tried_s = signed, float("-inf")
        self._renewed_s, self.accepted_at = now.monotonic_s, now
        self._windows = self._windows_of(plan, now)
        wait_s = (plan.not_before_unix_ms - plan.issued_at_unix_ms) / 1000.0
        if wait_s > 0.0 and self.plan is not None:
            self._next = (plan, now.monotonic_s + wait_s, plan.not_before_unix_ms / 1000.0)
        else:
            self._next = None
            self._install(plan)
        self._keep(now)
        clipped = self._clipped(now)
        status = self._status(PlanState.CLIPPED if clipped else PlanState.ACCEPTED)
        if clipped:
            status.reason = "live limit"
            status.clipped_to_w.update(clipped)
        return status

    def _keep(self, now: Instant) -> None:
        """Make the newest plan durable, in the journal's own time; whatever the disk does, this returns at once."""
        if self._writing is not None and self._writing[1].done():
            (written, done), self._writing = self._writing, None
            self._journal.degraded = done.result()
            if self._journal.degraded is None and written is self._unkept:
                self._unkept = None
        if self._unkept is None:
            return
        if self._writing is None and now.monotonic_s - self._unkept_tried_s >= KEEP_AGAIN_S:
            self._unkept_tried_s = now.monotonic_s
            self._writing = self._unkept, self._journal.begin(self._unkept, self.highest)
            if self._writing[1].done():
                self._keep(now)
        elif self._writing is not None and now.monotonic_s - self._unkept_tried_s > HANGS_AFTER_S:
            self._journal.degraded = f"the disk has not taken a plan for {now.monotonic_s - self._unkept_since_s:.0f} s"

    @staticmethod
    def _identity_of(signed: pb.SignedPlan) -> tuple[int, int]:
        try:
            plan = pb.Plan.FromString(signed.plan)
        except Exception:  # protobuf's DecodeError has no public base on every runtime
            return 0, 0
        return plan.epoch, plan.version

    def _status(self, state: PlanState) -> telemetry.PlanStatus:
        epoch, version = self.highest
        return telemetry.PlanStatus(epoch=epoch, version=version, status=state)

    def _install(self, plan: pb.Plan) -> None:
        self.plan = plan
        modes = np.zeros((len(self._classes), 4))
        value = np.full(len(self._classes), -np.inf)
        named = set()
        for target in plan.classes:
            index = self._classes.get(target.name)
            if index is None:
                continue  # a plan of before the last change of inventory, restored
            named.add(index)
            modes[index] = target.sleep_machines, target.low_machines, target.normal_machines, target.turbo_machines
            value[index] = target.value_usd_per_mwh
        complete = len(named) == len(self._classes)
        self._modes, self._value = (modes, value) if complete else (None, None)

    def _windows_of(self, plan: pb.Plan, now: Instant) -> dict[str, Window]:
        """A plan's events; one that is known with the same times keeps its clocks, with the plan's ceiling."""
        windows = {}
        for event in plan.events:
            known = self._windows.get(event.event_id)
            if known is not None and known.same_as(event):
                windows[event.event_id] = replace(known, ceiling_w=event.ceiling_w)
            else:
                windows[event.event_id] = accepted(event, now, self._controller_offset_s)
        starts = {w.event_id: w.starts_unix_s for w in windows.values()}
        self._released = {i: start_s for i, start_s in self._released.items() if starts.get(i) == start_s}
        return windows

    def _reckoned(self, plan: pb.Plan, now: Instant) -> dict[str, Window]:
        """Windows from the disk with the monotonic start that they lacked; those that had begun stay as they are."""
        windows = dict(self._windows)
        for event in plan.events:
            held = windows.get(event.event_id)
            if held is not None and held.starts_monotonic_s is None:
                windows[event.event_id] = accepted(event, now, self._controller_offset_s)
        return windows

    def renew(self, epoch: int, version: int, now: Instant) -> None:
        """A heartbeat named a plan: its lease starts again, if it is the one in force."""
        newest = self._next[0] if self._next is not None else self.plan
        if newest is not None and (epoch, version) == (newest.epoch, newest.version):
            self._renewed_s = now.monotonic_s

    def leased(self, now: Instant) -> bool:
        """Whether the plan's lease holds."""
        return self.plan is not None and now.monotonic_s - self._renewed_s <= self.plan.valid_for_ms / 1000.0

    def lease_remaining_s(self, now: Instant) -> float | None:
        """Seconds left of the lease; None without a plan or after a reboot."""
        if self.plan is None or self._renewed_s == float("-inf"):
            return None
        return max(0.0, self._renewed_s + self.plan.valid_for_ms / 1000.0 - now.monotonic_s)

    def active_events(self, now: Instant) -> dict[str, float]:
        """Events in force now: id -> ceiling [W]."""
        return {w.event_id: w.ceiling_w for w in self._all_windows() if w.active(now)}

    def _all_windows(self) -> list[Window]:
        held = [] if self._unkept is None else [w for k, w in self._durable_windows.items() if k not in self._windows]
        every = [*self._windows.values(), *held]
        return [w for w in every if self._released.get(w.event_id) != w.starts_unix_s]

    def _live_ceiling(self, now: Instant) -> float:
        limits = [self._policy.ceiling_w]
        limits += [w.ceiling_w for w in self._all_windows() if w.active(now, self._policy.event_lead_s)]
        if self._unkept is not None:
            limits.append(self._durable_ceiling_w)
        if self._next is not None and (now.monotonic_s >= self._next[1] or now.unix_s >= self._next[2]):
            limits.append(self._next[0].ceiling_w)
        return min(limits)

    def _come_due(self, now: Instant) -> None:
        """The plan that waited is in force once both clocks agree."""
        if self._next is not None and now.monotonic_s >= self._next[1] and now.unix_s >= self._next[2]:
            plan, self._next = self._next[0], None
            self._install(plan)

    def _clipped(self, now: Instant) -> dict[str, float]:
        assert self.plan is not None
        live_w = self._live_ceiling(now)
        return {"ceiling_w": live_w} if self.plan.ceiling_w > live_w * 1.0001 else {}

    def fallback_w(self) -> list[float | None]:
        """Wall power of each pool's fallback limit by the newest plan [W], its lease ended or not; None = it names none."""
        named = {} if self.plan is None else {target.name: target.fallback_w for target in self.plan.pools}
        return [named.get(pool.name) for pool in self._inventory.pools]

    def node_fallbacks_w(self) -> dict[str, dict[str, float]]:
        """What nodes fall back to by the newest plan [W at the wall], by pool and node, its lease ended or not."""
        if self.plan is None:
            return {}
        return {pool.name: {n.name: n.fallback_w for n in pool.nodes} for pool in self.plan.pools if pool.nodes}

    def _admits(self, plan: pb.Plan, leased: bool) -> list[bool | None]:
        """The plan's wish for each pool's door; none once its lease has ended, and never a closed guaranteed pool."""
        named = {p.name: p.admits for p in plan.pools if p.HasField("admits")} if leased else {}
        return [None if p.priority is AiPriority.GUARANTEED else named.get(p.name) for p in self._inventory.pools]

    def _posture(self, plan: pb.Plan) -> Posture:
        """The plan's fallback, else the site's own; a restored plan may name one that only another version knows."""
        known = plan.fallback.posture in set(Posture)
        return Posture(plan.fallback.posture) if known else self._policy.posture

    def orders(self, now: Instant) -> Orders:
        """What the governor should follow at this tick, clipped to the lowest live limit."""
        self._keep(now)
        self._come_due(now)
        lead_s = self._policy.event_lead_s
        self._journal.note_begun(frozenset(w.event_id for w in self._windows.values() if w.active(now, lead_s)))
        live_w, plan = self._live_ceiling(now), self.plan
        no_wish: list[float | None] = [None] * len(self._pools)
        if plan is None:
            return Orders(live_w, Rung.MERIT_ORDER, None, no_wish, may_raise=self._may_raise())
        ceiling_w = min(live_w, plan.ceiling_w)
        pool_max = list(no_wish)
        for target in plan.pools:
            if target.name in self._pools:
                pool_max[self._pools[target.name]] = target.max_w
        modes, value = self._modes, self._value
        rung = Rung.CLIPPED_PLAN if plan.ceiling_w > live_w * 1.0001 else Rung.PLAN
        leased = self.leased(now)
        if not leased:
            ceiling_w = min(ceiling_w, plan.fallback.ceiling_w or ceiling_w)
            posture = self._posture(plan)
            rung = Rung.HOLD if posture is Posture.HOLD else Rung.SAFE_POSTURE
            if posture is not Posture.HOLD:
                modes = np.zeros((len(self._classes), 4))
                modes[:, 0] = 1e6  # everything asleep
            if posture is Posture.GUARANTEED_ONLY:
                pool_max = [None if p.priority is AiPriority.GUARANTEED else p.min_w for p in self._inventory.pools]
        return Orders(
            ceiling_w,
            rung,
            modes,
            pool_max,
            value,
            plan.drop_ramp_w_per_min,
            plan.pick_up_ramp_w_per_min,
            self._may_raise(),
            self._admits(plan, leased),
        )

    def _may_raise(self) -> bool:
        """Whether the disk holds what is in force; until then only what lowers power is done."""
        return self._unkept is None and self._journal.degraded is None


def _just_below(identity: Identity) -> Identity:
    epoch, version = identity
    return (epoch, version - 1) if version > 0 else identity
