"""The plan in force: accepting, leasing, event windows, posture. Pure apart from `PlanJournal`, which is one file.

An event starts when either clock says so and ends only when both agree; a plan restored after a reboot has no
monotonic history, so its windows hold until a newer plan no longer names them. The lease runs on the monotonic clock
and is renewed by heartbeats that name the plan.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.backends import SiteInventory
from agent.governor.state import Orders
from gridpivot import plan as plans
from gridpivot.clock import Instant
from gridpivot.errors import BadPlan
from gridpivot.v1 import plan_pb2 as pb
from gridpivot.v1 import telemetry_pb2 as telemetry
from gridpivot.vocabulary import AiPriority, PlanRefusal, PlanState, Posture, Rung

KEEP_AGAIN_S = 5.0  # how often a refusing disk is tried again


class PlanJournal:
    """Highest plan accepted, on disk before it is acted upon. One file, replaced whole, fsynced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.degraded: str | None = None
        self.kept_at_unix_s = float("-inf")  # wall clock of the last write: time has not been earlier since

    def load(self) -> pb.SignedPlan | None:
        """The plan kept, None when there is none or it does not parse."""
        try:
            kept = pb.SignedPlan.FromString(self._path.read_bytes())
            self.kept_at_unix_s = self._path.stat().st_mtime
            return kept
        except FileNotFoundError:
            return None
        except Exception as error:  # protobuf's DecodeError has no public base on every runtime
            self.degraded = f"{self._path}: {error}"
            return None

    def keep(self, signed: pb.SignedPlan) -> bool:
        """Write and fsync; False (and `degraded`) when the disk refuses."""
        fresh = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("wb") as file:
                file.write(signed.SerializeToString())
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            self.degraded = f"{self._path}: {error}"
            return False
        self.degraded = None
        return True


@dataclass(frozen=True, slots=True)
class Window:
    """An accepted event on both clocks. After a reboot the monotonic start is None (unknown), or minus infinity (it had
    begun before); the monotonic end is None, and the window holds until a newer plan no longer names it."""

    event_id: str
    ceiling_w: float
    starts_unix_s: float
    ends_unix_s: float | None
    starts_monotonic_s: float | None
    ends_monotonic_s: float | None

    def active(self, now: Instant, lead_s: float = 0.0) -> bool:
        """Whether it is in force; `lead_s` begins early, so that slow families are down in time."""
        started = now.unix_s >= self.starts_unix_s - lead_s
        if self.starts_monotonic_s is not None:
            started = started or now.monotonic_s >= self.starts_monotonic_s - lead_s
        if self.ends_unix_s is None:
            return started
        over = now.unix_s >= self.ends_unix_s
        over = over and self.ends_monotonic_s is not None and now.monotonic_s >= self.ends_monotonic_s
        return started and not over


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
    ) -> None:
        self._policy, self._inventory, self._keys, self._journal = policy, inventory, keys, journal
        self._classes = {c.name: index for index, c in enumerate(inventory.classes)}
        self._pools = {p.name: index for index, p in enumerate(inventory.pools)}
        self.plan: pb.Plan | None = None
        self.accepted_at: Instant | None = None
        self._renewed_s = float("-inf")
        self._windows: dict[str, Window] = {}
        self._modes: np.ndarray | None = None
        self._value: np.ndarray | None = None
        self._unkept: pb.SignedPlan | None = None  # accepted, but the disk refused it
        self._unkept_tried_s = float("-inf")
        self._durable_ceiling_w = float("inf")
        self._durable_windows: dict[str, Window] = {}
        kept = journal.load()
        if kept is not None:
            self._restore(kept)

    @property
    def highest(self) -> tuple[int, int]:
        """(epoch, version) of the newest plan ever accepted here; (0, 0) before the first."""
        return (0, 0) if self.plan is None else (self.plan.epoch, self.plan.version)

    def trust(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        """The planner's keys from now on; a key that went is not believed any more."""
        self._keys = keys

    def _restore(self, kept: pb.SignedPlan) -> None:
        """After a reboot: fence, ceiling and windows stand; the lease does not, until a heartbeat renews it."""
        try:
            plan = plans.verify(kept, self._keys)
        except BadPlan as error:
            self._journal.degraded = f"the plan kept from the last run is not believed: {error}"
            return
        if plan.site != self._policy.site:
            self._journal.degraded = f"the plan kept from the last run is for site {plan.site!r}; it is left out"
            return
        self._install(plan, None)

    def offer(self, signed: pb.SignedPlan, now: Instant) -> telemetry.PlanStatus:
        """Take or refuse a plan. A refused one changes nothing; the same plan again renews its lease."""
        try:
            plan = plans.verify(signed, self._keys)
            if self.plan is not None and (plan.epoch, plan.version) == self.highest and plan == self.plan:
                self._renewed_s = now.monotonic_s
                self.accepted_at = self.accepted_at or now
                return self._status(PlanState.ACCEPTED)
            plans.check(plan, self._policy.site, self.highest, self._classes, self._pools)
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
        self._unkept = signed
        self._install(plan, now)
        self._keep(now)
        clipped = self._clipped(now)
        status = self._status(PlanState.CLIPPED if clipped else PlanState.ACCEPTED)
        if clipped:
            status.reason = "live limit"
            status.clipped_to_w.update(clipped)
        return status

    def _keep(self, now: Instant) -> None:
        """Make the plan in force durable. Until that worked it may only lower: what the disk holds limits it too."""
        if self._unkept is None or now.monotonic_s - self._unkept_tried_s < KEEP_AGAIN_S:
            return
        if self._journal.keep(self._unkept):
            self._unkept, self._unkept_tried_s = None, float("-inf")
        else:
            self._unkept_tried_s = now.monotonic_s

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

    def _install(self, plan: pb.Plan, now: Instant | None) -> None:
        self.plan, self.accepted_at = plan, now
        if now is not None:
            self._renewed_s = now.monotonic_s
        self._windows = {e.event_id: self._window(e, now) for e in plan.events}
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

    def _window(self, event: pb.EventWindow, now: Instant | None) -> Window:
        starts_s = event.starts_at_unix_ms / 1000.0
        ends_s = event.ends_at_unix_ms / 1000.0 if event.HasField("ends_at_unix_ms") else None
        known = self._windows.get(event.event_id)
        if known is not None and (known.starts_unix_s, known.ends_unix_s) == (starts_s, ends_s):
            return Window(
                event.event_id, event.ceiling_w, starts_s, ends_s, known.starts_monotonic_s, known.ends_monotonic_s
            )
        if now is None:
            begun = starts_s - self._policy.event_lead_s <= self._journal.kept_at_unix_s
            return Window(event.event_id, event.ceiling_w, starts_s, ends_s, float("-inf") if begun else None, None)
        offset_s = now.monotonic_s - now.unix_s
        ends_monotonic_s = None if ends_s is None else ends_s + offset_s
        return Window(event.event_id, event.ceiling_w, starts_s, ends_s, starts_s + offset_s, ends_monotonic_s)

    def renew(self, epoch: int, version: int, now: Instant) -> None:
        """A heartbeat named a plan: its lease starts again, if it is the one in force."""
        if self.plan is not None and (epoch, version) == self.highest:
            self._renewed_s = now.monotonic_s
            self._keep(now)

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
        return [*self._windows.values(), *held]

    def _live_ceiling(self, now: Instant) -> float:
        limits = [self._policy.ceiling_w]
        limits += [w.ceiling_w for w in self._all_windows() if w.active(now, self._policy.event_lead_s)]
        if self._unkept is not None:
            limits.append(self._durable_ceiling_w)
        return min(limits)

    def _clipped(self, now: Instant) -> dict[str, float]:
        assert self.plan is not None
        live_w = self._live_ceiling(now)
        return {"ceiling_w": live_w} if self.plan.ceiling_w > live_w * 1.0001 else {}

    def fallback_w(self) -> list[float | None]:
        """Wall power of each pool's fallback limit by the newest plan [W], its lease ended or not; None = it names none."""
        named = {} if self.plan is None else {target.name: target.fallback_w for target in self.plan.pools}
        return [named.get(pool.name) for pool in self._inventory.pools]

    def _posture(self, plan: pb.Plan) -> Posture:
        """The plan's fallback, else the site's own; a restored plan may name one that only another version knows."""
        known = plan.fallback.posture in set(Posture)
        return Posture(plan.fallback.posture) if known else self._policy.posture

    def orders(self, now: Instant) -> Orders:
        """What the governor should follow at this tick, clipped to the lowest live limit."""
        live_w, plan = self._live_ceiling(now), self.plan
        no_wish: list[float | None] = [None] * len(self._pools)
        if plan is None:
            return Orders(live_w, Rung.MERIT_ORDER, None, no_wish)
        ceiling_w = min(live_w, plan.ceiling_w)
        pool_max = list(no_wish)
        for target in plan.pools:
            if target.name in self._pools:
                pool_max[self._pools[target.name]] = target.max_w
        modes, value = self._modes, self._value
        rung = Rung.CLIPPED_PLAN if plan.ceiling_w > live_w * 1.0001 else Rung.PLAN
        if not self.leased(now):
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
        )
