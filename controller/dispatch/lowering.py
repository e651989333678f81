"""What of a new plan may go out while nothing can be recorded: only what lowers power. Pure."""

from __future__ import annotations

from gridpivot.v1 import plan_pb2 as pb


def lowered(old: pb.Plan, new: pb.Plan) -> pb.Plan | None:
    """The old plan, cut to the new one's ceilings, events and pools where these are lower; None when nothing is.

    Classes follow the new plan only as far as no mode above sleep gains machines; otherwise they stay as they were and
    the site's governor sheds what the ceiling needs. An event that the new plan no longer names stays.
    """
    plan = pb.Plan()
    plan.CopyFrom(old)
    plan.epoch, plan.version = new.epoch, new.version
    plan.issued_at_unix_ms, plan.not_before_unix_ms, plan.valid_for_ms = (
        new.issued_at_unix_ms,
        new.not_before_unix_ms,
        new.valid_for_ms,
    )
    plan.reason = f"{new.reason} (cut: the controller's store refuses)"
    plan.ceiling_w = min(old.ceiling_w, new.ceiling_w)
    plan.fallback.ceiling_w = min(old.fallback.ceiling_w, new.fallback.ceiling_w)
    events = {event.event_id: event for event in old.events}
    for event in new.events:
        held = events.get(event.event_id)
        if held is None or event.ceiling_w <= held.ceiling_w:
            events[event.event_id] = event
    del plan.events[:]
    plan.events.extend(events.values())
    targets = {target.name: target for target in new.classes}
    for mine in plan.classes:
        theirs = targets.get(mine.name)
        if theirs is not None and _no_higher(theirs, mine):
            value = mine.value_usd_per_mwh
            mine.CopyFrom(theirs)
            mine.value_usd_per_mwh = value
    pools = {target.name: target for target in new.pools}
    for pool in plan.pools:
        other = pools.get(pool.name)
        if other is not None:
            for name in ("max_w", "expected_w", "fallback_w"):
                setattr(pool, name, min(getattr(pool, name), getattr(other, name)))
            if other.HasField("admits") and not other.admits:
                pool.admits = False
            nodes = {node.name: node.fallback_w for node in other.nodes}
            for node in pool.nodes:
                node.fallback_w = min(node.fallback_w, nodes.get(node.name, node.fallback_w))
    return None if _same(plan, old) else plan


def _no_higher(new: pb.ClassTarget, old: pb.ClassTarget) -> bool:
    """No more machines in turbo, in turbo and normal, or awake at all; and as many in all."""
    above_new = above_old = 0.0
    for name in ("turbo_machines", "normal_machines", "low_machines"):
        above_new += getattr(new, name)
        above_old += getattr(old, name)
        if above_new > above_old + 1e-6:
            return False
    return abs((above_new + new.sleep_machines) - (above_old + old.sleep_machines)) < 1e-6


def _same(plan: pb.Plan, old: pb.Plan) -> bool:
    """Whether nothing but its number and words differ."""
    probe = pb.Plan()
    probe.CopyFrom(plan)
    for name in ("epoch", "version", "issued_at_unix_ms", "not_before_unix_ms", "valid_for_ms", "reason"):
        setattr(probe, name, getattr(old, name))
    return probe == old
