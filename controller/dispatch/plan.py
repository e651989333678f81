"""A site's decision as the plan that travels, and whether a new plan is worth sending. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controller.dispatch.grid import import_now_w
from controller.dispatch.inputs import SiteDecision, SiteState
from controller.dispatch.node_fallbacks import node_fallbacks_w
from controller.dispatch.ramp import curves, rate_at
from gridpivot.clock import Instant
from gridpivot.v1 import plan_pb2 as pb
from gridpivot.vocabulary import Posture

# Less than this is not worth a plan: a share of the ceiling, with a floor for small sites.
MATERIAL_RATIO = 0.002
MATERIAL_W = 1_000.0
WINDOW_JITTER_MS = 1_000


@dataclass(frozen=True, slots=True)
class Terms:
    """What a plan carries besides watts: its fence, its lease, and what follows when the lease ends."""

    epoch: int
    version: int
    valid_for_ms: int
    posture: Posture = Posture.HOLD
    event_reasons: Mapping[str, str] = field(default_factory=dict)  # event id -> why, for a person


def build_plan(decision: SiteDecision, site: SiteState, terms: Terms, now: Instant, reason: str) -> pb.Plan:
    """The plan [watts, UTC ms] for one site; windows counted from `now` become absolute times.

    Of a ramp curve it carries the rate at today's import: the governor's seconds do not see the next breakpoint.
    The fallback ceiling is the lower of the decision's and the site's own, so that no fallback raises power.
    """
    drop, pick_up = curves(site)
    standing_w = import_now_w(site)
    plan = pb.Plan(
        site=decision.site,
        epoch=terms.epoch,
        version=terms.version,
        issued_at_unix_ms=now.unix_ms,
        not_before_unix_ms=now.unix_ms,
        valid_for_ms=terms.valid_for_ms,
        ceiling_w=decision.ceiling_w,
        expected_power_w=decision.expected_power_w,
        drop_ramp_w_per_min=rate_at(drop, standing_w) if drop else 0.0,
        pick_up_ramp_w_per_min=rate_at(pick_up, standing_w) if pick_up else 0.0,
        reason=reason,
        fallback=pb.Fallback(posture=terms.posture.value, ceiling_w=min(decision.ceiling_w, site.ceiling_w)),
    )
    for chosen in decision.classes:
        sleep, low, normal, turbo = chosen.machines
        plan.classes.add(
            name=chosen.name,
            sleep_machines=sleep,
            low_machines=low,
            normal_machines=normal,
            turbo_machines=turbo,
            value_usd_per_mwh=chosen.value_usd_per_mwh,
        )
    declared = {p.pool.name: p.pool for p in site.pools}
    for pool in decision.pools:
        target = plan.pools.add(
            name=pool.name,
            max_w=pool.max_w,
            expected_w=pool.expected_w,
            fallback_w=pool.fallback_w,
            value_usd_per_mwh=pool.value_usd_per_mwh,
            admits=pool.admits,
        )
        for name, watts in node_fallbacks_w(declared[pool.name], pool.fallback_w):
            target.nodes.add(name=name, fallback_w=watts)
    for window in sorted(site.windows, key=lambda w: (w.starts_in_s, w.event_id)):
        event = plan.events.add(
            event_id=window.event_id,
            ceiling_w=window.ceiling_w,
            starts_at_unix_ms=now.unix_ms + round(window.starts_in_s * 1000),
            reason=terms.event_reasons.get(window.event_id, ""),
        )
        if window.ends_in_s is not None:
            event.ends_at_unix_ms = now.unix_ms + round(window.ends_in_s * 1000)
    return plan


def materially_different(old: pb.Plan | None, new: pb.Plan) -> str | None:
    """What makes `new` worth sending, as a few words; None when the site may keep `old` (its lease is renewed apart).

    Fence, posture, ceilings, ramps, windows and the order of values always matter; machines past MATERIAL_RATIO of
    their class (and half a machine), AI power past MATERIAL_RATIO of the ceiling (and MATERIAL_W).
    """
    if old is None:
        return "first plan"
    if new.epoch != old.epoch:
        return "new planner"
    if abs(new.ceiling_w - old.ceiling_w) > 1.0:
        return "ceiling"
    if new.fallback.posture != old.fallback.posture or abs(new.fallback.ceiling_w - old.fallback.ceiling_w) > 1.0:
        return "fallback"
    if (new.drop_ramp_w_per_min, new.pick_up_ramp_w_per_min) != (old.drop_ramp_w_per_min, old.pick_up_ramp_w_per_min):
        return "ramps"
    if not _same_windows(old.events, new.events):
        return "events"
    if [c.name for c in new.classes] != [c.name for c in old.classes] or _order(new) != _order(old):
        return "merit order"
    for before, after in zip(old.classes, new.classes, strict=True):
        was, now = _counts(before), _counts(after)
        if max(abs(a - b) for a, b in zip(was, now, strict=True)) > max(0.5, MATERIAL_RATIO * sum(now)):
            return f"machines of {after.name}"
    enough_w = max(MATERIAL_W, MATERIAL_RATIO * new.ceiling_w)
    for pool_before, pool_after in zip(old.pools, new.pools, strict=True):
        for field_name in ("max_w", "expected_w", "fallback_w"):
            if abs(getattr(pool_after, field_name) - getattr(pool_before, field_name)) > enough_w:
                return f"AI pool {pool_after.name}"
        if _admits(pool_before) is not _admits(pool_after):
            return f"admission of {pool_after.name}"
        if [n.name for n in pool_before.nodes] != [n.name for n in pool_after.nodes]:
            return f"nodes of {pool_after.name}"
    return None


def _admits(target: pb.PoolTarget) -> bool | None:
    return target.admits if target.HasField("admits") else None


def _counts(target: pb.ClassTarget) -> tuple[float, float, float, float]:
    return target.sleep_machines, target.low_machines, target.normal_machines, target.turbo_machines


def _order(plan: pb.Plan) -> tuple[list[str], list[str]]:
    """Names by value: what the agent sheds first."""
    classes = sorted(plan.classes, key=lambda c: (round(c.value_usd_per_mwh, 6), c.name))
    return [c.name for c in classes], sorted(p.name for p in plan.pools)


def _same_windows(old: Sequence[pb.EventWindow], new: Sequence[pb.EventWindow]) -> bool:
    """Equal but for a second: windows are counted from now, and now is not read twice at one instant."""
    ours, theirs = ({e.event_id: e for e in events} for events in (old, new))
    if ours.keys() != theirs.keys():
        return False
    for event_id, before in ours.items():
        after = theirs[event_id]
        if before.HasField("ends_at_unix_ms") != after.HasField("ends_at_unix_ms"):
            return False
        times = (after.starts_at_unix_ms - before.starts_at_unix_ms, after.ends_at_unix_ms - before.ends_at_unix_ms)
        if abs(after.ceiling_w - before.ceiling_w) > 1.0 or max(map(abs, times)) > WINDOW_JITTER_MS:
            return False
    return True
